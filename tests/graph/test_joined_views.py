"""Permutations with reshapes between them become a single one, or none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import Lambda, error_against_torch, prepared
from torch import nn

from tvmmobile.graph.layers import Opaque
from tvmmobile.graph.passes.joined_views import joined_views

TOLERANCE = 1e-5


def transposes(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Kernels that do nothing but permute."""
    layers = (node.layer for node in prepared(network, shape).nodes)
    return [layer.operator for layer in layers if isinstance(layer, Opaque)].count("transpose")


def folded(rows: torch.Tensor) -> torch.Tensor:
    """MobileViT's patches of 2 × 2 pixels of an image with 16 channels and 8 × 6 pixels: tokens at one place of all patches together."""
    parts = rows.reshape(64, 2, 3, 2).transpose(1, 2).reshape(1, 16, 12, 4)
    return parts.transpose(1, 3).reshape(4, 12, 16)


def unfolded(tokens: torch.Tensor) -> torch.Tensor:
    """Back to the image."""
    parts = tokens.reshape(1, 4, 12, 16).transpose(1, 3).reshape(64, 3, 2, 2)
    return parts.transpose(1, 2).reshape(1, 16, 8, 6)


def test_patches_as_tokens_are_one_copy_each_way(tmp_path: Path) -> None:
    tokens = Lambda(folded), nn.LayerNorm(16), nn.Linear(16, 16), nn.ReLU(), Lambda(unfolded)
    network, shape = seeded_tokens(nn.Conv2d(3, 16, 3, padding=1), *tokens, nn.Conv2d(16, 5, 1), nn.AdaptiveAvgPool2d(1)), (1, 3, 8, 6)
    assert transposes(network, shape) == 2
    assert error_against_torch(network, shape, tmp_path / "net.so") <= TOLERANCE


def seeded_tokens(*modules: nn.Module) -> nn.Module:
    """Return a network that only takes images of one size, with weights that all matter."""
    network = nn.Sequential(*modules).eval()
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0.1, 1.5 / parameter[0].numel() ** 0.5)
    return network


@pytest.mark.parametrize(
    ("between", "count"),
    [
        pytest.param(nn.PixelUnshuffle(2), 1, id="pixel unshuffle"),
        pytest.param(nn.Sequential(nn.PixelUnshuffle(2), nn.PixelShuffle(2)), 0, id="there and back"),
        pytest.param(nn.Sequential(nn.PixelShuffle(2), nn.Sigmoid()), 1, id="pixel shuffle and more"),
        pytest.param(nn.ChannelShuffle(3), 0, id="channel shuffle"),
        pytest.param(Lambda(lambda x: x.reshape(1, 12, 2, 3, 8).transpose(2, 3).reshape(1, 12, 6, 8)), 1, id="rows turned"),
    ],
)
def test_between_convolutions(tmp_path: Path, between: nn.Module, count: int) -> None:
    with torch.no_grad():
        channels = between(torch.zeros(1, 12, 6, 8)).shape[1]
    network = seeded_tokens(nn.Conv2d(3, 12, 3, padding=1), between, nn.Conv2d(channels, 5, 1), nn.AdaptiveAvgPool2d(1))
    assert transposes(network, (1, 3, 6, 8)) == count
    assert error_against_torch(network, (1, 3, 6, 8), tmp_path / "net.so") <= TOLERANCE


def test_unfold_and_fold_side_by_side_are_one_copy_each(tmp_path: Path) -> None:
    """MobileViT's second version has its patches of 2 × 2 pixels from these (arXiv 2206.02680)."""
    before = Lambda(lambda x: nn.functional.unfold(x, 2, stride=2).reshape(16, 4, 12).permute(1, 2, 0))
    after = Lambda(lambda x: nn.functional.fold(x.permute(2, 0, 1).reshape(1, 64, 12), (8, 6), 2, stride=2))
    tokens = before, nn.LayerNorm(16), nn.Linear(16, 16), nn.ReLU(), after
    network, shape = seeded_tokens(nn.Conv2d(3, 16, 3, padding=1), *tokens, nn.Conv2d(16, 5, 1), nn.AdaptiveAvgPool2d(1)), (1, 3, 8, 6)
    assert transposes(network, shape) == 2
    assert error_against_torch(network, shape, tmp_path / "net.so") <= TOLERANCE


def test_a_permutation_with_another_reader_stays(tmp_path: Path) -> None:
    def both(rows: torch.Tensor) -> torch.Tensor:
        turned = rows.reshape(1, 12, 2, 24).transpose(1, 2)
        return torch.sin(turned).reshape(1, 12, 6, 8) + turned.reshape(1, 3, 8, 24).transpose(1, 2).reshape(1, 12, 6, 8)

    network = seeded_tokens(nn.Conv2d(3, 12, 3, padding=1), Lambda(both), nn.Conv2d(12, 5, 1))
    assert error_against_torch(network, (1, 3, 6, 8), tmp_path / "net.so") <= TOLERANCE


@settings(max_examples=60, derandomize=True, database=None, deadline=None)
@given(st.data())
def test_they_move_the_same_elements(data: st.DataObject) -> None:
    """Whatever the permutations and reshapes."""
    import tvm
    from tvm import relax

    shape = data.draw(st.lists(st.sampled_from((1, 2, 3, 4, 6)), min_size=1, max_size=4))
    given_tensor = relax.Var("x", relax.TensorType(shape, "float32"))
    numbers = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    expected, builder = numbers, relax.BlockBuilder()
    with builder.function("main", [given_tensor]):
        with builder.dataflow():
            value = given_tensor
            for _ in range(data.draw(st.integers(2, 3))):
                axes = data.draw(st.permutations(range(expected.ndim)))
                value, expected = builder.emit(relax.op.permute_dims(value, axes)), expected.transpose(axes)
                extents = data.draw(st.sampled_from(factorings(expected.size)))
                value, expected = builder.emit(relax.op.reshape(value, extents)), expected.reshape(extents)
            value = builder.emit(relax.op.permute_dims(value, axes := data.draw(st.permutations(range(expected.ndim)))))
            expected = expected.transpose(axes)
            result = builder.emit_output(value)
        builder.emit_func_output(result)
    module = joined_views(builder.get())
    machine = relax.VirtualMachine(relax.build(module, target="llvm"), tvm.cpu())
    np.testing.assert_array_equal(machine["main"](tvm.runtime.tensor(numbers)).numpy(), expected)


def factorings(size: int) -> list[list[int]]:
    """Some shapes of so many elements."""
    return [[size], *([count, size // count] for count in (2, 3, 4, 6) if size % count == 0), [1, size, 1]]
