"""Reads constants that LiteRT files store without zeros, such as pruned weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from tvmmobile.graph.layers import Array
from tvmmobile.networks.budget import check_constants, check_elements, check_zeros
from tvmmobile.networks.own.files import OwnFile
from tvmmobile.system.errors import UserError, shown

#: Formats of a dimension.
_DENSE, _SPARSE = 0, 1


@dataclass
class SparseConstants:
    """Reads a file's sparse constants and counts their elements: a small file could claim any number of zeros.

    Attributes:
        file: the file that they are in.
        most_stored: numbers that the file can hold; several tensors may have the same ones.
        elements, stored: number of the constants' elements so far, with zeros and without.
    """

    file: OwnFile
    most_stored: int
    elements: int = field(default=0, init=False)
    stored: int = field(default=0, init=False)

    def with_zeros(self, name: str, values: Array, shape: tuple[int, ...], sparsity: Any) -> Array:
        """Return a whole constant.

        The file has a tree of indices: a level for each dimension in the order of traversal, those of blocks last. A dense level has every
        index, a sparse one lists the indices below each node of the level above.

        Args:
            name: the tensor's name, for messages.
            values: the numbers that are stored, in the order of the tree's leaves.
            shape: shape of the constant.
            sparsity: the file's `SparsityParametersT`.

        Raises:
            UserError: there are too many zeros, or the tree does not fit the shape or the values.
        """
        tree = _Tree(f"{self.file}: the sparse constant {shown(name)}", shape, sparsity)
        check_elements(tree.what, shape)
        self.elements += math.prod(shape)
        self.stored = min(self.stored + values.size, self.most_stored)
        check_constants(str(self.file), self.elements)
        check_zeros(str(self.file), self.elements, self.stored)
        levels = tree.checked_levels(values.size)
        dense = np.zeros(math.prod(shape), values.dtype)
        if dense.size:
            dense[_places(levels)] = values
        return dense.reshape(shape)


@dataclass(frozen=True)
class _Level:
    """One dimension of the tree.

    Attributes:
        extent: extent of the dimension.
        step: elements between its places in memory.
        below: number of places that each node of the level above has in a sparse level, and the indices of these places.
    """

    extent: int
    step: int
    below: tuple[Array, Array] | None = None


@dataclass(frozen=True)
class _Tree:
    """A tree of indices as a file has it; `what` begins messages."""

    what: str
    shape: tuple[int, ...]
    sparsity: Any

    def checked_levels(self, stored: int) -> list[_Level]:
        """Return the levels. Nothing is computed that is larger than what the file stores.

        Raises:
            UserError: they do not fit the shape, each other, or the number of values.
        """
        nodes, levels = 1, []
        for dimension, extent, step, metadata in self._dimensions():
            if metadata.format == _SPARSE:
                below = self._below(dimension, extent, metadata, nodes)
                nodes = len(below[1])
                levels.append(_Level(extent, step, below))
            elif metadata.format == _DENSE and metadata.denseSize == extent:
                nodes *= extent
                levels.append(_Level(extent, step))
            else:
                found = f"format {shown(metadata.format)}, {shown(metadata.denseSize)} places"
                self._refuse(f"dimension {dimension} of {extent} places described as {found}")
        if nodes != stored:
            self._refuse(f"{stored} values, and indices of {shown(nodes)}")
        return levels

    def _dimensions(self) -> list[tuple[int, int, int, Any]]:
        """Return number, extent, step in memory and metadata of each dimension, in the order of traversal."""
        order, blocked = (_vector(found).tolist() for found in (self.sparsity.traversalOrder, self.sparsity.blockMap))
        metadata, rank, depth = self.sparsity.dimMetadata or [], len(self.shape), len(self.shape) + len(blocked)
        if sorted(order) != list(range(depth)) or sorted(order[:rank]) != list(range(rank)) or len(metadata) != depth:
            self._refuse("dimensions that are not in order")
        if blocked != sorted(set(blocked)) or not all(0 <= dimension < rank for dimension in blocked):
            self._refuse("blocks along dimensions that are not in order")
        extents, steps = list(self.shape), [math.prod(self.shape[dimension + 1 :]) for dimension in range(rank)]
        for number, dimension in enumerate(blocked):
            # LiteRT's runtime looks for the size here; where that is not the block's level, `denseSize` contradicts it below.
            size = int(metadata[order[rank + number]].denseSize)
            if size < 1 or self.shape[dimension] % size:
                self._refuse(f"blocks of {shown(size)} along dimension {dimension}, which has {self.shape[dimension]} places")
            extents.append(size)
            steps.append(steps[dimension])
            extents[dimension] //= size
            steps[dimension] *= size
        return [(dimension, extents[dimension], steps[dimension], level) for dimension, level in zip(order, metadata, strict=True)]

    def _below(self, dimension: int, extent: int, metadata: Any, nodes: int) -> tuple[Array, Array]:
        """Return a sparse level's entries below that many nodes, see `_Level`."""
        along = f"along dimension {dimension}"
        if metadata.arraySegments is None or metadata.arrayIndices is None:
            self._refuse(f"no segments or no indices {along}")
        segments, indices = _vector(metadata.arraySegments.values), _vector(metadata.arrayIndices.values)
        if len(segments) != nodes + 1:
            self._refuse(f"{len(segments)} ends of segments {along}, where it needs {shown(nodes + 1)}")
        counts = np.diff(segments)
        if segments[0] != 0 or segments[-1] != len(indices) or (counts < 0).any():
            self._refuse(f"segments {along} that do not ascend from 0 to the number of its indices, {len(indices)}")
        if (indices < 0).any() or (indices >= extent).any():
            self._refuse(f"an index outside its {extent} places {along}")
        # Indices ascend within a segment: further segments begin behind these all.
        if (np.diff(indices + extent * np.repeat(np.arange(nodes), counts)) <= 0).any():
            self._refuse(f"indices {along} that do not ascend")
        return counts, indices

    def _refuse(self, wrong: str) -> NoReturn:
        raise UserError(f"{self.what} has {wrong}.", "Convert it again, or store this constant with its zeros.")


def _places(levels: list[_Level]) -> Array:
    """Return where each value is in memory."""
    places = np.zeros(1, np.int64)
    for level in levels:
        if level.below is None:
            places = (places[:, None] + level.step * np.arange(level.extent)).reshape(-1)
        else:
            counts, indices = level.below
            places = np.repeat(places, counts) + level.step * indices
    return places


def _vector(found: Any) -> Array:
    return np.zeros(0, np.int64) if found is None else np.asarray(found, np.int64)
