"""Networks of the user's own: the same kernels and outputs by every way, and one sentence for whatever is wrong with a file."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from network_files import (
    SIDE,
    SOURCE,
    Graph,
    convolution,
    module_of,
    repacked,
    with_data_beside,
    write_model,
    write_onnx,
    write_pt2,
    write_python,
)
from onnx import TensorProto, helper
from small_networks import accepted, kernels_of, run_lowered
from torch import nn

from tvmmobile.devices.protocol import MEASURED
from tvmmobile.graph.layers import Opaque
from tvmmobile.graph.network import Network, lower, read_network
from tvmmobile.graph.passes.pipeline import prepare
from tvmmobile.kernels.reference import relative_error
from tvmmobile.networks.frontend import Imported, imported_torch
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.registry import build_torch_model
from tvmmobile.networks.models.spec import ModelSpec, OwnSpec
from tvmmobile.networks.own.files import OwnFile, own_file
from tvmmobile.networks.own.loading import files_of, load_again, load_own, own_specs
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import sha256_of

TOLERANCE = 1e-5


def load(model: str | Path, side: int | None = None, checkpoint: Path | None = None, seed: int = 0) -> Imported:
    file = own_file(str(model))
    assert file is not None
    return load_own(file, side, checkpoint, seed)


def network_of(imported: Imported) -> Network:
    return read_network(*prepare(imported.module, accepted))


def names_of(imported: Imported) -> list[str]:
    return [node.layer.name for node in network_of(imported).nodes]


def image_for(imported: Imported) -> np.ndarray[Any, Any]:
    return np.random.default_rng(3).normal(0.0, 1.0, imported.spec.input_shape).astype(np.float32)


def run_compiled(imported: Imported, path: Path) -> np.ndarray[Any, Any]:
    """Compiled for this machine, and run on `image_for` it."""
    network = network_of(imported)
    return run_lowered(lower(network, kernels_of(network)), image_for(imported), path)


def error_of(imported: Imported, path: Path) -> float:
    """Of the compiled network, against whoever judges it."""
    return relative_error(run_compiled(imported, path), imported.compute(image_for(imported)))


@dataclass(frozen=True)
class Files:
    """One network in every format."""

    python: str
    pt2: Path
    onnx: Path

    @property
    def all(self) -> tuple[str, ...]:
        return self.python, str(self.pt2), str(self.onnx)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("networks")
    python = write_python(folder)
    module = module_of(python)
    return Files(f"{python}:small", write_pt2(module, folder / "small.pt2"), write_onnx(module, folder / "small.onnx"))


# The same network, whichever way it comes


def test_every_way_gives_the_same_kernels_and_outputs(files: Files, tmp_path: Path) -> None:
    found = [load(model, SIDE) for model in files.all]
    names = [names_of(imported) for imported in found]
    assert names[0] == names[1] == names[2]
    kinds = {"hswish", "hsigmoid", "relu6", "silu"}
    assert kinds <= {name.rsplit("_", 1)[1] for name in names[0]} and not any("sigmoid_multiply" in name for name in names[0])
    outputs = [run_compiled(imported, tmp_path / f"{place}.so") for place, imported in enumerate(found)]
    for imported, output in zip(found, outputs, strict=True):
        assert relative_error(output, imported.compute(image_for(imported))) <= TOLERANCE
        assert relative_error(output, outputs[0]) <= TOLERANCE
    assert [imported.macs for imported in found] == [found[0].macs] * 3
    assert [imported.judge.split()[0] for imported in found] == ["PyTorch", "PyTorch", "onnx.reference"]


@pytest.mark.parametrize(
    "spec", [ModelSpec(alpha=0.25, resolution=128), ModelSpec("mobilenet_v3_small", resolution=64)], ids=lambda spec: spec.variant
)
def test_a_built_in_network_in_a_file_has_the_same_kernels(tmp_path: Path, spec: ModelSpec) -> None:
    """So that the shipped logs serve it."""
    model = build_torch_model(spec)
    by_name = imported_torch(spec, model.module, model.weights)
    by_pt2 = load(write_pt2(model.module, tmp_path / "net.pt2", spec.input_shape))
    by_onnx = load(write_onnx(model.module, tmp_path / "net.onnx", spec.input_shape))
    assert names_of(by_name) == names_of(by_pt2) == names_of(by_onnx)
    judged = [imported.compute(image_for(by_name)) for imported in (by_name, by_pt2, by_onnx)]
    assert relative_error(judged[1], judged[0]) <= TOLERANCE and relative_error(judged[2], judged[0]) <= TOLERANCE
    from tvmmobile.networks.models.costs import count

    assert by_onnx.macs == by_pt2.macs == count(spec).macs and by_pt2.parameters == count(spec).parameters


@pytest.mark.long
@pytest.mark.parametrize(
    "spec", [ModelSpec(alpha=0.25, resolution=128), ModelSpec("mobilenet_v3_small", resolution=64)], ids=lambda spec: spec.variant
)
def test_a_built_in_network_in_a_file_computes_the_same(tmp_path: Path, spec: ModelSpec) -> None:
    module = build_torch_model(spec).module
    found = [imported_torch(spec, module, ""), load(write_pt2(module, tmp_path / "net.pt2", spec.input_shape))]
    found.append(load(write_onnx(module, tmp_path / "net.onnx", spec.input_shape)))
    outputs = [run_compiled(imported, tmp_path / f"{place}.so") for place, imported in enumerate(found)]
    assert max(relative_error(output, outputs[0]) for output in outputs) <= TOLERANCE
    assert relative_error(outputs[0], found[0].compute(image_for(found[0]))) <= TOLERANCE


@pytest.mark.parametrize("opset", [9, 11, 13])
def test_older_onnx_opsets(files: Files, tmp_path: Path, opset: int) -> None:
    """They express h-swish and clips otherwise."""
    path, _, factory = files.python.rpartition(":")
    module = module_of(Path(path), factory)
    older = load(write_onnx(nn.Sequential(module, nn.Hardtanh(-1.0, 2.0)), tmp_path / "older.onnx", opset=opset))
    assert names_of(older)[:-1] == names_of(load(files.pt2))[:-1] and "clamp-1_2" in names_of(older)[-1]
    assert error_of(older, tmp_path / "net.so") <= TOLERANCE


@pytest.mark.parametrize("form", [1, 2])
def test_two_equal_functions_of_a_network_are_one_in_the_library(files: Files, form: int) -> None:
    network = network_of(load(files.all[form]))
    opaque = [node.layer.name for node in network.nodes if isinstance(node.layer, Opaque)]
    assert len(opaque) > len(set(opaque))
    module = lower(network, kernels_of(network))
    symbols = [str(function.attrs["global_symbol"]) for _, function in module.functions_items() if "global_symbol" in function.attrs]
    assert len(symbols) == len(set(symbols)) and {f"{name}_float32_t1" for name in opaque} <= set(symbols)


# What a network is called and identified by


def test_its_identity(files: Files) -> None:
    specs = [load(model, SIDE).spec for model in files.all]
    path = Path(files.python.rpartition(":")[0])
    assert [spec.variant for spec in specs] == [f"small_1.0_{SIDE}"] * 3
    for spec, source in zip(specs, (path, files.pt2, files.onnx), strict=True):
        assert isinstance(spec, OwnSpec) and spec.contents == sha256_of(source)
        assert (spec.input_shape, spec.output_shape, spec.classes) == ((1, 3, SIDE, SIDE), (1, 5), 5)


@pytest.mark.parametrize(
    ("model", "name"),
    [("nets/a b.onnx", "a_b"), ("mobilenet_v1.pt2", "own_mobilenet_v1"), ("x.py:make_net", "make_net"), ("….onnx", "network")],
)
def test_names(model: str, name: str) -> None:
    file = own_file(model)
    assert file is not None and file.name == name


@pytest.mark.parametrize("model", ["mobilenet_v1", "squeezenet1_0", "resnet"])
def test_names_of_networks_are_no_files(model: str) -> None:
    assert own_file(model) is None


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        ("net.py", "does not say which function"),
        ("net.py:", "does not say which function"),
        ("net.py:a.b", "does not say which function"),
        ("net.pth", "is not a network file"),
        ("nets/mobilenet", "is not a network file"),
        ("model.tflite", "is not a network file"),
    ],
)
def test_other_files(model: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        own_file(model)


def test_a_python_file_is_asked_for_any_side(files: Files) -> None:
    file = own_file(files.python)
    assert file is not None
    assert [spec.resolution for spec in own_specs(file, (32, 40, 32), None, 0)] == [32, 40]
    gray = load(files.python.replace("small", "gray"))
    assert gray.spec.input_shape == (1, 1, 24, 24) and gray.spec.name == "gray"


@pytest.mark.parametrize("form", [1, 2])
def test_a_file_of_one_side_is_asked_for_no_other(files: Files, form: int) -> None:
    assert load(files.all[form], SIDE).spec.resolution == SIDE
    with pytest.raises(UserError, match=f"takes only images of side {SIDE}, not 32"):
        load(files.all[form], 32)


def test_weights_drawn_by_a_factory_come_from_the_seed(files: Files) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (load(files.python, SIDE, seed=seed) for seed in (0, 0, 1))
    image = image_for(first)
    assert np.array_equal(first.compute(image), again.compute(image)) and not np.allclose(first.compute(image), other.compute(image))
    assert torch.equal(before, torch.random.get_rng_state())
    assert first.weights.startswith("net.py:small sha256 ") and first.weights.endswith(", seed 0")


def test_another_file_than_before(files: Files, tmp_path: Path) -> None:
    path = write_python(tmp_path)
    file = OwnFile(path, "small")
    spec = load_own(file, SIDE, None, 0).spec
    assert load_again(file, spec, None, 0).spec == spec
    path.write_text(SOURCE + "\n")
    with pytest.raises(UserError, match=r"net\.py:small is not the network it was when this run began"):
        load_again(file, spec, None, 0)


# Outputs and inputs of other shapes


def test_an_output_that_is_an_image(tmp_path: Path) -> None:
    torch.manual_seed(0)
    imported = load(write_pt2(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1)), tmp_path / "net.pt2"))
    assert imported.spec.output_shape == (1, 4, SIDE, SIDE) and imported.spec.classes == 4 * SIDE * SIDE
    assert error_of(imported, tmp_path / "net.so") <= TOLERANCE


class _InADictionary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 1)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.body(image)}


def test_the_only_tensor_may_be_in_a_dictionary(tmp_path: Path) -> None:
    imported = load(write_pt2(_InADictionary(), tmp_path / "net.pt2"))
    assert error_of(imported, tmp_path / "net.so") <= TOLERANCE


# Python files

_HEAD = "import torch\nfrom torch import nn\n"
_CONV = "nn.Conv2d(3, 4, 3, padding=1)"


def _module(forward: str) -> str:
    """A file whose network does this with its input `x`, having a convolution `self.conv`."""
    return (
        f"{_HEAD}class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.conv = {_CONV}\n"
        f"        self.count = nn.Buffer(torch.zeros(1))\n    def forward(self, x):\n        {forward}\ndef small():\n    return Net()\n"
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param("def small(:\n", r"net\.py cannot be imported: SyntaxError: .*\(line 1\)", id="syntax"),
        pytest.param("import nowhere_to_be_found\n", r"cannot be imported: ModuleNotFoundError: .*\(line 1\)", id="import"),
        pytest.param("\nexit(3)\n", r"cannot be imported: SystemExit: 3 \(line 2\)", id="exit"),
        pytest.param("def large(): pass\n", r"net\.py has no function small", id="no factory"),
        pytest.param("small = 3\n", r"net\.py has no function small", id="no function"),
        pytest.param("def small():\n    return 1 / 0\n", r"net\.py:small fails: ZeroDivisionError: .*\(line 2\)", id="raising"),
        pytest.param("def small(width):\n    pass\n", r"net\.py:small fails: TypeError: .*width", id="an argument"),
        pytest.param("def small():\n    return 'net'\n", r"returns str, not a torch\.nn\.Module", id="text"),
        pytest.param(f"{_HEAD}def small():\n    return {_CONV}.state_dict()\n", "returns OrderedDict, not", id="a state dict"),
        pytest.param(f"{_HEAD}def small():\n    return {_CONV}, (1, 3, 8, 8)\n", "returns Conv2d, tuple, not", id="a shape"),
        pytest.param(f"{_HEAD}def small():\n    return {_CONV}.half()\n", "weight is float16, not float32", id="half"),
        pytest.param(
            f"{_HEAD}def small():\n    return {_CONV}, torch.zeros(1, 5, 8, 8)\n",
            r"the module fails for an input of \[1, 5, 8, 8\]: RuntimeError",
            id="channels",
        ),
        pytest.param(f"{_HEAD}def small():\n    return {_CONV}, torch.zeros(2, 3, 8, 8)\n", "a batch of 2, not of 1", id="batch"),
        pytest.param(
            f"{_HEAD}def small():\n    return {_CONV}, torch.zeros(1, 3, 8, 9)\n", r"\[1, 3, 8, 9\], not \[1, channels", id="not square"
        ),
        pytest.param(f"{_HEAD}def small():\n    return {_CONV}, torch.zeros(3, 8, 8)\n", r"\[3, 8, 8\], not \[1, channels", id="no batch"),
        pytest.param(
            _module("return self.conv(x.float())").replace("Net()", "Net(), torch.zeros(1, 3, 8, 8).double()"),
            "the input 'x' is float64, not float32",
            id="double",
        ),
        pytest.param(_module("return self.conv(x), x"), r"returns 2 tensors \(convolution, x\), not one", id="two outputs"),
        pytest.param(_module("return self.conv(x).flatten(1).argmax(1, True)"), "is int64, not float32", id="whole numbers"),
        pytest.param(_module("return self.conv(x).sum()"), r"the output 'sum_1' is \[\], not \[1, …\]", id="a number"),
        pytest.param(_module("return self.conv(x).flatten(0, 1)"), "a batch of 4, not of 1", id="no batch behind"),
        pytest.param(
            _module("return self.conv(x) if x.sum() > 1 else self.conv(-x)"), r"cannot be exported: .*[Dd]ata-dependent", id="a branch"
        ),
        pytest.param(
            _module("return torch.special.i1(torch.fft.fft2(self.conv(x)).real)"),
            r"has operators that cannot be imported: aten\._fft_c2c\.default, .*aten\.special_i1\.default",
            id="operators",
        ),
        pytest.param(_module("self.count.add_(1); return self.conv(x)"), "changes count when it runs", id="a state"),
        pytest.param(_module("return torch.relu(x)"), "has no convolution or matrix product with weights", id="no layer"),
    ],
)
def test_a_python_file_that_will_not_do(tmp_path: Path, text: str, complaint: str) -> None:
    path = write_python(tmp_path, text)
    with pytest.raises(UserError, match=complaint) as caught:
        load(f"{path}:small", 8 if "zeros(1, 3, 8" not in text and "zeros(3" not in text else None)
    assert "\n" not in caught.value.message and caught.value.remedy
    assert [each.name for each in tmp_path.iterdir()] == ["net.py"]


@pytest.mark.parametrize("model", ["gone.py:small", "gone.pt2", "gone.onnx", "."])
def test_a_file_that_is_not_there(tmp_path: Path, model: str) -> None:
    with pytest.raises(UserError, match=r"gone\.\w+ cannot be read: No such file|is not a network file"):
        load(tmp_path / model)


def test_operators_without_a_kernel_are_named(tmp_path: Path) -> None:
    path = write_python(tmp_path, _module("return self.conv(x).flatten(2).topk(4).values.flatten(1)"))
    with pytest.raises(UserError, match=r"no kernel can be compiled for topk\."):
        network_of(load(f"{path}:small", 8))


# Checkpoints


def test_a_checkpoint_for_a_python_file(files: Files, tmp_path: Path) -> None:
    path, _, factory = files.python.rpartition(":")
    module = module_of(Path(path), factory, seed=7)
    torch.save(module.state_dict(), tmp_path / "weights.pt")
    imported = load(files.python, SIDE, tmp_path / "weights.pt")
    image = image_for(imported)
    with torch.no_grad():
        assert np.array_equal(imported.compute(image), module(torch.from_numpy(image)).numpy())
    assert imported.weights == f"checkpoint sha256 {sha256_of(tmp_path / 'weights.pt')}"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda state: state.pop("7.weight"), r"weights\.pt lacks 7\.weight\."),
        (lambda state: state.update(extra=torch.zeros(1)), r"weights\.pt has unknown extra\."),
        (lambda state: state.update({"7.bias": torch.zeros(6)}), r"weights\.pt: 7\.bias is 6, but this variant needs 5"),
        (lambda state: state.update({"7.bias": torch.full((5,), float("nan"))}), r"7\.bias holds NaN"),
        (lambda state: state.update({"7.bias": [1.0]}), r"7\.bias is not a tensor"),
    ],
)
def test_a_checkpoint_that_does_not_fit(files: Files, tmp_path: Path, change: Callable[[Any], object], complaint: str) -> None:
    path, _, factory = files.python.rpartition(":")
    state = dict(module_of(Path(path), factory).state_dict())
    change(state)
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(UserError, match=complaint):
        load(files.python, SIDE, tmp_path / "weights.pt")


@pytest.mark.parametrize("form", [1, 2])
def test_a_checkpoint_for_a_file_with_weights(files: Files, tmp_path: Path, form: int) -> None:
    with pytest.raises(UserError, match="holds its own weights"):
        load(files.all[form], None, tmp_path / "weights.pt")


# Files of torch.export


class _Bomb:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path(self.path),)  # type: ignore[return-value]


def _json(change: Callable[[Any], object]) -> Callable[[bytes], bytes]:
    def changed(content: bytes) -> bytes:
        value = json.loads(content)
        change(value)
        return json.dumps(value).encode()

    return changed


def _saved(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


_MODEL = "models/model.json"
_WEIGHTS = "data/weights/model_weights_config.json"
_CONSTANTS = "data/constants/model_constants_config.json"


def _graph(program: Any) -> Any:
    return program["graph_module"]["graph"]


def _parameter(program: Any) -> Any:
    return program["graph_module"]["signature"]["input_specs"][0]["parameter"]


def _weight_is_pickled(configuration: Any) -> None:
    next(iter(configuration["config"].values()))["use_pickle"] = True


def _constant_is_an_object(configuration: Any) -> None:
    configuration["config"]["evil"] = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}


@pytest.mark.parametrize(
    ("place", "change", "complaint"),
    [
        (_WEIGHTS, _weight_is_pickled, "more than tensors"),
        (_CONSTANTS, _constant_is_an_object, "more than tensors"),
        (_MODEL, lambda program: program.update(guards_code=["touch()"]), "holds guards_code"),
        (_MODEL, lambda program: _graph(program)["nodes"][0].update(target="torch.os.system"), r"an operator .* torch\.os\.system"),
        (_MODEL, lambda program: _graph(program)["nodes"][0].update(name="x=touch()"), "a name that PyTorch does not give"),
        (_MODEL, lambda program: _graph(program)["nodes"][0].update(name="x-y"), "a name that PyTorch does not give"),
        (_MODEL, lambda program: _parameter(program).update(parameter_name='x",touch(),"'), "a name that PyTorch does not give"),
        (
            _MODEL,
            lambda program: _graph(program)["tensor_values"]["input"]["sizes"].__setitem__(0, {"as_expr": {"expr_str": "touch()"}}),
            r"dimension 0 of the input 'input' is dynamic \(touch\(\)\)",
        ),
        (
            _MODEL,
            lambda program: program["graph_module"]["module_call_graph"][0]["signature"].update(
                out_spec='[1, {"type": "os.PathLike", "context": "null", "children_spec": []}]'
            ),
            "containers other than tuples",
        ),
    ],
    ids=["a weight", "a constant", "guards", "an operator", "a name", "a difference", "a module", "a dimension", "a container"],
)
def test_nothing_in_a_pt2_is_executed(tmp_path: Path, place: str, change: Callable[[Any], object], complaint: str) -> None:
    whole = write_pt2(nn.Sequential(nn.Conv2d(3, 4, 1)), tmp_path / "net.pt2")
    bomb = pickle.dumps(_Bomb(tmp_path / "touched"))
    changed = repacked(whole, {place: _json(change)}, {"data/constants/opaque_obj_0": bomb, "data/weights/weight_0": bomb})
    with pytest.raises(UserError, match=complaint):
        load(changed)
    assert not (tmp_path / "touched").exists()


def test_hyphens_in_module_names_of_a_pt2(tmp_path: Path) -> None:
    """As in torchvision's RegNet."""

    class Offset(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("by-one", torch.ones(1, 4, 1, 1))

        def forward(self, data: torch.Tensor) -> torch.Tensor:
            return data + self.get_buffer("by-one")

    network = nn.Sequential(OrderedDict([("block1-0", nn.Conv2d(3, 4, 1)), ("off-set", Offset())]))
    imported = load(write_pt2(network, tmp_path / "net.pt2"))
    data = image_for(imported)
    with torch.no_grad():
        wanted = network(torch.from_numpy(data)).numpy()
    np.testing.assert_allclose(imported.compute(data), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("place", ["data/sample_inputs/model.pt", "data/weights/model.pt", "data/constants/model.pt"])
def test_no_pickle_in_a_pt2_is_executed(tmp_path: Path, place: str) -> None:
    """PyTorch would: it falls back to Python's own pickle where its careful one refuses."""
    whole = write_pt2(nn.Sequential(nn.Conv2d(3, 4, 1)), tmp_path / "net.pt2")
    changed = repacked(whole, {}, {place: _saved(_Bomb(tmp_path / "touched"))})
    with pytest.raises(UserError, match="more than tensors, which would have to be unpickled"):
        load(changed)
    assert not (tmp_path / "touched").exists()


def test_compiled_code_in_a_pt2(tmp_path: Path) -> None:
    whole = write_pt2(nn.Sequential(nn.Conv2d(3, 4, 1)), tmp_path / "net.pt2")
    with pytest.raises(UserError, match="holds compiled code"):
        load(repacked(whole, {}, {"data/aotinductor/model/net.so": b"\x7fELF"}))


@pytest.mark.parametrize("size", [0, 10, 1000, -100])
def test_a_torn_pt2(files: Files, tmp_path: Path, size: int) -> None:
    (tmp_path / "net.pt2").write_bytes(files.pt2.read_bytes()[: size or None] if size else b"")
    with pytest.raises(UserError, match=r"net\.pt2 is damaged or was not written by torch\.export\.save"):
        load(tmp_path / "net.pt2")


def test_a_pt2_of_another_version(tmp_path: Path) -> None:
    whole = write_pt2(nn.Sequential(nn.Conv2d(3, 4, 1)), tmp_path / "net.pt2")
    changed = repacked(whole, {_MODEL: _json(lambda program: program["schema_version"].update(major=99))}, {})
    with pytest.raises(UserError, match=r"cannot be read by PyTorch \d.*: .*99"):
        load(changed)


def test_a_dynamic_dimension_in_a_pt2(tmp_path: Path) -> None:
    batch = torch.export.Dim("batch")
    path = write_pt2(nn.Sequential(nn.Conv2d(3, 4, 1)), tmp_path / "net.pt2", (2, 3, 8, 8), dynamic_shapes=({0: batch},))
    with pytest.raises(UserError, match=r"dimension 0 of the input 'input' is dynamic \(s\d+\)") as caught:
        load(path)
    assert "torch.export.export(module.eval(), (torch.zeros(1, 3, 224, 224),))" in caught.value.remedy


def test_a_pt2_in_training_mode(tmp_path: Path) -> None:
    path = write_pt2(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train(), tmp_path / "net.pt2")
    with pytest.raises(UserError, match=r"changes 1\.running_mean when it runs"):
        load(path)


# ONNX files


def node(operator: str, inputs: Sequence[str], output: str = "y", **attributes: Any) -> Any:
    return helper.make_node(operator, list(inputs), [output], **attributes)


@pytest.mark.parametrize(
    ("graph", "settings", "complaint"),
    [
        (convolution(), {"shape": ("batch", 3, 8, 8)}, r"dimension 0 of the input 'x' is dynamic \(batch\)"),
        (convolution(), {"shape": (1, 3, None, 8)}, "dimension 2 of the input 'x' is dynamic, and"),
        (convolution(), {"shape": (2, 3, 8, 8)}, "a batch of 2, not of 1"),
        (convolution(), {"shape": (1, 3, 8, 6)}, r"\[1, 3, 8, 6\], not \[1, channels, side, side\]"),
        (convolution(), {"opset": 999}, r"opset 999; onnx \S+ knows up to \d+"),
        (convolution(), {"ir_version": 99}, r"IR version 99; onnx \S+ knows up to \d+"),
        (convolution([node("Add", "cz")]), {"inputs": ("z",)}, r"takes 2 tensors \(x, z\), not one"),
        (convolution([node("Relu", "c"), node("Abs", "c", "z")]), {"outputs": ("z",)}, r"returns 2 tensors \(y, z\), not one"),
        (
            convolution([node("Bernoulli", "c", "d"), node("Celu", "d", "e"), node("Mine", "e", domain="own.ops")]),
            {"domains": ("own.ops",)},
            r"operators that cannot be imported: Bernoulli, Celu, own\.ops\.Mine",
        ),
        (convolution([node("Relu", "q")]), {}, "is not a valid ONNX model"),
        (Graph([node("Relu", "x")], {}), {}, "has no convolution or matrix product with weights"),
    ],
    ids=["batch", "height", "a batch of 2", "not square", "opset", "IR version", "inputs", "outputs", "operators", "unsound", "no layer"],
)
def test_an_onnx_model_that_will_not_do(tmp_path: Path, graph: Graph, settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        load(write_model(tmp_path / "net.onnx", graph, **settings))
    assert "\n" not in caught.value.message and caught.value.remedy


def test_an_onnx_model_of_another_dtype(tmp_path: Path) -> None:
    graph = convolution()
    half = Graph(graph.nodes, {name: array.astype(np.float16) for name, array in graph.constants.items()})
    with pytest.raises(UserError, match="the input 'x' is float16, not float32"):
        load(write_model(tmp_path / "net.onnx", half, dtype=TensorProto.FLOAT16))


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"not a model, but text", None])
def test_a_torn_onnx_model(files: Files, tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / "net.onnx").write_bytes(files.onnx.read_bytes()[:2000] if content is None else content)
    with pytest.raises(UserError, match=r"net\.onnx is damaged or not an ONNX file"):
        load(tmp_path / "net.onnx")


def test_weights_beside_an_onnx_model(tmp_path: Path) -> None:
    path = write_model(tmp_path / "net.onnx", convolution())
    whole = load(path)
    apart = load(with_data_beside(path))
    image = image_for(whole)
    assert np.array_equal(whole.compute(image), apart.compute(image)) and names_of(whole) == names_of(apart)
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
        ([node("HardSigmoid", "c")], "linear"),
    ],
    ids=["both", "lower", "upper", "max and min", "hswish", "hsigmoid", "hswish of two", "another hsigmoid"],
)
def test_activations_of_onnx(tmp_path: Path, after: list[Any], clamp: str) -> None:
    graph = convolution(after)
    imported = load(write_model(tmp_path / "net.onnx", Graph(graph.nodes, {**graph.constants, **_BOUNDS})))
    assert names_of(imported)[0].rsplit("_", 1)[1] == clamp
    assert error_of(imported, tmp_path / "net.so") <= TOLERANCE


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
@pytest.mark.parametrize("side", [7, 8])
def test_padding_that_onnx_leaves_to_the_reader(tmp_path: Path, mode: str, side: int) -> None:
    graph = convolution(attributes={"auto_pad": mode, "strides": [2, 2], "kernel_shape": [3, 3]})
    imported = load(write_model(tmp_path / "net.onnx", graph, (1, 3, side, side)))
    assert names_of(imported)[0].startswith("conv_") and not any("pad" in name for name in names_of(imported))
    assert error_of(imported, tmp_path / "net.so") <= TOLERANCE


