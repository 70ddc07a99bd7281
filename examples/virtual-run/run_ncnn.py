"""One run of a network with ncnn: `run_ncnn.py model.ncnn.param [--threads N] [--half]`; the weights are in `model.ncnn.bin`.

With `NCNN_BFLOAT16` in the environment, `--half` means bfloat16.
"""

from __future__ import annotations

import os

import ncnn
import numpy as np
from region import Array, read_arguments, run_marked

arguments = read_arguments(__doc__)
net = ncnn.Net()
net.opt.num_threads = arguments.threads
# On cores that have it, ncnn uses half precision without being asked, but bfloat16 only when it is.
bfloat16 = arguments.half and "NCNN_BFLOAT16" in os.environ
net.opt.use_bf16_packed = net.opt.use_bf16_storage = bfloat16
net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = arguments.half and not bfloat16
net.load_param(str(arguments.model))
net.load_model(str(arguments.model.with_suffix(".bin")))
image, logits = net.input_names()[0], net.output_names()[0]


def run() -> Array:
    """Run the network once, from the caller's image to an array of logits."""
    extractor = net.create_extractor()
    extractor.input(image, ncnn.Mat(arguments.image[0]))
    return np.array(extractor.extract(logits)[1])


run_marked(run, arguments)
