"""Mutated sessions under sanitizers: the agent's C++ reads nothing and writes nothing that is not its own."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from hostile.agent_sessions import COMPILER, SESSION, build, messages, serve, session

pytestmark = pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"{COMPILER} is not installed: apt-get install -y g++")
SHORT, LONG = 500, 100_000


@pytest.fixture(scope="module")
def stream() -> Path:
    return build("agent_stream")


def test_a_true_session_is_served_whole(stream: Path) -> None:
    """Eleven packets; answers to a file and two arrays, and the arrays themselves: 8 + 8 + 256 + 8 + 80 bytes."""
    ran = serve(stream, [SESSION, SESSION])
    assert ran.crash is None and len(messages(SESSION)) == 16
    assert [line.split()[:2] for line in ran.lines] == [["11", "360"]] * 2 and len(set(ran.lines)) == 1


@pytest.mark.parametrize("count", [SHORT, pytest.param(LONG, marks=pytest.mark.long)])
def test_mutated_sessions(stream: Path, count: int) -> None:
    seed = 0 if count == SHORT else int(time.time())
    sessions = [session(seed, number) for number in range(count)]
    ran = serve(stream, sessions)
    assert ran.crash is None, f"seed {seed}, {ran.crash}"
    assert ran.sessions == count and len(set(sessions)) > 0.7 * count and len(set(ran.lines)) > 20


def test_the_sanitizers_are_on(stream: Path) -> None:
    ran = serve(stream, [SESSION], "one byte too many")
    assert ran.crash is not None and ran.crash.number == 0 and "is not its own" in ran.crash.report
