"""When a session has had its time: by the clock on a board, by its progress under an emulator (agent/limit.h)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY

from tvmmobile.devices.protocol import Endpoint
from tvmmobile.running.measure import session_error

#: Threads of a session: seconds of processor time, and the state.
Threads = list[tuple[float, str]]
Ask = Callable[[float, Threads], tuple[float, bool]]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`limit.cc` for this machine."""
    path, source = tmp_path_factory.mktemp("limit") / "limit", Path(__file__).with_name("limit.cc")
    warnings = ["-Wall", "-Wextra", "-Werror"]
    subprocess.run(["g++", "-std=c++17", *warnings, f"-I{REPOSITORY}/tvmmobile/devices/agent", source, "-o", path], check=True)
    return path


@pytest.fixture
def ask(program: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Ask]:
    """Seconds left of 10 at a time since the session began, and whether it was starved; the clock may run on for `request.param` times."""
    stretch, tasks = getattr(request, "param", 3), tmp_path / "7/task"
    command = [str(program), "10", str(stretch), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdin is not None and running.stdout is not None
        questions, answers = running.stdin, running.stdout

        def one(now: float, threads: Threads) -> tuple[float, bool]:
            shutil.rmtree(tasks, ignore_errors=True)
            for number, (used, state) in enumerate(threads):
                ticks = round(used * os.sysconf("SC_CLK_TCK"))
                (tasks / str(number)).mkdir(parents=True)
                (tasks / str(number) / "stat").write_text(
                    f"{number} (a) S (b) {state} 1 7 7 0 -1 0 1 2 3 4 {ticks - ticks // 3} {ticks // 3} 9 9\n"
                )
            questions.write(f"{now}\n")
            questions.flush()
            left, starved = answers.readline().split()
            return float(left), starved == "1"

        yield one
        questions.close()


@pytest.mark.parametrize("ask", [1], indirect=True)
def test_on_a_board_the_clock_counts(ask: Ask) -> None:
    assert ask(9, [(0.1, "R")]) == (1, False)
    assert ask(10, [(0.1, "R")]) == (0, False)


@pytest.mark.parametrize("ask", [30], indirect=True)
def test_the_clock_alone_is_no_fault_of_a_session(ask: Ask) -> None:
    """When many others run, the same work takes up to twice the processor time."""
    assert ask(4, [(1, "R")]) == (6, False)
    for now in (10.0, 12.0, 20.0, 25.0, 40.0, 59.0):
        assert ask(now, [(now / 3, "R"), (1, "S")])[0] > 0
    assert ask(79.9, [(19.99, "R"), (1, "S")])[0] > 0
    assert ask(79.95, [(20, "R"), (1, "S")]) == (0, False)


def test_an_endless_loop_ends_after_as_much_processor_time(ask: Ask) -> None:
    assert ask(10, [(9.5, "R")])[0] > 0
    assert ask(10.4, [(9.9, "R"), (5, "R")])[0] > 0
    assert ask(10.6, [(10, "R"), (5, "R")]) == (0, False)


@pytest.mark.parametrize("ask", [30], indirect=True)
def test_an_endless_loop_ends_on_a_crowded_machine(ask: Ask) -> None:
    """After twice the processor time of one thread: of four that share two processors, each gets half of the time."""
    assert ask(20, [(10, "R")] * 4)[0] > 0
    assert ask(39.9, [(19.95, "R")] * 4)[0] > 0
    assert ask(40, [(20, "R")] * 4) == (0, False)


@pytest.mark.parametrize("state", ["S", "T", "Z"])
def test_a_session_that_sleeps_uses_its_time(ask: Ask, state: str) -> None:
    """It ends, once it was seen asleep for what it has not computed."""
    now, seen = 10.0, 0
    while ask(now, [(7, state), (2, "S")])[0] > 0:
        now, seen = now + 0.2, seen + 1
    assert seen in (15, 16) and not ask(now, [(7, state)])[1]


def test_a_thread_that_waits_for_a_processor_is_not_asleep(ask: Ask) -> None:
    for step in range(50):
        assert ask(10 + 0.2 * step, [(1, "S"), (1, "R" if step % 2 else "D")])[0] > 0


def test_who_looks_may_have_waited_too(ask: Ask) -> None:
    """Nobody knows what a session did in a long pause between two looks."""
    assert ask(10, [(1, "S")])[0] > 0 and ask(25, [(1, "S")])[0] > 0


def test_a_session_that_never_runs_was_starved(ask: Ask) -> None:
    assert ask(29.9, [(1, "R")])[0] > 0
    assert ask(30, [(1, "R")]) == (0, True)


def test_without_facts_the_clock_counts(ask: Ask) -> None:
    assert ask(10, []) == (0, False)


def test_a_starved_session_says_nothing_about_its_library() -> None:
    starved = session_error(RuntimeError("tvmmobile session starved: had 1.5 s of a processor in 600 s"))
    assert (starved.kind, starved.reason) == ("link", "this machine is too busy: a session had 1.5 s of a processor in 600 s")
    late = session_error(RuntimeError("tvmmobile session timeout: did not finish within 20 s"))
    assert (late.kind, late.reason) == ("timeout", "did not finish within 20 s")


def test_this_side_waits_as_long_as_the_agent() -> None:
    assert Endpoint("", 0, "pi4").longest_s(20) == 20 and Endpoint("", 0, "pi4", stretch=30).longest_s(20) == 600
    slow = Endpoint("", 0, "pi4", stretch=30, slowdown=20)
    assert slow.limit_s(20) == 400 and slow.longest_s(20) == 12000
