"""Channel shuffles: gone where convolutions read them, and the network computes what PyTorch computes either way."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from host_kernels import examples
from hypothesis import given
from hypothesis import strategies as st
from relax_values import Written, channels, values_of
from small_networks import error_of, prepared, seeded, unit
from torch import nn

from tvmmobile.graph.layers import Conv2d, Opaque
from tvmmobile.graph.network import Network
from tvmmobile.graph.passes.channel_order import order_channels
from tvmmobile.kernels.reference import relative_error
from tvmmobile.networks.frontend import import_torch
from tvmmobile.networks.models.registry import build_torch_model
from tvmmobile.networks.models.spec import ModelSpec

TOLERANCE = 1e-5
IMAGE = (1, 3, 9, 9)
_NUMBER = itertools.count()


def shuffled(data: torch.Tensor, groups: int) -> torch.Tensor:
    """Return the channels of the groups taken in turn."""
    batch, channels, height, width = data.shape
    return data.reshape(batch, groups, channels // groups, height, width).transpose(1, 2).reshape(batch, channels, height, width)


class Shuffle(nn.Module):
    """A shuffle alone."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return shuffled(image, self.groups)


class Beside(nn.Module):
    """Two layers that read the same, concatenated."""

    def __init__(self, one: list[nn.Module], other: list[nn.Module]) -> None:
        super().__init__()
        self.one, self.other = nn.Sequential(*one), nn.Sequential(*other)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.one(image), self.other(image)], 1)


class Halves(nn.Module):
    """ShuffleNet v2's block: half of the channels as they are, a branch for the others, shuffled."""

    def __init__(self, half: int, activation: nn.Module | None = None) -> None:
        super().__init__()
        depthwise = unit(half, half, 3, groups=half, activation=nn.Identity())
        self.half, self.branch = half, nn.Sequential(*unit(half, half), *depthwise, *unit(half, half, activation=activation))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        kept, rest = image.split(self.half, 1)
        return shuffled(torch.cat([kept, self.branch(rest)], 1), 2)


class Halving(nn.Module):
    """ShuffleNet v2's block of stride 2: a branch begins with a depthwise layer, the other one with a 1×1 layer."""

    def __init__(self, inputs: int, half: int) -> None:
        super().__init__()
        self.left = nn.Sequential(*unit(inputs, inputs, 3, 2, inputs, nn.Identity()), *unit(inputs, half))
        self.right = nn.Sequential(*unit(inputs, half), *unit(half, half, 3, 2, half, nn.Identity()), *unit(half, half))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return shuffled(torch.cat([self.left(image), self.right(image)], 1), 2)


