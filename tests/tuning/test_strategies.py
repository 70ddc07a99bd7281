"""Search strategies on kernels whose latency is a formula: what they propose, and how soon they find the best."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import replace

import pytest
from float64 import FLOAT64

from tvmmobile.devices.protocol import MEASURED
from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.machine import BASELINE, machine_of
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import KnobSchedule, Space, template_for
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Identity, Record
from tvmmobile.tuning.search.cost_model import CostModel, CostModels
from tvmmobile.tuning.search.nearest import nearest_schedules
from tvmmobile.tuning.search.strategy import Strategy
from tvmmobile.tuning.search.tuner import BATCH, make_strategy

TASK = Task((Conv2d(14, 14, 256, 512, clamp=(0.0, 6.0)),), machine=machine_of("cortex-a72"))
SMALL = Task((Conv2d(4, 4, 8, 8, clamp=(0.0, 6.0)),))
NAMES = ("random", "climb", "evolution")


def space_of(task: Task) -> Space:
    template = template_for(task)
    space = template.space(task) if template else None
    assert space is not None
    return space


def latency_us(schedule: KnobSchedule) -> float:
    """Smooth in the knobs, best for six rows of sixteen columns."""
    knobs = schedule.values
    away = abs(math.log2(knobs["rows"] / 6)) + abs(math.log2(knobs["columns"] / 16)) + 0.05 * (knobs["outer"] + (knobs["k_block"] > 0))
    return 100.0 * (1 + away)


def made(name: str, task: Task, seed: int = 0, seeds: list[KnobSchedule] | None = None) -> Strategy:
    template = template_for(task)
    assert template is not None
    database = Database(Identity("board", MEASURED), (), None)
    return make_strategy(name, template, task, seeds or [], random.Random(seed), CostModels(database))


def search(strategy: Strategy, trials: int) -> list[KnobSchedule]:
    """Return the schedules that a strategy tries, in order."""
    tried: list[KnobSchedule] = []
    while len(tried) < trials:
        batch = strategy.propose(min(BATCH, trials - len(tried)))
        if not batch:
            break
        records = [Record(strategy.task, schedule, latency_us(schedule)) for schedule in batch]
        strategy.observe(records)
        model = getattr(strategy, "model", None)
        if isinstance(model, CostModel):
            model.add(records)
        tried += batch
    return tried


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_tried_twice_and_a_space_is_exhausted(name: str) -> None:
    space = space_of(SMALL)
    tried = search(made(name, SMALL), 10_000)
    assert len(set(tried)) == len(tried) == len(space)
    assert set(tried) == set(space)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_search(name: str) -> None:
    first, second, other = (search(made(name, TASK, seed), 24) for seed in (1, 1, 2))
    assert first == second != other


@pytest.mark.parametrize("name", NAMES)
def test_seeds_come_first_and_foreign_ones_are_left_out(name: str) -> None:
    members = list(space_of(TASK))
    foreign = KnobSchedule("pointwise", 99, members[0].knobs)
    tried = search(made(name, TASK, seeds=[members[7], foreign, members[3], members[7]]), 8)
    assert tried[:2] == [members[7], members[3]] and foreign not in tried


@pytest.mark.parametrize("name", NAMES)
def test_what_an_earlier_run_tried_is_not_proposed(name: str) -> None:
    before = search(made(name, TASK), 16)
    strategy = made(name, TASK)
    strategy.observe([Record(TASK, schedule, None if index % 2 else latency_us(schedule)) for index, schedule in enumerate(before)])
    assert not set(search(strategy, 32)) & set(before)


def test_guided_search_beats_chance() -> None:
    best = min(map(latency_us, space_of(TASK)))

    def found(name: str) -> float:
        return statistics.mean(min(map(latency_us, search(made(name, TASK, seed), 20))) / best for seed in range(3))

    chance = found("random")
    assert found("climb") < chance and found("evolution") < chance


def test_failures_are_avoided() -> None:
    """A model that saw every schedule of eight rows fail proposes few of them."""
    model = CostModel("pointwise", space_of(TASK).version)
    members = list(space_of(TASK))
    known = random.Random(0).sample(members, 60)
    model.add(Record(TASK, schedule, None if schedule.values["rows"] == 8 else latency_us(schedule)) for schedule in known)
    bad = [schedule for schedule in members if schedule.values["rows"] == 8]
    good = [schedule for schedule in members if schedule.values["rows"] == 6]
    assert min(model.predict(TASK, bad)) > statistics.median(model.predict(TASK, good))


def test_kernels_with_fewer_knobs_are_learnt_from_as_well() -> None:
    """Double precision on a core that starts instructions in order has no order of loops to choose; float32 has."""
    machine = machine_of("cortex-a55")
    single = Task((Conv2d(14, 14, 64, 64, kernel=(3, 3), padding=(1, 1, 1, 1), groups=64, clamp=(0.0, 6.0)),), machine=machine)
    double = replace(single, dtype=FLOAT64.name)
    spaces = [list(space_of(task)) for task in (single, double)]
    assert {len(space[0].knobs) for space in spaces} == {4, 5}
    model = CostModel("depthwise", space_of(single).version, machine)
    slow = {1: 8.0}
    for task, members in zip((single, double), spaces, strict=True):
        known = random.Random(0).sample(members, min(len(members), 40))
        model.add(Record(task, schedule, slow.get(schedule.values["rows"], 1.0)) for schedule in known)
    for task, members in zip((single, double), spaces, strict=True):
        scores = model.predict(task, members)
        one = [score for score, schedule in zip(scores, members, strict=True) if schedule.values["rows"] == 1]
        more = [score for score, schedule in zip(scores, members, strict=True) if schedule.values["rows"] > 1]
        assert min(one) > max(more)


def test_a_new_kernel_starts_from_its_neighbours() -> None:
    database = Database(Identity("board", MEASURED), (), None)
    near, far = Task((Conv2d(14, 14, 256, 384, clamp=(0.0, 6.0)),)), Task((Conv2d(112, 112, 16, 16, clamp=(0.0, 6.0)),))
    best = {task: min(space_of(task), key=latency_us) for task in (near, far)}
    worst = {task: max(space_of(task), key=latency_us) for task in (near, far)}
    for task in (far, near):
        for schedule in (best[task], worst[task]):
            database._add(task, [Record(task, schedule, latency_us(schedule))], {schedule})
    template = template_for(TASK)
    assert template is not None
    assert nearest_schedules(TASK, database, template)[0] == space_of(TASK).nearest(best[near])


def test_old_records_teach_for_the_core_they_are_of() -> None:
    """A log does not say which core it is of; the features of its schedules depend on it."""
    rows = []
    for machine in (BASELINE, machine_of("cortex-a76")):
        model = CostModel("pointwise", space_of(TASK).version, machine)
        model.add([Record(TASK, schedule, latency_us(schedule)) for schedule in list(space_of(TASK))[:1]])
        rows.append(model._rows[0])
        assert rows[-1] == model._features(replace(TASK, machine=machine), next(iter(space_of(TASK))))
    assert rows[0] != rows[1]


@pytest.mark.parametrize("name", NAMES)
def test_records_of_fewer_knobs_are_searched_from(name: str) -> None:
    """The spaces of cores that start instructions in order have a knob that records of other cores, and older ones, lack."""
    machine = machine_of("cortex-a55")
    task = Task((Conv2d(14, 14, 64, 64, kernel=(3, 3), padding=(1, 1, 1, 1), groups=64, clamp=(0.0, 6.0)),), machine=machine)
    strategy, members = made(name, task), list(space_of(task))
    assert all("inner" in schedule.values for schedule in members)
    fewer = [replace(schedule, knobs=tuple(knob for knob in schedule.knobs if knob[0] != "inner")) for schedule in members[:12]]
    strategy.observe([Record(task, schedule, float(number)) for number, schedule in enumerate(fewer, 1)])
    model = getattr(strategy, "model", None)
    if isinstance(model, CostModel):
        model.add([Record(task, schedule, float(number)) for number, schedule in enumerate(fewer, 1)])
    proposed = strategy.propose(BATCH)
    assert len(proposed) == BATCH and set(proposed) <= set(members)
