"""Sets of kernels share packed weights where a slightly slower schedule reads what another set has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from c_libraries import OK, answers_of, taking_program
from conftest import CommandLine

import tvmmobile as tm
from tvmmobile.devices.registry import find_device
from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.tasks import Task
from tvmmobile.pipeline.compiled_library import CompiledLibrary
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.planning import plan_variant
from tvmmobile.pipeline.request import jobs_for
from tvmmobile.pipeline.sentences import sharing_sentence
from tvmmobile.pipeline.sharing import ScheduleCandidate, smallest
from tvmmobile.schedules import KnobSchedule
from tvmmobile.tuning.choice import Choice
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.logs.directories import log_dirs
from tvmmobile.tuning.plan import Price
from tvmmobile.tuning.records import Record
from tvmmobile.virtual.board import load_board

DEVICES = ("pi3bplus", "pi4")
NETWORK = """
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU6(), nn.Conv2d(16, 96, 1), nn.ReLU6(), nn.Conv2d(96, 320, 1))
"""
FIRST, SECOND = (Task((Conv2d(4, 4, 16, channels),), machine=machine_of("cortex-a72")) for channels in (16, 32))


def candidate(extra_us: float, constants: Mapping[str, int]) -> ScheduleCandidate:
    choice = Choice(KnobSchedule("pointwise", 2, ()), Price(10.0 + extra_us, ""))
    return ScheduleCandidate(choice, extra_us, {name.encode(): size for name, size in constants.items()})


@pytest.mark.parametrize(
    ("most_us", "extra_us"),
    [
        ((0.0, 0.0), [(0, 0), (0, 0)]),
        ((5.0, 0.0), [(5, 0), (0, 0)]),
        ((4.9, 1.0), [(0, 0), (0, 1)]),
        ((5.0, 1.0), [(5, 0), (0, 1)]),
        ((0.0, 0.9), [(0, 0), (0, 0)]),
    ],
)
def test_libraries_become_small_within_each_sets_limit(most_us: tuple[float, float], extra_us: list[tuple[int, int]]) -> None:
    """They become no slower than necessary: a schedule that saves nothing, or costs too much, is never taken."""
    one = {FIRST: [candidate(0, {"a": 100}), candidate(5, {"b": 100}), candidate(1, {"c": 100})], SECOND: [candidate(0, {"x": 10})]}
    other = {FIRST: [candidate(0, {"b": 100})], SECOND: [candidate(0, {"y": 10}), candidate(1, {"x": 10})]}
    found = smallest([one, other], most_us)
    assert [(each[FIRST].extra_us, each[SECOND].extra_us) for each in found] == extra_us


@pytest.mark.virtual
def test_a_library_shares_what_records_allow(tmp_path: Path, cli: CommandLine) -> None:
    """Two kernels have a second record, 0.2 and 5 % slower, with the weights of the other device's best."""
    file, logs = tmp_path / "network.py", tmp_path / "logs"
    file.write_text(NETWORK)
    model = tm.load(f"{file}:make", resolution=16)
    profiles = [find_device(name).profile for name in DEVICES]
    (job,) = jobs_for(model, profiles, LibraryOptions(), tmp_path / "out", log_dirs(logs), None)
    for place, (each, profile) in enumerate(zip(job.sets, profiles, strict=True)):
        clock_hz = load_board(str(profile.board_file)).clock_hz
        database = Database(each.identity, (), logs)
        plan = plan_variant(each)
        for number, slower in ((1, 1.002), (2, 1.05)):
            task = plan.steps[number].task
            usual = plan.choices[task].schedule
            assert isinstance(usual, KnobSchedule) and usual.template == "pointwise"
            for width, factor in zip((8, 16) if place else (16, 8), (1.0, slower), strict=True):
                knobs = usual.values | {"columns": width, "k_block": 0, "n_block": 0}
                schedule = replace(usual, knobs=tuple(knobs.items()))
                database.append([Record(task, schedule, 1000.0 * factor, cycles=round(factor * clock_hz / 1000))])
    words = "compile", "--model", f"{file}:make", "--resolution", "16", "--device", ",".join(DEVICES), "--logs", str(logs), "--no-check"
    saved, sizes = [], []
    for percent in ("0", "0.5", "10"):
        done = cli(*words, "--share-weights", percent, "--out", str(tmp_path / percent))
        assert done.code == 0
        (library,) = tm.open_libraries(tmp_path / percent)
        sizes.append(library.facts.program.weight_bytes)
        entry = library.facts.shared_weights
        assert (entry is None) == (percent == "0")
        if entry is not None:
            assert sharing_sentence(library.spec.variant, entry.model_dump()) in " ".join(done.err.split())
            assert max(entry.slower_percent) <= float(percent)
            saved.append(entry.fastest_bytes - entry.bytes)
    assert saved == [4 * 16 * 96, 4 * (16 * 96 + 96 * 320)]
    assert sizes[0] - sizes[2] >= saved[1]


#: The end of MobileNet v1, whose layers the shipped logs know on all boards.
LARGE = """
from torch import nn

def normalised(*convolution, **more):
    return nn.Conv2d(*convolution, **more, bias=False), nn.BatchNorm2d(convolution[1]), nn.ReLU6()

def make():
    middle = *normalised(512, 1024, 1), *normalised(1024, 1024, 3, 1, 1, groups=1024), *normalised(1024, 1024, 1)
    return nn.Sequential(*normalised(3, 512, 1), *middle, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 1000))
"""
BOARDS = ("pi3bplus", "rk3566", "pi4", "pi5", "exynos1330", "cobalt100")
#: Kilobytes that a process may hold more than with a board's own library; microseconds that `init` may take.
MOST_KIB, MOST_INIT_US = 1024, 1000


@pytest.mark.virtual
@pytest.mark.long
def test_a_process_holds_only_the_set_that_it_uses(tmp_path: Path) -> None:
    """With six sets that share weights it needs about as much memory as with one, and begins as soon."""
    (tmp_path / "network.py").write_text(LARGE)
    model, program = tm.load(f"{tmp_path / 'network.py'}:make", resolution=7), taking_program(tmp_path)

    def compiled(*devices: str) -> CompiledLibrary:
        return tm.compile(model, devices, share_weights=0.5, check=False, out=tmp_path / "-".join(devices))

    def cost(library: CompiledLibrary, place: int) -> tuple[float, int]:
        """Return the shortest time of init and the memory, on a CPU that takes any set."""
        code, words = min(
            (answers_of(program, library, "max,sve=off,sme=off", place + 1 << 24) for _ in range(5)), key=lambda each: float(each[1][2])
        )
        assert code == OK
        return float(words[2]), int(words[5])

    six = compiled(*BOARDS)
    shared = six.facts.shared_weights
    assert shared is not None and shared.bytes < 0.7 * shared.fastest_bytes
    for place, board in enumerate(BOARDS):
        init_us, resident_kib = cost(six, place)
        assert init_us <= MOST_INIT_US and resident_kib * 1024 < 0.8 * six.path.stat().st_size
        if board in ("pi4", "cobalt100"):
            _, alone_kib = cost(compiled(board), 0)
            assert resident_kib <= alone_kib + MOST_KIB


def test_the_limit_is_a_percentage(cli: CommandLine) -> None:
    for percent in ("-1", "101", "nan"):
        done = cli("compile", "--alpha", "0.25", "--resolution", "128", "--device", "pi4,pi5", "--share-weights", percent)
        assert done.code == 2 or (done.code == 1 and "--share-weights" in done.err)
