"""ONNX's own `Attention` as products and a softmax, in the form that the graph passes know; TVM knows Microsoft's alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tvmmobile.graph.expressions import constant, shape_of

#: Added to masked products; differences of minus infinities would be NaN.
_NOTHING = -1e30


def attention(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Convert `Attention` of queries, keys and values, each of 3 or 4 dimensions, with a mask or without.

    Raises:
        ValueError: it takes past keys or returns more than its result.
    """
    from tvm import relax

    op, mask = relax.op, inputs[3] if len(inputs) > 3 else None
    if any(past is not None for past in inputs[4:]) or attrs["tvm_custom"]["num_outputs"] > 1:
        raise ValueError("Attention with past keys and values is not supported")
    flat = len(shape_of(inputs[0])) == 3
    counts = [int(attrs.get(name, 0)) for name in ("q_num_heads", "kv_num_heads", "kv_num_heads")]
    shapes = [_heads(shape_of(part), count) for part, count in zip(inputs[:3], counts, strict=True)]
    query, key, value = (_in_heads(part, shape) if flat else part for part, shape in zip(inputs[:3], shapes, strict=True))
    (batch, heads, rows, depth), (_, shared, columns, _) = shapes[:2]
    if shared != heads:
        key, value = (op.repeat(part, heads // shared, 1) for part in (key, value))
    factor = float(attrs.get("scale", 1 / math.sqrt(depth)))
    scores = op.multiply(op.matmul(query, op.permute_dims(key, [0, 1, 3, 2])), relax.const(factor, "float32"))
    if cap := float(attrs.get("softcap", 0.0)):
        scores = op.multiply(op.tanh(op.divide(scores, relax.const(cap, "float32"))), relax.const(cap, "float32"))
    if attrs.get("is_causal", 0):
        scores = op.add(scores, constant(np.triu(np.full((rows, columns), _NOTHING, np.float32), 1)))
    if mask is not None:
        hidden = relax.const(0.0, "float32"), relax.const(_NOTHING, "float32")
        scores = op.add(scores, op.where(mask, *hidden) if str(mask.ty.dtype) == "bool" else mask)
    result = op.matmul(op.nn.softmax(scores, -1), value)
    if mask is not None:  # a row without a column gives zeros, not the mean of all values
        result = op.where(op.greater(op.max(scores, -1, True), relax.const(_NOTHING / 2, "float32")), result, relax.const(0.0, "float32"))
    if not flat:
        return result
    return op.reshape(op.permute_dims(result, [0, 2, 1, 3]), [batch, rows, heads * shapes[2][3]])


def _heads(shape: list[int], count: int) -> list[int]:
    """Batch, heads, rows and depth of an operand of 3 or 4 dimensions."""
    return shape if len(shape) == 4 else [shape[0], count, shape[1], shape[2] // count]


def _in_heads(data: Any, shape: list[int]) -> Any:
    """An operand of 3 dimensions with its heads apart."""
    from tvm import relax

    batch, heads, rows, depth = shape
    return relax.op.permute_dims(relax.op.reshape(data, [batch, rows, heads, depth]), [0, 2, 1, 3])
