"""A library takes the set of kernels that suits a CPU best, and none with instructions that the CPU lacks."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import REPOSITORY

from tvmmobile.devices.registry import find_device
from tvmmobile.devices.similar_cores import ordered_cores, suitability
from tvmmobile.native import instructions
from tvmmobile.native.instructions import Feature
from tvmmobile.native.sets import CompiledSet, LoweredSet, Suitability, need_lines, set_lines

HALF, DOT, I8MM, BF16 = instructions._HALF, instructions._DOT, instructions._I8MM, instructions._BF16
#: Devices, and what their kernels need: those of an int8 library.
NEEDS: dict[str, tuple[Feature, ...]] = {"pi3bplus": (), "pi4": (), "pi5": (DOT,), "cobalt100": (DOT, I8MM), "d9300-x4": (HALF, DOT, I8MM)}
BY_OPTION, BY_CORE, BY_KIN, BY_FEATURES = range(4)
Question = tuple[int, frozenset[Feature]]
A53, A55, A57, A72, A75, A76, A510, N2, X925, UNKNOWN = (
    0x41D03,
    0x41D05,
    0x41D07,
    0x41D08,
    0x41D0A,
    0x41D0B,
    0x41D46,
    0x41D49,
    0x41D85,
    0x99123,
)


class Chooser:
    """`choose.h`, compiled for this machine with the sets of some devices."""

    def __init__(self, folder: Path, names: Sequence[str], *options: str) -> None:
        self.needs = [NEEDS[name] for name in names]
        profiles = [find_device(f"{name}-virtual").profile for name in names]
        self.suited: Suitability = suitability(profiles)
        nothing: Any = object()
        lowered = [LoweredSet(None, profile.target, device=profile.name) for profile in profiles]
        layout: Any = SimpleNamespace(expanded={})
        sets = [CompiledSet(one, nothing, {}, layout, needs) for one, needs in zip(lowered, self.needs, strict=True)]
        empty = [f"static const Step set{i}_steps[1]; static const char *const set{i}_kernels[1];" for i in range(len(names))]
        described = 'static const tvmmobile_description description = {1, 1, "", "", "", 0, 0, 0, 0, 0, 0, 64, 0, 0, SETS, 0, 0};'
        lines = [f"#define SETS {len(names)}", '#include "runtime.c"', *need_lines(sets, self.suited), *empty, described]
        (folder / "choose_tables.h").write_text("\n".join([*lines, *set_lines(sets, self.suited), ""]), encoding="utf-8")
        folders = f"-I{folder}", f"-I{REPOSITORY}/tvmmobile/native"
        self._program = folder / "choose"
        subprocess.run(["gcc", "-std=c11", *options, *folders, Path(__file__).with_name("choose.c"), "-o", self._program], check=True)

    def answers(self, questions: Sequence[Question], *words: str) -> list[tuple[int, int] | None]:
        """Return the sets' places and the reasons, for cores and what their CPUs have; first for the set that the words name."""
        lines = []
        for core, has in questions:
            words = (sum(1 << feature.bit for feature in has if feature.word == word) for word in (0, 1))
            lines.append(f"{core:x} " + " ".join(f"{word:x}" for word in words))
        done = subprocess.run([self._program, *words], input="\n".join(lines), capture_output=True, text=True, check=True)
        return [None if line == "none" else tuple(map(int, line.split())) for line in done.stdout.splitlines()]  # type: ignore[misc]


@pytest.fixture(scope="module")
def chooser(tmp_path_factory: pytest.TempPathFactory) -> Chooser:
    return Chooser(tmp_path_factory.mktemp("all"), list(NEEDS))


V8_2, V9 = frozenset({HALF, DOT}), frozenset({HALF, DOT, I8MM, BF16})
NOTHING: frozenset[Feature] = frozenset()


def test_each_core_takes_its_own_set_or_its_nearest_relatives(chooser: Chooser) -> None:
    found = dict(
        zip(
            cases := [
                (A53, NOTHING),
                (A55, V8_2),
                (A57, NOTHING),
                (A72, NOTHING),
                (A75, V8_2),
                (A76, V8_2),
                (A510, V9),
                (N2, V9),
                (X925, V9),
            ],
            chooser.answers(cases),
            strict=True,
        )
    )
    pi3bplus, pi4, pi5, cobalt100, x4 = range(5)
    assert found == {
        (A53, NOTHING): (pi3bplus, BY_CORE),
        (A55, V8_2): (pi3bplus, BY_KIN),
        (A57, NOTHING): (pi4, BY_KIN),
        (A72, NOTHING): (pi4, BY_CORE),
        (A75, V8_2): (pi4, BY_KIN),
        (A76, V8_2): (pi5, BY_CORE),
        (A510, V9): (pi3bplus, BY_KIN),
        (N2, V9): (cobalt100, BY_CORE),
        (X925, V9): (x4, BY_KIN),
    }


def test_an_unknown_core_takes_what_its_instructions_suit(chooser: Chooser) -> None:
    """It takes the kernels of the largest core all of whose usual instructions it has; half of them do not suffice."""
    levels = NOTHING, frozenset({HALF}), V8_2, frozenset({DOT, I8MM}), V9, frozenset({I8MM})
    found = chooser.answers([(core, has) for core in (UNKNOWN, 0) for has in levels])
    pi4, pi5, x4 = 1, 2, 4
    assert found == [(place, BY_FEATURES) for place in (pi4, pi4, pi5, pi4, x4, pi4)] * 2


def test_no_cpu_takes_instructions_that_it_lacks(chooser: Chooser, tmp_path: Path) -> None:
    """Whatever a core says of itself: every known one and some others, with random features. Without a set for all, some get none."""
    draw = random.Random(0)
    every = (HALF, DOT, I8MM, BF16)
    cores = [part for relative in ordered_cores() for part in relative.parts] + [0, UNKNOWN, 0xFFFFF]
    questions = [(core, frozenset(draw.sample(every, draw.randint(0, 4)))) for core in cores for _ in range(4)]
    assert len(questions) > 200
    for one in (chooser, Chooser(tmp_path, ["pi5", "cobalt100"])):
        for (core, has), answer in zip(questions, one.answers(questions), strict=True):
            fitting = [place for place, needs in enumerate(one.needs) if has.issuperset(needs)]
            assert (answer is None) == (not fitting)
            if answer is not None:
                row = next((row for row in one.suited.cores if row.core == core), None)
                assert answer[0] in fitting
                assert row is None or answer[0] == next(place for place in row.order if place in fitting)


def test_a_named_set_is_refused_where_a_system_reports_less(chooser: Chooser, tmp_path: Path) -> None:
    """Without an operating system, a program that names a set is assumed to know the CPU; automatically, only sets without requirements are
    taken.
    """
    alone = Chooser(tmp_path, list(NEEDS), "-U__linux__")
    for one, with_dot in ((chooser, None), (alone, (2, BY_OPTION))):
        answers = [one.answers([], name)[0] for name in ("0", "2", "3")]
        assert answers == [(1, BY_FEATURES), (1, BY_OPTION), with_dot]
