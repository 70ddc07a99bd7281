"""Networks that torchao has quantised: in integers they compute what PyTorch does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from own_networks import load
from quantised_files import (
    in_integers,
    layer_by_layer,
    noise,
    pt2e_integers,
    residual_network,
    smallest_step,
    steps_off,
    window_network,
    write_pt2e,
)

import tvmmobile
from tvmmobile.graph.layers import Conv2d
from tvmmobile.networks.models.registry import build_torch_model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.networks.own.pt2.quantised import register_operators
from tvmmobile.networks.torch_operators import decompositions
from tvmmobile.system.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore")


def check(path: Path, shape: tuple[int, ...], seeds: tuple[int, ...] = (7,)) -> None:
    """Every convolution and sum is in integers, and outputs are within one step of PyTorch's on 99.9 % of values."""
    imported, ready = load(path), in_integers(path)
    assert {node.dtype for node in ready.network.nodes if isinstance(node.layer, Conv2d)} == {"int8"} and ready.network.float32_layers == ()
    assert ready.integers is not None
    images = [noise(seed, shape) for seed in seeds]  # together: PyTorch's own sums are rounded, which may move an output by two steps
    outputs = np.concatenate([ready.integers.outputs(image) for image in images])
    expected = np.concatenate([imported.compute((image,))[0] for image in images])
    assert (steps_off(outputs, expected, smallest_step(expected)) < 1.01).mean() >= 0.999


def test_a_network_of_the_pt2e_flow(tmp_path: Path) -> None:
    """Weights by channel, a clip between two roundings, a sum."""
    path = write_pt2e(residual_network(), tmp_path)
    check(path, (1, 3, 24, 24), (7, 8, 9))
    imported = load(path)
    assert imported.scales is not None and imported.parameters == sum(parameter.numel() for parameter in folded(residual_network()))


def test_windows_of_the_pt2e_flow(tmp_path: Path) -> None:
    """Convolutions of 3×3 pixels and many channels."""
    check(write_pt2e(window_network(), tmp_path), (1, 3, 24, 24), (7, 8, 9))


@pytest.mark.virtual
def test_a_library_of_the_pt2e_flow(tmp_path: Path) -> None:
    """It returns what the integers on the host are, bit for bit; every convolution adds what rounding its biases leaves."""
    path = write_pt2e(residual_network(), tmp_path)
    library = tvmmobile.compile(tvmmobile.load(path), "pi4", dtype="int8", out=tmp_path / "out", logs=tmp_path)
    output = library.run(library.reference().inputs, "pi4")
    assert np.array_equal(output, np.load(library.reference_path)["integers"])
    named = [layer["layer"] for layer in library.manifest()["quantisation"]["layers"]]
    assert len(named) == 8 and all("addend" in name or "add_linear" in name or "pool" in name for name in named)


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8], ids=["signed", "unsigned"])
def test_an_input_of_integers(tmp_path: Path, kind: torch.dtype) -> None:
    """The first convolution reads them as they are, and returns what PyTorch does."""
    register_operators()
    bounds, random = torch.iinfo(kind), np.random.default_rng(0)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.from_numpy(random.integers(-127, 128, (8, 3, 3, 3)).astype(np.int8)))
            self.register_buffer("scales", torch.from_numpy(random.uniform(0.001, 0.004, 8).astype(np.float32)))
            self.register_buffer("zeros", torch.zeros(8, dtype=torch.int64))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            library = torch.ops.quantized_decomposed
            real = library.dequantize_per_tensor(image, 0.02, bounds.min + 120, bounds.min, bounds.max, kind)
            weight = library.dequantize_per_channel(self.weight, self.scales, self.zeros, 0, -127, 127, torch.int8)
            made = torch.nn.functional.conv2d(real, weight, stride=2, padding=1)
            made = library.quantize_per_tensor(made, 0.03, -4, -128, 127, torch.int8)
            return library.dequantize_per_tensor(made, 0.03, -4, -128, 127, torch.int8)

    net, image = Net(), torch.from_numpy(random.integers(bounds.min, bounds.max + 1, (1, 3, 16, 16))).to(kind)
    torch.export.save(torch.export.export(net, (image,)), tmp_path / "net.pt2")
    ready = in_integers(tmp_path / "net.pt2")
    first = ready.network.nodes[0].layer
    assert isinstance(first, Conv2d) and ready.network.nodes[0].dtype == "int8" and first.reads == ("uint8" if bounds.min == 0 else "")
    assert ready.integers is not None and ready.network.float32_layers == ()
    off = steps_off(ready.integers.outputs(image.numpy()), np.asarray(net(image)), 0.03)
    assert off.max() < 1.01 and (off > 0.5).mean() < 0.01


def folded(module: torch.nn.Module) -> list[torch.Tensor]:
    """Weights and biases, batch norms folded into them."""
    layers = [layer for layer in module.modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)]
    return [tensor for layer in layers for tensor in (layer.weight, torch.zeros(layer.weight.shape[0]))]


@pytest.mark.long
@pytest.mark.parametrize("family", ["mobilenet_v1", "mobilenet_v2"])
def test_a_mobilenet_of_the_pt2e_flow(tmp_path: Path, family: str) -> None:
    """Layer by layer, since generated weights amplify the one step by which a value beside a tie may be off: PyTorch rounds its sums, and
    adds in an order that depends on the processor."""
    shape = (1, 3, 64, 64)
    path = write_pt2e(build_torch_model(ModelSpec(family, 0.25, 64)).module, tmp_path, shape)
    ready, image = in_integers(path), noise(7, shape)
    assert {node.dtype for node in ready.network.nodes if isinstance(node.layer, Conv2d)} == {"int8"} and ready.network.float32_layers == ()
    off = layer_by_layer(ready, image, pt2e_integers(path, image))
    assert off.max() <= 1 and (off == 0).mean() >= 0.999


def test_integers_without_sign_are_lower_by_128() -> None:
    """Decomposed, they are those of PyTorch."""
    register_operators()
    library = torch.ops.quantized_decomposed
    table = decompositions()
    values = torch.linspace(-3, 9, 101)
    for kind, bounds, lower in ((torch.int8, (-128, 127), 0), (torch.uint8, (0, 255), 128)):
        numbers = (0.03, 7, *bounds, kind)
        integers = library.quantize_per_tensor(values, *numbers)
        ours = table[library.quantize_per_tensor.default](values, *numbers)
        assert torch.equal(ours, integers.to(torch.float32) - lower)
        real = table[library.dequantize_per_tensor.default](ours, *numbers)
        assert torch.allclose(real, library.dequantize_per_tensor(integers, *numbers), atol=1e-6)


def test_an_operator_of_the_library_that_is_not_known(tmp_path: Path) -> None:
    register_operators()

    class Dynamic(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 8, 1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            scale, zero = torch.ops.quantized_decomposed.choose_qparams.tensor(image, -128, 127, 1e-6, torch.int8)
            return self.conv(image) * scale + zero

    torch.export.save(torch.export.export(Dynamic(), (torch.zeros(1, 3, 8, 8),)), tmp_path / "net.pt2")
    with pytest.raises(UserError, match=r"an operator that cannot be imported: .*choose_qparams") as caught:
        load(tmp_path / "net.pt2")
    assert "\n" not in caught.value.message
