"""One run of a network with LiteRT and its XNNPACK: `run_litert.py model.tflite [--threads N]`; the network takes NHWC."""

from __future__ import annotations

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from region import Array, read_arguments, run_marked

arguments = read_arguments(__doc__)
network = Interpreter(str(arguments.model), num_threads=arguments.threads)
network.allocate_tensors()
image, logits = network.get_input_details()[0]["index"], network.get_output_details()[0]["index"]
pixels = np.ascontiguousarray(arguments.image.transpose(0, 2, 3, 1))


def run() -> Array:
    """Run the network once, from the caller's image to an array of logits."""
    network.set_tensor(image, pixels)
    network.invoke()
    output: Array = network.get_tensor(logits)
    return output


run_marked(run, arguments)
