"""One run of a network with ONNX Runtime: `run_onnxruntime.py model.onnx [--threads N]`."""

from __future__ import annotations

import onnxruntime
from region import Array, read_arguments, run_marked

arguments = read_arguments(__doc__)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = arguments.threads
options.inter_op_num_threads = 1
# Threads that wait shall sleep: they would spin in code that stores, and `virtual run` would take that for work.
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = onnxruntime.InferenceSession(str(arguments.model), options, providers=["CPUExecutionProvider"])
image = session.get_inputs()[0].name


def run() -> Array:
    """Run the network once, from the caller's image to an array of logits."""
    output: Array = session.run(None, {image: arguments.image})[0]
    return output


run_marked(run, arguments)
