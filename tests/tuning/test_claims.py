"""Records that lie: every reader refuses them in the same words, and none that can be true."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from log_samples import PI, PROFILE, schedules, write_log

from tvmmobile.devices.protocol import EMULATED, MEASURED
from tvmmobile.graph.layers import Conv2d, Dense
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.serial import task_from_json
from tvmmobile.schedules import templates_for
from tvmmobile.system.environment import SHIPPED_LOGS
from tvmmobile.tuning.claims import Limits
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.logs.inspection import inspect
from tvmmobile.tuning.logs.merge import merge
from tvmmobile.tuning.records import Identity, Record

TASK = Task((Conv2d(14, 14, 64, 64, clamp=(0.0, 6.0)),))
#: 802,816 multiply-adds, 4 a cycle at 1.8 GHz.
PEAK_US = 802816 / 4 / 1800
TRUTH = {"core": 140.5, "cache_hits": 3.25, "loads_from_memory": 6.25}
LATENCY = "not a number of microseconds from 0.001 to 1e+09"


def _set(**fields: object) -> Callable[[dict[str, Any]], object]:
    return lambda entry: entry.update(fields)


LIES: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (_set(latency_us=1e-9), f"not a record: latency_us is 1e-09, {LATENCY}"),
    (_set(latency_us=1e300), f"not a record: latency_us is 1e+300, {LATENCY}"),
    (_set(latency_us=10**400), f"not a record: latency_us is a huge number, {LATENCY}"),
    (_set(latency_us=float("nan")), f"not a record: latency_us is nan, {LATENCY}"),
    (_set(latency_us=True), f"not a record: latency_us is True, {LATENCY}"),
    (_set(latency_us="1.0"), f"not a record: latency_us is '1.0', {LATENCY}"),
    (_set(latency_us=[150.0]), f"not a record: latency_us is [150.0], {LATENCY}"),
    (_set(cycles="many"), "not a record: cycles is 'many', not a positive whole number"),
    (_set(cycles=True), "not a record: cycles is True, not a positive whole number"),
    (_set(cycles=-5), "not a record: cycles is -5, not a positive whole number"),
    (_set(error=7), "not a record: error is not text, or again is not true or false"),
    (_set(again=1), "not a record: error is not text, or again is not true or false"),
    (_set(samples_us=3), "not a record: samples_us is not a list, or terms_us is not an object"),
    (_set(samples_us=["1"]), "not a record: samples_us is '1', not a number of microseconds from 0 to 1e+09"),
    (_set(samples_us=[200.0, 201.0]), "not a record: latency_us is 150, and its samples are from 200 to 201"),
    (_set(terms_us={"core": 140.5}), "not a record: latency_us is 150, and its terms add up to 140.5"),
    (_set(terms_us=TRUTH | {"core": False}), "not a record: terms_us.core is False, not a number of microseconds from 0 to 1e+09"),
    (_set(terms_us=TRUTH | {"stores": -1.0}), "not a record: terms_us.stores is -1.0, not a number of microseconds from 0 to 1e+09"),
    (_set(latency_us=1.0, terms_us={}), "latency_us is 1, and its core cycles alone take at least 140.5 at 1.8 GHz"),
    (_set(latency_us=140.4, terms_us={}), "latency_us is 140.4, and its core cycles alone take at least 140.5 at 1.8 GHz"),
    (_set(latency_us=99.0, terms_us={}, cycles=1), "latency_us is 99, and its multiply-adds take at least 111.5 at the peak of the cores"),
    (_set(terms_us=TRUTH | {"core": 2.0, "stores": 138.5}), "terms_us.core is 2, and its core cycles take 140.5 at 1.8 GHz"),
    (lambda entry: entry.pop("cycles"), "its latency is modelled, and it has no core cycles"),
]


def honest(number: int = 0, latency_us: float = 150.0, **fields: Any) -> Record:
    record = Record(TASK, schedules(TASK)[number], latency_us, cycles=252_900, terms_us=tuple(TRUTH.items()))
    return replace(record, **fields)


@pytest.mark.parametrize(("lie", "why"), LIES)
def test_every_reader_refuses_a_lie_in_the_same_words(tmp_path: Path, lie: Callable[[dict[str, Any]], object], why: str) -> None:
    path = write_log(tmp_path / "logs", [honest(0), honest(1)])
    first, second = path.read_text().splitlines()
    entry = json.loads(second)
    lie(entry)
    path.write_text(f"{first}\n{json.dumps(entry)}\n")
    found = Database(PI, (tmp_path / "logs",), None)
    assert [(line.path, line.number, line.why) for line in found.refused] == [(path, 2, why)]
    assert found.records(TASK) == [replace(honest(0), when=found.records(TASK)[0].when)] and found.ignored == 1
    assert [(line.number, line.fault) for line in inspect(path, PI).faults] == [(2, why)]
    merged = merge([path], tmp_path / "into", lambda _: PI)
    assert [(line.path, line.number, line.why) for line in merged.refused] == [(path, 2, why)]
    assert [joined.new for joined in merged.joined] == [1]


def _of_a_template_that_is_gone(threads: int = 1, **fields: object) -> Callable[[dict[str, Any]], object]:
    """Another layer or thread count, by a template that nobody asks whether it takes such."""

    def change(entry: dict[str, Any]) -> None:
        entry["task"]["region"][0] |= fields
        entry["task"]["threads"], entry["schedule"] = threads, {"template": "gone", "version": 1, "knobs": {}}
        entry["name"] = task_from_json(entry["task"]).name

    return change


@pytest.mark.parametrize(
    "change",
    [
        _of_a_template_that_is_gone(threads=0),
        _of_a_template_that_is_gone(threads=-4),
        _of_a_template_that_is_gone(stride=[0, 0], kernel=[3, 3]),
        _of_a_template_that_is_gone(height=10**400),
        _of_a_template_that_is_gone(height="14"),
        _of_a_template_that_is_gone(height=-14, width=-14),
        _of_a_template_that_is_gone(windows=[[0, 1, 0, 1], [0, 1, 0, 2]]),
        _of_a_template_that_is_gone(windows=[[0, 1, 0, 1], [0, 0, 0, 1]]),
        _of_a_template_that_is_gone(windows=[[0, 1, 0, 1]] * 3),
    ],
)
def test_a_kernel_that_cannot_be_is_refused_by_every_reader(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = write_log(tmp_path / "logs", [honest(0), honest(1)])
    first, second = path.read_text().splitlines()
    entry = json.loads(second)
    change(entry)
    path.write_text(f"{first}\n{json.dumps(entry)}\n")
    (fault,) = inspect(path, PI).faults
    assert [line.why for line in Database(PI, (tmp_path / "logs",), None).refused] == [fault.fault]
    assert [line.why for line in merge([path], tmp_path / "into", lambda _: PI).refused] == [fault.fault]


def test_lines_that_are_no_records_are_refused_in_the_same_words(tmp_path: Path) -> None:
    path = write_log(tmp_path, [honest(0)])
    with path.open("ab") as stream:
        stream.write(b'[1]\n\nnull\n\xff\n{"v":1}\n{"v":1,"torn')
    refused = Database(PI, (tmp_path,), None).refused
    assert [(line.number, line.why) for line in refused] == [(line.number, line.fault) for line in inspect(path, PI).faults]
    assert refused[-1].why == "the last line is unfinished" and len(refused) == 6


def test_terms_are_kept_and_older_records_need_none(tmp_path: Path) -> None:
    path = write_log(tmp_path, [honest(0), honest(1, terms_us=())])
    assert json.loads(path.read_text().splitlines()[0])["terms_us"] == TRUTH and "terms_us" not in path.read_text().splitlines()[1]
    found = Database(PI, (tmp_path,), None)
    assert [dict(record.terms_us) for record in found.records(TASK)] == [TRUTH, {}] and found.refused == []


def test_an_algorithm_with_fewer_products_may_be_faster_than_a_direct_one() -> None:
    """Strassen's needs seven of eight; one latency between both peaks is a lie of a direct kernel alone."""
    task = Task((Conv2d(14, 14, 512, 512, clamp=(0.0, 6.0)),))
    between = task.macs / 4 / 1800 * 0.9
    refusals = {}
    for template in templates_for(task):
        space = template.space(task)
        assert space is not None
        refusals[template.name] = PI.refuses(PI, Record(task, space.default, between, cycles=1))
        assert "peak of the cores" in PI.refuses(PI, Record(task, space.default, between * 0.95, cycles=1))
    assert refusals.keys() >= {"pointwise", "strassen"} and refusals["strassen"] == "" and "peak of the cores" in refusals["pointwise"]


