"""Which kernels get more trials than the first ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tvmmobile.devices.protocol import Origin
from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import templates_for
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.plan import Region, VariantTasks
from tvmmobile.tuning.records import Identity, Record
from tvmmobile.tuning.search.rounds import FEW_TRIALS, later_rounds, promising, worth_trying

FIRST = Conv2d(8, 8, 16, 32)
SECOND = Conv2d(8, 8, 32, 32, (3, 3), (1, 1), (1, 1, 1, 1), 32)


def record(task: Task, latency_us: float) -> Record:
    """Of the first template's usual knobs."""
    space = templates_for(task)[0].space(task)
    assert space is not None
    return Record(task, space.default, latency_us)


@pytest.mark.parametrize(
    ("first", "trials", "most"), [(4, 64, [12, 24, 64]), (4, 24, [12, 24]), (4, 8, [8]), (4, 4, []), (4, 0, []), (16, 64, [24, 64])]
)
def test_rounds_end_with_what_was_asked_for(first: int, trials: int, most: list[int]) -> None:
    rounds = later_rounds(first, trials)
    assert [each for each, _ in rounds] == most
    shares = [share for _, share in rounds]
    assert shares == sorted(shares, reverse=True)


def test_what_no_plan_would_have_gets_no_more(tmp_path: Path) -> None:
    """Two layers of 50 us each, or one kernel of 103 us for both: it must become 2.9 % faster."""
    one, other, both = Task((FIRST,)), Task((SECOND,)), Task((FIRST, SECOND))
    unknown = Task((Conv2d(4, 4, 16, 16),))
    database = Database(Identity("board", Origin("modelled", "model")), (), tmp_path)
    with database.writing():
        database.append(record(task, latency_us) for task, latency_us in ((one, 50.0), (other, 50.0), (both, 103.0)))
    variants = [VariantTasks(2, (Region(0, 0, one), Region(1, 1, other), Region(0, 1, both)), {})]
    tasks = dict.fromkeys((one, other, both, unknown))
    assert set(promising(variants, database, tasks, 0.02)) == {one, other, unknown}
    assert set(promising(variants, database, tasks, 0.03)) == {one, other, both, unknown}


def test_few_trials_go_where_a_like_core_had_some_use_for_them(tmp_path: Path) -> None:
    """A kernel for both layers that cost a quarter more than two kernels there will hardly be the best here."""
    one, other, both = Task((FIRST,)), Task((SECOND,)), Task((FIRST, SECOND))
    unknown = Task((Conv2d(4, 4, 16, 16),))
    tasks = {one: None, other: None, both: None, unknown: "source"}
    variants = [VariantTasks(2, (Region(0, 0, one), Region(1, 1, other), Region(0, 1, both)), {})]
    for latency_us, left in ((115.0, tasks), (135.0, {one: None, other: None, unknown: "source"})):
        kin = Database(Identity("like", Origin("modelled", "model")), (), tmp_path / str(latency_us))
        with kin.writing():
            kin.append(record(task, each) for task, each in ((one, 50.0), (other, 50.0), (both, latency_us)))
        assert worth_trying(variants, kin, tasks, FEW_TRIALS) == left
        assert worth_trying(variants, kin, tasks, FEW_TRIALS + 1) == worth_trying(variants, None, tasks, FEW_TRIALS) == tasks
