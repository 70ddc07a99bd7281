"""Networks partly in float32: which layers, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from quantised import decibels, digit_inputs, flow_from, samples_of, trained_flow
from torch import nn

from tvmmobile.graph.layers import Array, MaxPool
from tvmmobile.graph.network import INPUT
from tvmmobile.quantisation import mixed
from tvmmobile.quantisation.assignment import KernelSpan, fastest
from tvmmobile.quantisation.calibration import CalibrationSamples, Method, observe, quantised
from tvmmobile.quantisation.integers import IntegerNetwork
from tvmmobile.quantisation.kept import chosen_layers
from tvmmobile.quantisation.limit import Limit, limit_of
from tvmmobile.quantisation.mixed import Decision, Mixed, decibels_below, quantise_within
from tvmmobile.quantisation.moves import only_moves
from tvmmobile.quantisation.noise import AddedNoise, added_noise
from tvmmobile.quantisation.programme import Costs, programme_of
from tvmmobile.system.errors import UserError

METHOD = Method("minimum and maximum", equalise=False)


def everything(_: object) -> bool:
    return True


def unit_costs(network: IntegerNetwork) -> Costs:
    """Return a cost of 1 for each step in float32 and 0 for all else: the cheapest assignment keeps the fewest layers."""
    numbers = [step.number for step in network.flow.steps]
    return Costs(tuple(KernelSpan(number, number, integer, float(not integer)) for number in numbers for integer in (True, False)))


@pytest.fixture(scope="module")
def images() -> Array:
    return digit_inputs(32, 2)


def test_layers_are_named_by_number_name_or_pattern() -> None:
    flow = trained_flow()
    depthwise = [step.number for step in flow.steps if step.layer.name.startswith("dw_")]
    assert sorted(chosen_layers(flow, ["dw_*"])) == depthwise and len(depthwise) == 13
    found = chosen_layers(flow, ["0", flow.steps[-1].layer.name])
    assert found == {0: "--keep 0", flow.steps[-1].number: f"--keep {flow.steps[-1].layer.name}"}
    with pytest.raises(UserError, match=r"`keep=99` matches no layer") as caught:
        chosen_layers(flow, ["0", "99"])
    assert flow.steps[0].layer.name in str(caught.value.remedy)


@pytest.mark.parametrize(("text", "limit"), [("30dB", Limit(30, "dB")), ("0.5%", Limit(0.5, "%"))])
def test_limits_are_read_as_they_are_written(text: str, limit: Limit) -> None:
    assert limit_of(text) == limit and str(limit) == text


@pytest.mark.parametrize("text", ["", "30", "-1%", "dB", "1 %", "infdB", "1%%", "4000dB"])
def test_other_limits_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="`max_drop"):
        limit_of(text)


def test_what_a_share_counts_depends_on_the_calibration_data(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    for data, meaning in (
        (str(tmp_path), f"points of top-1, if the folders in {tmp_path} name the network's classes"),
        (str(tmp_path / "cat"), f"{tmp_path / 'cat'} has no class folders, so it counts inputs that may get another class"),
        ("noise:4", "noise:4 has no class folders, so it counts inputs that may get another class"),
        ("", "without class folders it counts inputs that may get another class"),
    ):
        with pytest.raises(UserError) as caught:
            limit_of("1", data)
        assert caught.value.remedy.startswith(f"Give a ratio such as 30dB, or a share such as 1%: {meaning}")


def test_a_limit_holds_up_to_its_value() -> None:
    """One of ten inputs has another class; for noise a tenth as large as the signal, the ratio is 20 dB."""
    expected = np.eye(10, dtype=np.float32)
    other = expected.copy()
    other[3] = np.roll(other[3], 1)
    assert Limit(10, "%").holds(other, expected) and not Limit(9.9, "%").holds(other, expected)
    noisy = expected * np.float32(1.1)
    assert Limit(19.99, "dB").holds(noisy, expected) and not Limit(20.01, "dB").holds(noisy, expected)
    assert Limit(200, "dB").holds(expected, expected)


def test_a_limit_counts_top1_where_classes_are_known() -> None:
    """Two of ten inputs get another class: one that was right in float32, and one that was wrong."""
    expected = np.eye(10, dtype=np.float32)
    other = expected.copy()
    other[[3, 5]] = np.roll(other[[3, 5]], 1, 1)
    labels = (0, 1, 2, 3, 4, 6, 6, 7, 8, 9)
    assert Limit(0, "%").holds(other, expected, labels)  # 5 became 6, which it is
    assert not Limit(19.9, "%").holds(other, expected) and Limit(20, "%").holds(other, expected)
    labels = tuple(range(10))
    assert Limit(20, "%").holds(other, expected, labels) and not Limit(19.9, "%").holds(other, expected, labels)
    assert Limit(0, "%").holds(other, expected, [9] * 10)
    noisy = expected * np.float32(1.1)
    assert not Limit(20.01, "dB").holds(noisy, expected, labels)


def test_layers_are_kept_for_top1_alone(images: Array) -> None:
    """Classes that no label names may change: of a network with coarse weights, none is kept where labels fit it as well."""
    flow = trained_flow()
    coarse = replace(METHOD, per_channel=False)
    network = quantised(observe(flow, samples_of(images), False), coarse, everything)
    ours, theirs = network.outputs(images).argmax(1), flow.outputs(images).argmax(1)
    assert (ours != theirs).any()
    limit = Limit(1, "%")
    labelled = replace(samples_of(images), labels=tuple(map(int, ours)))
    assert quantise_within(flow, labelled, coarse, everything, {}, limit, unit_costs).decision.float32_reasons == {}
    labelled = replace(samples_of(images), labels=tuple(map(int, theirs)))
    assert quantise_within(flow, labelled, coarse, everything, {}, limit, unit_costs).decision.float32_reasons


def test_inputs_are_counted_where_the_output_has_no_batch_dimension(images: Array) -> None:
    flow = trained_flow()
    right = flow.outputs(images)
    flat = SimpleNamespace(outputs=lambda batch: flow.outputs(batch).reshape(-1))
    wrong = SimpleNamespace(outputs=lambda batch: np.roll(flow.outputs(batch), 1, 1).reshape(-1))
    for labels in ((), tuple(map(int, right.argmax(1)))):
        compared: Any = mixed._Comparison(cast(Any, flat), replace(samples_of(images), labels=labels), Limit(0, "%"))
        assert compared.holds(flat) and not compared.holds(wrong)


def test_large_outputs_are_compared_on_fewer_images(images: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them are in memory at once."""
    flow, read = trained_flow(), []

    def batch_of(numbers: Sequence[int]) -> tuple[Array]:
        read.extend(numbers)
        return (images[list(numbers)],)

    elements = flow.outputs(images[:1]).size
    for most, count in ((len(images) * elements, len(images)), (5 * elements + 1, 5), (elements - 1, 1)):
        monkeypatch.setattr(mixed, "_MOST_ELEMENTS", most)
        observed = mixed._Comparison(flow, CalibrationSamples(len(images), batch_of).some(mixed._most_compared(flow)), Limit(30, "dB"))
        assert len(observed.outputs(cast(Any, flow))) == count and len(set(read)) == count
        read.clear()


