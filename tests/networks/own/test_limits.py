"""Networks in files that say what no network needs are refused in one sentence, before anything is computed from it."""

from __future__ import annotations

import io
import json
import os
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hostile.mutations import packed
from hostile.network_samples import litert_models, pt2
from litert_files import LiteRtFile, schema
from network_files import Graph, convolution, write_model
from onnx import TensorProto, helper

from tvmmobile.networks import budget
from tvmmobile.networks.own.files import OwnFile
from tvmmobile.networks.own.loading import load_own
from tvmmobile.system.errors import UserError


def refused(path: Path, message: str, batch: int | None = None) -> None:
    """The file is refused, in so many words."""
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        load_own(OwnFile(path), None, None, 0, batch)
    assert raised.value.remedy


# ONNX


def _changed(folder: Path, change: Callable[[Any], object], graph: Graph | None = None, **settings: Any) -> Path:
    path = write_model(folder / "net.onnx", graph or convolution(), **settings)
    model = onnx.load(str(path))
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("number", [99, -1, 2**31 - 1])
@pytest.mark.parametrize("place", ["input", "output", "value", "constant"])
def test_an_element_type_that_onnx_does_not_have(place: str, number: int, tmp_path: Path) -> None:
    def change(model: Any) -> None:
        graph = model.graph
        graph.value_info.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 8, 8]))
        if place == "constant":
            graph.initializer[0].data_type = number
        else:
            values = {"input": graph.input, "output": graph.output, "value": graph.value_info}[place]
            values[0].type.tensor_type.elem_type = number

    refused(_changed(tmp_path, change), f"has element type {number}, which ONNX does not have")


def test_a_conversion_to_no_type(tmp_path: Path) -> None:
    graph = convolution([helper.make_node("Cast", ["c"], ["y"], to=99)])
    refused(write_model(tmp_path / "net.onnx", graph), "Cast has element type 99")


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        *(("strides", [number] * 2) for number in (0, -1, 10**9, 2**63 - 1, -(2**63))),
        *(("dilations", [number] * 2) for number in (0, 10**9, 2**63 - 1)),
        *(("pads", [number] * 4) for number in (10**9, -(10**9), 2**63 - 1, -(2**63))),
        ("kernel_shape", [2**31, 2**31]),
    ],
)
def test_windows_beyond_any_image(name: str, numbers: list[int], tmp_path: Path) -> None:
    graph = convolution([], {"kernel_shape": [3, 3], name: numbers})
    refused(write_model(tmp_path / "net.onnx", graph), f"Conv has {name} ")


@pytest.mark.parametrize(("shape", "message"), [((1, 3, 2**31, 2**31), "more than 536,870,912"), ((1, 3, -5, 8), "a negative extent")])
def test_images_that_no_memory_holds(shape: tuple[int, ...], message: str, tmp_path: Path) -> None:
    refused(write_model(tmp_path / "net.onnx", convolution(), shape), message)


def test_a_result_that_no_memory_holds(tmp_path: Path) -> None:
    graph = convolution([helper.make_node("Tile", ["c", "times"], ["y"])])
    graph = Graph(graph.nodes, {**graph.constants, "times": np.array([1, 1, 10**5, 10**5], np.int64)})
    refused(write_model(tmp_path / "net.onnx", graph), "more than 536,870,912 numbers")


def test_constants_whose_product_no_memory_holds(tmp_path: Path) -> None:
    """Two vectors of a million numbers: their outer product has 10¹²."""
    nodes = [helper.make_node("MatMul", ["p", "q"], ["r"]), helper.make_node("ReduceMax", ["r"], ["s"], keepdims=0)]
    graph = convolution([*nodes, helper.make_node("Add", ["c", "s"], ["y"])])
    ones = np.ones(10**6, np.float32)
    path = write_model(tmp_path / "net.onnx", Graph(graph.nodes, {**graph.constants, "p": ones[:, None], "q": ones[None]}))
    refused(path, "more than 536,870,912 numbers")


def test_a_negative_extent_inside_of_which_a_part_is_taken(tmp_path: Path) -> None:
    """ONNX's shape inference ends its process with a failed assertion."""
    nodes = [helper.make_node("Pad", ["c", "pads"], ["p"]), helper.make_node("Slice", ["p", "zero", "four", "axis"], ["y"])]
    numbers = {"pads": [0, 0, 0, 0, 0, 0, -100, 0], "zero": [0], "four": [4], "axis": [2]}
    graph = convolution(nodes)
    graph = Graph(graph.nodes, {**graph.constants, **{name: np.array(given, np.int64) for name, given in numbers.items()}})
    refused(write_model(tmp_path / "net.onnx", graph), "ONNX's shape inference crashes on it")


