"""Gives ONNX windows explicit `pads` (the zeros before each dimension of an image, then those after it) where TVM's importer would count
other windows than ONNX Runtime.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tvm import relax

from tvmmobile.graph.expressions import shape_of


def pool(operator: str, inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> None:
    """Give `MaxPool` or `AveragePool` explicit pads in place of `SAME`, whose windows TVM's converter rounds down.

    Raises:
        ValueError: it returns indices, or is dilated and padded by `SAME`.
    """
    if attrs["tvm_custom"]["num_outputs"] > 1:
        raise ValueError(f"{operator} with indices is not supported")
    if attrs.get("auto_pad", b"NOTSET").decode().startswith("SAME"):
        _refuse_dilated(attrs, operator)
        attrs.update(auto_pad=b"NOTSET", pads=tuple(_windows(inputs[0], attrs)[2]), ceil_mode=0)


def _refuse_dilated(attrs: dict[str, Any], operator: str) -> None:
    """Raise `ValueError` for dilated windows padded by `SAME`: ONNX Runtime pads them as if they had no gaps, unlike ONNX."""
    if any(int(step) != 1 for step in attrs.get("dilations", ())):
        raise ValueError(f"{operator} with auto_pad SAME and dilations is ambiguous")


def lp_pool(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Convert `LpPool`, (Σ |x|ᵖ)^(1/p), by the average over windows with all their pads, and with what they reach over them."""
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
    """Return the kernel, the strides and dilations, and the pads of a pool."""
    image, kernel = shape_of(data)[2:], [int(extent) for extent in attrs["kernel_shape"]]
    strides, dilations = ([int(step) for step in attrs.get(name, (1,) * len(image))] for name in ("strides", "dilations"))
    mode, pads = attrs.get("auto_pad", b"NOTSET").decode(), [0] * (2 * len(image))
    if mode.startswith("SAME"):
        pads = same_pads(image, kernel, strides, dilations, odd_first=mode == "SAME_LOWER")
    elif mode == "NOTSET":
        pads = [int(pad) for pad in attrs.get("pads", pads)]
    return kernel, (strides, dilations), pads


def _rounded_up(image: list[int], kernel: list[int], strides: list[int], dilations: list[int], pads: list[int]) -> list[int]:
    """Return the pads that complete windows reaching over the edge; no window starts after the image."""
    trailing = []
    for extent, size, step, dilation, before, after in zip(
        image, kernel, strides, dilations, pads[: len(image)], pads[len(image) :], strict=True
    ):
        reach = dilation * (size - 1) + 1
        count = -(-(extent + before + after - reach) // step) + 1
        count -= (count - 1) * step >= extent + before
        trailing.append(max(after, (count - 1) * step + reach - extent - before))
    return [*pads[: len(image)], *trailing]


def same_pads(
    image: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], odd_first: bool = False
) -> list[int]:
    """Return the pads with which a window makes ⌈extent / stride⌉ outputs of each dimension, as `SAME` says.

    Args:
        odd_first: an odd zero goes before the image (`SAME_LOWER`), not behind it.
    """
    zeros = []
    for extent, size, stride, dilation in zip(image, kernel, strides, dilations, strict=True):
        reach = dilation * (size - 1) + 1
        zeros.append(max(0, (-(-extent // stride) - 1) * stride + reach - extent))
    return halved(zeros, odd_first)


def halved(zeros: Sequence[int], odd_first: bool = False) -> list[int]:
    """Return the pads of dimensions that get this many zeros each, half of them on either side."""
    smaller, greater = [count // 2 for count in zeros], [count - count // 2 for count in zeros]
    return [*greater, *smaller] if odd_first else [*smaller, *greater]


def explicit_transposed(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Give a transposed convolution pads in place of an output's shape, which TVM's converter ignores, or of `SAME`.

    Raises:
        ValueError: `SAME` would have to add pixels: ONNX says that it does, and ONNX Runtime does not; or a shape has pixels that no place
            of the image reaches, which ONNX Runtime refuses.
    """
    image, kernel = (shape_of(tensor)[2:] for tensor in inputs[:2])
    mode, shape = attrs.pop("auto_pad", b"NOTSET").decode(), attrs.get("output_shape")
    if mode == "VALID":
        attrs["pads"] = (0,) * (2 * len(image))
    if shape is None and not mode.startswith("SAME"):
        return None
    strides, dilations = ([int(step) for step in attrs.get(name, (1,) * len(image))] for name in ("strides", "dilations"))
    added = [int(count) for count in attrs.get("output_padding", (0,) * len(image))]
    wanted = [extent * step for extent, step in zip(image, strides, strict=True)]
    if shape is not None:
        wanted = [int(extent) for extent in shape[-len(image) :]]
    cut = []
    for place, (extent, size) in enumerate(zip(image, kernel, strict=True)):
        whole = (extent - 1) * strides[place] + dilations[place] * (size - 1) + 1
        if shape is None and whole + added[place] < wanted[place]:
            raise ValueError("ConvTranspose with auto_pad SAME and a kernel smaller than its stride is ambiguous")
        cut.append(max(0, whole + added[place] - wanted[place]))
        added[place] = wanted[place] + cut[place] - whole
        if added[place] >= strides[place]:
            largest = whole + strides[place] - 1
            raise ValueError(f"its output of {wanted[place]} pixels is beyond what its windows make of {extent}, at most {largest}")
    attrs.update(pads=tuple(halved(cut, odd_first=mode != "SAME_UPPER")), output_padding=tuple(added))
    return None
