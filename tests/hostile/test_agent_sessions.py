"""Mutated sessions under sanitizers: the agent's C++ reads nothing and writes nothing that is not its own."""

from __future__ import annotations

import errno
import functools
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest
from hostile.agent_sessions import COMPILER, SESSION, build, messages, script, serve, session

from tvmmobile.devices.agents.session import BULK_MAGIC

pytestmark = pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"{COMPILER} is not installed: apt-get install -y g++")
SHORT, LONG = 500, 100_000


@pytest.fixture(scope="module")
def stream() -> Path:
    return build("agent_stream")


@pytest.fixture(scope="module")
def reception() -> Path:
    return build("agent_reception")


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


def _summed(answer: int) -> int:
    """Return the program's checksum of an answer."""
    return functools.reduce(lambda total, byte: (total * 31 + byte) % (1 << 32), struct.pack("<Q", answer), 0)


@pytest.mark.parametrize(
    ("name", "size", "answer"),
    [
        ("file", 200_000, 200_000),
        ("full", 200_000, ~errno.ENOSPC),
        ("folder", 10, ~errno.EISDIR),
        ("folder", 0, ~errno.EISDIR),
    ],
)
def test_the_answer_says_why_a_file_is_not_stored(stream: Path, tmp_path: Path, name: str, size: int, answer: int) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    (tmp_path / "folder").mkdir()
    frame = struct.pack("<QIIqQ", BULK_MAGIC, 3, len(name), 0, size) + name.encode() + bytes(size)
    ran = subprocess.run([stream], input=struct.pack("<I", len(frame)) + frame, capture_output=True, cwd=tmp_path, check=True)
    assert ran.stdout.split() == [b"0", b"8", b"%d" % _summed(answer % (1 << 64))]


def _step(what: int, visitor: int, content: bytes = b"") -> bytes:
    return bytes([what, visitor, len(content)]) + content


@pytest.mark.parametrize(
    ("steps", "came"),
    [
        ([_step(1, 0), _step(2, 0), _step(3, 0)], "1 1 0"),  # a true client
        ([_step(1, 0), _step(2, 0), _step(3, 0, b"\x09\x01")], "0 0 1"),  # with one bit of its proof changed
        ([_step(1, 0), _step(2, 0, b"\x00\x01"), _step(3, 0)], "0 0 1"),  # with another magic number
        ([_step(1, 0), _step(2, 0), _step(6, 0, b"new"), _step(3, 0)], "0 1 1"),  # for an offer that does not stand any more
        ([_step(1, 0), _step(2, 0), _step(5, 0, b"\x09"), _step(3, 0)], "0 0 1"),  # too late
        ([_step(1, 0), _step(0, 0, b"x" * 36), _step(0, 0, b"y" * 40)], "0 0 1"),  # a stranger
        ([*(_step(1, number) for number in range(70)), _step(2, 69), _step(3, 69)], "1 1 69"),  # a client behind a silent crowd
    ],
)
def test_who_is_served(reception: Path, steps: list[bytes], came: str) -> None:
    ran = serve(reception, [b"".join(steps)])
    assert ran.crash is None and ran.lines == (came,)


@pytest.mark.parametrize("count", [SHORT, pytest.param(LONG, marks=pytest.mark.long)])
def test_mutated_visits(reception: Path, count: int) -> None:
    seed = 0 if count == SHORT else int(time.time())
    ran = serve(reception, [script(seed, number) for number in range(count)])
    assert ran.crash is None, f"seed {seed}, {ran.crash}"
    served, claimed, away = (sum(int(line.split()[place]) for line in ran.lines) for place in range(3))
    assert ran.sessions == count and claimed >= served > 0.2 * count and away > 0.5 * count


def test_the_sanitizers_are_on(stream: Path) -> None:
    ran = serve(stream, [SESSION], "one byte too many")
    assert ran.crash is not None and ran.crash.number == 0 and "is not its own" in ran.crash.report