def _functions(folder: Path, depth: int, last: str) -> Path:
    """Return a function that calls the next one twice, and so on; the last calls `last`."""
    functions = []
    for number in range(depth):
        called = f"f{number + 1}" if number + 1 < depth else last
        domain = "own" if called != "Relu" else ""
        nodes = [helper.make_node(called, [one], [other], domain=domain) for one, other in (("a", "t"), ("t", "b"))]
        functions.append(
            helper.make_function("own", f"f{number}", ["a"], ["b"], nodes, [helper.make_opsetid(name, 1) for name in ("own",)])
        )
        functions[-1].opset_import.append(helper.make_opsetid("", 17))
    graph = convolution([helper.make_node("f0", ["c"], ["y"], domain="own")])
    return write_model(folder / "net.onnx", graph, domains=("own",), functions=functions)


def test_functions_that_double_themselves_are_counted_before_they_are_inlined(tmp_path: Path) -> None:
    refused(_functions(tmp_path, 26, "Relu"), "67,108,865 operators, functions inlined")
    assert load_own(OwnFile(_functions(tmp_path, 3, "Relu")), None, None, 0).macs


def test_functions_that_call_themselves_or_too_many_others(tmp_path: Path) -> None:
    refused(_functions(tmp_path, 2, "f0"), "a function that calls itself, f0")
    refused(_functions(tmp_path, 200, "Relu"), "functions that call one another, more than 100 deep")


@pytest.mark.parametrize("location", ["x" * 5000, "a\0b", "/dev/zero", "../w.bin"])
def test_weights_in_a_file_that_cannot_be(location: str, tmp_path: Path) -> None:
    def change(model: Any) -> None:
        tensor = model.graph.initializer[0]
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", location

    refused(_changed(tmp_path, change), "which is not in the same folder")


def test_a_batch_that_would_take_minutes(tmp_path: Path) -> None:
    path = write_model(tmp_path / "net.onnx", convolution(), ("n", 3, 8, 8))
    refused(path, "a batch of 1,000, which is computed image by image, and 128 is the most", batch=1000)
    assert load_own(OwnFile(path), None, None, 0, 2).spec.input_shape[0] == 2


def test_a_resolution_that_no_memory_holds(tmp_path: Path) -> None:
    path = write_model(tmp_path / "net.onnx", convolution(), (1, 3, "h", "w"))
    with pytest.raises(UserError, match="more than 536,870,912 numbers"):
        load_own(OwnFile(path), 10**6, None, 0)


def test_a_network_that_would_compute_for_hours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MOST_MACS", 1000)
    refused(write_model(tmp_path / "net.onnx", convolution()), "multiply-adds for one run")


@pytest.mark.parametrize("shape", [(), (1,), (4, 1, 1)])
@pytest.mark.parametrize(("operator", "dtype"), [("Div", np.float32), ("Mod", np.int64)])
def test_divisions_by_a_constant_zero(operator: str, dtype: type, shape: tuple[int, ...], tmp_path: Path) -> None:
    number = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [helper.make_node("Cast", ["c"], ["i"], to=number), helper.make_node(operator, ["i", "zero"], ["q"])]
    graph = convolution([*nodes, helper.make_node("Cast", ["q"], ["y"], to=TensorProto.FLOAT)])
    path = write_model(tmp_path / "net.onnx", Graph(graph.nodes, {**graph.constants, "zero": np.zeros(shape, dtype)}))
    refused(path, "divides by a constant that is 0")


# Files of any format


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "zero.tflite").symlink_to("/dev/zero")
    (tmp_path / "folder.pt2").mkdir()
    for name, message in (("pipe.onnx", "not a regular file"), ("zero.tflite", "not a regular file"), ("folder.pt2", "Is a directory")):
        refused(tmp_path / name, message)


def test_a_file_larger_than_memory(tmp_path: Path) -> None:
    with open(tmp_path / "net.onnx", "wb") as file:
        file.truncate(1 << 40)
    refused(tmp_path / "net.onnx", "1,099,511,627,776 bytes")


# .pt2


