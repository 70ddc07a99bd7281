"""Files of torch.export: nothing in them is executed."""

from __future__ import annotations

import io
import json
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from network_files import (
    repacked,
    write_pt2,
)
from own_networks import Files, image_for, load
from torch import nn
from torch.export.pt2_archive import PT2ArchiveReader

from tvmmobile.system.errors import UserError


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


def _computes(network: nn.Module, path: Path) -> None:
    """The file of a network, once imported, computes what the network computes."""
    imported = load(path)
    data = image_for(imported)
    with torch.no_grad():
        wanted = network(torch.from_numpy(data)).numpy()
    np.testing.assert_allclose(imported.compute([data])[0], wanted, rtol=1e-5, atol=1e-6)


_MODEL = "models/model.json"
_WEIGHTS = "data/weights/model_weights_config.json"
_CONSTANTS = "data/constants/model_constants_config.json"


def _graph(program: Any) -> Any:
    return program["graph_module"]["graph"]


def _parameter(program: Any) -> Any:
    return program["graph_module"]["signature"]["input_specs"][0]["parameter"]


#: A key whose module PyTorch would import.
_ENUMERATION = {"__enum__": True, "fqn": "tabnanny:Sky", "name": "BLUE"}


def _keyed_by(key: Any) -> str:
    """Return a dictionary of one tensor."""
    leaf = {"type": None, "context": None, "children_spec": []}
    return json.dumps([1, {"type": "builtins.dict", "context": json.dumps([key]), "children_spec": [leaf]}])


def _returning(spec: str) -> Callable[[Any], None]:
    """Return a program with another description of what it returns."""
    return lambda program: program["graph_module"]["module_call_graph"][0]["signature"].update(out_spec=spec)


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
        (
            _MODEL,
            lambda program: _graph(program)["nodes"][0].update(target="torch.ops.torchvision.roi_align.default"),
            r"operators of torchvision, which PyTorch alone cannot read: torchvision\.roi_align\.default",
        ),
        (_MODEL, lambda program: _graph(program)["nodes"][0].update(target="torch.os.system"), r"an operator .* torch\.os\.system"),
        (_MODEL, lambda program: _graph(program)["nodes"][0].update(name="x=touch()"), "a name that PyTorch does not give"),
        (_MODEL, lambda program: _graph(program)["nodes"][0].update(name="x-y"), "a name that PyTorch does not give"),
        (_MODEL, lambda program: _parameter(program).update(parameter_name='x",touch(),"'), "a name that PyTorch does not give"),
        (
            _MODEL,
            lambda program: _graph(program)["tensor_values"]["input"]["sizes"].__setitem__(0, {"as_expr": {"expr_str": "touch()"}}),
            r"dimension 0 of the input 'input' is dynamic \(touch\(\)\)",
        ),
        (_MODEL, _returning('[1, {"type": "os.PathLike", "context": "null", "children_spec": []}]'), "containers other than tuples"),
        (_MODEL, _returning(_keyed_by(_ENUMERATION)), "containers other than tuples"),
        (_MODEL, _returning("[" * 100_000), "containers other than tuples"),
    ],
    ids=[
        "a weight",
        "a constant",
        "guards",
        "an operator of another package",
        "an operator",
        "a name",
        "a difference",
        "a module",
        "a dimension",
        "a container",
        "a key",
        "a deep tree",
    ],
)
def test_nothing_in_a_pt2_is_executed(tmp_path: Path, place: str, change: Callable[[Any], object], complaint: str) -> None:
    whole = write_pt2(nn.Sequential(nn.Conv2d(3, 4, 1)), tmp_path / "net.pt2")
    bomb = pickle.dumps(_Bomb(tmp_path / "touched"))
    changed = repacked(whole, {place: _json(change)}, {"data/constants/opaque_obj_0": bomb, "data/weights/weight_0": bomb})
    with pytest.raises(UserError, match=complaint):
        load(changed)
    assert not (tmp_path / "touched").exists()


def test_hyphens_in_module_names_of_a_pt2(tmp_path: Path) -> None:
    """torchvision's RegNet has such names."""

    class Offset(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("by-one", torch.ones(1, 4, 1, 1))

        def forward(self, data: torch.Tensor) -> torch.Tensor:
            return data + self.get_buffer("by-one")

    network = nn.Sequential(OrderedDict([("block1-0", nn.Conv2d(3, 4, 1)), ("off-set", Offset())]))
    _computes(network, write_pt2(network, tmp_path / "net.pt2"))


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


def test_blocks_without_autocasting(tmp_path: Path) -> None:
    """timm's EfficientViT has them around its attention: two of them, with names that the graph around them has too."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(3, 3, 3, 1, 1)

        def forward(self, data: torch.Tensor) -> torch.Tensor:
            data = self.convolution(data).relu()
            with torch.autocast("cpu", enabled=False):
                scaled = data.float().relu() * 0.5
                products = scaled.flatten(2) @ scaled.flatten(2).transpose(1, 2)
            return data + products.mean() + scaled.relu()

    network = nn.Sequential(Block(), Block()).eval()
    _computes(network, write_pt2(network, tmp_path / "net.pt2"))
    network[0].forward = lambda data: torch.autocast("cpu", torch.bfloat16)(network[1].forward)(data)
    with pytest.raises(UserError, match=r"holds graphs within its graph, .*: wrap_with_autocast"):
        load(write_pt2(network, tmp_path / "cast.pt2"))


def test_a_pt2_in_training_mode(tmp_path: Path) -> None:
    path = write_pt2(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train(), tmp_path / "net.pt2")
    with pytest.raises(UserError, match=r"changes 1\.running_mean when it runs"):
        load(path)


def test_blocks_without_gradients(tmp_path: Path) -> None:
    """Transformers have them around positions, and blocks without autocasting in them."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(3, 3, 3, 1, 1)

        def forward(self, data: torch.Tensor) -> torch.Tensor:
            data = self.convolution(data)
            with torch.no_grad():
                places = torch.arange(data.shape[3], dtype=torch.float32) * 0.1
                with torch.autocast("cpu", enabled=False):
                    waves = places.cos() * data.float().relu()
                largest = waves.amax((2, 3), keepdim=True)
            return data * waves + largest

    network = nn.Sequential(Block(), Block()).eval()
    path = write_pt2(network, tmp_path / "net.pt2")
    with PT2ArchiveReader(io.BytesIO(path.read_bytes())) as archive:
        assert b"wrap_with_set_grad_enabled" in archive.read_bytes(_MODEL)
    _computes(network, path)
