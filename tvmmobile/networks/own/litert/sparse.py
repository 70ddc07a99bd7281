"""Constants of LiteRT files that are stored without their zeros, as pruned weights are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array


def with_zeros(values: Array, shape: tuple[int, ...], sparsity: Any) -> Array:
    """Return the whole constant.

    The file has a tree of indices: a level for each dimension in `TraversalOrder`, those of blocks last. A dense level has every index, a
    sparse one lists the indices below each node of the level above.

    Args:
        values: the numbers that are stored, in the order of the tree's leaves.
        shape: of the constant.
        sparsity: the file's `SparsityParametersT`.

    Raises:
        ValueError: the tree does not fit the shape or the values.
    """
    order, blocked, levels = _vector(sparsity.traversalOrder), _vector(sparsity.blockMap), sparsity.dimMetadata
    rank, most = len(shape), math.prod(shape)
    if len(levels) != len(order) or len(order) != rank + len(blocked) or {*order} != {*range(len(order))} or (np.diff(blocked) < 1).any():
        raise ValueError("a sparse constant whose dimensions are not in order")
    nodes, paths = np.zeros(1, np.int64), np.zeros((1, 0), np.int64)
    for level in levels:
        if level.format == 0:
            extent = int(level.denseSize)
            counts, found = np.full(len(nodes), extent), np.tile(np.arange(extent), len(nodes) if 0 <= len(nodes) * extent <= most else -1)
            nodes = np.repeat(nodes * extent, counts) + found
        else:
            segments, indices = _vector(level.arraySegments.values), _vector(level.arrayIndices.values)
            begins, counts = segments[nodes], segments[nodes + 1] - segments[nodes]
            if counts.min(initial=0) < 0 or counts.sum() > most:
                raise ValueError("a sparse constant with too many numbers")
            nodes = np.repeat(begins - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
            found = indices[nodes]
        paths = np.column_stack([np.repeat(paths, counts, axis=0), found])
    if len(paths) != len(values):
        raise ValueError("a sparse constant with another number of places than numbers")
    places = np.empty_like(paths)
    places[:, order] = paths
    for number, dimension in enumerate(blocked):
        places[:, dimension] = places[:, dimension] * levels[list(order).index(rank + number)].denseSize + places[:, rank + number]
    whole = np.zeros(shape, values.dtype)
    whole[tuple(places[:, :rank].T)] = values  # raises IndexError for places outside
    return whole


def _vector(found: Any) -> Array:
    return np.zeros(0, np.int64) if found is None else np.asarray(found, np.int64)
