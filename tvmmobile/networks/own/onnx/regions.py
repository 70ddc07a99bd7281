"""Regions of images in ONNX files."""

from __future__ import annotations

from typing import Any

#: The version from which coordinates count from the middle of pixels.
_HALF_PIXEL = 16


def roi_align(inputs: list[Any], attrs: dict[str, Any], opset: int) -> None:
    """Have a `RoiAlign` read moved regions: TVM's converter, which it is left to, moves them by half a pixel before it scales them.

    Raises:
        ValueError: it takes the maximum, which frameworks compute in different ways.
    """
    from tvm import relax

    if attrs.get("mode", b"avg") != b"avg":
        raise ValueError("RoiAlign with mode max is not supported")
    scale, default = float(attrs.get("spatial_scale", 1.0)), b"half_pixel" if opset >= _HALF_PIXEL else b"output_half_pixel"
    if scale != 1 and attrs.get("coordinate_transformation_mode", default) == b"half_pixel":
        moved = relax.op.subtract(inputs[1], relax.const(0.5 / scale - 0.5, str(inputs[1].ty.dtype)))
        inputs[1] = relax.BlockBuilder.current().emit(moved)
