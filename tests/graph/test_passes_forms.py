"""Networks that say the same in other words: they become the same layers, and still compute what PyTorch computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from small_networks import Lambda, Residual, error_against_torch, prepared, seeded, unit
from torch import nn
from torch.nn import functional
from tvm import relax
from tvm.relax.dpl import is_op, wildcard

from tvmmobile.graph.bindings import bindings_of
from tvmmobile.graph.curves import CHANNEL, CURVES, TENSOR, Curve
from tvmmobile.graph.layers import KINDS, NO_CLAMP, Conv2d, Opaque
from tvmmobile.graph.layers.kind import Form
from tvmmobile.graph.passes.fold_constants import fold_constants

TOLERANCE = 1e-5
IMAGE = (1, 3, 9, 9)
Function = Callable[[torch.Tensor], torch.Tensor]


def convolutions(network: nn.Module) -> list[Conv2d]:
    return [node.layer for node in prepared(network, IMAGE).nodes if isinstance(node.layer, Conv2d)]


@pytest.mark.parametrize(
    ("function", "name"),
    [
        pytest.param(lambda x: x * (functional.relu6(x + 3) / 6), "hswish", id="gate divided"),
        pytest.param(lambda x: functional.relu6(x + 3) / 6 * x, "hswish", id="gate first"),
        pytest.param(lambda x: x * functional.relu6(x + 3) * (1 / 6), "hswish", id="a factor"),
        pytest.param(lambda x: x * functional.hardsigmoid(x), "hswish", id="by hsigmoid"),
        pytest.param(lambda x: x * torch.clamp(x / 6 + 0.5, 0, 1), "hswish", id="by another hsigmoid"),
        pytest.param(lambda x: functional.relu6(x + 3) * 0.16666667, "hsigmoid", id="hsigmoid by a factor"),
        pytest.param(lambda x: torch.clamp(x * (1 / 6) + 0.5, 0, 1), "hsigmoid", id="hsigmoid of a sixth"),
        pytest.param(lambda x: x * torch.sigmoid(x), "silu", id="silu by sigmoid"),
        pytest.param(lambda x: torch.sigmoid(x) * x, "silu", id="silu, sigmoid first"),
        pytest.param(lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5)), "gelu", id="gelu by erf"),
        pytest.param(lambda x: x * (torch.erf(x * 0.5**0.5) + 1) * 0.5, "gelu", id="gelu by erf, halved last"),
        pytest.param(functional.gelu, "gelu", id="gelu"),
        pytest.param(lambda x: functional.gelu(x, approximate="tanh"), "gelu_tanh", id="gelu by tanh"),
        pytest.param(lambda x: x**2, "square", id="second power"),
        pytest.param(lambda x: functional.relu(x) ** 2, "relu_square", id="second power of a ReLU"),
    ],
)
def test_forms_of_curves(tmp_path: Path, function: Function, name: str) -> None:
    network = seeded(*unit(3, 8, 3, activation=Lambda(function)), *unit(8, 9))
    assert [layer.clamp for layer in convolutions(network)] == [name, (0.0, 6.0)]
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: x * (functional.relu6(x + 3) / 5), id="by 5"),
        pytest.param(lambda x: x * (functional.relu6(x + 2) / 6), id="shifted by 2"),
        pytest.param(lambda x: x * functional.relu6(x + 3) * (1 / 7), id="a seventh"),
        pytest.param(lambda x: torch.clamp(x / 6 + 0.4, 0, 1), id="from 0.4"),
        pytest.param(lambda x: (x + 1) * (functional.relu6(x + 3) / 6), id="of something else"),
        pytest.param(lambda x: (x + 1) * torch.sigmoid(x), id="another sigmoid's"),
    ],
)
def test_what_only_looks_like_it(tmp_path: Path, function: Function) -> None:
    network = seeded(*unit(3, 8, 3, activation=Lambda(function)), *unit(8, 9))
    assert not {"hswish", "silu"} & {layer.clamp for layer in convolutions(network)}
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


class _Operands(nn.Module):
    """A product with another tensor, slopes of channels, and something times itself."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3 if place == 0 else 8, 8, 1 if place else 3) for place in range(4))
        self.register_buffer("slope", torch.linspace(-1, 1, 8).reshape(1, 8, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        before = self.convs[0](image)
        gated = self.convs[1](before) * before
        sloped = self.convs[2](gated)
        last = self.convs[3](torch.maximum(sloped, torch.tensor(0.0)) + sloped * self.slope)
        return last * last + self.convs[2](last + last)


def test_one_entry_is_all_that_a_curve_with_operands_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry covers everything from the network to the kernel."""
    add, multiply, largest = (is_op(f"relax.{name}") for name in ("add", "multiply", "maximum"))
    times = Curve(
        lambda x, other: x * other, lambda v, x, other: x * other, 1e-7, (lambda x, number, other: multiply(x, other),), (TENSOR,)
    )
    sloped = Curve(
        lambda x, slope: np.maximum(x, 0) + slope * x,
        lambda v, x, slope: v.bounded(x, 0.0, None) + slope * x,
        1e-7,
        (lambda x, number, slope: add(largest(x, number(0.0)), multiply(x, slope)),),
        (CHANNEL,),
    )
    monkeypatch.setitem(CURVES, "times", times)
    monkeypatch.setitem(CURVES, "sloped", sloped)
    network = seeded(_Operands())
    assert [layer.clamp for layer in convolutions(network)] == [NO_CLAMP, "times", "sloped", NO_CLAMP, "square", NO_CLAMP]
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


class _Gated(nn.Module):
    """A convolution whose channels have a gate from elsewhere, in front of a layer that takes none."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 1)
        self.behind = nn.Conv2d(8, 8, 3, groups=8)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        gate = self.gate(image.mean((2, 3), keepdim=True))
        return self.behind(torch.sigmoid(gate) * self.conv(image))


def test_a_gate_from_elsewhere(tmp_path: Path) -> None:
    network = seeded(_Gated())
    assert sorted(str(layer.clamp) for layer in convolutions(network)) == ["(None, None)", "gated", "sigmoid"]
    opaque = [node.layer.operator for node in prepared(network, IMAGE).nodes if isinstance(node.layer, Opaque)]
    assert not [name for name in opaque if "multiply" in name], opaque
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


class _GateReadTwice(nn.Module):
    """A convolution whose h-sigmoid and whose sum behind the bias both have another reader."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        total = self.conv(image)
        return functional.hardsigmoid(total) * torch.tanh(total)


def test_a_kernel_has_one_result(tmp_path: Path) -> None:
    network = seeded(_GateReadTwice())
    assert [layer.clamp for layer in convolutions(network)] == [(None, None), "hsigmoid", "tanh", "times"]
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


def test_a_batch_norm_behind_a_bias_is_folded_too(tmp_path: Path) -> None:
    network = seeded(*unit(3, 8, 3, bias=True), *unit(8, 8, 3, groups=8, bias=True), *unit(8, 9))
    assert [layer.clamp for layer in convolutions(network)] == [(0.0, 6.0)] * 3
    assert not any("batch_norm" in node.layer.name for node in prepared(network, IMAGE).nodes)
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


def test_a_batch_norm_behind_an_activation_is_a_factor_and_a_shift(tmp_path: Path) -> None:
    network = seeded(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), *unit(8, 9))
    assert not any("batch_norm" in node.layer.name for node in prepared(network, IMAGE).nodes)
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: torch.cat(x.chunk(2, 1)[::-1], 1), id="halves"),
        pytest.param(lambda x: torch.cat([part.relu() for part in x.split([1, 4, 3], 1)], 1), id="uneven parts"),
        pytest.param(lambda x: x.mean((2, 3), keepdim=True).squeeze(-1).squeeze(-1), id="squeezed"),
        pytest.param(lambda x: x.unsqueeze(1).transpose(1, 2).squeeze(-3), id="squeezed from the end"),
        pytest.param(lambda x: x[:, -1] + x[:, 2], id="the last one"),
        pytest.param(lambda x: x[:, [-1, 0, -3]], id="some from the end"),
    ],
)
def test_parts_and_views(tmp_path: Path, function: Function) -> None:
    network = seeded(*unit(3, 8, 3), Lambda(function))
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: torch.cat([x[:, 4:], x[:, :4]], 1), id="to the end"),
        pytest.param(lambda x: torch.cat([x[:, -3:], x[:, :-3]], 1), id="from the end"),
    ],
)
def test_a_layer_reads_slices_in_place(tmp_path: Path, function: Function) -> None:
    network = seeded(*unit(3, 8, 3), Lambda(function), *unit(8, 12))
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


@pytest.mark.parametrize(
    "layer",
    [
        pytest.param(lambda: nn.ConvTranspose2d(8, 6, 2, 2), id="transposed convolution"),
        pytest.param(lambda: nn.AdaptiveAvgPool2d(4), id="pooling of uneven parts"),
        pytest.param(lambda: nn.Upsample(scale_factor=2, mode="bilinear"), id="bilinear"),
        pytest.param(lambda: nn.GroupNorm(2, 8), id="group norm"),
        pytest.param(lambda: nn.PixelShuffle(2), id="pixel shuffle"),
    ],
)
def test_operators_of_other_networks(tmp_path: Path, layer: Callable[[], nn.Module]) -> None:
    """No template takes them, and all of them compile."""
    torch.manual_seed(0)
    network = seeded(*unit(3, 8, 3), layer(), Lambda(lambda x: x * 2))
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


@pytest.mark.parametrize(
    ("pool", "kinds"),
    [
        pytest.param(nn.AvgPool2d(3, 2, 1), ["depthwise 3x3"], id="padding counted"),
        pytest.param(nn.AvgPool2d((2, 3), 1), ["depthwise 2x3"], id="no padding"),
        pytest.param(nn.AvgPool2d(5), ["average pool"], id="all pixels"),
        pytest.param(nn.AvgPool2d(3, 2, 1, count_include_pad=False), ["mean pool 3x3"], id="padding not counted"),
        pytest.param(nn.AvgPool2d(2, ceil_mode=True), ["mean pool 2x2"], id="windows that reach over the image"),
        pytest.param(nn.AvgPool2d(5, 1, ceil_mode=True, count_include_pad=False), ["average pool"], id="rounded up for nothing"),
        pytest.param(nn.AvgPool2d(4, 2, 1, ceil_mode=True), [], id="padding counted, and windows that reach over it"),
        pytest.param(nn.AdaptiveAvgPool2d((1, 5)), ["depthwise 5x1"], id="adaptive, equal windows"),
        pytest.param(nn.AdaptiveAvgPool2d(1), ["average pool"], id="adaptive, all pixels"),
        pytest.param(nn.AdaptiveAvgPool2d(3), [], id="adaptive, windows that overlap"),
        pytest.param(nn.AdaptiveAvgPool2d(5), ["conv 1x1"], id="adaptive, of single pixels"),
    ],
)
def test_average_pools(tmp_path: Path, pool: nn.Module, kinds: list[str]) -> None:
    """All are layers that have templates, but for those that count some of the pixels outside the image."""
    network = seeded(*unit(3, 8, 3, 2), pool, *unit(8, 9))
    found = [node.layer.kind for node in prepared(network, IMAGE).nodes[1:2] if not isinstance(node.layer, Opaque)]
    assert found == kinds
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


class SeveralBiases(nn.Module):
    """A convolution and a linear layer whose results are read with different biases, and without one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 8, 3, bias=False), nn.Linear(8, 8, bias=False)
        self.biases = nn.Parameter(torch.arange(32.0).reshape(4, 8, 1, 1) / 32)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        image, (one, two, three, four) = self.conv(image), self.biases
        image = torch.sigmoid(image + one) * torch.tanh(image + two)
        rows = self.linear(image.flatten(2).transpose(1, 2))
        return (rows + three.flatten()).softmax(-1) * (rows + four.flatten()) + rows


def test_several_biases(tmp_path: Path) -> None:
    network = seeded(SeveralBiases())
    layers = [node.layer for node in prepared(network, IMAGE).nodes]
    assert not [layer.operator for layer in layers if isinstance(layer, Opaque) and "conv" in layer.operator]
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


def test_without_a_bias(tmp_path: Path) -> None:
    """Convolutions and classifiers without one are layers, whoever reads them."""
    first, second = nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 8, 1, bias=False)
    last = nn.Sequential(nn.Conv2d(8, 6, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
    network = seeded(first, nn.ReLU(), second, nn.Softplus(), last, nn.Linear(6, 5, bias=False))
    layers = [node.layer for node in prepared(network, IMAGE).nodes]
    kinds = [layer.kind for layer in layers if not isinstance(layer, Opaque)]
    assert kinds == ["conv 3x3", "conv 1x1", "conv 1x1", "average pool", "fully connected"]
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


def test_a_residual_around_a_depthwise_convolution_is_part_of_it(tmp_path: Path) -> None:
    inner = Residual(nn.Sequential(*unit(8, 8, 3, groups=8, activation=nn.Identity())))
    network = seeded(*unit(3, 8), inner, nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    assert [node.layer.name for node in prepared(network, IMAGE).nodes][1] == "dw_9x9_8_k3x3s1x1p1.1.1.1_add_relu"
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: torch.log(x.relu() + 1e-12), id="a logarithm"),
        pytest.param(lambda x: x.relu() / (x.relu() + torch.finfo(torch.float32).tiny), id="a quotient"),
    ],
)
def test_the_smallest_summand_is_not_zero(tmp_path: Path, function: Function) -> None:
    network = seeded(*unit(3, 8, 3), Lambda(function))
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


