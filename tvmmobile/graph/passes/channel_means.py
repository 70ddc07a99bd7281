"""Means over an image's channels as 1×1 convolutions with one output channel, whose weights are equal.

Relax fuses such a mean with what reads it, which may then compute it for each of its elements: a norm over 1280 channels took 3.6 ms.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tvmmobile.graph.expressions import shape_of
from tvmmobile.graph.passes.rewriting import rewrite_main
from tvmmobile.graph.precision import FLOAT32


def channel_means(module: Any) -> Any:
    """Rewrite every mean over the last axis of an image in `main`, NHWC."""
    from tvm import relax
    from tvm.relax.dpl import is_op, wildcard

    data = wildcard()

    def rewrite(call: Any, matched: Any) -> Any:
        shape, axes = shape_of(matched[data]), [int(axis) for axis in call.attrs.axis or ()]
        is_image = len(shape) == 4 and shape[0] == 1 and shape[3] > 1 and str(call.ty.dtype) == FLOAT32.name
        if not is_image or axes not in ([3], [-1]) or not call.attrs.keepdims:
            return call
        weight = relax.const(np.full((1, 1, shape[3], 1), 1 / shape[3], np.float32))
        product = relax.op.nn.conv2d(matched[data], weight, data_layout="NHWC", kernel_layout="HWIO")
        return relax.op.add(product, relax.const(np.zeros((1, 1, 1, 1), np.float32)))

    return rewrite_main(module, is_op("relax.mean")(data), rewrite)
