"""Records of templates that this version no longer has, or has in another version: never in the way of compiling or tuning."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tvmmobile.devices.protocol import Origin
from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.function import kernel_function
from tvmmobile.schedules import KnobSchedule, template_for
from tvmmobile.tuning.choice import choose
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Identity, Record, encoded, read_line
from tvmmobile.tuning.search.cost_model import CostModels
from tvmmobile.tuning.search.tuner import assign, make_strategy

PI = Identity("pi4-virtual", Origin("modelled", "0123abcd"))
TASK = Task((Conv2d(14, 14, 64, 64, clamp=(0.0, 6.0)),))
TARGET = {"kind": "llvm"}
#: The fastest of all, by a version that there is no more.
OLD = Record(TASK, KnobSchedule("pointwise", 0, (("tile", 7),)), 1.0)
TEMPLATE = template_for(TASK)
assert TEMPLATE is not None
SPACE = TEMPLATE.space(TASK)
assert SPACE is not None
NEW = Record(TASK, next(iter(SPACE)), 2.0)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    found = Database(PI, (), tmp_path)
    found.append([OLD, NEW])
    return found


def test_the_best_usable_record_is_chosen(database: Database) -> None:
    chosen = choose(TASK, None, database, TARGET)
    assert chosen.schedule == NEW.schedule
    kernel_function(TASK, chosen.schedule, None)


def test_only_old_records_count_as_none(tmp_path: Path) -> None:
    database = Database(PI, (), tmp_path)
    database.append([OLD])
    assert kernel_function(TASK, choose(TASK, None, database, TARGET).schedule, None) is not None


def test_old_records_are_no_trials(database: Database) -> None:
    assert assign({TASK: None}, database, 8, TARGET)[0].missing == 7


@pytest.mark.parametrize("name", ["climb", "evolution"])
def test_a_search_goes_on_beside_old_records(database: Database, name: str) -> None:
    assert TEMPLATE is not None and SPACE is not None
    for number, schedule in enumerate(list(SPACE)[1:30]):
        database.append([Record(TASK, schedule, 3.0 + number)])
    strategy = make_strategy(name, TEMPLATE, TASK, [], random.Random(0), CostModels(database))
    strategy.observe(database.records(TASK))
    proposed = strategy.propose(8)
    assert len(proposed) == 8 and all(schedule in SPACE for schedule in proposed)


def test_old_records_of_a_neighbour_are_passed_over(database: Database) -> None:
    neighbour = replace(TASK, region=(replace(TASK.region[0], height=15),))  # type: ignore[type-var]
    chosen = choose(neighbour, None, database, TARGET)
    assert kernel_function(neighbour, chosen.schedule, None) is not None


#: A line of the first log that was committed; records have got more fields since.
FIRST = (
    b'{"v":1,"name":"dw_112x112_32_k3x3s1x1p1.1.1.1_relu6_float32_t1","task":{"region":[{"kind":"conv2d","height":112,"width":112,'
    b'"in_channels":32,"out_channels":32,"kernel":[3,3],"padding":[1,1,1,1],"groups":32,"clamp":[0.0,6.0]}],"dtype":"float32","threads":1},'
    b'"schedule":{"template":"depthwise","version":1,"knobs":{"rows":1,"columns":7,"order":0,"axis":0}},"latency_us":638.6244,'
    b'"device":"pi4-virtual","model":"0a814f61ffe24260","tvm":"0.27.0.post1","when":"2026-11-20T08:23:31+00:00","cycles":1149524}'
)


def test_the_first_records_are_read() -> None:
    line = read_line(FIRST)
    (record,) = line.records
    assert (record.latency_us, record.cycles, record.terms_us, record.again) == (638.6244, 1149524, (), False)
    assert line.identity == Identity("pi4-virtual", Origin("modelled", "0a814f61ffe24260"), "0.27.0.post1")
    assert read_line(encoded(line.identity, record).encode()) == line


def test_a_field_of_a_newer_version_is_ignored() -> None:
    assert read_line(FIRST.replace(b'"cycles"', b'"colour":"red","cycles"')) == read_line(FIRST)
