"""A trained network in integers, by each method; before and after a rescale of its channels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from quantised import decibels, digit_inputs, flow_from, rescaled, samples_of, trained_flow
from torch import nn
from torch.nn import functional

from tvmmobile.graph.integers import MOST_TOGETHER, tap_triple_sums
from tvmmobile.graph.layers import Array, Conv2d
from tvmmobile.graph.network import read_network
from tvmmobile.graph.passes.pipeline import compose, lower_in_nhwc
from tvmmobile.kernels.reference import relative_error
from tvmmobile.networks.frontend import import_torch
from tvmmobile.quantisation import calibration, methods
from tvmmobile.quantisation.calibration import CalibrationSamples, Method, Observed, quantise, quantised
from tvmmobile.quantisation.flow import flow_of
from tvmmobile.quantisation.histogram import RANGES
from tvmmobile.quantisation.integers import IntegerNetwork
from tvmmobile.quantisation.methods import MethodTrials, best_method, share_lost, with_seven_bit_weights
from tvmmobile.quantisation.moves import joined_scales
from tvmmobile.system.errors import UserError

PLAIN = "minimum and maximum"


@pytest.fixture(scope="module")
def expected() -> Array:
    return trained_flow().outputs(digit_inputs(100, 1))


def quality(network: IntegerNetwork, expected: Array) -> tuple[float, float]:
    """Decibels, and the share of images that get the class that the float32 network gives them."""
    output = network.outputs(digit_inputs(100, 1))
    return decibels(output, expected), float((output.argmax(1) == expected.argmax(1)).mean())


@pytest.mark.parametrize("ranges", RANGES)
def test_a_trained_network_keeps_its_answers(ranges: str, expected: Array) -> None:
    ratio, same = quality(quantise(trained_flow(), samples_of(digit_inputs(64, 2)), Method(ranges)), expected)
    assert ratio > 26 and same >= 0.99


def test_equalisation_makes_a_rescale_harmless(expected: Array) -> None:
    """Without it, a rescale by 2^±3 costs most of the signal; with it, next to nothing."""
    images, flow = samples_of(digit_inputs(64, 2)), trained_flow()
    other = rescaled(flow, 0)
    before, after = (quality(quantise(given, images, Method(PLAIN)), expected) for given in (flow, other))
    without = quality(quantise(other, images, Method(PLAIN, equalise=False)), expected)
    never = quality(quantise(flow, images, Method(PLAIN, equalise=False)), expected)
    assert after[0] > before[0] - 1 and after[1] >= 0.99 and before[0] > never[0] - 2
    assert without[0] < before[0] - 12 and without[1] < 0.99


def test_seven_bits_for_weights_where_they_cost_little(expected: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers that gain by it and no others; not beyond the limit."""
    images, flow = samples_of(digit_inputs(32, 2)), trained_flow()

    def method() -> Method:
        return with_seven_bit_weights(MethodTrials(flow, images), Method(PLAIN), lambda layer, weight: weight.shape[:2] == (1, 1))

    found = method()
    assert found.seven_bit_steps == {step.number for step in flow.steps if step.layer.name.startswith("pw")}
    network = quantise(flow, images, found)
    for number, step in network.steps.items():
        most = np.abs(step.parameters.weight.astype(int)).max(initial=0)
        assert most == (63 if number in found.seven_bit_steps else 0 if step.parameters.weight.size == 0 else 127)
    ratio, same = quality(network, expected)
    assert ratio > 30 and same >= 0.99
    monkeypatch.setattr(methods, "MOST_LOST_DB", -50.0)
    assert not method().seven_bit_steps