def test_kept_layers_stay_in_float32(images: Array) -> None:
    flow = trained_flow()
    float32_reasons = chosen_layers(flow, ["dw_*", "0"])
    found = quantise_within(flow, samples_of(images), METHOD, everything, float32_reasons, None, unit_costs)
    network = found.network
    assert (
        found.decision.float32_reasons == float32_reasons
        and network.steps.keys() == {step.number for step in flow.steps} - float32_reasons.keys()
    )
    assert decibels(network.outputs(images), flow.outputs(images)) > 25


def test_layers_between_float32_are_not_equalised(images: Array) -> None:
    """They keep ReLU6 as it is, which on other images acts in other channels; those beside integers are equalised as they were."""
    flow, data, apart = trained_flow(), samples_of(images), 9
    observed = observe(flow, data, True)
    network = quantised(observed, replace(METHOD, equalise=True), everything, range(apart))
    assert any(observed.flow.steps[number].layer != flow.steps[number].layer for number in range(apart - 1))
    for given, plain in zip(network.flow.steps[: apart - 1], flow.steps, strict=False):
        assert given.layer == plain.layer and given.parameters is not None and plain.parameters is not None
        assert np.array_equal(given.parameters.weight, plain.parameters.weight)
    for given, scaled in zip(network.flow.steps[apart:], observed.flow.steps[apart:], strict=True):
        assert given.layer == scaled.layer
    assert decibels(network.flow.outputs(images), flow.outputs(images)) > 100
    assert decibels(network.outputs(images), flow.outputs(images)) > 25


