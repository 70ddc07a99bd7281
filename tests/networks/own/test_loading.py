"""Networks of the user's own: the same kernels and outputs from every format; identity, shapes and checkpoints."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from network_files import (
    SIDE,
    SOURCE,
    convolution,
    module_of,
    write_model,
    write_onnx,
    write_pt2,
    write_python,
)
from own_networks import TOLERANCE, Files, error_of, image_for, load, loaded, names_of, network_of, run_compiled
from small_networks import kernels_of
from torch import nn

import tvmmobile
from tvmmobile.graph.layers import Opaque
from tvmmobile.graph.lowering import lower
from tvmmobile.kernels.reference import relative_error
from tvmmobile.networks.frontend import imported_torch
from tvmmobile.networks.models.registry import build_torch_model
from tvmmobile.networks.models.spec import ModelSpec, OwnSpec
from tvmmobile.networks.own.files import OwnFile, own_file
from tvmmobile.networks.own.loading import load_again, load_own, own_specs
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import sha256_of


def test_every_way_gives_the_same_kernels_and_outputs(files: Files, tmp_path: Path) -> None:
    found = [loaded(model, SIDE) for model in files.all]
    names = [names_of(imported) for imported in found]
    assert names[0] == names[1] == names[2]
    kinds = {"hswish", "hsigmoid", "relu6", "silu"}
    assert kinds <= {part for name in names[0] for part in name.split("_")} and not any("sigmoid_multiply" in name for name in names[0])
    outputs = [run_compiled(imported, tmp_path / f"{place}.so") for place, imported in enumerate(found)]
    for imported, output in zip(found, outputs, strict=True):
        assert relative_error(output, imported.compute([image_for(imported)])[0]) <= TOLERANCE
        assert relative_error(output, outputs[0]) <= TOLERANCE
    assert [imported.macs for imported in found] == [found[0].macs] * 3
    assert [imported.reference_program.split()[0] for imported in found] == ["PyTorch", "PyTorch", "ONNX"]


@pytest.mark.parametrize(
    "spec",
    [ModelSpec(alpha=0.25, resolution=128), pytest.param(ModelSpec("mobilenet_v3_small", resolution=64), marks=pytest.mark.long)],
    ids=lambda spec: spec.variant,
)
def test_a_built_in_network_in_a_file_has_the_same_kernels(tmp_path: Path, spec: ModelSpec) -> None:
    """The shipped logs therefore apply to it."""
    model = build_torch_model(spec)
    by_name = imported_torch(spec, model.module, model.weights)
    by_pt2 = load(write_pt2(model.module, tmp_path / "net.pt2", spec.input_shape))
    by_onnx = load(write_onnx(model.module, tmp_path / "net.onnx", spec.input_shape))
    assert names_of(by_name) == names_of(by_pt2) == names_of(by_onnx)
    judged = [imported.compute([image_for(by_name)])[0] for imported in (by_name, by_pt2, by_onnx)]
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
    assert relative_error(outputs[0], found[0].compute([image_for(found[0])])[0]) <= TOLERANCE


@pytest.mark.parametrize("opset", [9, 11, 13])
def test_older_onnx_opsets(files: Files, tmp_path: Path, opset: int) -> None:
    """They express h-swish and clips otherwise."""
    path, _, factory = files.python.rpartition(":")
    module = module_of(Path(path), factory)
    older = load(write_onnx(nn.Sequential(module, nn.Hardtanh(-1.0, 2.0)), tmp_path / "older.onnx", opset=opset))
    assert names_of(older)[:-1] == names_of(loaded(str(files.pt2), SIDE))[:-1] and "clamp-1_2" in names_of(older)[-1]
    assert error_of(older, tmp_path / "net.so") <= TOLERANCE


@pytest.mark.parametrize("form", [1, 2])
def test_two_equal_functions_of_a_network_are_one_in_the_library(files: Files, form: int) -> None:
    network = network_of(loaded(files.all[form], SIDE))
    opaque = [node.layer.name for node in network.nodes if isinstance(node.layer, Opaque)]
    assert len(opaque) > len(set(opaque))
    module = lower(network, kernels_of(network))
    symbols = [str(function.attrs["global_symbol"]) for _, function in module.functions_items() if "global_symbol" in function.attrs]
    assert len(symbols) == len(set(symbols)) and {f"{name}_float32_t1" for name in opaque} <= set(symbols)


def test_its_identity(files: Files) -> None:
    specs = [loaded(model, SIDE).spec for model in files.all]
    path = Path(files.python.rpartition(":")[0])
    assert [spec.variant for spec in specs] == [f"small_1.0_{SIDE}"] * 3
    for spec, source in zip(specs, (path, files.pt2, files.onnx), strict=True):
        assert isinstance(spec, OwnSpec) and spec.contents == sha256_of(source)
        assert (spec.input_shape, spec.output_shape, spec.classes) == ((1, 3, SIDE, SIDE), (1, 5), 5)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("nets/a b.onnx", "a_b"),
        ("mobilenet_v1.pt2", "own_mobilenet_v1"),
        ("x.py:make_net", "make_net"),
        ("….onnx", "network"),
        (f"{'n' * 240}.onnx", "n" * 150),  # its library's files have longer names
    ],
)
def test_names(model: str, name: str) -> None:
    file = own_file(model)
    assert file is not None and file.name == name


@pytest.mark.parametrize(
    ("file", "inside", "name"),
    [("model", "PoseNet/2", "PoseNet_2"), ("model", "main_graph", "model"), ("pose", "PoseNet", "pose"), ("model", "vgg16", "own_vgg16")],
)
def test_a_name_inside_counts_where_the_file_says_nothing(tmp_path: Path, file: str, inside: str, name: str) -> None:
    import onnx

    path = write_model(tmp_path / f"{file}.onnx", convolution())
    model = onnx.load(path)
    model.graph.name = inside
    onnx.save(model, path)
    assert load(path).spec.name == name


@pytest.mark.parametrize("model", ["mobilenet_v1", "squeezenet1_0", "resnet"])
def test_names_of_networks_are_no_files(model: str) -> None:
    assert own_file(model) is None


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        ("net.py", "does not say which function"),
        ("net.py:", "does not say which function"),
        ("net.py:a.b", "does not say which function"),
        ("net.pth", "is not a network file: it has weights"),
        ("yolo.pt", "is not a network file: it has weights, pickled objects or TorchScript"),
        ("nets/mobilenet", "is not a network file"),
        ("model.pb", "is not a network file"),
    ],
)
def test_other_files(model: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        own_file(model)


def test_a_python_file_is_asked_for_any_side(files: Files) -> None:
    file = own_file(files.python)
    assert file is not None
    assert [spec.resolution for spec, _ in own_specs(file, (32, 40, 32), None, 0)] == [32, 40]
    gray = load(files.python.replace("small", "gray"))
    assert gray.spec.input_shape == (1, 1, 24, 24) and gray.spec.name == "gray"


def test_height_and_width_may_differ(files: Files, tmp_path: Path) -> None:
    """In every format the same kernels, and the same output."""
    file = own_file(files.python)
    assert file is not None
    ((wide, _),) = own_specs(file, [(24, 40)], None, 0)
    assert wide.input_shape == (1, 3, 24, 40) and wide.variant == "small_1.0_24x40" and load_again(file, wide, None, 0).spec == wide
    module = module_of(Path(files.python.rpartition(":")[0]))
    by_pt2, by_onnx = (
        load(write(module, tmp_path / f"wide.{end}", (1, 3, 24, 40))) for write, end in ((write_pt2, "pt2"), (write_onnx, "onnx"))
    )
    assert names_of(by_pt2) == names_of(by_onnx) and by_pt2.spec.input_shape == wide.input_shape
    assert error_of(by_pt2, tmp_path / "net.so") <= TOLERANCE
    with pytest.raises(UserError, match="takes only images of side 24x40, not 40x24"):
        load(tmp_path / "wide.pt2", (40, 24))


def test_an_input_need_not_be_an_image(tmp_path: Path) -> None:
    path = write_pt2(nn.Sequential(nn.Conv1d(1, 4, 9, 4), nn.ReLU(), nn.Flatten(), nn.Linear(56, 3)), tmp_path / "sound.pt2", (1, 1, 64))
    sound = load(path)
    assert (sound.spec.input_shape, sound.spec.variant) == ((1, 1, 64), "sound_1.0_1x64") and error_of(
        sound, tmp_path / "net.so"
    ) <= TOLERANCE
    with pytest.raises(UserError, match=r"takes only \[1, 1, 64\], not 8"):
        load(path, 8)


@pytest.mark.parametrize("form", [1, 2])
def test_a_file_of_one_side_is_asked_for_no_other(files: Files, form: int) -> None:
    assert loaded(files.all[form], SIDE).spec.resolution == SIDE
    with pytest.raises(UserError, match=f"takes only images of side {SIDE}, not 32"):
        load(files.all[form], 32)


def test_weights_drawn_by_a_factory_come_from_the_seed(files: Files) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (load(files.python, SIDE, seed=seed) for seed in (0, 0, 1))
    one, same, different = (imported.compute([image_for(imported)])[0] for imported in (first, again, other))
    assert np.array_equal(one, same) and not np.allclose(one, different)
    assert torch.equal(before, torch.random.get_rng_state())
    assert first.weights.startswith("net.py:small sha256 ") and first.weights.endswith(", seed 0")


def test_another_file_than_before(files: Files, tmp_path: Path) -> None:
    path = write_python(tmp_path)
    file = OwnFile(path, "small")
    spec = load_own(file, SIDE, None, 0).spec
    assert load_again(file, spec, None, 0).spec == spec
    path.write_text(SOURCE + "\n")
    with pytest.raises(UserError, match=r"net\.py:small has changed since this run began"):
        load_again(file, spec, None, 0)


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


def test_a_checkpoint_for_a_python_file(files: Files, tmp_path: Path) -> None:
    path, _, factory = files.python.rpartition(":")
    module = module_of(Path(path), factory, seed=7)
    torch.save(module.state_dict(), tmp_path / "weights.pt")
    imported = load(files.python, SIDE, tmp_path / "weights.pt")
    image = image_for(imported)
    with torch.no_grad():
        assert np.array_equal(imported.compute([image])[0], module(torch.from_numpy(image)).numpy())
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


def test_threads_load_networks_one_after_another() -> None:
    """torch.export is not made for several, nor is the redirection of what is printed meanwhile."""
    before = sys.stdout
    modules = [nn.Sequential(nn.Conv2d(3, 4 + number, 3), nn.ReLU()).eval() for number in range(4)]
    with ThreadPoolExecutor(len(modules)) as threads:
        found = list(threads.map(lambda module: tvmmobile.load(module, torch.zeros(1, 3, 8, 8)), modules))
    assert [model.spec.output_shape[1] for model in found] == [4, 5, 6, 7] and sys.stdout is before
