"""The precisions of layers by an integer programme, beside all assignments tried out and the rule that keeps the noisiest layers."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Collection, Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmmobile.quantisation.assignment import Assignment, KernelSpan, Programme, StepOutput, fastest


def chain(
    int8_us: Mapping[int, float], float32_us: Mapping[int, float], noise: Mapping[int, float], conversion_us: float = 0.0
) -> Programme:
    """Layers one behind another, each a kernel; the network takes and returns float32 at no cost."""
    count = max([*int8_us, *float32_us]) + 1
    pieces = [KernelSpan(number, number, True, cost) for number, cost in int8_us.items()]
    pieces += [KernelSpan(number, number, False, cost) for number, cost in float32_us.items()]
    tensors = [StepOutput(number, (number + 1,), conversion_us, conversion_us) for number in range(count - 1)]
    return Programme(count, tuple(pieces), tuple(tensors), noise)


def cover_us(programme: Programme, integers: Collection[int]) -> float:
    """Return the cheapest cover by pieces of the right precision, which store int8 where they have to, from the last place to the first."""
    best: dict[tuple[object, ...], float] = {(programme.steps, "NHWC", True): 0.0}
    storing = {tensor.producer for tensor in programme.tensors if tensor.stored(integers)}
    for piece in sorted(programme.pieces, key=lambda one: -one.first):
        steps = range(piece.first, piece.last + 1)
        if all((number in integers) == piece.integer for number in steps) and piece.stores == (piece.last in storing):
            after, before = (
                (place, layout, layout == "NHWC" or piece.integer)
                for place, layout in ((piece.last + 1, piece.after), (piece.first, piece.before))
            )
            best[before] = min(best.get(before, math.inf), best.get(after, math.inf) + piece.latency_us)
    return best.get((0, "NHWC", True), math.inf)


def latency_us(programme: Programme, integers: Collection[int]) -> float:
    return cover_us(programme, integers) + sum(tensor.conversion_us(integers) for tensor in programme.tensors)


def tried_out(programme: Programme, most_noise: float) -> float:
    """Return the least latency of all assignments; infinite if none has so little noise."""
    numbers = range(programme.steps)
    every = itertools.chain.from_iterable(itertools.combinations(numbers, count) for count in range(programme.steps + 1))
    return min((latency_us(programme, one) for one in every if programme.noise_of(one) <= most_noise), default=math.inf)


def noisiest_kept(programme: Programme, most_noise: float) -> float:
    """Return the latency if the noisiest layers are kept, as few as it takes."""
    order = sorted(range(programme.steps), key=lambda number: -programme.noise.get(number, 0.0))
    kept = next(count for count in range(len(order) + 1) if programme.noise_of(order[count:]) <= most_noise)
    return latency_us(programme, order[kept:])


def found(programme: Programme, most_noise: float = math.inf) -> Assignment:
    assignment = fastest(programme, most_noise)
    assert assignment is not None
    return assignment


def test_a_cheap_layer_is_kept_in_place_of_an_expensive_one_with_more_noise() -> None:
    programme = chain({0: 10.0, 1: 100.0, 2: 10.0}, {0: 20.0, 1: 400.0, 2: 20.0}, {0: 0.9, 1: 1.0, 2: 0.1})
    assignment = found(programme, 1.2)
    assert assignment == Assignment(frozenset({1, 2}), 130.0, 1.1, 130.0)
    assert noisiest_kept(programme, 1.2) == 420.0
    # Of what is kept for less noise still, nothing more than that takes: here both.
    assert found(programme, 0.2).integers == {2} and found(programme, 5.0).integers == {0, 1, 2}


def test_neighbours_are_kept_together_where_conversions_count() -> None:
    """Two layers beside each other need two conversions, two apart four."""
    costs = dict.fromkeys(range(5), 10.0), dict.fromkeys(range(1, 4), 12.0)
    noise = {0: 0.1, 1: 1.0, 2: 0.9, 3: 1.0, 4: 0.1}
    free, dear = (chain(*costs, noise, conversion_us) for conversion_us in (0.0, 3.0))
    assert found(free, 1.15).integers == {0, 2, 4}
    assert found(dear, 1.25).integers in ({0, 3, 4}, {0, 1, 4})
    assert found(dear, 1.25).latency_us == 54.0 + 2 * 3.0
    assert noisiest_kept(dear, 1.25) == 54.0 + 4 * 3.0


def test_a_tensor_is_converted_once_for_all_its_readers() -> None:
    pieces = [
        *(KernelSpan(number, number, number > 0, 1.0) for number in range(3)),
        KernelSpan(1, 1, False, 2.5),
        KernelSpan(2, 2, False, 2.5),
    ]
    tensors = (StepOutput(0, (1, 2), 2.0), StepOutput(1, (3,)), StepOutput(2, (3,)))
    assert found(Programme(3, tuple(pieces), tensors, {})).latency_us == 5.0
    dear = (replace(tensors[0], quantise_us=4.0), *tensors[1:])
    assert found(Programme(3, tuple(pieces), dear, {})).latency_us == 6.0  # all in float32
    absorbed = (replace(dear[0], absorbed=True), *dear[1:])
    stored = KernelSpan(0, 0, False, 1.5, stores=True)
    assert found(Programme(3, (*pieces, stored), absorbed, {})).latency_us == 3.5
    one_in_floats = tuple(piece for piece in (*pieces, stored) if not (piece.first == 2 and piece.integer))
    assert found(Programme(3, one_in_floats, absorbed, {})).latency_us == 6.0


def test_a_kernel_of_several_layers_that_cannot_store_integers_is_broken_up() -> None:
    """This happens if its readers are in int8; no separate conversion is built after it."""
    pieces = [
        KernelSpan(0, 1, False, 3.0),
        KernelSpan(0, 0, False, 2.0),
        KernelSpan(1, 1, False, 2.0),
        KernelSpan(1, 1, False, 2.5, stores=True),
    ]
    readers = [KernelSpan(2, 2, True, 1.0), KernelSpan(2, 2, False, 9.0)]
    tensors = (StepOutput(1, (2,), 0.1, absorbed=True), StepOutput(2, (3,)))
    assert found(Programme(3, (*pieces, *readers), tensors, {})).latency_us == 5.5
    assert found(Programme(3, (*pieces, readers[1]), tensors, {})).latency_us == 12.0
    together = KernelSpan(0, 1, False, 3.25, stores=True)
    assert found(Programme(3, (*pieces, together, *readers), tensors, {})).latency_us == 4.25


def test_rounding_a_tensor_is_noise() -> None:
    """Between two layers in float32 and one in int8."""
    programme = chain({1: 1.0}, {0: 5.0, 1: 5.0, 2: 5.0}, {1: 0.5})
    noisy = replace(programme, tensors=(replace(programme.tensors[0], noise=0.3), programme.tensors[1]))
    assert found(noisy, 0.81).noise == pytest.approx(0.8) and found(noisy, 0.79).integers == frozenset()


def test_layers_with_one_precision_stay() -> None:
    programme = chain({0: 1.0, 1: 1.0, 3: 1.0}, {1: 9.0, 2: 9.0, 3: 9.0}, {0: 1.0, 1: 1.0, 3: 1.0})
    assert found(programme).integers == {0, 1, 3} and found(programme, 1.0).integers == {0}
    assert fastest(programme, 0.9) is None


def test_without_noise_nothing_that_adds_any_is_in_int8() -> None:
    programme = chain({0: 1.0, 1: 1.0}, {0: 2.0, 1: 2.0}, {0: 1e-9})
    assert found(programme, 0.0).integers == {1}


def test_kernels_of_several_layers_and_layouts_count() -> None:
    """A layer in float32 breaks a kernel up, and blocks do not pass between precisions."""
    programme = chain({0: 5.0, 1: 5.0, 2: 5.0}, {0: 6.0, 1: 6.0, 2: 6.0}, {1: 1.0})
    fused = replace(programme, pieces=(*programme.pieces, KernelSpan(0, 1, True, 4.0)))
    assert found(fused).latency_us == 9.0 and found(fused, 0.5).latency_us == 16.0
    blocks = (
        KernelSpan(0, 0, True, 1.0, after="NHWC32c"),
        KernelSpan(1, 1, False, 1.0, before="NHWC32c"),
        KernelSpan(1, 1, True, 3.0, before="NHWC32c"),
    )
    assert found(replace(programme, pieces=(*programme.pieces, *blocks))).latency_us == 9.0


@st.composite
def programmes(draw: st.DrawFn) -> tuple[Programme, float]:
    """Layers with random costs and noise, with skips, some of one precision, some in kernels of several layers and blocks."""
    generator = random.Random(draw(st.integers(0, 2**32)))
    count = draw(st.integers(1, 7))

    def cost() -> float:
        return generator.randint(1, 400) / 4

    either = [generator.choice(((True, False), (True, False), (True, False), (True,), (False,))) for _ in range(count)]
    pieces = [KernelSpan(number, number, integer, cost()) for number in range(count) for integer in either[number]]
    for first, last in itertools.combinations(range(count), 2):
        for integer in (True, False):
            if last - first < 3 and generator.random() < 0.4 and all(integer in either[number] for number in range(first, last + 1)):
                pieces.append(KernelSpan(first, last, integer, cost()))
    for number in range(1, count):
        if generator.random() < 0.4:
            integers = [generator.choice(either[one]) for one in (number - 1, number)]
            pieces.append(KernelSpan(number - 1, number - 1, integers[0], cost(), after="NHWC32c"))
            pieces.append(KernelSpan(number, number, integers[1], cost(), before="NHWC32c"))
    tensors = []
    for number in range(-1, count):
        later = [reader for reader in range(number + 2, count) if generator.random() < 0.2]
        quantise, dequantise, noise = (generator.choice((0.0, cost() / 4)) for _ in range(3))
        uncorrected = generator.choice((0.0, cost() / 4))
        absorbed = number >= 0 and generator.random() < 0.5 and False in either[number]
        pieces += [KernelSpan(number, number, False, cost(), stores=True)] if absorbed else []
        tensors.append(StepOutput(number, (number + 1, *later), quantise, dequantise, noise, absorbed, uncorrected))
    programme = Programme(count, tuple(pieces), tuple(tensors), {number: cost() for number in range(count) if generator.random() < 0.9})
    # Half a step away from any sum that an assignment can have.
    share = draw(st.floats(0, 1))
    return programme, round(share * programme.noise_of(range(count)) * 16) / 16 + 1 / 32


@settings(max_examples=60, deadline=None)
@given(programmes())
def test_no_assignment_is_faster(case: tuple[Programme, float]) -> None:
    programme, most_noise = case
    assignment, least = fastest(programme, most_noise), tried_out(programme, most_noise)
    if assignment is None:
        assert least == math.inf
        return
    assert assignment.latency_us == pytest.approx(least) and assignment.bound_us == pytest.approx(least)
    assert latency_us(programme, assignment.integers) == pytest.approx(least)
    assert assignment.noise == programme.noise_of(assignment.integers) <= most_noise
    assert assignment.bound_us <= assignment.latency_us


def test_a_network_of_many_layers_is_solved_at_once() -> None:
    generator = random.Random(1)
    int8 = {number: generator.uniform(10, 500) for number in range(120)}
    floats = {number: cost * generator.uniform(1.5, 4) for number, cost in int8.items()}
    programme = chain(int8, floats, {number: generator.uniform(0, 1) for number in int8}, 8.0)
    most_noise = 0.3 * programme.noise_of(int8)
    assignment = found(programme, most_noise)
    assert assignment.noise <= most_noise and assignment.bound_us == pytest.approx(assignment.latency_us, rel=1e-6)
    assert assignment.latency_us < noisiest_kept(programme, most_noise)
