"""Constants of LiteRT files that are stored without their zeros are whole again, as LiteRT's own runtime has them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from litert_files import FILE, Array, LiteRtFile, agrees
from lowered_networks import prepare
from own_networks import load
from small_networks import accepted
from sparse_files import pruned, sparse_file, sparse_litert

from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.network import read_network
from tvmmobile.networks.own.litert.reader import read_litert
from tvmmobile.networks.own.litert.sparse import SparseConstants
from tvmmobile.system.errors import UserError
from tvmmobile.tuning.zeros import entries_of, planes_of


def same_bits(found: Array | None, wanted: Array) -> bool:
    return found is not None and found.dtype == wanted.dtype and found.shape == wanted.shape and found.tobytes() == wanted.tobytes()


def _densified(file: LiteRtFile, content: bytes) -> Array:
    """Return the weights as LiteRT's own `DENSIFY` computes them."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=resolver, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    interpreter.invoke()
    found: Array = interpreter.get_tensor(file.graph.operators[0].outputs[0])
    return found


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize(
    ("order", "blocks", "sparse"),
    [
        ((0, 1), {}, (False, True)),
        ((1, 0), {}, (False, True)),
        ((0, 1, 2), {1: 4}, (False, True, False)),
        ((0, 1, 2, 3), {0: 4, 1: 2}, (False, True, False, False)),
        ((1, 0, 3, 2), {0: 4, 1: 2}, (False, True, False, False)),
    ],
    ids=str,
)
def test_pruned_weights_are_whole_again(order: tuple[int, ...], blocks: dict[int, int], sparse: tuple[bool, ...], dtype: str) -> None:
    for seed in range(3):
        whole = pruned(seed, dtype=dtype)
        file, content = sparse_file(whole, order, blocks, sparse)
        stored = next(number for number, tensor in enumerate(file.graph.tensors) if tensor.sparsity is not None)
        assert same_bits(read_litert(FILE, content).tensors[stored].value, whole)
        assert same_bits(_densified(file, content), whole)
        if dtype != "int8":  # XNNPACK refuses integer weights that an operator makes
            agrees(content, [np.random.default_rng(seed).standard_normal((2, 12), np.float32)])


def test_a_sparse_weight_gets_sparse_kernels(tmp_path: Path) -> None:
    """In float16, as published networks have them: zeros are filled in, then the numbers become float32."""
    whole = pruned(1, (16, 1, 1, 8), "float16")
    values, parameters = sparse_litert(whole, (0, 1, 2, 3), {}, (False, False, False, True), ("Uint16", "Uint8"))
    file: Any = LiteRtFile()
    data, out = file.tensor((1, 6, 6, 8)), file.tensor((1, 6, 6, 16))
    stored, half, weight = file.tensor(whole.shape, "float16", values), file.tensor(whole.shape, "float16"), file.tensor(whole.shape)
    file.graph.tensors[stored].sparsity = parameters
    file.operator("DENSIFY", [stored], [half], "DensifyOptions")
    file.operator("DEQUANTIZE", [half], [weight], "DequantizeOptions")
    file.operator("CONV_2D", [data, weight, -1], [out], "Conv2DOptions", strideH=1, strideW=1)
    path = tmp_path / "net.tflite"
    path.write_bytes(file.ends([data], [out]))
    network = read_network(*prepare(load(path).module, accepted))
    (layer,) = (layer for layer in planes_of(network).values() if isinstance(layer, Conv2d))
    assert layer.sparse == entries_of(whole.reshape(16, 8).T) and math.prod(layer.sparse) < 64


@st.composite
def trees(draw: Any) -> tuple[Array, tuple[int, ...], dict[int, int], list[bool], tuple[str, str]]:
    """Return a constant, and any way to store it."""
    rank = draw(st.integers(1, 4))
    blocks = {axis: size for axis in range(rank) if (size := draw(st.sampled_from([0, 0, 1, 2, 4])))}
    shape = [draw(st.integers(1, 3)) * blocks.get(axis, 1) for axis in range(rank)]
    inner = list(range(rank, rank + len(blocks)))  # LiteRT takes the sizes of blocks in another order for those of others
    order = (*draw(st.permutations(range(rank))), *(reversed(inner) if draw(st.booleans()) else inner))
    sparse = draw(st.lists(st.booleans(), min_size=len(order), max_size=len(order)))
    kinds = draw(st.tuples(st.sampled_from(["Int32", "Uint16"]), st.sampled_from(["Int32", "Uint16", "Uint8"])))
    whole = pruned(
        draw(st.integers(0, 99)), shape, draw(st.sampled_from(["float32", "float16", "int8"])), draw(st.sampled_from([0.5, 0.9, 1]))
    )
    return whole, order, blocks, sparse, kinds


@settings(max_examples=150, deadline=None)
@given(trees())
def test_any_tree(tree: tuple[Array, tuple[int, ...], dict[int, int], list[bool], tuple[str, str]]) -> None:
    values, parameters = sparse_litert(*tree)
    file: Any = LiteRtFile()
    number = file.tensor(tree[0].shape, str(tree[0].dtype), values)
    file.graph.tensors[number].sparsity = parameters
    assert same_bits(read_litert(FILE, file.ends([number], [number])).tensors[number].value, tree[0])


