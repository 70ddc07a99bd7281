"""Steps that are planted in simulated latencies are found, at the right commit and of the right size; where there is none, none is."""

from __future__ import annotations

import numpy as np
import pytest

from tvmmobile.history.steps import Found, find_steps

COMMITS, STEPS, SIZE, NOISE, SHORTEST = 500, 30, 0.03, 0.01, 8


def planted(seed: int, runs: int = 1) -> tuple[list[int], Found]:
    """Latencies with steps up and down at random commits, at least `SHORTEST` apart, each commit timed so often; and what is found."""
    random = np.random.default_rng(seed)
    free = np.sort(random.integers(0, COMMITS - SHORTEST * (STEPS + 1) + 1, STEPS))
    places = [int(place) for place in free + SHORTEST * np.arange(1, STEPS + 1)]
    levels = np.zeros(COMMITS)
    for place in places:
        levels[place:] += np.log1p(SIZE) * random.choice([-1, 1])
    latencies = 1e4 * np.exp(levels + random.normal(0, NOISE / np.sqrt(runs), COMMITS))
    return places, find_steps([float(one) for one in latencies], [runs] * COMMITS, exact=False)


def score(seeds: range, runs: int) -> dict[str, list[int]]:
    """For each seed: steps found within a commit of the truth, found elsewhere, near none, and planted in the range that is given."""
    found: dict[str, list[int]] = {"close": [], "elsewhere": [], "invented": [], "in range": []}
    for seed in seeds:
        places, seen = planted(seed, runs)
        at = [step.at for step in seen.steps]
        found["close"].append(sum(any(abs(place - one) <= 1 for one in at) for place in places))
        found["elsewhere"].append(sum(all(abs(place - one) > 1 for place in places) for one in at))
        found["invented"].append(sum(all(abs(place - one) > SHORTEST // 2 for place in places) for one in at))
        found["in range"].append(sum(any(step.first <= place <= step.last for step in seen.steps) for place in places))
    return found


def test_two_runs_a_commit_find_nearly_every_step() -> None:
    found = score(range(2), runs=2)
    assert min(found["close"]) >= 29 and max(found["elsewhere"]) <= 1


def test_one_run_a_commit_finds_most_steps() -> None:
    """Noise hides the exact place of some: of a hundred such steps, two are two commits off."""
    found = score(range(2), runs=1)
    assert min(found["close"]) >= 28 and max(found["elsewhere"]) <= 2 and max(found["invented"]) == 0


@pytest.mark.long
def test_rates_over_many_histories() -> None:
    one, two = score(range(10), runs=1), score(range(10), runs=2)
    assert np.mean(one["close"]) >= 28.8 and np.mean(one["elsewhere"]) <= 1 and sum(one["invented"]) <= 1
    assert np.mean(one["in range"]) >= 0.95 * STEPS
    assert min(two["close"]) >= 29 and max(two["elsewhere"]) <= 1 and sum(two["invented"]) == 0


@pytest.mark.parametrize("count", [2, 3, 5, 20, 300])
def test_noise_alone_has_no_step(count: int) -> None:
    """The spread that runs are known to have, in twenty lines."""
    random = np.random.default_rng(count)
    lines = [np.exp(random.normal(9, 0.014, count)) for _ in range(20)]
    assert sum(bool(find_steps([float(one) for one in line], [1] * count, exact=False).steps) for line in lines) <= 1


def test_size_and_level_of_a_step() -> None:
    random = np.random.default_rng(1)
    latencies = np.exp(random.normal(0, 0.01, 60)) * np.where(np.arange(60) < 40, 100.0, 110.0)
    found = find_steps([float(one) for one in latencies], [1] * 60, exact=False)
    (step,) = found.steps
    assert step.at == step.first == step.last == 40 and step.p < 1e-9
    assert step.low < 0.1 < step.high and step.low < step.change < step.high and step.high - step.low < 0.03
    assert found.levels == pytest.approx((100.0, 110.0), rel=0.01) and found.noise == pytest.approx(0.01, rel=0.3)


def test_a_spike_is_no_step() -> None:
    random = np.random.default_rng(2)
    latencies = [float(one) for one in np.exp(random.normal(0, 0.01, 40))]
    latencies[20] *= 1.5
    latencies[39] *= 1.5
    found = find_steps(latencies, [1] * 40, exact=False)
    assert found.steps == () and found.spikes == (20, 39)
    (step,) = find_steps([*latencies, latencies[39]], [1] * 41, exact=False).steps
    assert step.at == 39  # a second slow commit makes it one


def test_modelled_latencies_are_exact() -> None:
    found = find_steps([10.0, 10.0, 10.01, 10.01, 12.0], [1] * 5, exact=True)
    assert [step.at for step in found.steps] == [2, 4] and found.levels == pytest.approx((10.0, 10.01, 12.0))
    assert found.steps[1].change == pytest.approx(12 / 10.01 - 1) and found.steps[1].p == 0 and found.noise == 0


@pytest.mark.parametrize("latencies", [[], [5.0], [5.0, 5.0], [5.0] * 30])
@pytest.mark.parametrize("exact", [False, True])
def test_few_or_equal_latencies(latencies: list[float], exact: bool) -> None:
    found = find_steps(latencies, [1] * len(latencies), exact)
    assert found.steps == () and found.levels == pytest.approx([5.0] * bool(latencies))