@pytest.fixture(scope="module")
def within(images: Array) -> Mixed:
    """The trained network within a limit 3 dB above what int8 reaches, each layer in float32 as dear as any."""
    flow, data = trained_flow(), samples_of(images)
    plain = quantised(observe(flow, data, METHOD.equalise), METHOD, everything)
    limit = Limit(round(decibels(plain.outputs(images), flow.outputs(images))) + 3, "dB")
    return quantise_within(flow, data, METHOD, everything, {}, limit, unit_costs)


def test_a_limit_holds_with_the_layers_that_are_kept(images: Array, within: Mixed) -> None:
    """Predictions are close to measurements, and the programme has no cheaper assignment."""
    flow, reasons, found = trained_flow(), within.decision.float32_reasons, within.decision.found
    assert found is not None
    (reason,) = set(reasons.values())
    limit = limit_of(reason.removeprefix("--max-drop "))
    outputs = within.network.outputs(images)
    assert 0 < len(reasons) < len(flow.steps) and within.network.steps.keys() == {step.number for step in flow.steps} - reasons.keys()
    assert limit.holds(outputs, flow.outputs(images))
    assert decibels_below(found.noise) == pytest.approx(decibels(outputs, flow.outputs(images)), abs=0.5)  # of batches of other sizes
    assert found.predicted.latency_us == found.predicted.bound_us == len(reasons) and found.plain_us == 0
    assert found.predicted_noise <= found.most_noise * (1 + 1e-6)
    assert abs(10 * math.log10(found.predicted_noise / found.noise)) < 1


def test_layers_are_kept_where_they_cost_least(images: Array, within: Mixed) -> None:
    """If the layers that were kept before cost ten times as much as others, fewer of them are kept."""
    flow, before = trained_flow(), within.decision.float32_reasons
    (reason,) = set(before.values())

    def costs(network: IntegerNetwork) -> Costs:
        even = unit_costs(network)
        return replace(
            even,
            pieces=tuple(replace(piece, latency_us=10 * piece.latency_us) if piece.first in before else piece for piece in even.pieces),
        )

    found = quantise_within(flow, samples_of(images), METHOD, everything, {}, limit_of(reason.removeprefix("--max-drop ")), costs).decision
    assert found.found is not None
    assert found.found.predicted.latency_us < 10 * len(before) and len(found.float32_reasons.keys() & before.keys()) < len(before)


