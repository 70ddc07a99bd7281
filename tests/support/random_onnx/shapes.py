"""Operators that move elements."""

from __future__ import annotations

from functools import partial

import numpy as np
from onnx import TensorProto, numpy_helper

from random_onnx.draw import Draw, Impossible
from random_onnx.reductions import signed
from random_onnx.registry import draws

draw_kind = partial(draws, "shapes")


@draw_kind("Concat")
def concat(draw: Draw) -> None:
    shape = draw.shape(1, 5)
    axis, names = draw.integer(0, len(shape) - 1), []
    for place in range(draw.integer(1, 4)):
        shape[axis] = draw.integer(1, 4)
        names.append(draw.data(shape, constant=0.2 * bool(place)))
    draw.apply(names, axis=signed(draw, axis, len(shape)))


@draw_kind("Slice")
def slices(draw: Draw) -> None:
    shape = draw.shape(1, 5)
    rank, axes = len(shape), sorted(draw.some(range(len(shape))))
    starts, ends, steps = [], [], []
    for axis in axes:
        extent, step = shape[axis], draw.pick([1, 1, 2, -1, -2]) if draw.since >= 10 else 1
        low, high = sorted(draw.random.choice(extent + 1, 2, replace=False))
        low, high = int(low), int(high)
        first, last = (low, high) if step > 0 else (high - 1, low - 1 if low else -extent - 1)
        if draw.chance(0.3):
            first = first - extent
        if step > 0 and high == extent and draw.chance():
            last = draw.pick([extent + 3, 2**63 - 1, 2**31 - 1])
        elif step < 0 and not low and draw.chance():
            last = draw.pick([-(2**63), -(2**31), -extent - 9])
        starts.append(first), ends.append(last), steps.append(step)
    data = draw.data(shape)
    if draw.since < 10:
        draw.apply([data], starts=starts, ends=ends, axes=axes)
        return
    inputs = [data, draw.integers(starts), draw.integers(ends)]
    if axes != list(range(len(axes))) or min(steps) < 1 or max(steps) > 1 or draw.chance():
        inputs.append(draw.integers([signed(draw, axis, rank) for axis in axes]))
        if set(steps) != {1} or draw.chance():
            inputs.append(draw.integers(steps))
    draw.apply(inputs)


@draw_kind("Gather")
def gather(draw: Draw) -> None:
    shape = draw.shape(1, 4)
    axis = draw.integer(0, len(shape) - 1)
    extent = shape[axis]
    low = -extent if draw.since >= 11 else 0
    places = draw.shape(0, 2, 3) if draw.chance(0.8) else [draw.integer(1, 3)]
    places = places[:2]
    if draw.chance(0.6):
        indices = draw.constant(draw.random.integers(low, extent, places), draw.pick([np.int32, np.int64]))
    else:
        kind = draw.pick([TensorProto.INT32, TensorProto.INT64])
        indices = draw.whole(places, kind, lambda random, sizes: random.integers(low, extent, sizes))
    draw.apply(
        [draw.data(shape), indices], axis=draw.pick([None, signed(draw, axis, len(shape))]) if axis == 0 else signed(draw, axis, len(shape))
    )


@draw_kind("GatherElements", "ScatterElements", "Scatter")
def elements(draw: Draw) -> None:
    shape = draw.shape(1, 4)
    axis = draw.integer(0, len(shape) - 1)
    places = [draw.integer(1, extent) for extent in shape]
    extent = shape[axis]
    low = -extent if draw.since >= 11 else 0
    given = {"axis": signed(draw, axis, len(shape)) if axis or draw.chance() else None}
    if draw.operator == "GatherElements":
        chosen = draw.random.integers(low, extent, places)
        indices = draw.integers(chosen) if draw.chance(0.6) else draw.whole(places, TensorProto.INT64, lambda random, sizes: chosen)
        draw.apply([draw.data(shape), indices], **given)
        return
    order = draw.random.random([*places[:axis], extent, *places[axis + 1 :]]).argsort(axis)
    chosen = np.take(order, range(places[axis]), axis)
    chosen = np.where(draw.random.random(chosen.shape) < 0.3, chosen - extent, chosen) if low else chosen
    indices = draw.integers(chosen) if draw.chance(0.6) else draw.whole(places, TensorProto.INT64, lambda random, sizes: chosen)
    if draw.since >= 16:
        given["reduction"] = draw.pick([None, "none", "add", "mul", *(["max", "min"] if draw.since >= 18 else [])])
    draw.apply([draw.data(shape), indices, draw.data(places, constant=0.3)], **given)


