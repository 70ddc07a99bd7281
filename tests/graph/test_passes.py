"""Tests of the graph passes on small networks; the compiled network still computes what PyTorch computes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_networks import Lambda, Residual, error_against_torch, error_of, kernels_of, prepared, seeded, two_blocks, unit
from torch import nn

from tvmmobile.graph.layers import NO_CLAMP, Clamp, Conv2d, Dense, Layer, MaxPool, Opaque, Pool
from tvmmobile.graph.lowering import lower
from tvmmobile.graph.network import Network
from tvmmobile.graph.tasks import Task
from tvmmobile.networks.models.registry import build_torch_model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.schedules import template_for

TOLERANCE = 1e-5
IMAGE = (1, 3, 9, 9)
RELU6 = (0.0, 6.0)


def layers_of(network: Network) -> list[Layer]:
    return [node.layer for node in network.nodes]


def composed(network: Network) -> list[Conv2d | Dense]:
    return [node.layer for node in network.nodes if isinstance(node.layer, Conv2d | Dense)]


def main_of(network: Network) -> str:
    """Return the text of `main`."""
    text: str = network.module["main"].script(show_meta=False)
    return text


def test_a_mobilenet_becomes_one_layer_per_kernel(tmp_path: Path) -> None:
    network = prepared(two_blocks(), IMAGE)
    stem, depthwise, pointwise, pool, classifier = layers_of(network)
    assert stem == Conv2d(9, 9, 3, 8, (3, 3), (2, 2), (1, 1, 1, 1), 1, RELU6, "NCHW")
    assert depthwise == Conv2d(5, 5, 8, 8, (3, 3), (1, 1), (1, 1, 1, 1), 8, RELU6)
    assert pointwise == Conv2d(5, 5, 8, 12, clamp=RELU6)
    assert pool == Pool(5, 5, 12)
    assert classifier == Dense(12, 5)
    # The image is read as the caller has it, and only a view lies between the pool and the classifier.
    text = main_of(network)
    assert "permute_dims" not in text and text.count("R.reshape") == 1 and "batch_norm" not in text
    assert [node.alone for node in network.nodes] == [False, False, False, False, True]
    assert error_against_torch(two_blocks(), IMAGE, tmp_path / "net.so") <= TOLERANCE


def test_batch_norm_is_folded_into_weights_and_bias() -> None:
    module = seeded(*unit(3, 8, 3))
    conv, norm = module[0], module[1]
    (node,) = prepared(module, IMAGE).nodes[:1]
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    weight = (conv.weight * scale[:, None, None, None]).permute(2, 3, 1, 0)
    assert node.parameters is not None
    torch.testing.assert_close(torch.from_numpy(node.parameters.weight), weight.detach())
    torch.testing.assert_close(torch.from_numpy(node.parameters.bias), (norm.bias - norm.running_mean * scale).detach())


@pytest.mark.parametrize(
    ("activation", "clamp"),
    [
        (nn.ReLU6(), RELU6),
        (nn.ReLU(), (0.0, None)),
        (nn.Hardtanh(-1.0, 2.0), (-1.0, 2.0)),
        (nn.Hardswish(), "hswish"),
        (nn.Hardsigmoid(), "hsigmoid"),
        (nn.SiLU(), "silu"),
        (nn.Sigmoid(), "sigmoid"),
        (nn.Tanh(), "tanh"),
        (nn.ELU(), "elu"),
        (nn.Identity(), NO_CLAMP),
    ],
)
def test_the_clamp_is_part_of_the_layer(tmp_path: Path, activation: nn.Module, clamp: Clamp) -> None:
    network = seeded(*unit(3, 8, 3, activation=activation), *unit(8, 9, activation=activation))
    read = prepared(network, IMAGE)
    assert [layer.clamp for layer in composed(read)] == [clamp, clamp]
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


def test_what_no_layer_describes_is_opaque(tmp_path: Path) -> None:
    network = seeded(*unit(3, 8, 3), Lambda(torch.sin), *unit(8, 10))
    read = prepared(network, IMAGE)
    kinds = [type(layer) for layer in layers_of(read)]
    assert kinds[0] is Conv2d and kinds[-1] is not Dense
    assert Opaque in kinds
    assert all(template_for(Task((layer,))) is not None for layer in composed(read))
    assert len(composed(read)) == 2
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


@pytest.mark.parametrize(
    "middle",
    [
        pytest.param(unit(8, 8, 7), id="7x7 with 8 channels"),
        pytest.param(unit(8, 12, 3, groups=2), id="two groups"),
        pytest.param(unit(8, 16, 3, groups=8), id="depth multiplier of 2"),
        pytest.param([nn.Conv2d(8, 8, 3, 1, 2, dilation=2, groups=8), nn.ReLU6()], id="dilated depthwise"),
        pytest.param([nn.Conv2d(8, 12, (3, 1), 1, (4, 1), dilation=(4, 3)), nn.ReLU6()], id="dilated, and by a step that has no effect"),
    ],
)
def test_other_convolutions_are_layers_too(tmp_path: Path, middle: list[nn.Module]) -> None:
    network = seeded(*unit(3, 8, 3), *middle, *unit(middle[0].out_channels, 10))
    assert len(composed(prepared(network, IMAGE))) == 3
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


def test_a_convolution_without_bias_is_taken_or_left_whole(tmp_path: Path) -> None:
    network = seeded(*unit(3, 8, 3), nn.Conv2d(8, 8, 1, bias=False), nn.ReLU6(), nn.Conv2d(8, 5, 1, bias=False))
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


def test_more_than_four_input_channels_are_no_image(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 5, 1)).eval()
    read = prepared(network, (1, 6, 5, 5))
    assert [layer.in_layout for layer in composed(read)] == ["NHWC", "NHWC"]
    assert error_against_torch(network, (1, 6, 5, 5), tmp_path / "net.so") <= TOLERANCE


def test_what_a_block_adds_is_part_of_its_last_layer(tmp_path: Path) -> None:
    """The summand has two consumers; the layers of the block follow each other all the same."""
    block = nn.Sequential(*unit(8, 24), *unit(24, 24, 3, groups=24), *unit(24, 8, activation=nn.Identity()))
    network = seeded(*unit(3, 8, 3, 2), Residual(block), *unit(8, 12))
    read = prepared(network, IMAGE)
    kinds = [layer.kind for layer in layers_of(read)]
    assert kinds == ["conv 3x3", "conv 1x1", "depthwise 3x3", "conv 1x1", "conv 1x1"]
    assert [layer.residual for layer in composed(read)] == [False, False, False, True, False]
    assert [node.alone for node in read.nodes] == [True, False, False, False, True]
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


class Added(nn.Module):
    """relu(body(x) + shortcut(x)), or the operands the other way round."""

    def __init__(self, body: nn.Module, shortcut: nn.Module, swapped: bool) -> None:
        super().__init__()
        self.body, self.shortcut, self.swapped = body, shortcut, swapped

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        left, right = self.body(image), self.shortcut(image)
        return torch.relu(right + left if self.swapped else left + right)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_shortcut_with_a_convolution_of_its_own(tmp_path: Path, swapped: bool) -> None:
    """Both operands are sums with a bias: one of them takes the addition, and the bound behind it."""
    shortcut = nn.Sequential(*unit(8, 12, 1, activation=nn.Identity()))
    body = nn.Sequential(*unit(8, 24), *unit(24, 12, 3, activation=nn.Identity()))
    network = seeded(*unit(3, 8, 3, 2), Added(body, shortcut, swapped), *unit(12, 5))
    added = [layer for layer in composed(prepared(network, IMAGE)) if isinstance(layer, Conv2d) and layer.residual]
    assert len(added) == 1 and added[0].clamp == (0.0, None)
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


def test_what_is_added_may_be_read_again(tmp_path: Path) -> None:
    """If one of two summands has other readers too, it stays a layer of its own."""
    block = nn.Sequential(*unit(8, 24), *unit(24, 8, activation=nn.Identity()))
    network = seeded(*unit(3, 8, 3, 2), *unit(8, 8, activation=nn.Identity()), Residual(block), Residual(block), *unit(8, 5))
    assert [layer.residual for layer in composed(prepared(network, IMAGE))] == [False, False, False, True, False, True, False]
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


def test_an_input_added_to_its_own_convolution(tmp_path: Path) -> None:
    network = seeded(*unit(3, 8, 3, 2), Residual(nn.Sequential(*unit(8, 8, activation=nn.Identity()))), *unit(8, 5))
    assert [layer.residual for layer in composed(prepared(network, IMAGE))] == [False, True, False]
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


def test_what_is_broadcast_is_not_added_by_a_kernel(tmp_path: Path) -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(*unit(8, 8, activation=nn.Identity()))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.body(image) + image.mean((2, 3), keepdim=True)

    network = seeded(*unit(3, 8, 3, 2), Shifted(), *unit(8, 5))
    assert not any(layer.residual for layer in composed(prepared(network, IMAGE)) if isinstance(layer, Conv2d))
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


class Excited(nn.Module):
    """The input times a gate for each of its 8 channels, which a branch makes of their means."""

    def __init__(self, gate_first: bool, read_again: bool = False, *, smooth: bool = False) -> None:
        super().__init__()
        self.gate_first, self.read_again = gate_first, read_again
        convolutions = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        between, last = (nn.SiLU(), nn.Sigmoid()) if smooth else (nn.ReLU(), nn.Hardsigmoid())
        self.branch = nn.Sequential(nn.AdaptiveAvgPool2d(1), convolutions[0], between, convolutions[1], last)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        gate = self.branch(image)
        product = gate * image if self.gate_first else image * gate
        return torch.cat([product, product], 1) if self.read_again else product


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("gate_first", [False, True])
def test_squeeze_and_excite(tmp_path: Path, gate_first: bool, smooth: bool) -> None:
    """The gate multiplies what the next 1×1 convolution reads; other layers may add to its output."""
    block = nn.Sequential(*unit(8, 8, 3, groups=8), Excited(gate_first, smooth=smooth), *unit(8, 8, activation=nn.Identity()))
    network = seeded(*unit(3, 8, 3, 2), Residual(block), *unit(8, 5))
    read = prepared(network, IMAGE)
    kinds = [layer.kind for layer in layers_of(read)]
    assert kinds == ["conv 3x3", "depthwise 3x3", "average pool", *["conv 1x1"] * 4]
    assert [layer.scaled for layer in composed(read) if isinstance(layer, Conv2d)] == [False] * 4 + [True, False]
    scaled = read.nodes[5].layer
    assert scaled == Conv2d(5, 5, 8, 8, residual=True, scaled=True) and scaled.name == "pw_5x5_8x8_scaled_add_linear"
    assert [node.gated for node in read.nodes] == [None, 5, *[None] * 5]
    assert [node.alone for node in read.nodes] == [True, True, False, False, True, False, True]
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


@pytest.mark.parametrize(
    "behind",
    [
        pytest.param([Excited(True), *unit(8, 5, 3)], id="a convolution that takes no gate"),
        pytest.param([Excited(False, read_again=True), *unit(16, 5)], id="read twice"),
        pytest.param([Excited(True)], id="read by nobody"),
    ],
)
def test_gates_that_no_kernel_takes(tmp_path: Path, behind: list[nn.Module]) -> None:
    network = seeded(*unit(3, 8, 3, 2), *behind)
    read = prepared(network, IMAGE)
    assert not any(layer.scaled for layer in composed(read) if isinstance(layer, Conv2d))
    assert all(node.gated is None for node in read.nodes)
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


def test_a_gate_for_pixels_is_another_multiplication(tmp_path: Path) -> None:
    class Attended(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Conv2d(8, 1, 1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.gate(image)) * image

    network = seeded(*unit(3, 8, 3, 2), Attended(), *unit(8, 5))
    assert not any(layer.scaled for layer in composed(prepared(network, IMAGE)) if isinstance(layer, Conv2d))
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


def test_an_image_read_twice(tmp_path: Path) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.left(image)) + self.right(image)

    torch.manual_seed(0)
    network = Twice().eval()
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


def test_one_layer_used_twice_is_one_kernel(tmp_path: Path) -> None:
    same = unit(8, 8)
    network = seeded(*unit(3, 8, 3), *same, *same, nn.MaxPool2d(2))
    read = prepared(network, IMAGE)
    first, second = composed(read)[1:]
    assert first == second
    module = lower(read, kernels_of(read))
    assert sum(variable.name_hint.startswith("pw_") for variable in module.get_global_vars()) == 1
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


def test_equal_layers_with_other_weights_share_their_code(tmp_path: Path) -> None:
    network = seeded(*unit(3, 8, 3), *unit(8, 8), *unit(8, 8), nn.MaxPool2d(2))
    read = prepared(network, IMAGE)
    module = lower(read, kernels_of(read))
    assert sum(variable.name_hint.startswith("pw_") for variable in module.get_global_vars()) == 1
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


@pytest.mark.parametrize(
    ("pool", "padding"),
    [
        (nn.MaxPool2d(3, 2), (0, 0, 0, 0)),
        (nn.MaxPool2d(3, 2, 1), (1, 1, 1, 1)),
        (nn.MaxPool2d(3, 3, 1, ceil_mode=True), (1, 1, 1, 1)),
        (nn.MaxPool2d(2, 2, ceil_mode=True), (0, 0, 1, 1)),
        (nn.MaxPool2d((2, 3), (3, 1), (1, 0)), (1, 0, 0, 0)),
    ],
    ids=str,
)
def test_max_pools(tmp_path: Path, pool: nn.Module, padding: tuple[int, ...]) -> None:
    """Inputs may be negative, and so less than padding of zeros."""
    network = seeded(nn.Conv2d(3, 12, 3, 1, 1), pool, *unit(12, 5))
    shape = (1, 3, 7, 7)
    read = prepared(network, shape)
    assert [layer.padding for layer in layers_of(read) if isinstance(layer, MaxPool)] == [padding]
    assert error_of(read, network, shape, tmp_path / "net.so") <= TOLERANCE


def test_opaque_layers_are_named_by_what_they_compute() -> None:
    """The name is a key of tuning logs: the same in every process, another one for another computation."""
    names = []
    for side in (2, 2, 3):
        network = seeded(*unit(3, 12, 3, 2), nn.MaxPool2d(side, dilation=2), *unit(12, 5))
        names.append(next(layer.name for layer in layers_of(prepared(network, IMAGE)) if isinstance(layer, Opaque)))
    assert names[0] == names[1] == "max_pool2d_1x5x5x12_72d8eca66dd4"
    assert names[2] != names[0]


@pytest.mark.parametrize(
    ("spec", "threads", "choice"),
    [
        pytest.param(ModelSpec(alpha=0.3, resolution=33, activation="relu"), 2, 77, id="odd channels and side"),
        pytest.param(ModelSpec(alpha=0.25, resolution=32), 1, 5, id="1x1 at the end"),
        pytest.param(ModelSpec(alpha=0.25, resolution=96), 2, 20, id="0.25-96", marks=pytest.mark.long),
        pytest.param(ModelSpec(alpha=0.3, resolution=96), 1, 11, id="0.3-96", marks=pytest.mark.long),
        pytest.param(ModelSpec(alpha=0.25, resolution=33, activation="relu"), 1, 3, id="0.25-33", marks=pytest.mark.long),
    ],
)
def test_mobilenet_v1(tmp_path: Path, spec: ModelSpec, threads: int, choice: int) -> None:
    network = build_torch_model(spec).module
    shape = (1, 3, spec.resolution, spec.resolution)
    read = prepared(network, shape)
    # 27 convolutions, the pool, the classifier: all have templates, and nothing branches.
    assert len(read.nodes) == 29
    assert [node.layer.kind for node in read.nodes].count("average pool") == 1
    assert not any(isinstance(node.layer, Opaque) for node in read.nodes)
    assert all(not node.alone for node in read.nodes[:-1])
    assert {layer.clamp for layer in composed(read)[:-1]} == {(0.0, 6.0 if spec.activation == "relu6" else None)}
    assert composed(read)[-1] == replace(Dense(0, 0), in_features=max(int(1024 * spec.alpha), 8), out_features=1000)
    assert error_against_torch(network, shape, tmp_path / "net.so", choice, threads) <= TOLERANCE
