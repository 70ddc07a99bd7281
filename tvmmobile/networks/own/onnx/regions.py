"""Regions of images in ONNX files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvmmobile.graph.expressions import shape_of

#: The version from which coordinates count from the middle of pixels.
_HALF_PIXEL = 16


def roi_align(inputs: Sequence[Any], attrs: dict[str, Any], opset: int) -> Any:
    """Convert `RoiAlign`: TVM's converter moves the regions by half a pixel before it scales them.

    Raises:
        ValueError: it takes the maximum, which frameworks compute in different ways.
    """
    from tvm import relax

    data, regions, images = inputs
    op, kind, count = relax.op, str(regions.ty.dtype), shape_of(regions)[0]
    if attrs.get("mode", b"avg") != b"avg":
        raise ValueError("RoiAlign with mode max is not supported")
    scale = float(attrs.get("spatial_scale", 1.0))
    default = b"half_pixel" if opset >= _HALF_PIXEL else b"output_half_pixel"
    aligned = attrs.get("coordinate_transformation_mode", default) == b"half_pixel"
    if aligned:
        regions = op.subtract(regions, relax.const(0.5 / scale, kind))
    rows = op.concat([op.reshape(op.astype(images, kind), [count, 1]), regions], 1)
    size = int(attrs.get("output_height", 1)), int(attrs.get("output_width", 1))
    ratio = int(attrs.get("sampling_ratio", 0))
    return op.vision.roi_align(data, rows, size, scale, ratio, aligned, "NCHW", "avg")