@draw_kind("GatherND", "ScatterND")
def nd(draw: Draw) -> None:
    shape = draw.shape(1, 4)
    depth = draw.integer(1, len(shape))
    if draw.operator == "GatherND":
        batch = draw.integer(0, min(1, depth - 1)) if draw.since >= 12 else 0
        depth -= batch
        lead = [*shape[:batch], draw.integer(1, 3)]
        low = -1 if draw.since >= 11 else 0
        chosen = np.stack([draw.random.integers(low * extent, extent, lead) for extent in shape[batch : batch + depth]], -1)
        indices = draw.integers(chosen) if draw.chance(0.6) else draw.whole(chosen.shape, TensorProto.INT64, lambda random, sizes: chosen)
        draw.apply([draw.data(shape), indices], batch_dims=batch or None)
        return
    total = int(np.prod(shape[:depth]))
    count = draw.integer(1, min(total, 4))
    chosen = np.stack(np.unravel_index(draw.random.permutation(total)[:count], shape[:depth]), -1)
    if draw.since >= 13 and draw.chance(0.4):
        chosen = chosen - np.array(shape[:depth]) * draw.random.integers(0, 2, chosen.shape)
    indices = draw.integers(chosen) if draw.chance(0.6) else draw.whole(chosen.shape, TensorProto.INT64, lambda random, sizes: chosen)
    given = (
        {"reduction": draw.pick([None, "none", "add", "mul", *(["max", "min"] if draw.since >= 18 else [])])} if draw.since >= 16 else {}
    )
    draw.apply([draw.data(shape), indices, draw.data([count, *shape[depth:]], constant=0.3)], **given)


@draw_kind("Pad")
def pad(draw: Draw) -> None:
    shape = draw.shape(1, 5)
    rank, mode = len(shape), draw.pick([None, "constant", "constant", "reflect", "edge", *(["wrap"] if draw.since >= 19 else [])])
    axes = sorted(draw.some(range(rank))) if draw.since >= 18 and draw.chance(0.4) else list(range(rank))
    if mode in ("reflect", "edge") and draw.chance(0.6):
        shape = draw.image()
        rank, axes = 4, [0, 1, 2, 3]
    pads = []
    for axis in axes * 2:
        most = shape[axis] - 1 if mode == "reflect" else 2 if mode != "wrap" else shape[axis]
        image_like = mode in ("reflect", "edge") and axis < 2 and rank == 4 and draw.chance(0.8)
        pads.append(0 if image_like else draw.integer(0, min(most, 3)))
    if mode in (None, "constant") and draw.chance(0.2):
        for place, axis in enumerate(axes):
            if shape[axis] > 2:
                pads[place] = -1
    number = draw.uniform(-1, 1) if draw.chance() else None
    data = draw.data(shape)
    if draw.since < 11:
        draw.apply([data], pads=pads, mode=mode, value=number)
        return
    inputs = [data, draw.integers(pads), "" if number is None or mode not in (None, "constant") else draw.constant(number)]
    if axes != list(range(rank)):
        inputs.append(draw.integers([signed(draw, axis, rank) for axis in axes]))
    while not inputs[-1]:
        inputs.pop()
    draw.apply(inputs, mode=mode)


@draw_kind("Reshape")
def reshape(draw: Draw) -> None:
    shape = draw.shape(1, 5)
    target = [*shape]
    draw.random.shuffle(target)
    if draw.chance() and len(target) > 1:
        target = [target[0] * target[1], *target[2:]]
    if draw.chance(0.4):
        target.insert(draw.integer(0, len(target)), 1)
    written = [0 if place < len(shape) and extent == shape[place] and draw.chance(0.4) else extent for place, extent in enumerate(target)]
    if draw.chance():
        written[draw.integer(0, len(written) - 1)] = -1
    zero = {"allowzero": draw.pick([None, 0, 1] if 0 not in written else [None, 0])} if draw.since >= 14 else {}
    draw.apply([draw.data(shape), draw.integers(written)], **zero)


@draw_kind("Transpose")
def transpose(draw: Draw) -> None:
    shape = draw.shape(1, 5)
    order = [int(axis) for axis in draw.random.permutation(len(shape))]
    draw.apply([draw.data(shape)], perm=draw.pick([None, order, order]))


@draw_kind("Squeeze", "Unsqueeze")
def squeeze(draw: Draw) -> None:
    shape = draw.shape(1, 4)
    if draw.operator == "Squeeze":
        for _ in range(draw.integer(1, 2)):
            shape.insert(draw.integer(0, len(shape)), 1)
        axes = draw.some([axis for axis, extent in enumerate(shape) if extent == 1])
        rank = len(shape)
    else:
        rank = len(shape) + draw.integer(1, 2)
        axes = draw.some(range(rank))[: rank - len(shape)]
        while len(axes) < rank - len(shape):
            axes.append(next(axis for axis in range(rank) if axis not in axes))
    axes = [signed(draw, axis, rank) for axis in axes]
    absent = draw.operator == "Squeeze" and draw.chance(0.2)
    data = draw.data(shape)
    if draw.since < 13:
        draw.apply([data], axes=None if absent else axes)
    else:
        draw.apply([data] if absent else [data, draw.integers(axes)])


