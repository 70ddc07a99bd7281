"""Rewrites means over an image's channels as 1×1 convolutions to one channel, with equal weights.

Relax fuses such a mean with what reads it, which may then compute it for each of its elements: a norm over 1280 channels took 3.6 ms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tvm import relax

from tvmmobile.graph.expressions import image_of, operator_of
from tvmmobile.graph.passes.rewriting import value_pass


@value_pass
def channel_means(value: Any, _: Mapping[Any, Any]) -> Any:
    """Rewrite every mean over the last axis of an image in `main`, NHWC."""
    image = image_of(value.args[0]) if operator_of(value) == "relax.mean" else None
    if image is None or image[2] == 1 or [int(axis) for axis in value.attrs.axis or ()] not in ([3], [-1]) or not value.attrs.keepdims:
        return None
    weight = relax.const(np.full((1, 1, image[2], 1), 1 / image[2], np.float32))
    product = relax.op.nn.conv2d(value.args[0], weight, data_layout="NHWC", kernel_layout="HWIO")
    return relax.op.add(product, relax.const(np.zeros((1, 1, 1, 1), np.float32)))
