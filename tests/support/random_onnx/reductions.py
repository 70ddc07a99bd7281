"""Operators that make one number of several, and softmaxes and sums along axes."""

from __future__ import annotations

from functools import partial

import numpy as np
from onnx import TensorProto

from random_onnx.draw import Draw, normal, positive
from random_onnx.registry import draws

draw_kind = partial(draws, "reductions")


def signed(draw: Draw, axis: int, rank: int) -> int:
    """Return the axis, sometimes counted from the end where its version allows it."""
    return axis - rank if draw.opset >= 11 and draw.chance() else axis


@draw_kind(
    *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"),
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"),
)
def reduction(draw: Draw) -> None:
    shape = draw.shape(1, 5)
    rank = len(shape)
    data = draw.data(shape, positive if draw.operator == "ReduceLogSum" else normal)
    if draw.operator in ("ReduceMax", "ReduceMin", "ReduceSum") and draw.opset >= 12 and draw.chance(0.15):
        data = draw.whole(shape, TensorProto.INT32)
    keep = draw.pick([None, 0, 1])
    chosen = [signed(draw, axis, rank) for axis in draw.some(range(rank))]
    if draw.chance(0.5) and rank == 4:
        chosen = draw.pick([[2, 3], [1], [3, 2]])
    axes = None if draw.chance(0.2) else chosen
    as_input = draw.since >= 18 or (draw.operator == "ReduceSum" and draw.since >= 13)
    if not as_input:
        draw.apply([data], axes=axes, keepdims=keep)
        return
    inputs = [data] if axes is None else [data, draw.integers(axes)]
    if axes is None and draw.chance(0.3):
        inputs.append(draw.integers(np.zeros(0)))
    draw.apply(inputs, keepdims=keep, noop_with_empty_axes=draw.pick([None, None, 0, 1]))


@draw_kind("ArgMax", "ArgMin")
def arg(draw: Draw) -> None:
    shape = draw.shape(1, 5)
    rank = len(shape)
    data = draw.data(shape)
    last = None
    if draw.since >= 12:
        last = draw.pick([None, 0, 1])
        if draw.chance(0.4):  # with ties
            data = draw.input(shape, lambda random, extents: random.integers(0, 3, extents))
    draw.apply(
        [data],
        axis=draw.pick([None, signed(draw, draw.integer(0, rank - 1), rank)]),
        keepdims=draw.pick([None, 0, 1]),
        select_last_index=last,
    )


@draw_kind("Softmax", "LogSoftmax", "Hardmax")
def softmax(draw: Draw) -> None:
    shape = draw.shape(1 if draw.opset >= 13 else 2, 5)
    axis = draw.pick([None, *range(len(shape))])
    draw.apply([draw.data(shape)], axis=axis if axis is None else signed(draw, axis, len(shape)))


@draw_kind("TopK")
def topk(draw: Draw) -> None:
    shape = draw.shape(1, 4)
    axis = draw.integer(0, len(shape) - 1)
    number = draw.integer(1, shape[axis])
    given = {"axis": signed(draw, axis, len(shape)) if draw.chance(0.8) or axis != len(shape) - 1 else None}
    if draw.since >= 11:
        given.update(largest=draw.pick([None, 0, 1]))
    if draw.since < 10:
        draw.apply([draw.data(shape)], 2, k=number, **given)
    else:
        draw.apply([draw.data(shape), draw.integers([number])], 2, **given)


@draw_kind("CumSum")
def cumulative(draw: Draw) -> None:
    shape = draw.shape(1, 4)
    axis = draw.constant(signed(draw, draw.integer(0, len(shape) - 1), len(shape)), draw.pick([np.int32, np.int64]))
    data = draw.whole(shape, TensorProto.INT32) if draw.chance(0.2) else draw.data(shape)
    draw.apply([data, axis], exclusive=draw.pick([None, 0, 1]), reverse=draw.pick([None, 0, 1]))


@draw_kind("Einsum")
def einsum(draw: Draw) -> None:
    sizes = {letter: draw.integer(1, 5) for letter in "abcijk"}
    equation = draw.pick(
        [
            "ij,jk->ik",
            "bij,bjk->bik",
            "bij,bkj->bik",
            "ij->ji",
            "ij->i",
            "ij,ij->",
            "i,j->ij",
            "abij,abjk->abik",
            "aij,jk->aik",
            "bij->bj",
            "ij,jk",
            "bij, bjk -> bik",
            "abi,aci->abc",
            "ij->",
            "ii->i",
        ]
    )
    terms = equation.replace(" ", "").split("->")[0].split(",")
    names = [draw.data([sizes[letter] for letter in term], constant=0.5 * bool(place)) for place, term in enumerate(terms)]
    draw.apply(names, equation=equation)


@draw_kind("NonZero", "Unique", "Compress")
def of_unknown_extent(draw: Draw) -> None:
    """Results whose extents depend on values."""
    shape = draw.shape(1, 4)
    if draw.operator == "Compress":
        draw.apply([draw.data(shape), draw.constant(draw.random.integers(0, 2, shape[0]), np.bool_)], axis=0)
    else:
        draw.apply([draw.data(shape)])