@draw_kind("Flatten")
def flatten(draw: Draw) -> None:
    shape = draw.shape(1, 5)
    axis = draw.integer(0, len(shape))
    if axis < len(shape):
        axis = signed(draw, axis, len(shape))
    draw.apply([draw.data(shape)], axis=draw.pick([None, axis]))


@draw_kind("Expand")
def expand(draw: Draw) -> None:
    shape = draw.shape(1, 5)
    draw.apply([draw.data(draw.broadcast(shape)), draw.integers(draw.broadcast(shape) if draw.chance(0.4) else shape)])


@draw_kind("Tile")
def tile(draw: Draw) -> None:
    shape = draw.shape(1, 4)
    draw.apply([draw.data(shape), draw.integers([draw.integer(1, 3) for _ in shape])])


@draw_kind("Split")
def split(draw: Draw) -> None:
    shape = draw.shape(1, 4)
    axis, parts = draw.integer(0, len(shape) - 1), draw.integer(1, 3)
    sizes = [draw.integer(1, 3) for _ in range(parts)]
    even = draw.chance(0.4)
    if even:
        sizes = [sizes[0]] * parts
    shape[axis] = sum(sizes)
    data, at = draw.data(shape), signed(draw, axis, len(shape)) if axis or draw.chance() else None
    if draw.since < 13:
        draw.apply([data], parts, axis=at, split=None if even else sizes)
    elif even:
        draw.apply([data], parts, axis=at, num_outputs=parts if draw.since >= 18 else None)
    else:
        draw.apply([data, draw.integers(sizes)], parts, axis=at)


@draw_kind("Shape", "Size")
def extents(draw: Draw) -> None:
    given = {}
    if draw.operator == "Shape" and draw.since >= 15:
        given = {"start": draw.pick([None, 0, 1, -2]), "end": draw.pick([None, 2, -1, 9])}
    draw.apply([draw.data(draw.shape(3, 5))], **given)


@draw_kind("ConstantOfShape")
def constant_of_shape(draw: Draw) -> None:
    value = draw.pick([None, np.array([2.5], np.float32), np.array([3], np.int64)])
    shape = draw.node("Shape", [draw.data(draw.shape(1, 4))]) if draw.chance() else draw.integers(draw.shape(1, 4))
    draw.apply([shape], value=None if value is None else numpy_helper.from_array(value))


@draw_kind("Range")
def numbers(draw: Draw) -> None:
    start, step = draw.integer(-3, 3), draw.pick([1, 2, -1, -2])
    limit = start + step * draw.integer(1, 5)
    kind = draw.pick([np.float32, np.int64, np.int32])
    draw.apply([draw.constant(number, kind) for number in (start, limit, step)])


@draw_kind("OneHot")
def one_hot(draw: Draw) -> None:
    shape, depth = draw.shape(1, 3, 4)[:3], draw.integer(2, 5)
    low = -depth if draw.since >= 11 and draw.chance(0.4) else 0
    kind = draw.pick([TensorProto.INT64, TensorProto.INT32])
    indices = draw.whole(shape, kind, lambda random, sizes: random.integers(low, depth, sizes))
    axis = draw.pick([None, -1, *range(len(shape) + 1)])
    number = draw.constant([depth] if draw.chance() else depth, np.int64 if kind == TensorProto.INT64 else np.int32)
    draw.apply([indices, number, draw.constant(draw.pick([[0.0, 1.0], [-0.5, 2.0]]))], axis=axis)


@draw_kind("CenterCropPad")
def crop(draw: Draw) -> None:
    shape = draw.image()
    axes = draw.pick([None, [2, 3], [-1]])
    draw.apply([draw.data(shape), draw.integers([draw.integer(1, 9) for _ in (axes or shape)])], axes=axes)


@draw_kind("ReverseSequence")
def reverse(draw: Draw) -> None:
    shape = [draw.integer(1, 4), draw.integer(1, 4), draw.integer(1, 3)]
    batch = draw.pick([0, 1])
    lengths = draw.integers(draw.random.integers(1, shape[1 - batch] + 1, shape[batch]))
    draw.apply([draw.data(shape), lengths], batch_axis=batch, time_axis=1 - batch)


@draw_kind("NonMaxSuppression")
def suppression(draw: Draw) -> None:
    draw.apply([draw.data([1, 4, 4]), draw.data([1, 2, 4]), draw.integers([2]), draw.constant([0.5]), draw.constant([0.1])])


@draw_kind("DFT")
def transform(draw: Draw) -> None:
    if draw.since < 17:
        raise Impossible("no DFT")
    draw.apply([draw.data([1, draw.integer(2, 6), 1])])
