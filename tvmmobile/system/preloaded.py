"""Imports that jobs need and that take seconds: worker processes are forked from one that has imported this module (`workers`).

Nothing here starts a thread or reads a setting that may change from pool to pool.
"""

from __future__ import annotations

import contextlib
import gc
import importlib

from tvmmobile.system.collector import collect_rarely
from tvmmobile.system.streams import silenced

#: The frontend says where PyTorch's cache is. Includes what `torch.export` imports on its first call. PyTorch's internal modules may
#: disappear in a later version.
_MODULES = (
    "tvmmobile.networks.frontend",
    *("torch", "torch.export", "torch._dynamo", "torch._functorch.aot_autograd", "torch.export._trace", "networkx"),
    *("tvm.relax.frontend.torch", "tvm.s_tir.meta_schedule"),
    *("tvmmobile.pipeline.build", "tvmmobile.pipeline.prepared", "tvmmobile.pipeline.stages.timing", "tvmmobile.tuning.search.trial"),
    *("tvmmobile.native.library", "tvmmobile.networks.models.network", "tvmmobile.networks.torch_trace"),
)


def _quietly() -> None:
    """Hide what libraries print as they are loaded; if one fails, the job that needs it reports that."""
    with silenced():
        for name in _MODULES:
            with contextlib.suppress(Exception):
                importlib.import_module(name)


collect_rarely()
_quietly()
gc.collect()
gc.freeze()  # the collector writes to every object it visits, which would copy its page in each worker
