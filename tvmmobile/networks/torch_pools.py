"""Decompositions and converters of PyTorch's pools, as in `torch_operators`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from tvm import relax

from tvmmobile.graph.expressions import constant, shape_of
from tvmmobile.system.errors import UserError


def pool_converters() -> dict[str, Callable[[Any, Any], Any]]:
    """Return converters, by the operator's name and overload."""
    return {"max_pool2d_with_indices.default": _max_pool_with_places, "max_pool3d_with_indices.default": _max_pool_3d}


def adaptive_max_pool(x: torch.Tensor, size: Sequence[int]) -> Any:
    """Pool windows of one shape by a max pool, others one by one."""
    rank = len(size)
    extents = x.shape[-rank:]
    strides = [extent // count for extent, count in zip(extents, size, strict=True)]
    if all(extent % count == 0 for extent, count in zip(extents, size, strict=True)):
        pool = torch.nn.functional.max_pool2d_with_indices if rank == 2 else torch.nn.functional.max_pool3d_with_indices
        return pool(x, strides, strides)
    places = torch.arange(math.prod(extents)).reshape(extents)
    parts = [
        [slice(place * extent // count, -(-(place + 1) * extent // count)) for place in range(count)]
        for extent, count in zip(extents, size, strict=True)
    ]
    windows = list(itertools.product(*parts))
    maxima = [x[(..., *window)].amax(tuple(range(-rank, 0))) for window in windows]
    first = [places[window].flatten()[x[(..., *window)].flatten(-rank).argmax(-1)] for window in windows]
    return tuple(torch.stack(numbers, -1).unflatten(-1, size) for numbers in (maxima, first))


def refuse_random_windows(*_: Any) -> Any:
    """Raise `UserError` for a fractional max pool."""
    problem = "the network has a fractional max pool, which draws its windows at random in each call."
    raise UserError(problem, "Use an adaptive max pool instead.")


def without_places(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return extremes with no places, for operators whose places are not supported."""
    return values, values.new_empty((0,) * values.dim(), dtype=torch.int64)


def max_pool(x: torch.Tensor, kernel: Sequence[int], stride: Sequence[int] = (), *others: Any) -> Any:
    """Pass the kernel as the stride where none is given: TVM's importer needs one."""
    return NotImplemented if stride else torch.nn.functional.max_pool2d_with_indices(x, kernel, kernel, *others)


def average_pool(
    rank: int,
    x: torch.Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """Average the last dimensions with a custom divisor, which TVM's importer drops, as one of whole windows of the scaled image."""
    if divisor_override is None:
        return NotImplemented
    pool: Callable[..., Any] = torch.nn.functional.avg_pool2d if rank == 2 else torch.nn.functional.avg_pool3d
    size, steps, around, _ = _windows(kernel, stride or kernel, padding, rank=rank)
    counts = pool(x, size, steps, around, ceil_mode).shape[-rank:]
    after = [(counts[axis] - 1) * steps[axis] + size[axis] - x.shape[axis - rank] - around[axis] for axis in range(rank)]
    pairs = reversed(list(zip(around, after, strict=True)))
    whole = torch.nn.functional.pad(x, [extent for pair in pairs for extent in pair])
    # In front: TVM's importer gives a pool of an image without a batch no type, which a factor behind it needs.
    return pool(whole * (math.prod(size) / divisor_override), size, steps)


def _reads_places(node: Any) -> bool:
    return any(user.args[1] == 1 and user.users for user in node.users)


def _max_pool_3d(node: Any, importer: Any) -> Any:
    if _reads_places(node):
        raise NotImplementedError("places of maxima in three dimensions")
    return importer._max_pool3d_with_indices(node)


def _max_pool_with_places(node: Any, importer: Any) -> Any:
    """Convert a max pool with each maximum's place in its plane, if that is read; TVM's converter returns zeros for places."""
    pooled = importer._max_pool2d_with_indices(node)
    if not _reads_places(node):
        return pooled
    emit, op = importer.block_builder.emit, relax.op
    data, (kernel, stride, padding, dilation) = importer.env[node.args[0]], _windows(*node.args[1:5])
    shape, counts = shape_of(data), [int(extent) for extent in node.meta["val"][0].shape[-2:]]
    axes = [len(shape) - 2, len(shape) - 1]
    reach = [(count - 1) * step + gap * (size - 1) + 1 for count, step, gap, size in zip(counts, stride, dilation, kernel, strict=True)]
    after = [max(0, reach[place] - shape[axis] - padding[place]) for place, axis in enumerate(axes)]
    around = [0] * (2 * axes[0]) + [padding[0], after[0], padding[1], after[1]]
    padded = emit(op.nn.pad(data, around, pad_value=-math.inf)) if any(around) else data
    taps = [(row * dilation[0], column * dilation[1]) for row in range(kernel[0]) for column in range(kernel[1])]
    span = [(count - 1) * step + 1 for count, step in zip(counts, stride, strict=True)]
    parts = [
        emit(op.expand_dims(emit(op.strided_slice(padded, axes, [row, column], [row + span[0], column + span[1]], stride)), -1))
        for row, column in taps
    ]
    first = emit(op.argmax(emit(op.concat(parts, -1)), -1))
    rows, columns = (np.arange(count) * step - before for count, step, before in zip(counts, stride, padding, strict=True))
    corners = constant((rows[:, None] * shape[-1] + columns).astype(np.int64))
    steps = constant(np.array([row * shape[-1] + column for row, column in taps], np.int64))
    places = emit(op.reshape(emit(op.take(steps, emit(op.reshape(first, [-1])), 0, mode="clip")), shape_of(first)))
    return relax.Tuple([emit(relax.TupleGetItem(pooled, 0)), emit(op.add(places, corners))])


def _windows(kernel: Any, stride: Any, padding: Any = (0,), dilation: Any = (1,), rank: int = 2) -> list[list[int]]:
    return [list(numbers) if len(numbers) == rank else [numbers[0]] * rank for numbers in (kernel, stride, padding, dilation)]
