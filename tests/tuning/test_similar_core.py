"""Where a device without records starts: whose records, and which of them are tried first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tvmmobile.devices.protocol import MEASURED
from tvmmobile.devices.registry import find_device
from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import KnobSchedule, Space, Template, template_for
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Identity, Record
from tvmmobile.tuning.search import similar_core
from tvmmobile.tuning.search.cost_model import CostModels
from tvmmobile.tuning.search.similar_core import FROM_SIMILAR_CORE, first_guesses, similar_core_database, similar_core_identity, unlikeness
from tvmmobile.tuning.search.strategy import RandomSampling
from tvmmobile.tuning.search.tuner import Search, SearchListener, TrialAssignment, _Tuning

PI5 = find_device("pi5-virtual").profile
TASK = Task((Conv2d(14, 14, 512, 512, clamp=(0.0, 6.0)),), machine=PI5.machine)
OTHER = Task((Conv2d(14, 14, 384, 512, clamp=(0.0, 6.0)),), machine=PI5.machine)


def made() -> tuple[Template, Space]:
    template = template_for(TASK)
    space = template.space(TASK) if template else None
    assert template is not None and space is not None
    return template, space


def database(name: str, task: Task, schedules: Sequence[KnobSchedule]) -> Database:
    """Return the best first."""
    found = Database(Identity(name, MEASURED), (), None)
    found._add(task, [Record(task, schedule, 10.0 + place) for place, schedule in enumerate(schedules)], set(schedules))
    return found


@pytest.mark.parametrize(
    ("device", "mcpu", "shipped", "nearest"),
    [
        ("pi5", "cortex-a76", ["pi4"], "pi4"),
        ("pi5", "cortex-a76", ["pi3bplus", "pi4", "pi5"], "pi4"),
        ("a311d", "cortex-a73", ["pi3bplus", "pi4", "pi5"], "pi4"),
        ("rk3588", "cortex-a76", ["pi3bplus", "pi4", "pi5"], "pi5"),
        ("rk3566", "cortex-a55", ["pi3bplus", "pi4", "pi5"], "pi3bplus"),
        ("phone", "cortex-x1", ["pi3bplus", "pi4", "pi5"], "pi5"),
        ("pizero2w", "cortex-a53", ["pi4", "pi3bplus"], "pi3bplus"),
        ("pi4", "cortex-a72", ["pi4"], None),
        ("pi5", "cortex-a76", [], None),
        ("pi5", "cortex-a76", ["nobody"], None),
    ],
)
def test_the_most_similar_core_with_shipped_records(
    tmp_path: Path, device: str, mcpu: str, shipped: list[str], nearest: str | None
) -> None:
    for name in shipped:
        (tmp_path / f"{name}-virtual").mkdir()
    found = similar_core_identity(replace(PI5, name=f"{device}-virtual", mcpu=mcpu, machine=machine_of(mcpu)), tmp_path)
    assert (found and found.device) == (nearest and f"{nearest}-virtual")


def test_a_real_board_has_the_similar_core_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "pi4-virtual").mkdir()
    (tmp_path / "pi5-virtual").mkdir()
    found = similar_core_identity(replace(PI5, name="desk", origin=MEASURED), tmp_path)
    assert found is not None and found.device == "pi5-virtual"


def test_a_device_that_reads_its_own_shipped_records_needs_no_similar_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pi4-virtual").mkdir()
    (tmp_path / "pi5-virtual").mkdir()
    monkeypatch.setattr(similar_core, "SHIPPED_LOGS", tmp_path)
    assert similar_core_database(PI5, (tmp_path,)) is None
    theirs = similar_core_database(PI5, (tmp_path / "own",))
    assert theirs is not None and theirs.identity.device == "pi4-virtual"


def test_first_come_the_best_of_the_other_core_and_what_the_own_core_suggests() -> None:
    template, space = made()
    members = [schedule for schedule in space if schedule != space.default]
    theirs, ours = members[10:16], members[30]
    near = space.nearest(ours)
    guesses = first_guesses(TASK, template, database("here", OTHER, [ours]), database("there", TASK, theirs))
    assert guesses[:3] == [theirs[0], space.default, near] and guesses[3:] == theirs[1:FROM_SIMILAR_CORE]
    assert first_guesses(TASK, template, database("here", OTHER, [ours]), None) == [near, space.default]


def test_another_core_that_has_not_this_task_offers_the_nearest_one() -> None:
    template, space = made()
    schedule = next(iter(space))
    assert first_guesses(TASK, template, database("here", TASK, []), database("there", OTHER, [schedule]))[0] == schedule


def test_what_does_not_suit_the_core_is_moved_to_what_does() -> None:
    """A Cortex-A72's blocks of K cost a Cortex-A76 its multipliers: none of the space is as its best is."""
    template, space = made()
    strange = space.schedule({"rows": 1, "columns": 4, "k_block": 32, "m_block": 28, "n_block": 1, "outer": 0, "axis": 0})
    guess = first_guesses(TASK, template, database("here", TASK, []), database("there", TASK, [strange]))[0]
    assert guess != strange and guess == space.nearest(strange) and guess in list(space)


def test_a_search_measures_them_first() -> None:
    template, space = made()
    members = list(space)
    own = database("here", OTHER, [])
    search = Search("random", similar=database("there", TASK, members[20:23]))
    tuning = _Tuning(TrialAssignment(TASK, None, (), 0, 4, template), CostModels(own), search, SearchListener())
    assert isinstance(tuning.strategy, RandomSampling)
    assert list(tuning.next_batch())[:2] == [members[20], space.default]


def test_likeness_is_of_kind_first() -> None:
    a53, a72, a76 = (find_device(f"{name}-virtual").profile.machine for name in ("pi3bplus", "pi4", "pi5"))
    assert unlikeness(a76, a76) == 0 < unlikeness(a76, a72) == unlikeness(a72, a76) < unlikeness(a76, a53)
