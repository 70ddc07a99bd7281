"""Temporary files: gone at the end, also when their process is killed, and in places with long names."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tvmmobile.system import scratch as subject
from tvmmobile.system.files import made_once
from tvmmobile.system.scratch import scratch

#: Makes folders below TMPDIR, says so, and waits to be killed.
HOLDS = """
import sys
from tvmmobile.system.scratch import place_sockets, scratch
place_sockets()
with scratch("libraries") as folder:
    (folder / "library.so").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""
#: Starts what multiprocessing forks workers from, which needs a socket, and ends one worker of it in order.
FORKS = """
import multiprocessing, tempfile
from tvmmobile.system.scratch import place_sockets

if __name__ == "__main__":
    place_sockets()
    process = multiprocessing.get_context("forkserver").Process(target=print, args=("forked",))
    process.start()
    process.join()
    print(tempfile.gettempdir())
"""


@pytest.fixture(autouse=True)
def _sweeps() -> None:
    subject._sweep.cache_clear()


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def test_a_folder_is_gone_at_the_end(tmp_path: Path) -> None:
    with scratch("run", tmp_path) as folder:
        (folder / "a").mkdir()
        assert folder.parent == tmp_path and folder.name.startswith(f"tvmmobile-run-{os.getpid()}-")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    words = [sys.executable, "-c", HOLDS]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(tmp_path), text=True) as held:
        assert held.stdout is not None
        theirs = Path(held.stdout.readline().strip())
        others = [tmp_path / name for name in ("tvmmobile-", "tvmmobile-run-1", "other-run-1-abcdefgh", "tvmmobile-run-1-link1234")]
        for other in others[:3]:
            other.mkdir()
        others[3].symlink_to(others[2])
        with scratch("run", tmp_path):
            assert len(list(tmp_path.glob("tvmmobile-*-*-*"))) == 4 and (theirs / "library.so").exists()
        held.send_signal(signal.SIGKILL)
        held.wait(30)
    assert theirs.exists()
    subject._sweep.cache_clear()
    with scratch("run", tmp_path):
        assert not theirs.exists()
    assert sorted(tmp_path.iterdir()) == sorted(others)


def test_a_folder_that_is_swept_before_it_is_locked_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, made = tempfile.mkdtemp, []

    def swept(**settings: object) -> str:
        made.append(make(**settings))  # type: ignore[call-overload]
        if len(made) == 1:
            subject._remove_unlocked(made[0])
        return str(made[-1])

    monkeypatch.setattr(subject.tempfile, "mkdtemp", swept)
    with scratch("run", tmp_path) as folder:
        assert len(made) == 2 and str(folder) == made[1] and folder.is_dir()


def test_half_a_folder_that_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".agent-1.abcdefgh" / "made").mkdir(parents=True)
    with made_once(tmp_path / "agent-1") as folder:
        assert folder is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agent-1", "agent-1.lock"]


@pytest.mark.parametrize("length", [20, 200])
def test_sockets_in_a_folder_with_a_long_name(tmp_path: Path, length: int) -> None:
    folder, program = tmp_path / ("x" * length), tmp_path / "forks.py"
    folder.mkdir()
    program.write_text(FORKS)
    done = subprocess.run([sys.executable, str(program)], env=environment(folder), capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"forked\n{folder}\n", "")
    assert list(folder.iterdir()) == []
