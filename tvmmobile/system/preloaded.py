"""What jobs need and takes seconds to import: worker processes are forked from one that has imported this module (`workers`).

Nothing here starts a thread or reads a setting that may change from pool to pool.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os

from tvmmobile.system.environment import keep_torch_cache

#: With what `torch.export` would import when it is first called; of PyTorch's own modules none is promised to stay.
_MODULES = (
    *("torch", "torch.export", "torch._dynamo", "torch._functorch.aot_autograd", "torch.export._trace", "networkx"),
    *("tvm.relax.frontend.torch", "tvm.s_tir.meta_schedule"),
    *("tvmmobile.pipeline.build", "tvmmobile.networks.models.network", "tvmmobile.tuning.search.trial", "tvmmobile.pipeline.stages"),
)


def _quietly() -> None:
    """What libraries print as they are loaded is nothing to the user; where one fails, the job that needs it says so."""
    before = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        for name in _MODULES:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    finally:
        os.dup2(before, 2)
        os.close(before)


keep_torch_cache()  # PyTorch creates its folder as it is imported
_quietly()
gc.collect()
gc.freeze()  # the collector touches every object it looks at, and so would copy its page in each worker