def _on_gpu(content: bytes) -> bytes:
    """Tensors as `torch.save` writes those of a GPU."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = next(member for member in members if member.endswith("data.pkl"))
    assert b"X\x03\0\0\0cpu" in members[name]
    members[name] = members[name].replace(b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:0")
    return packed(list(members.items()))


def _pt2(folder: Path, change: Callable[[Any], object], everywhere: tuple[bytes, bytes] = (b"", b"")) -> Path:
    with zipfile.ZipFile(io.BytesIO(pt2())) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    for name in [member for member in members if member.endswith(".json")]:
        members[name] = members[name].replace(*everywhere) if everywhere[0] else members[name]
        if name.endswith("model.json"):
            program = json.loads(members[name])
            change(program["graph_module"]["graph"])
            members[name] = json.dumps(program).encode()
    if everywhere[1].startswith(b'"cuda"'):
        members["made/data/sample_inputs/model.pt"] = _on_gpu(members["made/data/sample_inputs/model.pt"])
    path = folder / "net.pt2"
    path.write_bytes(packed(list(members.items())))
    return path


@pytest.mark.parametrize(
    ("node", "name", "given", "message"),
    [
        (1, "min_val", {"as_ints": []}, "aten.hardtanh.default is {'as_ints': []}, not number"),
        (1, "min_val", {"as_bool": "x"}, "{'as_bool': 'x'}, not number"),
        (1, "self", {"as_string": "input"}, "{'as_string': 'input'}, not Tensor"),
        (0, "stride", {"as_floats": [1.0]}, "not List[int]"),
        (0, "stride", {"as_ints": [2**63, 1]}, "not List[int]"),
        (0, "stride", {"as_ints": [0, 0]}, "aten.conv2d.default has stride 0"),
        (0, "padding", {"as_ints": [10**9, 1]}, "aten.conv2d.default has padding 1000000000"),
        (2, "start_dim", {"as_float": 1.0}, "not int"),
    ],
)
def test_arguments_of_other_kinds(node: int, name: str, given: Any, message: str, tmp_path: Path) -> None:
    def change(graph: Any) -> None:
        next(one for one in graph["nodes"][node]["inputs"] if one["name"] == name)["arg"] = given

    refused(_pt2(tmp_path, change), message)


def test_an_operator_without_an_argument_and_one_that_is_none(tmp_path: Path) -> None:
    refused(_pt2(tmp_path, lambda graph: graph["nodes"][0]["inputs"].pop(0)), "aten.conv2d.default lacks its argument input")
    for target in ("torch.ops.aten.__class__.__init__", "torch.ops.aten.conv2d.__call__", "torch.ops.aten.conv2d.no_such"):
        path = _pt2(tmp_path, lambda graph, target=target: graph["nodes"][0].update(target=target))
        refused(path, f"an operator that cannot be imported: {target}")


def test_operators_that_contradict_each_other(tmp_path: Path) -> None:
    def change(graph: Any) -> None:
        graph["nodes"][0]["inputs"][3]["arg"] = {"as_ints": [1, 1]}  # and so the linear layer gets more features than it has weights

    refused(_pt2(tmp_path, change), "the network cannot be imported into Relax")


def test_a_network_that_was_exported_on_a_gpu_runs_on_the_processor(tmp_path: Path) -> None:
    plain = load_own(OwnFile(_pt2(tmp_path, lambda _graph: None)), None, None, 0)
    moved = load_own(OwnFile(_pt2(tmp_path, lambda _graph: None, (b'"cpu", "index": null', b'"cuda", "index": 0'))), None, None, 0)
    image = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    (right,), (found,) = plain.compute([image]), moved.compute([image])
    assert np.ptp(right) > 0 and np.array_equal(found, right)


@pytest.mark.parametrize("device", ["meta", "privateuseone", "x"])
def test_tensors_without_numbers(device: str, tmp_path: Path) -> None:
    path = _pt2(tmp_path, lambda _graph: None, (b'"type": "cpu"', b'"type": "%s"' % device.encode()))
    refused(path, f"tensors on the device '{device}'")


def test_extents_of_a_pt2_that_no_memory_holds(tmp_path: Path) -> None:
    refused(_pt2(tmp_path, lambda graph: graph["tensor_values"]["input"]["sizes"].append({"as_int": 2**40})), "more than 536,870,912")
    refused(_pt2(tmp_path, lambda _graph: None, (b'"sizes": [{"as_int": 4}', b'"sizes": [{"as_int": -4}')), "a negative extent")


def test_what_torch_computes_from_it_that_no_memory_holds(tmp_path: Path) -> None:
    class Repeats(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.conv(image).repeat(1, 1, 2, 2).mean((2, 3))

    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(Repeats().eval(), (torch.zeros(1, 3, 8, 8),)), path)
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = next(member for member in members if member.endswith("model.json"))
    members[name] = members[name].replace(b'"as_ints": [1, 1, 2, 2]', b'"as_ints": [1, 1, 100000, 100000]')
    path.write_bytes(packed(list(members.items())))
    refused(path, "more than 536,870,912 numbers")


def _with_size(name: str, content: bytes, size: int) -> bytes:
    """Return an archive whose directory says another size of a deflated member, unpacked."""
    with zipfile.ZipFile(io.BytesIO(pt2())) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()} | {name: content}
    whole = bytearray(packed(list(members.items()), zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        place, local = archive.start_dir, archive.getinfo(name).header_offset
        for info in archive.infolist()[: archive.namelist().index(name)]:
            place += 46 + len(info.orig_filename)
    for at in (place + 24, local + 22):
        struct.pack_into("<I", whole, at, size)
    return bytes(whole)


@pytest.mark.parametrize("member", ["models/model.json", "data/weights/weight_0", "archive_format", "byteorder", "data/x.pt"])
def test_a_pt2_that_fills_memory_when_it_is_unpacked(member: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(_with_size(f"made/{member}", bytes(1000), 3 << 30))
    refused(path, "and unpacks to 3,221,2")


def test_a_pt2_that_is_larger_unpacked_than_it_says(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(_with_size("made/models/model.json", bytes(1 << 20), 100))
    refused(path, "is damaged or was not written by torch.export.save")


def test_tensors_in_a_pt2_that_fill_memory_when_they_are_unpacked(tmp_path: Path) -> None:
    """An archive within the archive."""
    inner = packed([("archive/data.pkl", bytes(70 << 20))], zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(io.BytesIO(pt2())) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    path = tmp_path / "net.pt2"
    path.write_bytes(packed(list({**members, "made/data/sample_inputs/model.pt": inner}.items())))
    refused(path, "unpacks to 73,400,320")


# LiteRT


def _litert(folder: Path, change: Callable[[Any], object], number: int = 0) -> Path:
    import flatbuffers

    model = schema().ModelT.InitFromPackedBuf(litert_models()[number], 0)
    change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path = folder / "net.tflite"
    path.write_bytes(bytes(builder.Output()))
    return path


def test_litert_files_that_contradict_themselves(tmp_path: Path) -> None:
    def options(name: str, number: int) -> Callable[[Any], object]:
        return lambda model: setattr(model.subgraphs[0].operators[0].builtinOptions, name, number)

    def tensor(name: str, value: Any) -> Callable[[Any], object]:
        return lambda model: setattr(model.subgraphs[0].tensors[0], name, value)

    for change, message in (
        (options("strideH", 0), "cannot be imported"),
        (options("strideW", 2**31 - 1), "Conv has strides 2147483647"),
        (options("strideW", -1), "Conv has strides -1"),
        (options("dilationHFactor", 2**31 - 1), "Conv has dilations 2147483647"),
        (tensor("shape", [1, 2**31 - 1, 2**31 - 1, 3]), "more than 536,870,912"),
        (tensor("shape", [1, -8, 8, 3]), "a negative extent"),
        (tensor("type", 99), "a type that is not supported"),
        (tensor("buffer", 10**6), "is damaged or not a LiteRT file"),
    ):
        refused(_litert(tmp_path, change), message)


def test_a_litert_file_of_a_huge_resize(tmp_path: Path) -> None:
    file = LiteRtFile()
    data, middle, out = (file.tensor(shape) for shape in ((1, 8, 8, 3), (1, 8, 8, 4), (1, 10**6, 10**6, 4)))
    file.operator(
        "CONV_2D", [data, file.tensor((4, 1, 1, 3), value=np.ones((4, 1, 1, 3)))], [middle], "Conv2DOptions", strideH=1, strideW=1
    )
    file.operator("RESIZE_BILINEAR", [middle, file.int32(10**6, 10**6)], [out], "ResizeBilinearOptions", halfPixelCenters=True)
    path = tmp_path / "net.tflite"
    path.write_bytes(file.ends([data], [out]))
    refused(path, "more than 536,870,912")
