"""`load`: a family, a file or an object in memory; the same network whichever way it comes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import tvm
from network_files import SIDE, module_of, write_pt2, write_python
from torch import nn

import tvmmobile as tm
from tvmmobile.networks.frontend import by_torch, export_torch
from tvmmobile.networks.models.spec import OwnSpec
from tvmmobile.networks.own.loading import load_again
from tvmmobile.system.errors import UserError

IMAGE = torch.zeros(1, 3, SIDE, SIDE)


def small() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6(), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_a_family_with_its_own_side_and_weights() -> None:
    net = tm.load("mobilenet_v1", alpha=0.5, resolution=160, seed=3)
    assert (str(net), net.seed, net.own, net.checkpoint) == ("mobilenet_v1_0.5_160", 3, None, None)
    assert tm.load("xception").spec.resolution == 299
    assert len(tm.variants("mobilenet_v1")) == 16 and tm.load("mobilenet_v1").cost.macs == 568_740_352


def test_a_module_is_the_network_of_its_pt2(tmp_path: Path) -> None:
    module = module_of(write_python(tmp_path))
    path = write_pt2(module, tmp_path / "small.pt2")
    by_object, by_file = tm.load(module, IMAGE, name="small"), tm.load(path)
    assert by_object.own is not None and by_file.own is not None and by_object.own.label == by_file.own.label
    one, other = (load_again(net.own, net.spec, None, 0) for net in (by_object, by_file) if net.own)
    tvm.ir.assert_structural_equal(one.module, other.module)
    image = np.random.default_rng(1).normal(size=IMAGE.shape).astype(np.float32)
    assert np.array_equal(one.compute([image])[0], other.compute([image])[0])
    assert (one.macs, one.parameters, one.spec.output_shape) == (other.macs, other.parameters, other.spec.output_shape)


def test_a_module_stays_as_it_is() -> None:
    module = small()
    module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    net = tm.load(module, (IMAGE,))
    assert net.spec.name == "Sequential" and all(part.training for part in module.modules())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_the_same_network_is_the_same_wherever_it_is_defined() -> None:
    """Its identity is that of what it computes, not of the line that defined it."""
    names = []
    for text in ("class Net(nn.Module):", "\n\n\nclass Net(nn.Module):"):
        space = {"nn": nn}
        body = "\n    def __init__(self):\n        super().__init__()\n        self.conv = nn.Conv2d(3, 4, 1)\n"
        exec(compile(text + body + "    def forward(self, x):\n        return self.conv(x).mean((2, 3))\n", text, "exec"), space)
        torch.manual_seed(0)
        net = tm.load(space["Net"](), IMAGE)  # type: ignore[operator]
        assert isinstance(net.spec, OwnSpec)
        names.append(net.spec.contents)
    assert names[0] == names[1]


def test_a_program_that_is_exported_already() -> None:
    program = torch.export.export(small().eval(), (IMAGE,))
    traces = [node.meta.get("stack_trace") for node in program.graph.nodes]
    net = tm.load(program, name="mine")
    assert net.spec.name == "mine" and net.spec.output_shape == (1, 8)
    assert [node.meta.get("stack_trace") for node in program.graph.nodes] == traces


@pytest.mark.parametrize(
    ("given", "complaint", "remedy"),
    [
        (
            lambda: tm.load(small()),
            "Sequential is exported with an example input, a torch.Tensor or a tuple of them, and was given no example.",
            "torch.zeros",
        ),
        (lambda: tm.load(small(), (IMAGE, 3)), "was given tuple.", "torch.zeros"),
        (lambda: tm.load(small(), torch.zeros(1, 4, 8, 8)), r"fails for an input of \[1, 4, 8, 8\]", "torch.zeros"),
        (lambda: tm.load(small().double(), IMAGE), "0.weight is float64, not float32.", "float"),
        (lambda: tm.load(3), "int is not a network.", "torch.nn.Module"),  # type: ignore[arg-type]
        (lambda: tm.load(small(), IMAGE, alpha=0.5), "`alpha` is for built-in networks", "`alpha`"),
        (lambda: tm.load(nn.Flatten(), IMAGE), "has no convolution or matrix product", "Give a network"),
        (lambda: tm.load("mobilenet_v1", alpha=3), "width multiplier 3 is outside|width multiplier 3.0 is outside", "`alpha`"),
        (lambda: tm.load("gone.pt2"), "gone.pt2 cannot be read", "`network`"),
        (lambda: tm.load(small(), IMAGE).cost, "costs are counted for built-in networks", "bench"),
    ],
)
def test_what_cannot_be_loaded(given: object, complaint: str, remedy: str) -> None:
    assert callable(given)
    with pytest.raises(tm.UserError, match=complaint) as caught:
        given()
    assert remedy in caught.value.remedy


def test_its_file_is_gone_with_the_process(tmp_path: Path) -> None:
    program = (
        "import torch, tvmmobile as tm\n"
        "net = tm.load(torch.nn.Conv2d(3, 4, 1), torch.zeros(1, 3, 8, 8))\nprint(net.own.path, net.own.path.is_file())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    path, there = done.stdout.split()
    assert there == "True" and not Path(path).parent.exists()
    assert done.stderr == "" and list(tmp_path.iterdir()) == []


def test_a_network_that_cannot_be_exported_prints_no_graph(capfd: pytest.CaptureFixture[str]) -> None:
    """PyTorch prints what it has traced so far before it raises."""

    class Cut(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image[:, :, : int(image.sum().item())]

    with pytest.raises(UserError, match="the network cannot be exported"):
        export_torch(Cut(), [torch.zeros(1, 3, 8, 8)])
    assert capfd.readouterr() == ("", "")


def test_a_network_that_changes_its_input_changes_a_copy() -> None:
    """The library is checked with the same input afterwards."""
    image = np.ones((1, 3, 4, 4), np.float32)
    (output,) = by_torch(lambda data: data.sub_(1.0))([image])
    assert (image == 1.0).all() and (output == 0.0).all()
