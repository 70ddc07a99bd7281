"""ONNX's `pads`: the zeros before each dimension of an image, then those behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvmmobile.graph.expressions import shape_of


def same_pads(
    image: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], odd_first: bool = False
) -> list[int]:
    """The pads with which a window makes ⌈extent / stride⌉ outputs of each dimension, as `SAME` says.

    Args:
        odd_first: an odd zero goes before the image (`SAME_LOWER`), not behind it.
    """
    zeros = []
    for extent, size, stride, dilation in zip(image, kernel, strides, dilations, strict=True):
        reach = dilation * (size - 1) + 1
        zeros.append(max(0, (-(-extent // stride) - 1) * stride + reach - extent))
    return halved(zeros, odd_first)


def halved(zeros: Sequence[int], odd_first: bool = False) -> list[int]:
    """The pads of dimensions that get this many zeros each, half of them on either side."""
    smaller, greater = [count // 2 for count in zeros], [count - count // 2 for count in zeros]
    return [*greater, *smaller] if odd_first else [*smaller, *greater]


def explicit_transposed(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Give a transposed convolution pads in place of an output's shape, which TVM's converter ignores, or of `SAME`.

    Raises:
        ValueError: `SAME` would have to add pixels: ONNX says that it does, and ONNX Runtime does not.
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
    attrs.update(pads=tuple(halved(cut, odd_first=mode != "SAME_UPPER")), output_padding=tuple(added))
    return None
