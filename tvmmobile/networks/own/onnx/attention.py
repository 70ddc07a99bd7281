"""Converts ONNX's own `Attention` to products and a softmax that the graph passes know; TVM knows only Microsoft's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax

from tvmmobile.graph.expressions import constant, shape_of

#: Added to masked products; differences of minus infinities would be NaN.
_NOTHING = -1e30


def attention(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Convert `Attention` of queries, keys and values, each of 3 or 4 dimensions, with a mask or past keys and values or without.

    Returns:
        The result; in a tuple with the keys and values so far, and the products, if they are outputs.

    Raises:
        ValueError: it takes lengths of sequences.
    """
    op, (query, key, value, mask, past_key, past_value, lengths) = relax.op, (*inputs, *[None] * 7)[:7]
    outputs, mode = attrs["tvm_custom"]["num_outputs"], int(attrs.get("qk_matmul_output_mode", 0))
    if lengths is not None:
        raise ValueError("Attention with lengths of sequences is not supported")
    flat = len(shape_of(query)) == 3
    counts = [int(attrs.get(name, 0)) for name in ("q_num_heads", "kv_num_heads", "kv_num_heads")]
    shapes = [shape_of(part) for part in inputs[:3]]
    if flat:  # batch, rows, and heads side by side
        shapes = [[batch, count, rows, depth // count] for (batch, rows, depth), count in zip(shapes, counts, strict=True)]
        by_head = [op.reshape(part, [batch, rows, heads, depth]) for part, (batch, heads, rows, depth) in zip(inputs, shapes, strict=False)]
        query, key, value = (op.permute_dims(part, [0, 2, 1, 3]) for part in by_head)
    before = 0 if past_key is None else shape_of(past_key)[2]
    if before:
        key, value = op.concat([past_key, key], 2), op.concat([past_value, value], 2)
    present = [key, value]
    (batch, heads, rows, depth), shared, columns = shapes[0], shapes[1][1], before + shapes[1][2]
    if shared != heads:
        key, value = (op.repeat(part, heads // shared, 1) for part in (key, value))
    factor = float(attrs.get("scale", 1 / math.sqrt(depth)))
    products = scores = op.multiply(op.matmul(query, op.permute_dims(key, [0, 1, 3, 2])), relax.const(factor, "float32"))
    if cap := float(attrs.get("softcap", 0.0)):
        scores = op.multiply(op.tanh(op.divide(scores, relax.const(cap, "float32"))), relax.const(cap, "float32"))
    products = [products, scores, None, None][mode]
    if (hidden := _hidden(rows, columns, before, attrs)).any():
        scores = op.add(scores, constant(np.where(hidden, np.float32(_NOTHING), np.float32(0))))
    if mask is not None:
        scores = op.add(scores, _added(mask, columns))
    if mode == 2:
        products = op.where(op.less(scores, relax.const(_NOTHING / 2, "float32")), relax.const(-math.inf, "float32"), scores)
    shares = op.nn.softmax(scores, -1)
    if mask is not None or hidden.all(axis=1).any():  # a row whose columns are all masked gives zeros, not the mean of all values
        shares = op.where(op.greater(op.max(scores, -1, True), relax.const(_NOTHING / 2, "float32")), shares, relax.const(0.0, "float32"))
    result = op.matmul(shares, value)
    if flat:
        result = op.reshape(op.permute_dims(result, [0, 2, 1, 3]), [batch, rows, heads * shapes[2][3]])
    return relax.Tuple([result, *present, shares if mode == 3 else products][:outputs]) if outputs > 1 else result


def _hidden(rows: int, columns: int, before: int, attrs: dict[str, Any]) -> Any:
    """Return booleans `[rows, columns]`: whether a row ignores a column, a later one in causal attention or one outside a window."""
    ahead = np.arange(columns) - before - np.arange(rows)[:, None]
    left, right = (int(attrs.get(f"{side}_window_size", -1)) for side in ("left", "right"))
    right = 0 if attrs.get("is_causal", 0) else right
    return (ahead < -left) & (left >= 0) | (ahead > right) & (right >= 0)


def _added(mask: Any, columns: int) -> Any:
    """Return the summand that masks products; columns beyond the mask are hidden."""
    op, (*front, width) = relax.op, shape_of(mask)
    if str(mask.ty.dtype) == "bool":
        mask = op.where(mask, relax.const(0.0, "float32"), relax.const(_NOTHING, "float32"))
    return mask if width in (1, columns) else op.nn.pad(mask, [0, 0] * len(front) + [0, columns - width], pad_value=_NOTHING)