class TwoHeads(nn.Module):
    """Scores, and coordinates that are a thousand times as large."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU())
        self.scores, self.boxes = (nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, out)) for out in (5, 4))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        body = self.body(image).mean((2, 3))
        return self.scores(body), 1000 * self.boxes(body), torch.ones(7, 3)


def test_several_outputs_count_the_same() -> None:
    """A limit that a small output fails is not met by a large one alone; a constant output does not count."""
    inputs = np.random.default_rng(0).normal(size=(8, 3, 16, 16)).astype(np.float32)
    data, flow = samples_of(inputs), flow_from(TwoHeads().eval(), (1, 3, 16, 16)).weighted(inputs)
    joined = flow.outputs(inputs)
    assert joined.shape == (8, 5 + 4)
    assert np.square(joined[:, :5]).mean() == pytest.approx(1, rel=1e-3) == pytest.approx(np.square(joined[:, 5:]).mean(), rel=1e-3)

    def ratios(network: IntegerNetwork) -> list[float]:
        return [decibels(*pair) for pair in zip(network.results([inputs])[:2], flow.separate_outputs(inputs)[:2], strict=True)]

    plain = ratios(quantised(observe(flow, data, METHOD.equalise), METHOD, everything))
    limit = Limit(round(min(plain)) + 4, "dB")
    found = quantise_within(flow, data, METHOD, everything, {}, limit, unit_costs)
    assert 0 < len(found.decision.float32_reasons) < len(flow.steps)
    assert min(ratios(found.network)) > min(plain) + 1 and limit.holds(found.network.outputs(inputs), joined)


def test_what_only_moves_numbers_converts_nothing(images: Array) -> None:
    """The convolution in front of a max pool is read by the one behind it, and that by the caller."""
    layers = nn.Conv2d(3, 8, 3, 2, 1), nn.MaxPool2d(2), nn.Conv2d(8, 8, 1), nn.ReLU()
    flow = flow_from(nn.Sequential(*layers).eval(), (1, *images.shape[1:]), MaxPool)
    network = quantised(observe(flow, samples_of(images[:1]), False), METHOD, everything)
    programme = programme_of(network, unit_costs(network), AddedNoise({}, {}), network.steps.keys())
    (first, last), (pool,) = network.steps, {step.number for step in flow.steps if only_moves(step)}
    readers = {tensor.producer: tensor.readers for tensor in programme.tensors}
    assert pool not in readers and readers[first] == (last,)
    assert {len(flow.steps)} in map(set, readers.values()) and fastest(programme) is not None


def test_noise_of_layers_adds_up(images: Array) -> None:
    """Each is measured alone; in integers together, they make about the sum of it."""
    flow, data = trained_flow(), samples_of(images[:8])
    network = quantised(observe(flow, data, METHOD.equalise), METHOD, everything)
    noise = added_noise(network, data.batches(), METHOD.correct)
    assert noise.steps.keys() == network.steps.keys() and noise.tensors[INPUT] > 0
    predicted = decibels_below(sum(noise.steps.values()) + noise.tensors[INPUT])
    assert predicted == pytest.approx(decibels(network.outputs(images[:8]), flow.outputs(images[:8])), abs=3)


def test_a_limit_that_cannot_be_met_is_refused(images: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    """Because of a layer that stays in int8, here the last one."""
    monkeypatch.setattr(mixed, "keepable", lambda flow: iter(flow.steps[:-1]))
    with pytest.raises(UserError, match=r"`max_drop='200dB'` cannot be met, even with every possible layer in float32") as caught:
        quantise_within(trained_flow(), samples_of(images[:8]), METHOD, everything, {}, Limit(200, "dB"), unit_costs)
    assert caught.value.remedy
    monkeypatch.undo()
    found = quantise_within(trained_flow(), samples_of(images[:8]), METHOD, everything, {}, Limit(200, "dB"), unit_costs)
    assert not found.network.steps


def test_a_limit_that_holds_keeps_nothing(images: Array) -> None:
    """Not even weights of 7 bits are made wider."""
    narrow = replace(METHOD, seven_bit_steps=frozenset({2, 4}))
    found = quantise_within(trained_flow(), samples_of(images), narrow, everything, {}, Limit(10, "%"), unit_costs)
    assert found.decision == Decision(narrow, {})


def test_weights_get_their_bits_before_a_layer_is_kept(images: Array) -> None:
    """Int8 alone is good enough for the network."""
    flow, data = trained_flow(), samples_of(images)
    numbers = frozenset(step.number for step in flow.steps)
    observed = observe(flow, data, METHOD.equalise)
    wide, narrow = (
        decibels(quantised(observed, replace(METHOD, seven_bit_steps=chosen), everything).outputs(images), flow.outputs(images))
        for chosen in (frozenset[int](), numbers)
    )
    assert narrow < wide - 0.5
    found = quantise_within(
        flow, data, replace(METHOD, seven_bit_steps=numbers), everything, {}, Limit((narrow + wide) / 2, "dB"), unit_costs
    )
    assert found.decision == Decision(METHOD, {})
