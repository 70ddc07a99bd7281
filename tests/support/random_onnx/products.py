"""Products of matrices, and attention."""

from __future__ import annotations

from functools import partial

import numpy as np

from random_onnx.draw import Draw
from random_onnx.registry import draws

draw_kind = partial(draws, "products")


@draw_kind("Gemm")
def gemm(draw: Draw) -> None:
    rows, inner, columns = (draw.integer(1, 6) for _ in range(3))
    across, along = draw.chance(0.4), draw.chance()
    first = draw.data([inner, rows] if across else [rows, inner])
    second_shape = [columns, inner] if along else [inner, columns]
    second = draw.weights(second_shape) if draw.chance(0.7) else draw.data(second_shape)
    inputs = [first, second]
    if draw.chance(0.7) or draw.since < 11:
        shape = draw.pick([[columns], [rows, columns], [1, columns], [rows, 1], [1], []])
        inputs.append(draw.constant(draw.random.normal(0, 1, shape)) if draw.chance(0.8) or not shape else draw.data(shape))
    given = {"alpha": draw.pick([None, 0.5]), "beta": draw.pick([None, 0.5]), "transA": int(across) or None, "transB": int(along) or None}
    draw.apply(inputs, **given)


@draw_kind("MatMul")
def product(draw: Draw) -> None:
    rows, inner, columns = (draw.integer(1, 6) for _ in range(3))
    left, right = draw.pick([[inner], [rows, inner], [rows, inner]]), draw.pick([[inner], [inner, columns], [inner, columns]])
    lead = [draw.integer(1, 3) for _ in range(draw.integer(0, 3))]
    if len(left) > 1:
        left = [*draw.broadcast(lead), *left]
    if len(right) > 1 and draw.chance(0.6):
        right = [*draw.broadcast(lead), *right]
    draw.apply([draw.data(left), draw.data(right, constant=0.7)])


@draw_kind("Attention")
def attention(draw: Draw) -> None:
    batch, heads, queries, keys, size = (
        draw.pick([1, 1, 2]),
        draw.pick([1, 2, 4]),
        draw.integer(1, 5),
        draw.integer(1, 5),
        draw.pick([2, 4]),
    )
    shared = draw.pick([1, heads]) if heads % 2 == 0 else heads
    given = {"scale": draw.pick([None, 0.3]), "is_causal": draw.pick([None, None, 1]), "softcap": draw.pick([None, None, 2.0])}
    if draw.chance():
        shapes = [[batch, heads, queries, size], [batch, shared, keys, size], [batch, shared, keys, size]]
    else:
        shapes = [[batch, queries, heads * size], [batch, keys, shared * size], [batch, keys, shared * size]]
        given.update(q_num_heads=heads, kv_num_heads=shared)
    inputs = [draw.data(shape) for shape in shapes]
    if draw.chance(0.3):
        mask = [queries, keys]
        inputs.append(
            draw.constant(draw.random.normal(0, 1, mask))
            if draw.chance()
            else draw.constant(draw.random.integers(0, 2, mask) | np.eye(*mask, dtype=int), np.bool_)
        )
    draw.apply(inputs, **given)


@draw_kind("RotaryEmbedding")
def rotary(draw: Draw) -> None:
    batch, heads, length, size = draw.pick([1, 2]), draw.pick([1, 2]), draw.integer(1, 4), draw.pick([4, 8])
    tables = [draw.constant(draw.random.uniform(-1, 1, (batch, length, size // 2))) for _ in range(2)]
    draw.apply([draw.data([batch, heads, length, size]), *tables], interleaved=draw.pick([None, 0, 1]))