class Grouped(nn.Module):
    """ShuffleNet v1's block: grouped 1×1, depthwise, shuffle, grouped 1×1, added to the input."""

    def __init__(self, channels: int, inner: int, groups: int) -> None:
        super().__init__()
        depthwise = unit(inner, inner, 3, groups=inner, activation=nn.Identity())
        last = unit(inner, channels, groups=groups, activation=nn.Identity())
        self.body = nn.Sequential(*unit(channels, inner, groups=groups), *depthwise, Shuffle(inner // groups), *last)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.relu(image + self.body(image))


def checked(network: nn.Module, shape: tuple[int, ...], folder: Path) -> Network:
    """Return the network as the planner reads it; compiled, it computes what PyTorch computes."""
    read = prepared(network, shape)
    assert error_of(read, network, shape, folder / f"net{next(_NUMBER)}.so") <= TOLERANCE
    return read


def operators(network: Network) -> list[str]:
    """Return the operators that no template takes."""
    return [node.layer.operator for node in network.nodes if isinstance(node.layer, Opaque)]


def pieces(network: Network) -> list[int]:
    """Return the number of pieces of each convolution's input."""
    return [len(node.layer.pieces) for node in network.nodes if isinstance(node.layer, Conv2d)]


@pytest.mark.parametrize("half", [4, 5])
def test_halves(tmp_path: Path, half: int) -> None:
    """Each 1×1 layer reads from the blocks before, of which each has written together what is read together."""
    network = seeded(*unit(3, 2 * half, 3, 2), Halves(half), Halves(half), Halves(half), *unit(2 * half, 7))
    read = checked(network, IMAGE, tmp_path)
    assert operators(read) == []
    # The second half of the first layer's output; half of what is left of that, and half of the first block's; and so on.
    first, second, third = pieces(read)[1], pieces(read)[4], pieces(read)[7]
    assert (first, second, third) == (1, 2, 3)


def test_a_block_that_halves_the_side(tmp_path: Path) -> None:
    """A depthwise layer reads pieces too; its weights and the next layer's follow their order."""
    network = seeded(*unit(3, 12, 3, 2), Halves(6), Halving(12, 9), *unit(18, 5))
    read = checked(network, IMAGE, tmp_path)
    assert operators(read) == []
    assert [len(node.layer.pieces) for node in read.nodes if node.layer.kind == "depthwise 3x3"] == [0, 2, 0]


@pytest.mark.parametrize(("channels", "inner", "groups"), [(12, 20, 2), (15, 18, 3)])
def test_groups(tmp_path: Path, channels: int, inner: int, groups: int) -> None:
    """The second 1×1 layer's groups read a piece of every group of the first one."""
    network = seeded(*unit(3, channels, 3, 2), Grouped(channels, inner, groups), Grouped(channels, inner, groups), *unit(channels, 7))
    read = checked(network, IMAGE, tmp_path)
    assert operators(read) == []
    assert pieces(read) == [0, 0, 0, groups**2, 0, 0, groups**2, 0]


def test_groups_behind_a_convolution_without(tmp_path: Path) -> None:
    """Its filters can have any order, so that each group reads channels that follow each other: no pieces."""
    network = seeded(*unit(3, 8, 3, 2), *unit(8, 18), Shuffle(6), *unit(18, 12, groups=3), *unit(12, 7))
    read = checked(network, IMAGE, tmp_path)
    assert operators(read) == [] and not any(pieces(read))


@pytest.mark.parametrize(
    "behind",
    [
        pytest.param([nn.MaxPool2d(2), *unit(12, 5)], id="a pool of windows"),
        pytest.param([nn.Sigmoid(), *unit(12, 5)], id="an operator of no template"),
        pytest.param([nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(12, 5)], id="a classifier"),
        pytest.param([*unit(12, 12, 3, groups=12), nn.MaxPool2d(2)], id="a depthwise layer whose order matters"),
        pytest.param([], id="the caller"),
    ],
)
def test_what_reads_channels_in_their_order(tmp_path: Path, behind: list[nn.Module]) -> None:
    network = seeded(*unit(3, 12, 3, 2), Shuffle(3), *behind)
    assert any("transpose" in operator for operator in operators(checked(network, IMAGE, tmp_path)))


def test_what_writes_channels_in_their_order(tmp_path: Path) -> None:
    """Slices are shorter then, and as right."""
    network = seeded(*unit(3, 8, 3, 2, activation=nn.Hardswish()), Halves(4, nn.SiLU()), Halves(4), *unit(8, 5))
    assert not any("transpose_" in operator for operator in operators(checked(network, IMAGE, tmp_path)))


def test_a_tensor_that_others_read_too(tmp_path: Path) -> None:
    """Its order does not change; groups that read it shuffled read slices of one channel, and readers that sum over all of it read no
    slices.
    """

    class Branches(nn.Module):
        def __init__(self, groups: int) -> None:
            super().__init__()
            self.one, self.other = nn.Sequential(*unit(8, 6)), nn.Sequential(*unit(8, 6, groups=groups))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.one(image) + self.other(shuffled(image, 4))

    for groups, expected in ((1, 0), (2, 8)):
        network = seeded(*unit(3, 8, 3, 2), Branches(groups), *unit(6, 5))
        assert max(pieces(checked(network, IMAGE, tmp_path))) == expected


def test_a_concatenation_is_read_in_pieces(tmp_path: Path) -> None:
    """There is no shuffle, as in SqueezeNet; a concatenation with other readers is kept."""

    class Fire(nn.Module):
        def __init__(self, both: bool) -> None:
            super().__init__()
            self.both = both
            self.one, self.other = nn.Sequential(*unit(8, 6)), nn.Sequential(*unit(8, 10, 3))
            self.last = nn.Sequential(*unit(16, 16))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            joined = torch.cat([self.one(image), self.other(image)], 1)
            return joined + self.last(joined) if self.both else self.last(joined)

    for both, expected in ((False, [0, 0, 0, 2, 0]), (True, [0, 0, 0, 2, 0, 0, 0])):
        network = seeded(*unit(3, 8, 3, 2), Fire(both), *unit(16, 5))
        read = checked(network, IMAGE, tmp_path)
        assert pieces(read) == expected and "concatenate" not in operators(read)


def test_strassens_algorithm_reads_one_tensor() -> None:
    """It saves more than the copy costs."""
    for outputs, expected in ((124, [0, 0, 0, 2]), (128, [0, 0, 0, 2, 0])):
        network = seeded(*unit(3, 8), Beside(unit(8, 64), unit(8, 64)), *unit(128, outputs))
        assert pieces(prepared(network, IMAGE)) == expected


def test_networks_without_shuffles_are_left_alone() -> None:
    module = import_torch(seeded(*unit(3, 8, 3, 2), *unit(8, 8, 3, groups=8), *unit(8, 5)), IMAGE)
    assert order_channels(module) is module


class Draft:
    """A network of tensors of one size that moves channels in any way and reads them by layers of every kind."""

    def __init__(self, written: Written, data: Any) -> None:
        self.written, self.tensors, self.read = written, [written.conv(data, 12)], set[int]()

    def step(self, kind: str, which: int, other: int, number: int) -> None:
        """One more tensor, of one or two of those there are; none where that is not possible."""
        place, second = which % len(self.tensors), other % len(self.tensors)
        data, written = self.tensors[place], self.written
        count = channels(data)
        divisors = [divisor for divisor in range(2, count + 1) if count % divisor == 0]
        if kind == "conv":
            groups = [1, *divisors][number % (1 + len(divisors))] if number % 2 else 1
            made = written.conv(data, groups * (1 + number % (24 // groups)) if groups <= 24 else groups, 1 + 2 * (number % 5 == 0), groups)
        elif kind == "depthwise":
            made = written.conv(data, count, 3, count)
        elif kind == "shuffle" and divisors:
            made = written.shuffle(data, divisors[number % len(divisors)])
        elif kind == "part" and count > 1:
            first = number % (count - 1)
            made = written.part(data, first, first + 1 + (number // 7) % (count - first))
        elif kind == "join" and count + channels(self.tensors[second]) <= 48:
            made = written.join(data, self.tensors[second])
            self.read.add(second)
        elif kind == "add" and channels(self.tensors[second]) == count and place != second:
            made = written.add(data, self.tensors[second])
            self.read.add(second)
        else:
            return
        self.read.add(place)
        self.tensors.append(made)

    def finish(self, ordered: bool) -> Any:
        """Return the result: of what nobody reads, in its order or by convolutions."""
        left = [tensor for place, tensor in enumerate(self.tensors) if place not in self.read]
        return self.written.join(*(tensor if ordered else self.written.conv(tensor, 3) for tensor in left))


KINDS = ("conv", "depthwise", "shuffle", "shuffle", "part", "join", "join", "add")
steps = st.tuples(st.sampled_from(KINDS), st.integers(0, 30), st.integers(0, 30), st.integers(0, 99))


@examples(150)
@given(st.lists(steps, min_size=4, max_size=24), st.integers(0, 3))
def test_any_way_of_moving_channels(drafted: list[tuple[str, int, int, int]], ordered: int) -> None:
    """Whatever is rewritten computes the same; what cannot be is left as it is."""
    from tvm import relax

    builder = relax.BlockBuilder()
    image = relax.Var("image", relax.TensorType((1, 3, 2, 6), "float32"))
    with builder.function("main", [image]):
        with builder.dataflow():
            draft = Draft(Written(builder), image)
            for kind, which, other, number in drafted:
                draft.step(kind, -1 - which % 4, other, number)  # of the last ones, so that much is done to one tensor
            result = builder.emit_output(draft.finish(ordered == 0))
        builder.emit_func_output(result)
    module = builder.get()
    data = np.random.default_rng(3).normal(0.0, 1.0, (1, 3, 2, 6)).astype(np.float32)
    expected = values_of(module, data)
    assert relative_error(values_of(order_channels(module), data), expected) <= TOLERANCE


@pytest.mark.parametrize("name", ["shufflenet_v1", pytest.param("shufflenet_v2", marks=pytest.mark.long)])
def test_shufflenets(name: str) -> None:
    """Neither shuffles nor concatenations are left."""
    network = build_torch_model(ModelSpec(name, 0.5, 33)).module
    assert not operators(prepared(network, (1, 3, 33, 33)))


@pytest.mark.long
@pytest.mark.parametrize("name", ["shufflenet_v1", "shufflenet_v2"])
def test_shufflenets_compute_what_pytorch_computes(tmp_path: Path, name: str) -> None:
    checked(build_torch_model(ModelSpec(name, 0.5, 75)).module, (1, 3, 75, 75), tmp_path)


def test_a_slice_without_channels() -> None:
    from tvm import relax

    builder, image = relax.BlockBuilder(), relax.Var("image", relax.TensorType((1, 3, 2, 6), "float32"))
    with builder.function("main", [image]):
        with builder.dataflow():
            written = Written(builder)
            data = written.conv(image, 4)
            result = builder.emit_output(written.conv(written.join(written.shuffle(data, 2), written.part(data, 0, 0)), 3))
        builder.emit_func_output(result)
    module, data = builder.get(), np.random.default_rng(3).normal(0.0, 1.0, (1, 3, 2, 6)).astype(np.float32)
    assert relative_error(values_of(order_channels(module), data), values_of(module, data)) <= TOLERANCE