def test_pixels_are_counted_in_whole_numbers(tmp_path: Path) -> None:
    network = seeded(*unit(3, 8, 3, activation=nn.Tanh()), Lambda(lambda x: x / ((x > 0).sum((2, 3), keepdim=True) + 1)))
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


def test_a_constant_of_no_dimensions_keeps_none() -> None:
    from tvm import relax

    builder, data = relax.BlockBuilder(), relax.Var("data", relax.TensorType((), "int64"))
    with builder.function("main", [data]):
        with builder.dataflow():
            total = builder.emit(relax.op.add(relax.const(2, "int64"), relax.const(3, "int64")))
            result = builder.emit_output(relax.op.multiply(data, total))
        builder.emit_func_output(result)
    (value, *_) = (binding.value for binding in bindings_of(fold_constants(builder.get())["main"]))
    assert [(list(one.ty.shape), one.value.numpy().tolist()) for one in value.args[1:]] == [([], 5)]


def test_operators_of_a_form() -> None:
    """They are in each of its alternatives; others may be there."""
    image, add, multiply, sigmoid = wildcard(), is_op("relax.add"), is_op("relax.multiply"), is_op("relax.sigmoid")
    either = add(image, multiply(image, image)) | add(multiply(image, sigmoid(image)), image)
    assert Form(sigmoid(either), {}, lambda _: None).operators == {"relax.sigmoid", "relax.add", "relax.multiply"}
    assert Form(image | add(image, image), {}, lambda _: None).operators == set()
    assert all(form.operators for kind in KINDS.values() for form in kind.forms())


def test_forms_that_a_network_cannot_have_are_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_for: list[int] = []
    fuse = relax.transform.FuseOpsByPattern
    monkeypatch.setattr(relax.transform, "FuseOpsByPattern", lambda forms, **rest: looked_for.append(len(forms)) or fuse(forms, **rest))
    assert [layer.clamp for layer in convolutions(seeded(*unit(3, 8, 3)))] == [(0.0, 6.0)]
    assert 0 < looked_for[0] < sum(len(kind.forms()) for kind in KINDS.values()) / 4