def test_functions_of_an_onnx_model_are_inlined(tmp_path: Path) -> None:
    opsets = [helper.make_opsetid("", 17)]
    double = helper.make_function("own", "Double", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], opsets)
    path = write_model(tmp_path / "net.onnx", convolution([node("Double", "c", domain="own")]), domains=("own",), functions=(double,))
    assert error_of(load(path), tmp_path / "net.so") <= TOLERANCE


# Kernels that no template takes


def test_kernels_that_no_template_takes_are_named() -> None:
    from tvmmobile.results.report.wording import fallback_sentence

    few, many = ["mean_1x7x7x8_0123456789ab_float32_t1"], [f"mean_1x{n}x7x8_0123456789ab_float32_t1" for n in range(9)]
    assert fallback_sentence([], 3) == ""
    assert fallback_sentence(few, 3) == f"No template takes 1 of 3 kernels, which use MetaSchedule's schedules: {few[0]}."
    assert fallback_sentence(many, 30).endswith(": mean (9).")


_READS_PLACES = _module("return self.conv(x)[:, [3, 1]].log_softmax(1)")
_TAKES_ROOTS = _module("return nn.functional.layer_norm(self.conv(x), (8,)).clamp(min=1e-3).log().flatten(1)")


@pytest.mark.parametrize("text", [_READS_PLACES, _TAKES_ROOTS], ids=["places in a tensor", "roots and logarithms"])
def test_what_a_trial_gives_a_kernel_of_any_operators(tmp_path: Path, text: str) -> None:
    """No place outside of a tensor, and nothing that has no root."""
    import tvm

    from tvmmobile.graph.tasks import Task
    from tvmmobile.tuning.search.trial import _workload

    path = write_python(tmp_path, text)
    nodes = [one for one in network_of(load(f"{path}:small", 8)).nodes if isinstance(one.layer, Opaque)]
    assert nodes
    for one in nodes:
        data, _, expected = _workload(Task((one.layer,)), tvm.ir.save_json(one.function))
        assert [array.shape for array in data] == list(one.layer.input_shapes) and np.isfinite(expected).all()


