"""Tests of the kernels that get more than the first trials."""

from __future__ import annotations

from pathlib import Path

import pytest

from tvmmobile.devices.protocol import Origin
from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import Template, templates_for
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Identity, Record
from tvmmobile.tuning.regions import Region, VariantTasks
from tvmmobile.tuning.search.rounds import FEW_TRIALS, hopeless, later_rounds, promising, worth_trying
from tvmmobile.tuning.search.tuner import assign

FIRST = Conv2d(8, 8, 16, 32)
SECOND = Conv2d(8, 8, 32, 32, (3, 3), (1, 1), (1, 1, 1, 1), 32)


def record(task: Task, latency_us: float) -> Record:
    """Return a record of the first template's usual knobs."""
    return trial(task, templates_for(task)[0], latency_us)


def trial(task: Task, template: Template, latency_us: float | None) -> Record:
    """Return a record of a template's usual knobs; `None` failed."""
    space = template.space(task)
    assert space is not None
    return Record(task, space.default, latency_us, error=None if latency_us else "it failed")


@pytest.mark.parametrize(
    ("first", "trials", "most"),
    [(2, 64, [4, 12, 24, 64]), (2, 24, [4, 12, 24]), (2, 8, [4, 8]), (2, 3, [3]), (2, 2, []), (2, 0, []), (16, 64, [24, 64])],
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
        similar = Database(Identity("like", Origin("modelled", "model")), (), tmp_path / str(latency_us))
        with similar.writing():
            similar.append(record(task, each) for task, each in ((one, 50.0), (other, 50.0), (both, latency_us)))
        assert worth_trying(variants, similar, tasks, FEW_TRIALS) == left
        assert worth_trying(variants, similar, tasks, FEW_TRIALS + 1) == worth_trying(variants, None, tasks, FEW_TRIALS) == tasks


def test_what_a_like_core_has_without_what_belongs_to_it_is_tried(tmp_path: Path) -> None:
    """No plan of measured kernels leads through it there, which says nothing about it."""
    one, other = Task((FIRST,)), Task((SECOND,))
    similar = Database(Identity("like", Origin("modelled", "model")), (), tmp_path)
    with similar.writing():
        similar.append([record(one, 50.0)])
    variants = [VariantTasks(2, (Region(0, 0, one), Region(1, 1, other)), {})]
    assert worth_trying(variants, similar, {one: None, other: None}, FEW_TRIALS) == {one: None, other: None}


def test_a_template_far_behind_another_gets_no_more(tmp_path: Path) -> None:
    task = Task((Conv2d(28, 28, 256, 256),))
    best, other = templates_for(task)[:2]
    for behind_us, given_up in ((104.0, False), (106.0, True), (None, True)):
        database = Database(Identity("board", Origin("modelled", "model")), (), tmp_path / str(behind_us))
        none = assign({task: None}, database, 8, {})
        with database.writing():
            database.append([trial(task, best, 100.0), trial(task, other, behind_us)])
        made = assign({task: None}, database, 8, {})
        assert [hopeless(each, database) for each in none] == [False, False], "what was never tried"
        assert [hopeless(each, database) for each in made if each.template in (best, other)] == [False, given_up]
