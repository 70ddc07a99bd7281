"""One run of a network with ncnn in half precision: `run_ncnn_half.py model.ncnn.param [--threads N]`."""

from __future__ import annotations

import ncnn
import numpy as np
from region import Array, read_arguments, run_marked

arguments = read_arguments(__doc__)
net = ncnn.Net()
net.opt.num_threads = arguments.threads
# Its defaults, where the core has the arithmetic.
net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = True
net.load_param(str(arguments.model))
net.load_model(str(arguments.model.with_suffix(".bin")))
image, logits = net.input_names()[0], net.output_names()[0]


def run() -> Array:
    """Run the network once, from the caller's image to an array of logits."""
    extractor = net.create_extractor()
    extractor.input(image, ncnn.Mat(arguments.image[0]))
    return np.array(extractor.extract(logits)[1])


run_marked(run, arguments)