@pytest.mark.parametrize(("threads", "least"), [(1, PEAK_US), (2, PEAK_US / 2), (4, PEAK_US / 4), (8, PEAK_US / 4)])
def test_threads_share_the_work_among_the_cores_there_are(threads: int, least: float) -> None:
    task = replace(TASK, threads=threads)
    for factor, refused in ((0.98, True), (1.02, False)):
        assert bool(PI.refuses(PI, Record(task, schedules(TASK)[0], factor * least, cycles=1))) == refused


def test_what_a_clock_measured_has_no_cycles_and_a_peak_only_where_the_core_is_known() -> None:
    board = replace(PROFILE, origin=MEASURED)
    fast, slow = (Record(TASK, schedules(TASK)[0], factor * PEAK_US) for factor in (0.5, 1.5))
    known, unknown = Identity.of(board), Identity.of(replace(board, cpu="Cortex-X925", mcpu="cortex-x3"))
    assert known.refuses(known, slow) == "" and "peak of the cores" in known.refuses(known, fast)
    assert unknown.refuses(unknown, fast) == ""
    assert Limits.of(replace(board, clock_hz=0.0)) is None and Limits.of(replace(board, origin=EMULATED)) is None
    assert known.refuses(replace(known, tvm="0.1"), fast) == ""  # nothing that is compared with it