def test_threes_of_depthwise_weights_fit_where_that_costs_little(expected: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    """Channels whose threes do not fit get a coarser scale, and keep 8 bits."""
    images, flow = samples_of(digit_inputs(32, 2)), trained_flow()
    plain = quantise(flow, images, Method(PLAIN))
    layers = {number for number, step in plain.steps.items() if step.layer.is_depthwise}
    assert any(tap_triple_sums(plain.steps[number].parameters.weight).max() > MOST_TOGETHER for number in layers)

    def method(most_lost_db: float) -> Method:
        monkeypatch.setattr(methods, "MOST_LOST_DB", most_lost_db)
        return with_seven_bit_weights(MethodTrials(flow, images), Method(PLAIN), lambda layer, weight: weight.shape[:2] != (1, 1))

    found = method(2.0)
    assert found.seven_bit_steps >= layers
    network = quantise(flow, images, found)
    for number in layers:
        weight = network.steps[number].parameters.weight
        assert tap_triple_sums(weight).max() <= MOST_TOGETHER and np.abs(weight.astype(int)).max() == 127
    before, after = quality(plain, expected), quality(network, expected)
    assert after[0] > before[0] - 2 and after[1] >= 0.99


def test_who_keeps_all_bits_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """No layer keeps 8 bits, or the first one does, or the depthwise ones, or both: the first of these choices within the limit is
    taken.
    """
    data, flow, tried = digit_inputs(32, 2), trained_flow(), dict[frozenset[int], IntegerNetwork]()

    def recording(observed: Observed, method: Method, *others: Any) -> IntegerNetwork:
        return tried.setdefault(method.seven_bit_steps, quantised(observed, method, *others))

    def found(most_lost_db: float) -> frozenset[int]:
        monkeypatch.setattr(methods, "MOST_LOST_DB", most_lost_db)
        tried.clear()
        gains = ("conv", "dw", "pw")
        return with_seven_bit_weights(
            MethodTrials(flow, samples_of(data)), Method(PLAIN), lambda layer, weight: layer.name.startswith(gains)
        ).seven_bit_steps

    monkeypatch.setattr(methods, "quantised", recording)
    depthwise, products = (frozenset(step.number for step in flow.steps if step.layer.name.startswith(kind)) for kind in ("dw", "pw"))
    every = products | depthwise | {0}
    choices = [every, every - {0}, products | {0}, products]
    assert found(-50.0) == frozenset() and list(tried)[:5] == [frozenset(), *choices]
    expected = flow.outputs(data[1::2])
    before, *after = (decibels(network.outputs(data[1::2]), expected) for network in tried.values())
    lost = [before - ratio for ratio in after[: len(choices)]]
    for limit in lost:
        first = next(place for place, other in enumerate(lost) if other <= limit + 1e-4)
        assert found(limit + 1e-4) == choices[first] and list(tried) == [frozenset(), *choices[: first + 1]]


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_products_have_smaller_weights_as_far_as_that_costs_little(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """If each costs a decibel and all together cost too much, those with the most multiply-adds get them."""
    flow, plain = trained_flow(), quantised

    def costing(observed: Observed, method: Method, *others: Any) -> Any:
        return plain(observed, Method(PLAIN), *others)

    monkeypatch.setattr(methods, "quantised", costing)
    monkeypatch.setattr(MethodTrials, "ratio_db", lambda _, method: 50.0 - len(method.seven_bit_steps))
    monkeypatch.setattr(methods, "MOST_LOST_DB", float(limit))
    found = with_seven_bit_weights(
        MethodTrials(flow, samples_of(digit_inputs(4, 2))), Method(PLAIN), lambda layer, weight: weight.shape[:2] == (1, 1)
    )
    products = [step for step in flow.steps if step.layer.name.startswith("pw")]
    largest = sorted(products, key=lambda step: -step.layer.macs)[:limit]
    assert len(products) > 4 and found.seven_bit_steps == {step.number for step in largest}


def test_bias_correction_leaves_means_where_they_are(expected: Array) -> None:
    """Each channel of the output has its mean, over the calibration data."""
    images = digit_inputs(64, 2)
    flow = rescaled(trained_flow(), 0)
    wanted = flow.outputs(images).mean(0)
    off = [
        np.abs(quantise(flow, samples_of(images), Method(PLAIN, False, correct)).outputs(images).mean(0) - wanted).max()
        for correct in (False, True)
    ]
    assert off[1] < 1e-3 < 20 * off[1] < off[0]


def test_sums_fit_in_their_integers() -> None:
    """Also those of a channel with tiny weights and a large bias, and of one with none."""
    flow = trained_flow()
    step = flow.steps[2]
    assert step.parameters is not None
    weight, bias = step.parameters.weight.copy(), step.parameters.bias.copy()
    weight[..., 0] *= 1e-12
    weight[..., 1] = bias[1] = 0
    bias[0] = 5
    flow = flow.changed(replace(step, parameters=replace(step.parameters, weight=weight, bias=bias)))
    network = quantise(flow, samples_of(digit_inputs(16, 2)), Method(PLAIN, equalise=False))
    for found in network.steps.values():
        assert found.layer.largest_sums(found.parameters).max() < 2**31
        assert np.isfinite(found.parameters.multiplier).all() and found.parameters.multiplier.dtype == np.float32
    images = digit_inputs(20, 1)
    assert decibels(network.outputs(images), flow.outputs(images)) > 25
    layers = [network.steps[number].layer for number in range(29)]
    assert (layers[0].reads, layers[0].writes, layers[28].reads, layers[28].writes) == ("float32", "", "", "float32")  # type: ignore[union-attr]


def test_values_that_are_not_finite_are_refused() -> None:
    """A bias that is NaN, and inputs that make sums overflow, are refused."""
    flow = trained_flow()
    step = flow.steps[4]
    assert step.parameters is not None
    bias = step.parameters.bias.copy()
    bias[3] = np.nan
    bad = flow.changed(replace(step, parameters=replace(step.parameters, bias=bias)))
    with pytest.raises(UserError, match=r"pw_8x8_16x32_relu6 \(node 4\) computes sums of the calibration data that are not finite"):
        quantise(bad, samples_of(digit_inputs(4, 2)), Method(PLAIN, equalise=False))
    with pytest.raises(UserError, match=r"\(node 0\) computes sums of the calibration data that are not finite or exceed 1e\+30"):
        quantise(flow, samples_of(digit_inputs(4, 2) * np.float32(3e38)), Method(PLAIN, equalise=False))


def test_a_batch_is_its_images() -> None:
    network = quantise(trained_flow(), samples_of(digit_inputs(16, 2)), Method())
    images = digit_inputs(5, 1)
    one_by_one = np.concatenate([network.outputs(images[place : place + 1]) for place in range(5)])
    assert (one_by_one == network.outputs(images)).all()


def test_images_of_one_channel() -> None:
    """Their channel may come first or last, which is the same."""
    torch.manual_seed(0)
    flow = flow_from(
        nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)).eval(),
        (1, 1, 8, 12),
    )
    images = samples_of(np.random.default_rng(3).random((6, 1, 8, 12), np.float32))
    found = quantise(flow, images, best_method(MethodTrials(flow, images))).signal_to_noise_db(images.batches(), flow)
    assert min(found.values()) > 25