# On the way to workers, and back from a manifest


def test_a_job_takes_its_files_to_another_machine(tmp_path: Path) -> None:
    from tvmmobile.pipeline.build import VariantJob, variant_tasks
    from tvmmobile.pipeline.cluster.parcel import pack, unpack
    from tvmmobile.tuning.records import Identity

    path = with_data_beside(write_model(tmp_path / "net.onnx", convolution()))
    file = OwnFile(path)
    assert [each.name for each in files_of(file)] == ["net.onnx", "weights.bin"]
    (spec,) = own_specs(file, (), None, 0)
    job = VariantJob(Model(spec, own=file), "float32", 1, Identity("nowhere", MEASURED), (), {}, tmp_path)
    parcel = pickle.loads(pickle.dumps(pack(variant_tasks, job)))
    path.unlink()
    (tmp_path / "there").mkdir()
    there = unpack(parcel, tmp_path / "there")
    assert there.model.own.path.parent == tmp_path / "there/network" and load_again(there.model.own, there.spec, None, 0).spec == spec
    assert len(pickle.dumps(job)) < 2000


def test_a_comparison_says_that_the_network_is_another_one() -> None:
    from report_samples import sample_results

    from tvmmobile.gate.comparison import compare_results

    results = sample_results(1)
    base, new = (
        replace(results, variants=(replace(results.variants[0], network_sha256=digest, library_sha256=digest),)) for digest in ("a", "b")
    )
    assert compare_results(base, new).notes == ("mobilenet_v1_1.0_224_float32_t1 was compiled from another file than before.",)


