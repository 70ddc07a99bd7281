"""Batches, computed image by image: what becomes of the graph, and its values by PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lowered_networks import prepare
from small_networks import Lambda, accepted, error_against_torch, prepared, unit
from torch import nn
from torch.nn import functional

from tvmmobile.graph.layers import Opaque
from tvmmobile.graph.network import Network, read_network
from tvmmobile.graph.passes.split_batch import split_batch
from tvmmobile.networks.frontend import by_torch, decomposed, export_torch, import_program

SHAPE = (3, 3, 12, 12)


class Net(nn.Module):
    """A network with every kind of layer; in the middle it mixes images if `mixed`."""

    def __init__(self, mixed: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mixed = mixed
        self.first, self.norm = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.depthwise, self.last = nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Conv2d(8, 12, 1)
        self.squeeze, self.excite, self.head = nn.Linear(12, 4), nn.Linear(4, 12), nn.Linear(12, 5)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first = self.norm(self.first((image - 0.5) / 0.25)).clamp(0, 6)
        data = self.last(torch.cat([self.depthwise(first) + first, first], 1)[:, 2:10])
        data = data * self.excite(self.squeeze(data.mean((2, 3))).relu()).sigmoid()[:, :, None, None]
        data = functional.max_pool2d(data, 2)
        if self.mixed:
            data = data - data.mean(0, keepdim=True)
        return self.head(data.flatten(2).mean(2)).softmax(1), data, data.permute(0, 2, 3, 1).reshape(3, -1)


def imported(module: nn.Module, shape: tuple[int, ...] = SHAPE) -> Any:
    return import_program(decomposed(export_torch(module.eval(), [torch.zeros(shape)])))


def network_of(module: Any) -> Network:
    return read_network(*prepare(module, accepted))


def layers_of(network: Network) -> list[str]:
    return [node.layer.name for node in network.nodes if not isinstance(node.layer, Opaque)]


class Crosswise(nn.Module):
    """A network that adds the means of all images to each: a tensor of lower rank whose first axis is not the batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        data: torch.Tensor = self.layer(image).flatten(2)
        return data + data.mean(-1)


class Repeated(nn.Module):
    """A network that repeats the results of all images as often as there are images."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        data: torch.Tensor = self.layer(image).mean((2, 3))
        return data.expand(2, -1, -1) * 2.0


@pytest.mark.parametrize(
    ("module", "shape"), [(Net(), SHAPE), (Net(mixed=True), SHAPE), (Crosswise(), (4, 3, 2, 2)), (Repeated(), (2, 3, 2, 2))]
)
def test_it_computes_the_same(module: nn.Module, shape: tuple[int, ...]) -> None:
    """In Relax's own kernels, before any pass of the compiler's."""
    import tvm
    from tvm import relax

    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    split = relax.transform.DecomposeOpsForInference()(split_batch(imported(module, shape)))
    machine = relax.VirtualMachine(relax.build(split, target="llvm"), tvm.cpu())
    outputs = machine["main"](tvm.runtime.tensor(image))
    outputs = [outputs] if isinstance(outputs, tvm.runtime.Tensor) else outputs
    for output, expected in zip(outputs, by_torch(module)([image]), strict=True):
        np.testing.assert_allclose(output.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_an_image_after_another_has_the_layers_of_one() -> None:
    one, three = (layers_of(network_of(imported(Net(), (count, *SHAPE[1:])))) for count in (1, 3))
    assert len(one) == 11 and sorted(three) == sorted(3 * one)


def test_a_network_of_one_image_stays_as_it_is() -> None:
    module = imported(Net(), (1, *SHAPE[1:]))
    assert split_batch(module) is module


@pytest.mark.parametrize("images", [1, 2])
def test_batch_norms_by_the_statistics_of_the_batch_mix_images(images: int, tmp_path: Path) -> None:
    norm = nn.BatchNorm2d(8, track_running_stats=False)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.Conv2d(8, 5, 1)).eval()
    nn.init.uniform_(norm.weight)
    assert error_against_torch(network, (images, 3, 7, 8), tmp_path / "net.so") <= 1e-5


class Windows(nn.Module):
    """A module that is applied to each quarter of an image."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        _, channels, height, width = image.shape
        parts = image.reshape(channels, 2, height // 2, 2, width // 2).permute(1, 3, 0, 2, 4)
        quarters = self.inner(parts.reshape(4, channels, height // 2, width // 2))
        return quarters.reshape(2, 2, channels, height // 2, width // 2).permute(2, 0, 3, 1, 4).reshape(image.shape)


def test_parts_of_an_image_are_images(tmp_path: Path) -> None:
    """Their convolutions have templates, and so has what is between them."""
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(8, 12, 1), nn.ReLU(), nn.Conv2d(12, 8, 3, padding=1))
    network = nn.Sequential(*unit(3, 8), Windows(inner), *unit(8, 5)).eval()
    shape = (1, 3, 8, 12)
    names = layers_of(prepared(network, shape))
    assert len([name for name in names if name.startswith("pw_4x6_8x12")]) == len([name for name in names if "conv_4x6_12x8" in name]) == 4
    assert error_against_torch(network, shape, tmp_path / "net.so") <= 1e-5


def test_many_parts_stay_together(tmp_path: Path) -> None:
    """Although all convolutions are of parts: only a batch that is given is computed image by image, however large."""
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, 2, 1).eval()
    parts = Lambda(lambda image: image.reshape(3, 5, 4, 5, 4).permute(1, 3, 0, 2, 4).reshape(25, 3, 4, 4))
    together = prepared(nn.Sequential(parts, conv), (1, 3, 20, 20))
    assert len(together.nodes) < 10
    assert error_against_torch(nn.Sequential(parts, conv), (1, 3, 20, 20), tmp_path / "net.so") <= 1e-5
    assert sum(name.startswith("conv") for name in layers_of(prepared(conv, (25, 3, 4, 4)))) == 25