def test_some_samples_are_evenly_spaced() -> None:
    """Each has a value for each input of the network."""
    samples = samples_of(np.arange(10.0), np.arange(10, 20))
    assert [array.tolist() for array in samples.some(4).all()] == [[0, 2, 5, 7], [10, 12, 15, 17]] and samples.some(20).count == 10
    assert [array.tolist() for array in samples.some(4).part([3, 1]).all()] == [[7, 2], [17, 12]]


def test_signal_to_noise_falls_along_the_network() -> None:
    flow, images = trained_flow(), samples_of(digit_inputs(16, 2))
    found = quantise(flow, images, Method(PLAIN, equalise=False)).signal_to_noise_db(images.batches(), flow)
    assert list(found) == list(range(29)) and found[0] > 40 > found[20] > 20


def test_the_method_is_chosen_by_error_on_other_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only methods with equalisation are any good for a rescaled network; calibration data are read a few at a time."""
    monkeypatch.setattr(methods, "_TRIED", 20)
    data, asked = digit_inputs(64, 2), []

    def read(numbers: object) -> tuple[Array]:
        asked.append(list(numbers))  # type: ignore[call-overload]
        return (data[asked[-1]],)

    assert best_method(MethodTrials(rescaled(trained_flow(), 0), CalibrationSamples(len(data), read))).equalise
    assert max(map(len, asked)) <= 10 and len({number for numbers in asked for number in numbers}) == 20


def watched(monkeypatch: pytest.MonkeyPatch) -> list[Method]:
    """Return the methods that are tried from now on."""
    tried = list[Method]()

    def recording(observed: Observed, method: Method, *others: Any) -> IntegerNetwork:
        tried.append(method)
        return quantised(observed, method, *others)

    monkeypatch.setattr(methods, "quantised", recording)
    return tried


@pytest.mark.parametrize("moved", [0, 800])
def test_biases_are_corrected_unless_the_output_is_clearly_better_without(moved: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A correction that moves each bias too far is dropped."""
    corrected = calibration._Quantisation._corrected

    def too_far(self: Any, found: Any) -> Any:
        right = corrected(self, found)
        return replace(right, parameters=replace(right.parameters, bias=right.parameters.bias + moved))

    monkeypatch.setattr(calibration._Quantisation, "_corrected", too_far)
    tried = watched(monkeypatch)
    found = best_method(MethodTrials(trained_flow(), samples_of(digit_inputs(8, 2))))
    assert found.correct == (moved == 0)
    assert [method.correct for method in tried] == [True] * 6 + [False] and replace(tried[-1], correct=True) in tried[:-1]