def _set(holder: Any, name: str, value: Any) -> None:
    setattr(holder, name, value)


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda tree, _rows, _columns: _set(tree, "traversalOrder", [0, 2]), "dimensions that are not in order"),
        (lambda tree, _rows, _columns: _set(tree, "traversalOrder", [0, 0]), "dimensions that are not in order"),
        (lambda tree, _rows, _columns: _set(tree, "dimMetadata", tree.dimMetadata[:1]), "dimensions that are not in order"),
        (lambda tree, _rows, _columns: _set(tree, "dimMetadata", None), "dimensions that are not in order"),
        (lambda _tree, _rows, columns: columns.arraySegments.values.__setitem__(3, 99), "segments along dimension 1 that do not ascend"),
        (lambda _tree, _rows, columns: columns.arraySegments.values.__setitem__(0, 1), "segments along dimension 1 that do not ascend"),
        (lambda _tree, _rows, columns: columns.arraySegments.values.__setitem__(-1, 99), "segments along dimension 1 that do not ascend"),
        (lambda _tree, _rows, columns: columns.arraySegments.values.__setitem__(-1, 3), "segments along dimension 1 that do not ascend"),
        (lambda _tree, _rows, columns: _set(columns.arraySegments, "values", [0, 3]), "2 ends of segments along dimension 1"),
        (lambda _tree, _rows, columns: _set(columns.arraySegments, "values", None), "0 ends of segments along dimension 1"),
        (lambda _tree, _rows, columns: _set(columns, "arraySegmentsType", 0), "no segments or no indices along dimension 1"),
        (lambda _tree, _rows, columns: columns.arrayIndices.values.__setitem__(0, 12), "an index outside its 12 places along dimension 1"),
        (lambda _tree, _rows, columns: columns.arrayIndices.values.__setitem__(0, -1), "an index outside its 12 places along dimension 1"),
        (lambda _tree, _rows, columns: columns.arrayIndices.values.__setitem__(1, 0), "indices along dimension 1 that do not ascend"),
        (
            lambda _tree, rows, _columns: _set(rows, "denseSize", 1 << 30),
            "dimension 0 of 8 places described as format 0, 1073741824 places",
        ),
        (lambda _tree, rows, _columns: _set(rows, "format", 7), "dimension 0 of 8 places described as format 7"),
        (lambda _tree, _rows, columns: _set(columns, "format", 0), "dimension 1 of 12 places described as format 0, 0 places"),
    ],
)
def test_a_tree_that_does_not_fit(damage: Any, fault: str) -> None:
    file, _ = sparse_file(pruned(0), (0, 1), {}, (False, True))
    tensor = next(one for one in file.graph.tensors if one.sparsity is not None)
    damage(tensor.sparsity, *tensor.sparsity.dimMetadata)
    with pytest.raises(UserError, match=rf"net.tflite: the sparse constant '{tensor.name}' has {fault}.*\n.*Convert it again"):
        read_litert(FILE, file.ends(file.graph.inputs, file.graph.outputs))


@pytest.mark.parametrize(
    ("size", "blocked", "message"),
    [
        (5, [1], "blocks of 5 along dimension 1, which has 12 places"),
        (0, [1], "blocks of 0 along dimension 1"),
        (4, [2], "blocks along dimensions that are not in order"),
        (4, [-1], "blocks along dimensions that are not in order"),
    ],
)
def test_blocks_that_do_not_fit(size: int, blocked: list[int], message: str) -> None:
    file, _ = sparse_file(pruned(0), (0, 1, 2), {1: 4}, (False, True, False))
    tensor = next(one for one in file.graph.tensors if one.sparsity is not None)
    tensor.sparsity.dimMetadata[2].denseSize, tensor.sparsity.blockMap = size, blocked
    with pytest.raises(UserError, match=message):
        read_litert(FILE, file.ends(file.graph.inputs, file.graph.outputs))


@pytest.mark.parametrize("more", [1, -1])
def test_more_or_fewer_values_than_indices(more: int) -> None:
    whole = pruned(0)
    values, parameters = sparse_litert(whole, (0, 1), {}, (False, True))
    with pytest.raises(UserError, match=f"{values.size + more} values, and indices of {values.size}"):
        SparseConstants(FILE, 1000).with_zeros("w", np.resize(values, values.size + more), whole.shape, parameters)


def test_zeros_that_fill_memory() -> None:
    """A file of a few hundred bytes, whose constants have 10 million elements each; each is accepted, but not any number of them."""
    file: Any = LiteRtFile()
    file.tensor((1,))
    for _ in range(9):
        values, parameters = sparse_litert(np.zeros((2, 1), np.float32), (0, 1), {}, (True, True))
        number = file.tensor((10**7, 1), value=values)
        file.graph.tensors[number].sparsity = parameters
        rows = parameters.dimMetadata[0]
        rows.arraySegments.values = np.array([0, 0], np.int32)
    with pytest.raises(UserError, match=r"net.tflite has 70000000 numbers in sparse constants, of which it stores 0: too many zeros"):
        read_litert(FILE, file.ends([0], [0]))
    for tensor in file.graph.tensors[1:]:
        tensor.shape = [1 << 20, 1 << 20]
    with pytest.raises(UserError, match="more than 536,870,912 numbers"):
        read_litert(FILE, file.ends([0], [0]))