@settings(max_examples=60, derandomize=True, database=None, deadline=None)
@given(
    extents=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(*[st.integers(0, 3)] * 4),
)
def test_products_with_padding_do_not_count(
    extents: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int, int, int]
) -> None:
    layer = Conv2d(*extents, 6, 4, kernel, stride, padding, groups=2)
    counted = 0
    for y, x, v, u in itertools.product(range(layer.out_height), range(layer.out_width), range(kernel[0]), range(kernel[1])):
        row, column = y * stride[0] + v - padding[0], x * stride[1] + u - padding[1]
        counted += 0 <= row < extents[0] and 0 <= column < extents[1]
    assert Task((layer, Dense(3, 5))).least_macs == counted * 3 * 4 + 15


@settings(max_examples=40, derandomize=True, database=None, deadline=None)
@given(
    extents=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    dilation=st.integers(1, 2),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(*[st.integers(0, 3)] * 4),
)
def test_products_outside_windows_do_not_count(
    extents: tuple[int, int], dilation: int, stride: tuple[int, int], padding: tuple[int, int, int, int]
) -> None:
    windows = ((0, 2, 1, 4), (2, 3, 0, 4))
    layer = Conv2d(*extents, 6, 10, (3, 4), stride, padding, dilation=(dilation, dilation), windows=windows)
    assume(min(layer.out_height, layer.out_width) > 0)
    everywhere = inside = 0
    for y, x, (first, end, left, right) in itertools.product(range(layer.out_height), range(layer.out_width), windows):
        for v, u in itertools.product(range(first, end), range(left, right)):
            row, column = y * stride[0] + v * dilation - padding[0], x * stride[1] + u * dilation - padding[1]
            everywhere += 1
            inside += 0 <= row < extents[0] and 0 <= column < extents[1]
    assert (layer.macs, layer.least_macs) == (everywhere * 6 * 5, inside * 6 * 5)


def test_a_layer_of_any_size_is_counted_at_once() -> None:
    """A file may describe it."""
    huge = 10**12
    layer = Conv2d(huge, huge, 3, 8, (huge, 3), (1, 1), (huge, 1, huge, 1))
    assert 0 < Task((layer,)).least_macs < layer.macs


def test_the_shipped_logs_hold_no_lie() -> None:
    found = Database(PI, (SHIPPED_LOGS,), None)
    assert len(found) > 2_600 and found.refused == []