def test_networks_without_channels_to_equalise_are_not_equalised(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    flow = flow_from(nn.Sequential(nn.Conv2d(3, 8, 1), nn.SiLU(), nn.AdaptiveAvgPool2d(1)).eval(), (1, 3, 6, 6))
    tried = watched(monkeypatch)
    best_method(MethodTrials(flow, samples_of(np.random.default_rng(3).random((6, 3, 6, 6), np.float32))))
    assert [(method.ranges, method.equalise) for method in tried[:-1]] == [(ranges, False) for ranges in RANGES]


def test_scores_count_as_much_as_coordinates_beside_them() -> None:
    """Whichever axis they are along; what is lost entirely is lost once, and what is nothing cannot be."""
    random = np.random.default_rng(4)
    expected = np.concatenate([random.uniform(0, 300, (2, 4, 50)), random.random((2, 2, 50)), np.zeros((2, 2, 50))], 1).astype(np.float32)
    pixels, scores = expected.copy(), expected.copy()
    pixels[:, :4] *= 1.1
    scores[:, 4:6] *= 3
    assert share_lost(pixels, expected) == pytest.approx(0.1**2, rel=0.01) and share_lost(scores, expected) == pytest.approx(2 / 8)
    assert share_lost(scores.swapaxes(1, 2), expected.swapaxes(1, 2)) == share_lost(scores, expected)
    assert share_lost(scores[0, 4], expected[0, 4]) == 1.0 and share_lost(expected, expected) == 0.0


class Parts(nn.Module):
    """A split whose halves are joined with a convolution of one of them and its maxima; a transposed copy is not read as integers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(32, 8, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        one, other = functional.silu(self.first(image)).chunk(2, 1)
        inner = 3 * self.inner(other)
        return self.last(torch.cat([one, other, inner, functional.max_pool2d(inner, 3, 1, 1)], 1)).transpose(2, 3)


def test_tensors_that_are_joined_have_one_scale() -> None:
    """The scale covers all their values; a tensor that no integer layer reads, here behind a transpose, is not rounded."""
    torch.manual_seed(0)
    composed = compose(import_torch(Parts(), (1, 3, 6, 6)), lambda layer: isinstance(layer, Conv2d) and not layer.sources)
    flow = flow_of(read_network(*lower_in_nhwc(composed)))
    network = quantise(flow, samples_of(np.random.default_rng(0).normal(0, 1, (4, 3, 6, 6)).astype(np.float32)), Method())
    first, inner, last = network.steps.values()
    assert first.written == inner.read == inner.written == last.read and first.lookup_scale is not None and last.written is None
    assert inner.written is not None and joined_scales(flow).keys() >= {inner.step.number}
    images = np.random.default_rng(1).normal(0, 1, (4, 3, 6, 6)).astype(np.float32)
    assert relative_error(network.outputs(images), flow.outputs(images)) < 0.1
