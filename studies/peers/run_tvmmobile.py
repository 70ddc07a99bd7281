"""One run of one of tvmmobile's libraries in TVM's Relax VM: `run_tvmmobile.py LIBRARY.so [--threads N]`.

`region` is that of examples/virtual-run. TVM_USE_RUNTIME_LIB=1 leaves out TVM's compiler, which is slow to load.
"""

from __future__ import annotations

import os

import tvm
from region import Array, read_arguments, run_marked
from tvm.runtime.vm import VirtualMachine

arguments = read_arguments(__doc__)
os.environ["TVM_NUM_THREADS"] = str(arguments.threads)  # TVM reads it when the first kernel asks for threads
if arguments.threads > 1:  # by default its pool has at most as many threads as this machine has cores
    tvm.get_global_func("runtime.config_threadpool")(1, arguments.threads)
network = VirtualMachine(tvm.runtime.load_module(str(arguments.model)), tvm.cpu())["main"]


def run() -> Array:
    """Run the network once, from the caller's image to an array of logits."""
    # Copying the caller's array into TVM's tensor counts.
    output: Array = network(tvm.runtime.tensor(arguments.image)).numpy()
    return output


run_marked(run, arguments)
