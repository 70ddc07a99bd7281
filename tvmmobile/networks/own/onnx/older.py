"""Forms of ONNX operators that TVM's importer lacks: `Slice` with attributes, and `Split` into one part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def slice_by_attributes(inputs: Sequence[Any], attrs: dict[str, Any], opset: int) -> Any:
    """`Slice` before opset 10, whose bounds are attributes."""
    from tvm import relax

    if opset >= 10:
        return None
    starts, ends = attrs["starts"], attrs["ends"]
    axes = attrs.get("axes", range(len(starts)))
    return relax.op.strided_slice(inputs[0], list(axes), list(starts), list(ends))


def split_into_one(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """`Split` with one output, which is its input; TVM's converter makes a tuple of it and takes that for the tensor."""
    return inputs[0] if attrs["tvm_custom"]["num_outputs"] == 1 else None
