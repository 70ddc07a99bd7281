"""Networks of the user's own with several inputs and outputs, of several types: their names, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from network_files import convolution, module_of, write_model, write_python
from onnx import TensorProto
from onnx.helper import make_node as node
from own_networks import HEAD, load, names_of
from torch import nn

from tvmmobile.networks.models.spec import OwnSpec
from tvmmobile.networks.own.loading import load_again
from tvmmobile.networks.signature import Port
from tvmmobile.pipeline.load import load as load_model
from tvmmobile.system.errors import UserError

TWO = (
    f"from collections import OrderedDict\n{HEAD}"
    "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.conv = nn.Conv2d(3, 4, 1)\n"
    "    def forward(self, image, shift):\n        y = self.conv(image.float() / 255) + shift\n        return RETURNED\n"
    "def small():\n    return Net(), (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1, 4, 1, 1))\n"
)
TAKES = (Port("image", (1, 3, 8, 8), "uint8"), Port("shift", (1, 4, 1, 1)))


def written(folder: Path, returned: str) -> str:
    return f"{write_python(folder, TWO.replace('RETURNED', returned))}:small"


@pytest.mark.parametrize(
    ("returned", "names"),
    [
        ("y", ["output"]),
        ("{'out': y}", ["output"]),
        ("y, y.argmax(1)", ["output0", "output1"]),
        ("{'scores': y, 'boxes': y.mean((2, 3))}", ["scores", "boxes"]),
        ("{'features': [y, y.relu()], 'top': y.argmax(1)}", ["features_0", "features_1", "top"]),
        ("[y, (y.relu(), y.abs())]", ["output0", "output1_0", "output1_1"]),
        ("OrderedDict(out=y, aux=y.relu())", ["out", "aux"]),  # as torchvision's networks for segmentation do
    ],
)
def test_names_from_pytorch(tmp_path: Path, returned: str, names: list[str]) -> None:
    """A Python file and its `.pt2` give the same names."""
    model = written(tmp_path, returned)
    imported = load(model)
    assert imported.spec.takes == TAKES and [port.name for port in imported.spec.returns] == names
    torch.manual_seed(0)
    examples = tuple(torch.zeros(port.shape, dtype=getattr(torch, port.dtype)) for port in TAKES)
    torch.export.save(torch.export.export(module_of(tmp_path / "net.py"), examples), tmp_path / "net.pt2")
    exported = load(tmp_path / "net.pt2")
    assert (exported.spec.takes, exported.spec.returns) == (imported.spec.takes, imported.spec.returns)
    image, shift = np.full((1, 3, 8, 8), 200, np.uint8), np.ones((1, 4, 1, 1), np.float32)
    for output, port in zip(exported.compute([image, shift]), imported.spec.returns, strict=True):
        assert (output.shape, str(output.dtype)) == (port.shape, port.dtype)


def test_names_from_onnx(tmp_path: Path) -> None:
    other = node("Conv", ["z", "w", "b"], ["d"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    graph = convolution([other, node("Add", ["c", "d"], ["y"]), node("ArgMax", ["y"], ["top"], axis=1)])
    types = {"top": TensorProto.INT64}
    imported = load(write_model(tmp_path / "net.onnx", graph, inputs=("z",), outputs=("top",), types=types))
    assert [port.name for port in imported.spec.takes] == ["x", "z"]
    assert [(port.name, port.dtype) for port in imported.spec.returns] == [("y", "float32"), ("top", "int64")]
    x, z = (np.random.default_rng(seed).normal(size=port.shape).astype(np.float32) for seed, port in enumerate(imported.spec.takes))
    y, top = imported.compute([x, z])
    assert np.array_equal(y.argmax(1), top[:, 0])


def test_it_is_loaded_again(tmp_path: Path) -> None:
    model = load_model(written(tmp_path, "y, y.argmax(1)"))
    assert model.own is not None and isinstance(model.spec, OwnSpec)
    assert load_again(model.own, model.spec, None, 0).spec == model.spec


class _Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return self.conv(one) + self.conv(other)


def test_a_module_with_an_example_for_each_input() -> None:
    model = load_model(_Twice(), (torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)))
    assert [port.name for port in model.spec.takes] == ["one", "other"] and model.spec.variant == "_Twice_1.0_4".removeprefix("_")


@pytest.mark.parametrize(
    ("returned", "complaint"),
    [
        ("y.double()", "the output 'output' is float64, not one of float32, uint8"),
        ("y, 3", r"the output 'output1' is the constant 3, not a tensor\."),
        ("y[:, :0]", r"the output 'output' is \[1, 0, 8, 8\], which is empty"),
        ("{'a': [y, y], 'a_0': y}", "'a_0' does not name one output"),
    ],
)
def test_what_cannot_be_returned(tmp_path: Path, returned: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        load(written(tmp_path, returned))
    assert "\n" not in caught.value.message and caught.value.remedy


@pytest.mark.parametrize("example", ["(torch.zeros(1, 3, 8, 8), 3)", "'text'", "()"])
def test_an_example_that_is_no_tensor(tmp_path: Path, example: str) -> None:
    text = TWO.replace("RETURNED", "y")
    path = write_python(tmp_path, text[: text.index("def small")] + f"def small():\n    return Net(), {example}\n")
    with pytest.raises(UserError, match=r"not a torch\.nn\.Module"):
        load(f"{path}:small")


@pytest.mark.parametrize("before", ["image", "image / 255"])
def test_channels_may_be_last(tmp_path: Path, before: str) -> None:
    """Networks from TensorFlow have such inputs; no kernel moves them."""
    text = TWO.replace("self.conv(image.float() / 255) + shift", f"self.conv(({before}).permute(0, 3, 1, 2))").replace(
        "RETURNED", "y.mean((2, 3))"
    )
    text = text.replace("image, shift", "image").replace(
        "(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1, 4, 1, 1))", "torch.zeros(1, 8, 6, 3)"
    )
    imported = load(f"{write_python(tmp_path, text)}:small")
    (port,) = imported.spec.takes
    assert (port.layout, imported.spec.side, imported.spec.channels, imported.spec.odd_shape) == ("NHWC", "8x6", 3, (1, 8, 6, 3))
    assert "transpose" not in " ".join(names_of(imported))
