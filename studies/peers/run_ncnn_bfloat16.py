"""One run of a network with ncnn in bfloat16: `run_ncnn_bfloat16.py model.ncnn.param [--threads N] --half`.

ncnn does not compute in bfloat16 unless it is told to. With `--half`, `region.py` only prints the distance from PyTorch.
"""

from __future__ import annotations

import ncnn
import numpy as np
from region import Array, read_arguments, run_marked

arguments = read_arguments(__doc__)
net = ncnn.Net()
net.opt.num_threads = arguments.threads
net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
net.opt.use_bf16_packed = net.opt.use_bf16_storage = True
net.load_param(str(arguments.model))
net.load_model(str(arguments.model.with_suffix(".bin")))
image, logits = net.input_names()[0], net.output_names()[0]


def run() -> Array:
    """Run the network once, from the caller's image to an array of logits."""
    extractor = net.create_extractor()
    extractor.input(image, ncnn.Mat(arguments.image[0]))
    return np.array(extractor.extract(logits)[1])


run_marked(run, arguments)
