"""ONNX's `pads`: the zeros before each dimension of an image, then those behind it."""

from __future__ import annotations

from collections.abc import Sequence


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
