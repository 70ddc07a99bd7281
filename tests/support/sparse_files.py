"""Constants as LiteRT and ONNX files store them without their zeros."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from litert_files import Array, LiteRtFile, schema
from onnx import helper, numpy_helper


def pruned(seed: int, shape: Sequence[int] = (8, 12), dtype: Any = np.float32, share: float = 0.8) -> Array:
    """Numbers of which about that share is zero."""
    random = np.random.default_rng(seed)
    numbers = random.integers(-127, 128, shape) if np.dtype(dtype).kind == "i" else random.standard_normal(shape)
    return np.where(random.uniform(size=shape) >= share, numbers, 0).astype(dtype)


def sparse_onnx(whole: Array, name: str, flat: bool = False) -> Any:
    """Return a `SparseTensorProto`, with an index of each element or (`flat`) one in the order of memory."""
    places = np.flatnonzero(whole) if flat else np.argwhere(whole)
    values = numpy_helper.from_array(whole[whole != 0], name)
    return helper.make_sparse_tensor(values, numpy_helper.from_array(places.astype(np.int64), "places"), whole.shape)


def sparse_litert(
    whole: Array, order: Sequence[int], blocks: Mapping[int, int], sparse: Sequence[bool], kinds: tuple[str, str] = ("Int32", "Int32")
) -> tuple[Array, Any]:
    """The numbers of a constant and its `SparsityParametersT`: a tree with a level for each dimension of `order`, some of them sparse.

    Args:
        blocks: sizes of blocks by dimension, which ascend.
        kinds: types of the vectors of segments and of indices.
    """
    made, rank, blocked = schema(), whole.ndim, list(blocks)
    # A view with a dimension for each of the tree: the blocks' are split off, and come last.
    split = whole.reshape([part for axis, size in enumerate(whole.shape) for part in (size // blocks.get(axis, 1), blocks.get(axis, 1))])
    view = split.transpose([*range(0, 2 * rank, 2), *range(1, 2 * rank, 2)])
    view = view.reshape([*view.shape[:rank], *blocks.values()]).transpose(order)
    parameters = made.SparsityParametersT()
    parameters.traversalOrder, parameters.blockMap, parameters.dimMetadata = list(order), blocked, []
    nodes: list[tuple[int, ...]] = [()]
    for level, few in enumerate(sparse):
        metadata = made.DimensionMetadataT()
        below = [[(*node, place) for place in range(view.shape[level])] for node in nodes]
        metadata.denseSize = 0 if few and order[level] < rank else view.shape[level]
        if few:
            below = [[node for node in found if view[node].any()] for found in below]
            metadata.format = 1
            segments, indices = np.cumsum([0, *map(len, below)]), [node[-1] for found in below for node in found]
            for field, kind, numbers in (("Segments", kinds[0], segments), ("Indices", kinds[1], indices)):
                vector = getattr(made, f"{kind}VectorT")()
                vector.values = np.array(numbers, kind.lower())
                setattr(metadata, f"array{field}Type", getattr(made.SparseIndexVector, f"{kind}Vector"))
                setattr(metadata, f"array{field}", vector)
        parameters.dimMetadata.append(metadata)
        nodes = [node for found in below for node in found]
    return np.array([view[node] for node in nodes], whole.dtype), parameters


def sparse_file(
    whole: Array, order: Sequence[int], blocks: Mapping[int, int], sparse: Sequence[bool], kinds: tuple[str, str] = ("Int32", "Int32")
) -> tuple[LiteRtFile, bytes]:
    """Return a network that multiplies rows by a matrix `[outputs, inputs]` that is stored without zeros, in float32, float16 or int8."""
    values, parameters = sparse_litert(whole, order, blocks, sparse, kinds)
    dtype = str(whole.dtype)
    scale = 0.05 if dtype == "int8" else None
    file: Any = LiteRtFile()
    data, out = (file.tensor((2, size), "int8" if scale else "float32", None, scale) for size in reversed(whole.shape))
    weight, dense = file.tensor(whole.shape, dtype, values, scale), file.tensor(whole.shape, dtype, None, scale)
    file.graph.tensors[weight].sparsity = parameters
    file.operator("DENSIFY", [weight], [dense], "DensifyOptions")
    if dtype == "float16":
        half, dense = dense, file.tensor(whole.shape)
        file.operator("DEQUANTIZE", [half], [dense], "DequantizeOptions")
    file.operator("FULLY_CONNECTED", [data, dense, -1], [out], "FullyConnectedOptions")
    return file, file.ends([data], [out])
