"""One run of a network with MNN: `run_mnn.py model.mnn [--threads N] [--half]`."""

from __future__ import annotations

import MNN
import numpy as np
from region import Array, read_arguments, run_marked

arguments = read_arguments(__doc__)
network = MNN.Interpreter(str(arguments.model))
precision = {"precision": "low"} if arguments.half else {}
session = network.createSession({"backend": "CPU", "numThread": arguments.threads, **precision})
image, logits = network.getSessionInput(session), network.getSessionOutput(session)


def host_tensor(values: Array) -> MNN.Tensor:
    """A tensor that MNN copies from and to; NCHW."""
    return MNN.Tensor(values.shape, MNN.Halide_Type_Float, values, MNN.Tensor_DimensionType_Caffe)


def run() -> Array:
    """Run the network once, from the caller's image to an array of logits."""
    image.copyFrom(host_tensor(arguments.image))
    network.runSession(session)
    output = host_tensor(np.empty(logits.getShape(), np.float32))  # which copies: the values are not in the array afterwards
    logits.copyToHostTensor(output)
    return np.array(output.getNumpyData())


run_marked(run, arguments)
