"""Pools of ONNX files with explicit pads where TVM's importer counts other windows than ONNX Runtime."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tvmmobile.graph.expressions import shape_of
from tvmmobile.networks.own.onnx.pads import same_pads


def max_pool(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Give a `MaxPool` explicit pads in place of `SAME`, whose windows TVM rounds down.

    Raises:
        ValueError: it returns indices, or is dilated and padded by `SAME`.
    """
    if attrs["tvm_custom"]["num_outputs"] > 1:
        raise ValueError("MaxPool with indices is not supported")
    return _explicit_pads(inputs[0], attrs, "MaxPool")


def average_pool(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Give an `AveragePool` explicit pads in place of `SAME`; raises `ValueError` where it is dilated."""
    return _explicit_pads(inputs[0], attrs, "AveragePool")


def _explicit_pads(data: Any, attrs: dict[str, Any], operator: str) -> None:
    """Replace `SAME` among the attributes, which are left to TVM's converter."""
    if attrs.get("auto_pad", b"NOTSET").decode().startswith("SAME"):
        _refuse_dilated(attrs, operator)
        attrs.update(auto_pad=b"NOTSET", pads=tuple(_windows(data, attrs)[2]), ceil_mode=0)


def _refuse_dilated(attrs: dict[str, Any], operator: str) -> None:
    """Raises `ValueError` for dilated windows padded by `SAME`: ONNX Runtime pads them as if they had no gaps, unlike ONNX."""
    if any(int(step) != 1 for step in attrs.get("dilations", ())):
        raise ValueError(f"{operator} with auto_pad SAME and dilations is ambiguous")


def lp_pool(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Convert `LpPool`, (Σ |x|ᵖ)^(1/p), by the average over windows with all their pads, and with what they reach over them."""
    from tvm import relax

    (data,), power, op = inputs, int(attrs.get("p", 2)), relax.op
    if attrs.get("auto_pad", b"NOTSET").decode().startswith("SAME"):
        _refuse_dilated(attrs, "LpPool")
    kernel, (strides, dilations), pads = _windows(data, attrs)
    raised = op.abs(data)
    if power > 1:
        raised = op.multiply(data, data) if power == 2 else op.power(raised, relax.const(float(power), "float32"))
    if attrs.get("ceil_mode", 0):
        pads = _rounded_up(shape_of(data)[2:], kernel, strides, dilations, pads)
    pool = getattr(op.nn, f"avg_pool{len(kernel)}d")
    means = pool(raised, kernel, strides, pads, dilations, False, True)
    sums = op.multiply(means, relax.const(float(math.prod(kernel)), "float32"))
    if power == 1:
        return sums
    return op.sqrt(sums) if power == 2 else op.power(sums, relax.const(1 / power, "float32"))


def _windows(data: Any, attrs: dict[str, Any]) -> tuple[list[int], tuple[list[int], list[int]], list[int]]:
    """The kernel, the strides and dilations, and the pads of a pool."""
    image, kernel = shape_of(data)[2:], [int(extent) for extent in attrs["kernel_shape"]]
    strides, dilations = ([int(step) for step in attrs.get(name, (1,) * len(image))] for name in ("strides", "dilations"))
    mode, pads = attrs.get("auto_pad", b"NOTSET").decode(), [0] * (2 * len(image))
    if mode.startswith("SAME"):
        pads = same_pads(image, kernel, strides, dilations, odd_first=mode == "SAME_LOWER")
    elif mode == "NOTSET":
        pads = [int(pad) for pad in attrs.get("pads", pads)]
    return kernel, (strides, dilations), pads


def _rounded_up(image: list[int], kernel: list[int], strides: list[int], dilations: list[int], pads: list[int]) -> list[int]:
    """The pads with which a window that reaches over them is a whole one; none starts behind the image."""
    behind = []
    for extent, size, step, dilation, before, after in zip(
        image, kernel, strides, dilations, pads[: len(image)], pads[len(image) :], strict=True
    ):
        reach = dilation * (size - 1) + 1
        count = -(-(extent + before + after - reach) // step) + 1
        count -= (count - 1) * step >= extent + before
        behind.append(max(after, (count - 1) * step + reach - extent - before))
    return [*pads[: len(image)], *behind]