def test_arrays_for_networks_of_other_channels(tmp_path: Path) -> None:
    from tvmmobile.accuracy.preprocess import read_input
    from tvmmobile.networks.preprocessing import Preprocessing

    gray = Preprocessing(8, channels=1)
    np.save(tmp_path / "gray.npy", np.zeros((1, 1, 8, 8), np.float32))
    assert read_input(tmp_path / "gray.npy", gray).array.shape == (1, 1, 8, 8)
    for name in ("photo.png", "photo.npy"):
        np.save(tmp_path / "photo.npy", np.zeros((8, 8, 3), np.uint8))
        (tmp_path / "photo.png").write_bytes(b"PNG")
        with pytest.raises(UserError, match=r"the network takes 1 channels|which this network does not take"):
            read_input(tmp_path / name, gray)


def test_the_example_of_the_documentation(tmp_path: Path, repository: Path) -> None:
    """`python net.py` writes the files of the other formats."""
    text = (repository / "docs/own-networks.md").read_text()
    source = text.partition("```python\n")[2].partition("```")[0]
    path = write_python(tmp_path, source)
    subprocess.run([sys.executable, "-W", "ignore", path.name], cwd=tmp_path, capture_output=True, check=True)
    found = [load(f"{path}:tiny", 96), load(tmp_path / "tiny.pt2"), load(tmp_path / "tiny.onnx")]
    assert names_of(found[0]) == names_of(found[1]) == names_of(found[2])
    assert {imported.spec.variant for imported in found} == {"tiny_1.0_96"}
