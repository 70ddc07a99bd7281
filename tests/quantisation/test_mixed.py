"""Networks partly in float32: which layers, and why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from quantised import decibels, digit_inputs, images_of, trained_flow

from tvmmobile.graph.layers import Array
from tvmmobile.quantisation import mixed
from tvmmobile.quantisation.calibration import Method, observe, quantised
from tvmmobile.quantisation.mixed import Decision, Limit, chosen_layers, layer_noise, limit_of, quantise_within
from tvmmobile.system.errors import UserError

METHOD = Method("minimum and maximum", equalise=False)


def everything(_: object) -> bool:
    return True


@pytest.fixture(scope="module")
def images() -> Array:
    return digit_inputs(32, 2)


def test_layers_are_named_by_number_name_or_pattern() -> None:
    flow = trained_flow()
    depthwise = [step.number for step in flow.steps if step.layer.name.startswith("dw_")]
    assert sorted(chosen_layers(flow, ["dw_*"])) == depthwise and len(depthwise) == 13
    found = chosen_layers(flow, ["0", flow.steps[-1].layer.name])
    assert found == {0: "--keep 0", flow.steps[-1].number: f"--keep {flow.steps[-1].layer.name}"}
    with pytest.raises(UserError, match=r"`keep=99` fits no layer") as caught:
        chosen_layers(flow, ["0", "99"])
    assert flow.steps[0].layer.name in str(caught.value.remedy)


@pytest.mark.parametrize(("text", "limit"), [("30dB", Limit(30, "dB")), ("0.5%", Limit(0.5, "%"))])
def test_limits_are_read_as_they_are_written(text: str, limit: Limit) -> None:
    assert limit_of(text) == limit and str(limit) == text


@pytest.mark.parametrize("text", ["", "30", "-1%", "dB", "1 %", "infdB", "1%%", "4000dB"])
def test_other_limits_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="`max_drop"):
        limit_of(text)


def test_a_limit_holds_up_to_its_value() -> None:
    """Of ten inputs one has another class; of noise a tenth as large as the signal, the ratio is 20 dB."""
    expected = np.eye(10, dtype=np.float32)
    other = expected.copy()
    other[3] = np.roll(other[3], 1)
    assert Limit(10, "%").holds(other, expected) and not Limit(9.9, "%").holds(other, expected)
    noisy = expected * np.float32(1.1)
    assert Limit(19.99, "dB").holds(noisy, expected) and not Limit(20.01, "dB").holds(noisy, expected)
    assert Limit(200, "dB").holds(expected, expected)


def test_a_limit_counts_top1_where_classes_are_known() -> None:
    """Of ten inputs two get another class: one that was right in float32, and one that was wrong."""
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
    network = quantised(observe(flow, images_of(images), False), coarse, everything)
    ours, theirs = network.outputs(images).argmax(1), flow.outputs(images).argmax(1)
    assert (ours != theirs).any()
    limit = Limit(1, "%")
    labelled = replace(images_of(images), labels=tuple(map(int, ours)))
    assert quantise_within(flow, labelled, coarse, everything, {}, limit).decision.kept == {}
    labelled = replace(images_of(images), labels=tuple(map(int, theirs)))
    assert quantise_within(flow, labelled, coarse, everything, {}, limit).decision.kept


def test_kept_layers_stay_in_float32(images: Array) -> None:
    flow = trained_flow()
    kept = chosen_layers(flow, ["dw_*", "0"])
    found = quantise_within(flow, images_of(images), METHOD, everything, kept, None)
    network = found.network
    assert found.decision.kept == kept and network.steps.keys() == {step.number for step in flow.steps} - kept.keys()
    assert decibels(network.outputs(images), flow.outputs(images)) > 25


def test_as_few_layers_are_kept_as_a_limit_takes(images: Array) -> None:
    """The noisiest ones; with one fewer, the limit would not hold."""
    flow, data = trained_flow(), images_of(images)
    observed = observe(flow, data, METHOD.equalise)
    plain = quantised(observed, METHOD, everything)
    limit = Limit(round(decibels(plain.outputs(images), flow.outputs(images))) + 3, "dB")
    found = quantise_within(flow, data, METHOD, everything, {}, limit)
    network, reasons = found.network, found.decision.kept
    assert 0 < len(reasons) < len(flow.steps) and set(reasons.values()) == {f"--max-drop {limit}"}
    assert network.steps.keys().isdisjoint(reasons) and limit.holds(network.outputs(images), flow.outputs(images))
    noise = layer_noise(observed, plain)
    kept = sorted(reasons, key=noise.__getitem__)
    assert noise[kept[0]] >= max(noise[number] for number in noise.keys() - reasons.keys())
    assert not limit.holds(quantised(observed, METHOD, everything, kept[1:]).outputs(images), flow.outputs(images))


def test_a_limit_that_cannot_be_met_is_refused(images: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    """Because of a layer that stays in int8, here the last one, as gates do elsewhere."""
    monkeypatch.setattr(mixed, "_keepable", lambda flow: iter(flow.steps[:-1]))
    with pytest.raises(UserError, match=r"`max_drop='200dB'` cannot be met: what stays in int8 .* costs more") as caught:
        quantise_within(trained_flow(), images_of(images[:8]), METHOD, everything, {}, Limit(200, "dB"))
    assert caught.value.remedy
    monkeypatch.undo()
    found = quantise_within(trained_flow(), images_of(images[:8]), METHOD, everything, {}, Limit(200, "dB"))
    assert not found.network.steps


def test_a_limit_that_holds_keeps_nothing(images: Array) -> None:
    """Not even weights of 7 bits are made wider."""
    narrow = replace(METHOD, narrow=frozenset({2, 4}))
    found = quantise_within(trained_flow(), images_of(images), narrow, everything, {}, Limit(10, "%"))
    assert found.decision == Decision(narrow, {})


def test_weights_get_their_bits_before_a_layer_is_kept(images: Array) -> None:
    """Of a network that int8 alone is good enough for."""
    flow, data = trained_flow(), images_of(images)
    numbers = frozenset(step.number for step in flow.steps)
    observed = observe(flow, data, METHOD.equalise)
    wide, narrow = (
        decibels(quantised(observed, replace(METHOD, narrow=chosen), everything).outputs(images), flow.outputs(images))
        for chosen in (frozenset[int](), numbers)
    )
    assert narrow < wide - 0.5
    found = quantise_within(flow, data, replace(METHOD, narrow=numbers), everything, {}, Limit((narrow + wide) / 2, "dB"))
    assert found.decision == Decision(METHOD, {})
