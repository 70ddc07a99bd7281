"""Channels equalised across layers: the network stays what it is, whatever its channels' scales were."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from quantised import decibels, digit_inputs, flow_from, rescaled, trained_flow
from small_networks import Lambda, Residual, seeded, unit
from torch import nn

from tvmmobile.quantisation.calibration import channel_ranges
from tvmmobile.quantisation.equalisation import LayerPair, equalised, pairs_of
from tvmmobile.quantisation.flow import Flow


@pytest.fixture(scope="module")
def flow() -> Flow:
    return trained_flow()


def test_steps_compute_what_pytorch_does(flow: Flow) -> None:
    """Batches and single images alike."""
    import torch
    from trained import trained

    images = digit_inputs(6, 1)
    with torch.no_grad():
        expected = trained()(torch.from_numpy(images)).numpy()
    assert np.abs(flow.outputs(images) - expected).max() < 1e-4
    assert np.abs(flow.outputs(images[2:3]) - expected[2:3]).max() < 1e-4


def test_rescaling_channels_preserves_the_network(flow: Flow) -> None:
    images = digit_inputs(40, 1)
    other = rescaled(flow, 0)
    assert len(list(pairs_of(flow))) == 27  # the last one through the pool
    assert decibels(other.outputs(images), flow.outputs(images)) > 100
    spreads = [channel_ranges(given, [(images,)])[6].size for given in (flow, other)]
    assert spreads[1].max() / spreads[1].min() > 8 * spreads[0].max() / spreads[0].min()


@pytest.mark.parametrize("seed", [None, 0])
def test_equalisation_preserves_the_network(flow: Flow, seed: int | None) -> None:
    """Exactly on the calibration data, where ReLU6's bound acts in some channels and is left out of others; nearly on other images."""
    given = flow if seed is None else rescaled(flow, seed)
    images, others = digit_inputs(48, 2), digit_inputs(40, 1)
    found = equalised(given, channel_ranges(given, [(images,)]))
    assert decibels(found.outputs(images), flow.outputs(images)) > 100
    assert decibels(found.outputs(others), flow.outputs(others)) > 30
    bounded = [step for step in found.steps if step.summing and np.isfinite(step.bounds[1])]
    assert 5 < len(bounded) < 27 and all(step.most is None for step in found.steps)  # kernels have one bound for the tensor
    for number, ranges in channel_ranges(found, [(images,)]).items():
        if number < 27:
            assert ranges.magnitude.max() <= (found.steps[number].bounds[1] if found.steps[number] in bounded else 1) * (1 + 1e-5)


def test_equalisation_undoes_a_rescale(flow: Flow) -> None:
    """Channels end with the same sizes beside one another, whatever they began with."""
    images = digit_inputs(48, 2)
    sizes = []
    for given in (flow, rescaled(flow, 5)):
        found = channel_ranges(equalised(given, channel_ranges(given, [(images,)])), [(images,)])
        sizes.append([found[number].size / found[number].size.max() for number in range(27)])
    assert all(np.allclose(one, other, rtol=1e-3) for one, other in zip(*sizes, strict=True))


def test_only_channels_with_one_reader_are_scaled() -> None:
    """Not those that a residual reads too, behind a curve, of a layer that adds a residual, or that are the residual."""
    inner = Residual(nn.Sequential(*unit(8, 8, 3, groups=8), *unit(8, 8)))
    curved = unit(8, 8, activation=nn.Hardswish())
    last = nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(8, 5)
    flow = flow_from(seeded(*unit(3, 8, 3, 2), inner, *unit(8, 8, activation=nn.ReLU()), *curved, *last), (1, 3, 12, 12))
    assert list(pairs_of(flow)) == [LayerPair(1, 2), LayerPair(4, 5)]
    images = np.random.default_rng(0).normal(0, 1, (2, 3, 12, 12)).astype(np.float32)
    found = equalised(flow, channel_ranges(flow, [(images,)]))
    assert decibels(found.outputs(images), flow.outputs(images)) > 100


def test_constants_in_front_of_what_a_layer_writes() -> None:
    """An example is a class token in front of an image's tokens."""
    token = torch.ones(1, 1, 8)
    tokens = Lambda(lambda image: torch.cat([token, image.flatten(2).transpose(1, 2)], 1))
    flow = flow_from(nn.Sequential(nn.Conv2d(3, 8, 2, 2), nn.ReLU(), tokens, nn.Linear(8, 5)).eval(), (1, 3, 8, 8))
    assert list(pairs_of(flow)) == []


def test_a_tensor_that_is_only_added_is_not_scaled() -> None:
    """A shortcut's convolution, whose channels are those of the sum."""

    class Shortcut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Sequential(*unit(8, 8)), nn.Sequential(*unit(8, 8, activation=nn.Identity()))
            self.other = nn.Sequential(*unit(8, 8, activation=nn.Identity()))

        def forward(self, data: torch.Tensor) -> torch.Tensor:
            return self.last(self.first(data)) + self.other(data)

    flow = flow_from(seeded(*unit(3, 8, 3, 2), Shortcut(), nn.AdaptiveAvgPool2d(1)), (1, 3, 12, 12))
    (added,) = (step for step in flow.steps if getattr(step.layer, "residual", False))
    assert [pair.second for pair in pairs_of(flow)] == [added.number] and added.sources[0] == next(pairs_of(flow)).first


def test_silent_channels_are_left_in_peace(flow: Flow) -> None:
    """One whose weights are all zero, and one that ReLU silences."""
    first = flow.steps[0]
    assert first.parameters is not None
    weight, bias = first.parameters.weight.copy(), first.parameters.bias.copy()
    weight[..., 0] = bias[0] = 0
    bias[1] = -1e3
    given = flow.changed(replace(first, parameters=replace(first.parameters, weight=weight, bias=bias)))
    images = digit_inputs(16, 2)
    found = equalised(given, channel_ranges(given, [(images,)]))
    assert decibels(found.outputs(images), given.outputs(images)) > 100
