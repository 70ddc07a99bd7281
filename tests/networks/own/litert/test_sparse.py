"""Constants of LiteRT files that are stored without their zeros are whole again, as LiteRT's own runtime has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from litert_files import FILE, Array, LiteRtFile, agrees, schema

from tvmmobile.networks.own.litert.reader import read_litert
from tvmmobile.system.errors import UserError


def stored(whole: Array, order: Sequence[int], blocked: Sequence[int], block: int, sparse: Sequence[bool]) -> tuple[list[Any], Any]:
    """The numbers of a constant and its `SparsityParametersT`: a tree with a level for each dimension of `order`, some of them sparse."""
    made, rank = schema(), whole.ndim
    extents = [size // block if axis in blocked else size for axis, size in enumerate(whole.shape)] + [block] * len(blocked)

    def number(path: dict[int, int]) -> Any:
        return whole[
            tuple(path[axis] * block + path[rank + blocked.index(axis)] if axis in blocked else path[axis] for axis in range(rank))
        ]

    def leaves(path: dict[int, int], level: int) -> list[Any]:
        if level == len(order):
            return [number(path)]
        return [value for place in range(extents[order[level]]) for value in leaves(path | {order[level]: place}, level + 1)]

    nodes: list[dict[int, int]] = [{}]
    parameters = made.SparsityParametersT()
    parameters.traversalOrder, parameters.blockMap, parameters.dimMetadata = list(order), list(blocked), []
    for level, (axis, few) in enumerate(zip(order, sparse, strict=True)):
        metadata, below = made.DimensionMetadataT(), [[node | {axis: place} for place in range(extents[axis])] for node in nodes]
        metadata.denseSize = extents[axis]
        if few:
            below = [[node for node in found if any(leaves(node, level + 1))] for found in below]
            metadata.format = 1
            for name, values in (
                ("Segments", np.cumsum([0, *map(len, below)])),
                ("Indices", [node[axis] for found in below for node in found]),
            ):
                vector = made.Int32VectorT()
                vector.values = np.array(values, np.int32)
                setattr(metadata, f"array{name}Type", made.SparseIndexVector.Int32Vector)
                setattr(metadata, f"array{name}", vector)
        parameters.dimMetadata.append(metadata)
        nodes = [node for found in below for node in found]
    return [number(node) for node in nodes], parameters


def sparse_file(whole: Array, order: Sequence[int], blocked: Sequence[int], block: int, sparse: Sequence[bool]) -> tuple[LiteRtFile, bytes]:
    """A network that multiplies rows by a matrix `[outputs, inputs]` that is stored without zeros."""
    values, parameters = stored(whole, order, blocked, block, sparse)
    file: Any = LiteRtFile()
    data, weight = file.tensor((2, whole.shape[1])), file.tensor(whole.shape, value=np.array(values))
    file.graph.tensors[weight].sparsity = parameters
    dense, out = file.tensor(whole.shape), file.tensor((2, whole.shape[0]))
    file.operator("DENSIFY", [weight], [dense], "DensifyOptions")
    file.operator("FULLY_CONNECTED", [data, dense, -1], [out], "FullyConnectedOptions")
    return file, file.ends([data], [out])


def pruned(seed: int, shape: tuple[int, int] = (8, 12)) -> Array:
    random = np.random.default_rng(seed)
    return (random.standard_normal(shape) * (random.uniform(size=shape) < 0.2)).astype(np.float32)


@pytest.mark.parametrize(
    ("order", "blocked", "sparse"),
    [
        ((0, 1), (), (False, True)),
        ((1, 0), (), (False, True)),
        ((0, 1, 2), (1,), (False, True, False)),
        ((0, 1, 2, 3), (0, 1), (False, True, False, False)),
        ((1, 0, 3, 2), (0, 1), (False, True, False, False)),
    ],
    ids=str,
)
def test_pruned_weights_are_whole_again(order: tuple[int, ...], blocked: tuple[int, ...], sparse: tuple[bool, ...]) -> None:
    for seed in range(3):
        whole = pruned(seed)
        _, content = sparse_file(whole, order, blocked, 4, sparse)
        network = read_litert(FILE, content)
        assert np.array_equal(network.tensors[1].value, whole)
        agrees(content, [np.random.default_rng(seed).standard_normal((2, 12), np.float32)])


@pytest.mark.parametrize("fault", ["order", "segments", "indices", "values", "bomb"])
def test_a_tree_that_does_not_fit_is_a_damaged_file(fault: str) -> None:
    file, _ = sparse_file(pruned(0), (0, 1), (), 1, (False, True))
    parameters = file.graph.tensors[1].sparsity
    rows, columns = parameters.dimMetadata
    if fault == "order":
        parameters.traversalOrder = [0, 2]
    elif fault == "segments":
        columns.arraySegments.values[3] += 50
    elif fault == "indices":
        columns.arrayIndices.values[0] = 12
    elif fault == "values":
        columns.arraySegments.values[-1] -= 1
    else:
        rows.denseSize = 1 << 30
    with pytest.raises(UserError, match="is damaged or not a LiteRT file"):
        read_litert(FILE, file.ends(file.graph.inputs, file.graph.outputs))
