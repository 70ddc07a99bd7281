"""Constants of ONNX files that are stored without their zeros become dense, wherever they are; damaged ones are refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lowered_networks import prepare
from network_files import Array, Graph, convolution, write_model
from onnx import TensorProto, helper, numpy_helper
from own_networks import image_for, load
from small_networks import accepted
from sparse_files import pruned, sparse_onnx

from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.network import read_network
from tvmmobile.networks.own.files import OwnFile
from tvmmobile.networks.own.onnx.sparse import fill_zeros
from tvmmobile.system.errors import UserError
from tvmmobile.tuning.zeros import entries_of, planes_of

FILE = OwnFile(Path("net.onnx"))
WEIGHT = pruned(0, (4, 3, 3, 3))
node = helper.make_node


def model_with(*sparse: Any) -> Any:
    """Return a model of nothing but sparse initializers."""
    return helper.make_model(helper.make_graph([], "graph", [], [], sparse_initializer=sparse))


def changed(path: Path, change: Any) -> Path:
    model = onnx.load(str(path), load_external_data=False)
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


def with_sparse_weights(path: Path, sparse: Any) -> Path:
    """Return a convolution whose weights are a sparse initializer."""
    graph = convolution()

    def change(model: Any) -> None:
        model.graph.sparse_initializer.append(sparse)

    return changed(write_model(path, Graph(graph.nodes, {"b": graph.constants["b"]})), change)


def constant_in(place: str) -> tuple[Graph, dict[str, Any]]:
    """Return a convolution whose weights are in a `Constant` node, and settings of `write_model`."""
    made = convolution()
    inner = [node("Constant", [], ["w"], sparse_value=sparse_onnx(WEIGHT, "values")), *made.nodes]
    if place == "graph":
        return Graph(inner, {"b": made.constants["b"]}), {}
    if place == "branch":
        output = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 8, 8])]
        branch = helper.make_graph(inner, "branch", [], output)
        given = {"b": made.constants["b"], "yes": np.array(True)}
        return Graph([node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)], given), {}
    function = helper.make_function("own", "convolve", ["x", "b"], ["y"], inner, [helper.make_opsetid("", 17)])
    called = Graph([node("convolve", ["x", "b"], ["y"], domain="own")], {"b": made.constants["b"]})
    return called, {"functions": [function], "domains": ("own",)}


@pytest.mark.parametrize("place", ["initializer", "indices in memory", "beside", "graph", "branch", "function"])
def test_a_network_is_the_one_with_dense_weights(tmp_path: Path, place: str) -> None:
    if place in ("graph", "branch", "function"):
        graph, given = constant_in(place)
        path = write_model(tmp_path / "net.onnx", graph, **given)
    else:
        path = with_sparse_weights(tmp_path / "net.onnx", sparse_onnx(WEIGHT, "w", flat=place != "initializer"))
    if place == "beside":
        (tmp_path / "values.bin").write_bytes(WEIGHT[WEIGHT != 0].tobytes())

        def move(model: Any) -> None:
            values = model.graph.sparse_initializer[0].values
            values.ClearField("raw_data")
            values.data_location = TensorProto.EXTERNAL
            values.external_data.add(key="location", value="values.bin")

        changed(path, move)
    dense = write_model(tmp_path / "dense.onnx", Graph(convolution().nodes, {**convolution().constants, "w": WEIGHT}))
    found, wanted = load(path), load(dense)
    image = image_for(wanted)
    assert np.array_equal(found.compute([image])[0], wanted.compute([image])[0])
    assert found.reference_program == wanted.reference_program
    assert found.parameters == (220 if place == "branch" else 112)  # there are two branches
    assert [array.tobytes() for array in _constants(found)] == [array.tobytes() for array in _constants(wanted)]


def test_a_sparse_weight_gets_sparse_kernels(tmp_path: Path) -> None:
    weight = pruned(1, (16, 4, 1, 1))
    graph = convolution([node("Relu", ["c"], ["d"]), node("Conv", ["d", "p"], ["e"]), node("GlobalAveragePool", ["e"], ["y"])])
    path = changed(write_model(tmp_path / "net.onnx", graph), lambda model: model.graph.sparse_initializer.append(sparse_onnx(weight, "p")))
    network = read_network(*prepare(load(path).module, accepted))
    (sparse,) = (layer.sparse for layer in planes_of(network).values() if isinstance(layer, Conv2d) and layer.is_pointwise)
    assert sparse == entries_of(weight.reshape(16, 4).T) and math.prod(sparse) < 32


def _constants(imported: Any) -> list[Array]:
    """Return the constants of a network that Relax has."""
    import tvm

    found: list[Array] = []

    def visit(part: Any) -> None:
        if isinstance(part, tvm.ir.GenericConst):
            found.append(part.value.numpy())

    tvm.relax.analysis.post_order_visit(imported.module["main"], visit)
    assert found
    return found


@settings(max_examples=100, deadline=None)
@given(
    shape=st.lists(st.integers(0, 5), min_size=1, max_size=5),
    dtype=st.sampled_from(["float32", "float16", "float64", "int8", "int32", "bool"]),
    share=st.sampled_from([0, 0.5, 0.9, 1]),
    flat=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_constant(shape: list[int], dtype: str, share: float, flat: bool, seed: int) -> None:
    whole = pruned(seed, shape, dtype, share)
    model = model_with(sparse_onnx(whole, "w", flat))
    fill_zeros(FILE, model)
    (tensor,) = model.graph.initializer
    found = numpy_helper.to_array(tensor)
    assert tensor.name == "w" and not model.graph.sparse_initializer
    assert (found.dtype, found.shape, found.tobytes()) == (whole.dtype, whole.shape, whole.tobytes())


def _with_indices(indices: Any, dtype: Any = np.int64) -> Any:
    """Three values at these indices of a matrix of 4 × 5."""
    values = numpy_helper.from_array(np.ones(3, np.float32), "w")
    return helper.make_sparse_tensor(values, numpy_helper.from_array(np.array(indices, dtype), "places"), [4, 5])


@pytest.mark.parametrize(
    ("sparse", "fault"),
    [
        (_with_indices([1, 2, 20]), "an index outside its shape"),
        (_with_indices([-1, 2, 3]), "an index outside its shape"),
        (_with_indices([[0, 0], [1, 5], [2, 0]]), "an index outside its shape"),
        (_with_indices([[0, 0], [1, -1], [2, 0]]), "an index outside its shape"),
        (_with_indices([1, 3, 2]), "indices that do not ascend"),
        (_with_indices([1, 2, 2]), "indices that do not ascend"),
        (_with_indices([[0, 1], [0, 1], [2, 0]]), "indices that do not ascend"),
        (_with_indices([[1, 1], [1, 0], [2, 0]]), "indices that do not ascend"),
        (_with_indices([1, 2]), "3 values and indices of shape (2,)"),
        (_with_indices([1, 2, 3, 4]), "3 values and indices of shape (4,)"),
        (_with_indices([[1], [2], [3]]), "3 values and indices of shape (3, 1)"),
        (_with_indices([[1, 2, 3]] * 3), "3 values and indices of shape (3, 3)"),
        (_with_indices([1, 2, 3], np.int32), "indices that are no 64-bit integers"),
    ],
)
def test_indices_that_do_not_fit(tmp_path: Path, sparse: Any, fault: str) -> None:
    with pytest.raises(UserError) as raised:
        load(with_sparse_weights(tmp_path / "net.onnx", sparse))
    assert "net.onnx: the sparse constant 'w' has" in str(raised.value) and fault in str(raised.value)
    assert raised.value.remedy.startswith("Export it again")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda sparse: sparse.values.ClearField("raw_data"), "is not a valid ONNX model"),
        (lambda sparse: sparse.indices.ClearField("raw_data"), "is not a valid ONNX model"),
        (lambda sparse: sparse.ClearField("dims"), "0 dimensions"),
        (lambda sparse: sparse.ClearField("values"), "has element type 0"),
        (lambda sparse: sparse.dims.__setitem__(0, -4), "the sparse constant 'w' has a negative extent"),
        (lambda sparse: sparse.dims.__setitem__(0, 1 << 62), "the sparse constant 'w' is a huge number×5: more than 536,870,912 numbers"),
        (lambda sparse: sparse.dims.__setitem__(0, 5 * 10**9), "the sparse constant 'w' is 5000000000×5: more than 536,870,912 numbers"),
        (
            lambda sparse: sparse.dims.__setitem__(0, 10**8),
            "has 500000000 numbers in sparse constants, of which it stores 3: too many zeros",
        ),
    ],
)
def test_sparse_constants_that_are_damaged(tmp_path: Path, change: Any, message: str) -> None:
    sparse = _with_indices([1, 2, 3])
    change(sparse)
    with pytest.raises(UserError) as raised:
        load(with_sparse_weights(tmp_path / "net.onnx", sparse))
    assert message in str(raised.value)


def test_zeros_in_a_branch_that_may_be_copied_are_fewer(tmp_path: Path) -> None:
    """A body of 40 KB stands for a thousand times as much after a loop of 10,000 iterations is unrolled."""
    graph, _ = constant_in("branch")
    path = write_model(tmp_path / "net.onnx", graph)

    def change(model: Any) -> None:
        for attribute in model.graph.node[0].attribute:
            attribute.g.node[0].attribute[0].sparse_tensor.dims[:] = [4, 3, 3, 1 << 16]

    with pytest.raises(UserError, match="too many zeros"):
        load(changed(path, change))


def test_values_that_are_text(tmp_path: Path) -> None:
    text = helper.make_tensor("w", TensorProto.STRING, [1], [b"a"])
    sparse = helper.make_sparse_tensor(text, numpy_helper.from_array(np.zeros(1, np.int64), "places"), [4])
    with pytest.raises(UserError, match="values that are no numbers"):
        load(with_sparse_weights(tmp_path / "net.onnx", sparse))
