"""Networks from ONNX files, and one sentence for whatever is wrong with them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from network_files import (
    Graph,
    convolution,
    with_data_beside,
    write_model,
)
from onnx import TensorProto, helper
from own_networks import TOLERANCE, Files, error_of, image_for, load, names_of
from quantised_files import run_onnxruntime

from tvmmobile.networks.models.spec import OwnSpec
from tvmmobile.networks.own.files import OwnFile, own_file
from tvmmobile.networks.own.loading import load_again, load_own
from tvmmobile.system.errors import UserError


def node(operator: str, inputs: Sequence[str], output: str = "y", **attributes: Any) -> Any:
    return helper.make_node(operator, list(inputs), [output], **attributes)


@pytest.mark.parametrize(
    ("graph", "settings", "complaint"),
    [
        (convolution(), {"shape": (1, "channels", 8, 8)}, r"dimension 1 of the input 'x' is dynamic \(channels\)"),
        (convolution(), {"shape": (1, 3, None, 8)}, "dimension 2 of the input 'x' is dynamic, and"),
        (convolution(), {"opset": 999}, r"opset 999; onnx \S+ knows up to \d+"),
        (convolution(), {"ir_version": 99}, r"IR version 99; onnx \S+ knows up to \d+"),
        (
            convolution([node("Bernoulli", "c", "d"), node("Det", "d", "e"), node("Mine", "e", domain="own.ops")]),
            {"domains": ("own.ops",)},
            r"operators that cannot be imported: Bernoulli, Det, own\.ops\.Mine",
        ),
        (
            Graph(
                convolution([helper.make_node("Slice", ["c", "one", "two", "one"], ["y"])]).nodes,
                {**convolution().constants, "one": np.array(1), "two": np.array([2])},
            ),
            {},
            r"Slice \(node 'y', opset 17\) has the scalar 'one' as a bound, axis or step, where ONNX has lists",
        ),
        (convolution([node("Relu", "q")]), {}, "is not a valid ONNX model"),
        (Graph([node("Relu", "x")], {}), {}, "has no convolution or matrix product with weights"),
    ],
    ids=["channels", "height", "opset", "IR version", "operators", "scalar bounds", "unsound", "no layer"],
)
def test_an_onnx_model_that_will_not_do(tmp_path: Path, graph: Graph, settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        load(write_model(tmp_path / "net.onnx", graph, **settings))
    assert "\n" not in caught.value.message and caught.value.remedy


@pytest.mark.parametrize(("side", "size"), [(8, (8, 8)), ((6, 10), (6, 10))])
def test_dynamic_dimensions_of_an_image_are_given(tmp_path: Path, side: int | tuple[int, int], size: tuple[int, int]) -> None:
    """A batch of 1, and the resolution that is asked for."""
    own = own_file(str(write_model(tmp_path / "net.onnx", convolution(), ("batch", 3, "height", None))))
    assert own is not None
    imported = load_own(own, side, None, 0)
    assert imported.spec.input_shape == (1, 3, *size) and imported.spec.output_shape == (1, 4, *size)


def test_a_dynamic_batch_is_given(tmp_path: Path) -> None:
    own = own_file(str(write_model(tmp_path / "net.onnx", convolution(), ("batch", 3, 8, 8))))
    assert own is not None
    imported = load_own(own, None, None, 0, batch=3)
    assert imported.spec.variant == "net_1.0_b3_8" and imported.spec.output_shape == (3, 4, 8, 8)
    assert load_again(own, imported.spec, None, 0).spec == imported.spec
    fixed = own_file(str(write_model(tmp_path / "net.onnx", convolution())))
    assert fixed is not None
    with pytest.raises(UserError, match=r"net\.onnx takes only a batch of 1, not 3"):
        load_own(fixed, None, None, 0, batch=3)


def test_an_onnx_model_of_another_dtype(tmp_path: Path) -> None:
    made = convolution()
    nodes = [node("Cast", "x", "real", to=TensorProto.FLOAT), helper.make_node("Conv", ["real", "w", "b"], ["y"], pads=[1, 1, 1, 1])]
    path = write_model(tmp_path / "net.onnx", Graph(nodes, made.constants), types={"x": TensorProto.BOOL})
    with pytest.raises(UserError, match=r"the input 'x' \(of Cast\) is bool, not one of float32, uint8"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"not a model, but text", None])
def test_a_torn_onnx_model(files: Files, tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / "net.onnx").write_bytes(files.onnx.read_bytes()[:2000] if content is None else content)
    with pytest.raises(UserError, match=r"net\.onnx is damaged or not an ONNX file"):
        load(tmp_path / "net.onnx")


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("axis", [None, 2])
def test_softmax_of_older_versions_is_along_all_axes_from_one_on(tmp_path: Path, operator: str, axis: int | None) -> None:
    """ONNX Runtime says what is right; kernels and the reference both agree with it."""
    after = helper.make_node(operator, ["c"], ["y"], **({} if axis is None else {"axis": axis}))
    path = write_model(tmp_path / "net.onnx", convolution([after]), opset=11)
    imported = load(path)
    image = image_for(imported)
    np.testing.assert_allclose(imported.compute([image])[0], run_onnxruntime(path, image), rtol=1e-4, atol=1e-6)
    assert error_of(imported, tmp_path / "net.so") <= TOLERANCE


def test_weights_beside_an_onnx_model(tmp_path: Path) -> None:
    path = write_model(tmp_path / "net.onnx", convolution())
    whole = load(path)
    apart = load(with_data_beside(path))
    image = image_for(whole)
    assert np.array_equal(whole.compute([image])[0], apart.compute([image])[0]) and names_of(whole) == names_of(apart)
    (tmp_path / "weights.bin").write_bytes((tmp_path / "weights.bin").read_bytes()[::-1])
    changed = load(path)
    assert isinstance(apart.spec, OwnSpec) and isinstance(changed.spec, OwnSpec) and apart.spec.contents != changed.spec.contents
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(UserError, match=r"the data of w in weights\.bin cannot be read"):
        load(path)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "sub/../../weights.bin", ""])
def test_weights_elsewhere_are_not_read(tmp_path: Path, location: str) -> None:
    import onnx

    path = with_data_beside(write_model(tmp_path / "net.onnx", convolution()))
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        next(entry for entry in tensor.external_data if entry.key == "location").value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="which is not in the same folder"):
        load(path)


@pytest.mark.parametrize("linked", ["both", "weights", "hard"])
def test_weights_behind_a_link_to_the_same_folder_are_read(tmp_path: Path, linked: str) -> None:
    """Caches of downloads keep all files of all versions in one folder, and link to them."""
    (folder := tmp_path / "snapshot").mkdir()
    path = with_data_beside(write_model(folder / "net.onnx", convolution()))
    whole = load(path)
    store = tmp_path if linked == "both" else folder
    for number, name in enumerate(("weights.bin", "net.onnx") if linked == "both" else ("weights.bin",)):
        if linked == "hard":
            (folder / "same").hardlink_to(folder / name)
        else:
            (folder / name).rename(store / f"blob{number}")
            (folder / name).symlink_to(f"../blob{number}" if linked == "both" else f"blob{number}")
    assert np.array_equal(load(path).compute([image_for(whole)])[0], whole.compute([image_for(whole)])[0])


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ({"offset": "-4"}, r"its offset is '-4', not a number of bytes"),
        ({"length": "many"}, r"its length is 'many', not a number of bytes"),
        ({"length": "3"}, r"3 bytes are given, and its shape needs 432"),
        ({"offset": "1000"}, r"the file ends at byte 448, and they at byte 1,432"),
    ],
)
def test_places_of_weights_that_are_none(tmp_path: Path, entries: dict[str, str], complaint: str) -> None:
    path = with_data_beside(write_model(tmp_path / "net.onnx", convolution()))
    model = onnx.load(str(path), load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        entry.value = entries.get(entry.key, entry.value)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match=r"the data of w in weights\.bin cannot be read: " + complaint) as caught:
        load(path)
    assert "Error" not in caught.value.message and caught.value.remedy


def test_weights_without_a_place_begin_the_file(tmp_path: Path) -> None:
    path = with_data_beside(write_model(tmp_path / "net.onnx", convolution()))
    whole, model = load(path), onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer[:1]:
        del tensor.external_data[1:]
    path.write_bytes(model.SerializeToString())
    assert np.array_equal(load(path).compute([image_for(whole)])[0], whole.compute([image_for(whole)])[0])


def test_weights_behind_a_link_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = with_data_beside(write_model(folder / "net.onnx", convolution()))
    (folder / "weights.bin").rename(tmp_path / "weights.bin")
    (folder / "weights.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(UserError, match=r"the data of w in weights\.bin cannot be read"):
        load(path)


_BOUNDS = {"low": np.float32(0), "high": np.float32(6)}


@pytest.mark.parametrize(
    ("after", "clamp"),
    [
        ([node("Clip", ["c", "low", "high"])], "relu6"),
        ([node("Clip", ["c", "low"])], "relu"),
        ([node("Clip", ["c", "", "high"])], "linear"),
        ([node("Max", ["c", "low"], "d"), node("Min", ["d", "high"])], "relu6"),
        ([node("HardSwish", "c")], "hswish"),
        ([node("HardSigmoid", "c", alpha=1 / 6, beta=0.5)], "hsigmoid"),
        ([node("HardSigmoid", "c", "d", alpha=1 / 6, beta=0.5), node("Mul", "cd")], "hswish"),
        ([node("HardSigmoid", "c")], "clamp0_1"),
    ],
    ids=["both", "lower", "upper", "max and min", "hswish", "hsigmoid", "hswish of two", "another hsigmoid"],
)
def test_activations_of_onnx(tmp_path: Path, after: list[Any], clamp: str) -> None:
    graph = convolution(after)
    imported = load(write_model(tmp_path / "net.onnx", Graph(graph.nodes, {**graph.constants, **_BOUNDS})))
    assert names_of(imported)[0].endswith(f"_{clamp}")
    assert error_of(imported, tmp_path / "net.so") <= TOLERANCE


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
@pytest.mark.parametrize("side", [7, 8])
def test_padding_that_onnx_leaves_to_the_reader(tmp_path: Path, mode: str, side: int) -> None:
    graph = convolution(attributes={"auto_pad": mode, "strides": [2, 2], "kernel_shape": [3, 3]})
    imported = load(write_model(tmp_path / "net.onnx", graph, (1, 3, side, side)))
    assert names_of(imported)[0].startswith("conv_") and not any("pad" in name for name in names_of(imported))
    assert error_of(imported, tmp_path / "net.so") <= TOLERANCE


@pytest.mark.parametrize("fault", ["order", "shape", "type", "version"])
def test_what_onnx_runtime_takes_and_the_checker_refuses(tmp_path: Path, fault: str) -> None:
    """Nodes in any order, outputs without a shape or type, and constants that are not inputs as in version 3 of the format."""
    path = write_model(tmp_path / "net.onnx", convolution([node("Relu", "c", "r"), node("Sigmoid", "r")]), opset=9)
    whole, model = load(path), onnx.load(str(path))
    nodes = [copy.deepcopy(one) for one in reversed(model.graph.node)]
    if fault == "order":
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    elif fault == "version":
        model.ir_version = 3
    else:
        model.graph.output[0].type.tensor_type.ClearField("shape")
        if fault == "type":
            model.graph.output[0].ClearField("type")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(model)
    found = load(path)
    assert found.spec.output_shape == whole.spec.output_shape
    assert np.array_equal(found.compute([image_for(whole)])[0], whole.compute([image_for(whole)])[0])


def test_nodes_in_a_circle(tmp_path: Path) -> None:
    graph = convolution([helper.make_node("Add", ["c", "p"], ["y"]), node("Relu", "q", "p"), node("Relu", "p", "q")])
    with pytest.raises(UserError, match="must be topologically sorted"):
        load(write_model(tmp_path / "net.onnx", graph))


def test_an_input_without_a_shape(tmp_path: Path) -> None:
    path = write_model(tmp_path / "net.onnx", convolution())
    model = onnx.load(str(path))
    model.graph.input[0].type.tensor_type.ClearField("shape")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="the input 'x' has no shape") as caught:
        load(path)
    assert "x=1x3x224x224" in caught.value.remedy
    assert load_own(OwnFile(path, shapes=(("x", (1, 3, 5, 6)),)), None, None, 0).spec.output_shape == (1, 4, 5, 6)


def test_text(tmp_path: Path) -> None:
    """Text that is only compared is supported; text inputs and outputs are refused."""
    names = {"names": np.array(["cat", "dog", "cow", "hen"], object), "one": np.array(["cat"], object)}
    unread = [node("Equal", ["names", "one"], "same"), helper.make_node("Where", ["same", "c", "c"], ["y"])]
    graph = convolution(unread)
    constants = {**graph.constants, "rows": np.array([4, 1, 1])}
    unread.insert(1, node("Reshape", ["same", "rows"], "rows4"))
    unread[-1].input[0] = "rows4"
    for labels in (False, True):
        more = [node("ArgMax", "c", "i", axis=1), node("Gather", ["names", "i"], "label")] if labels else []
        graph = convolution([*unread, *more])
        settings = {"outputs": ["label"], "types": {"label": TensorProto.STRING}} if labels else {}
        path = write_model(tmp_path / "net.onnx", Graph(graph.nodes, {**constants, **names}), opset=19, **settings)
        if labels:
            with pytest.raises(UserError, match=r"the tensor 'label' \(of Gather\) is string, which no kernel has"):
                load(path)
        else:
            assert error_of(load(path), tmp_path / "net.so") <= TOLERANCE
    path = write_model(tmp_path / "net.onnx", convolution(), inputs=["t"], types={"t": TensorProto.STRING})
    with pytest.raises(UserError, match="the tensor 't' is string, which no kernel has"):
        load(path)


def test_an_output_that_is_a_sequence(tmp_path: Path) -> None:
    path = write_model(tmp_path / "net.onnx", convolution([node("SplitToSequence", "c", axis=1)]))
    model = onnx.load(str(path))
    model.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="'y' is a sequence, not a tensor"):
        load(path)


def test_an_extent_of_0_is_dynamic(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dimension 1 of the input 'x' is dynamic \(0 in the file\), and"):
        load(write_model(tmp_path / "net.onnx", convolution(), (1, 0, 8, 8)))


@pytest.mark.parametrize("opset", [17, 14])
def test_functions_of_an_onnx_model_are_inlined(tmp_path: Path, opset: int) -> None:
    """Also those of another version, whose operators are the same."""
    opsets = [helper.make_opsetid("", opset)]
    double = helper.make_function("own", "Double", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], opsets)
    path = write_model(tmp_path / "net.onnx", convolution([node("Double", "c", domain="own")]), domains=("own",), functions=(double,))
    assert error_of(load(path), tmp_path / "net.so") <= TOLERANCE


def test_an_image_that_is_declared_a_number(tmp_path: Path) -> None:
    """Files of Paddle's exporter say that an output has no dimensions, whatever it has."""
    path = write_model(tmp_path / "net.onnx", convolution())
    made = onnx.load(path)
    made.graph.output[0].type.tensor_type.shape.ClearField("dim")
    onnx.save(made, path)
    assert error_of(load(path), tmp_path / "net.so") <= TOLERANCE


@pytest.mark.parametrize(("operator", "opset", "settings"), [("BatchNormalization", 5, {}), ("Add", 6, {"axis": 1, "broadcast": 1})])
def test_operators_of_an_old_opset_are_named(tmp_path: Path, operator: str, opset: int, settings: dict[str, Any]) -> None:
    """Others are the same in all opsets, and are read."""
    constants = {"w": np.ones((3, 3, 1, 1), np.float32), "one": np.ones(3, np.float32)}
    read = ["c", *["one"] * (4 if operator == "BatchNormalization" else 1)]
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node(operator, read, ["y"], **settings)]
    path = write_model(tmp_path / "net.onnx", Graph(nodes, constants), (1, 3, 8, 8), opset=opset)
    with pytest.raises(
        UserError, match=rf"has opset {opset}, in which these operators are not those of opset 7, .*: {operator}\.\n"
    ) as caught:
        load(path)
    assert caught.value.remedy == "Export it with opset 13 or newer."
    nodes[1:] = [helper.make_node("Relu", ["c"], ["y"])]
    assert load(write_model(tmp_path / "plain.onnx", Graph(nodes, constants), (1, 3, 8, 8), opset=6)).macs
