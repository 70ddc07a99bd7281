"""One run of a network with IREE: `run_iree.py model.vmfb [--threads N]`, compiled for the board by `studies/formats/iree_compiler.py`."""

from __future__ import annotations

import numpy as np
from iree import runtime
from region import Array, read_arguments, run_marked

arguments = read_arguments(__doc__)
# The driver without threads of its own runs the network in the caller's.
driver = "local-sync" if arguments.threads == 1 else "local-task"
if arguments.threads > 1:
    runtime.flags.parse_flags(f"--task_topology_group_count={arguments.threads}")
config = runtime.Config(driver)
module = runtime.VmModule.mmap(config.vm_instance, str(arguments.model))
network = runtime.load_vm_module(module, config)["main_graph"]


def run() -> Array:
    """Run the network once, from the caller's image to an array of logits."""
    return np.asarray(network(arguments.image).to_host())


run_marked(run, arguments)
