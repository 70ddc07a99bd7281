"""Runs `tvmmobile` as users do: a process with its own session, temporary directory and data, that can be killed; or without a process."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tvmmobile.cli import run


class Command:
    """A running `tvmmobile` command.

    Args:
        folder: folder for its temporary directory, data and output; several commands may share it one after another.
        arguments: the command line.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.temporary = folder / "t"  # short: a socket's path, some folders below it, has at most 107 characters
        self.temporary.mkdir(parents=True, exist_ok=True)
        self._errors = folder / f"stderr-{time.monotonic_ns()}.txt"
        environment = {**os.environ, "TMPDIR": str(self.temporary), "TVMMOBILE_DATA": str(folder / "data"), "COLUMNS": "80"}
        environment["PYTHONFAULTHANDLER"] = "1"  # SIGABRT prints where every thread is
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tvmmobile", *arguments],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def runs(self) -> bool:
        """True if it has not ended yet."""
        return self._process.poll() is None

    @property
    def errors(self) -> str:
        """Its output on stderr so far."""
        return self._errors.read_text()

    def wait(self, timeout_s: float = 120) -> tuple[int, str]:
        """Return its exit code and what it wrote to stdout; fails with what every thread of it is doing if it does not end in time."""
        try:
            out, _ = self._process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"did not end within {timeout_s:g} s (status {self._process.poll()}): {self._stuck()}")
        return self._process.returncode, out

    def _stuck(self) -> str:
        belonging = self._belonging()
        self._process.send_signal(signal.SIGABRT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._process.kill()
        return "\n".join((*belonging, self.errors))

    def wait_until(self, condition: Callable[[], bool], timeout_s: float = 120) -> None:
        """Returns once `condition` holds; fails if the command ends before that."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self._process.poll() is None, f"ended with {self._process.returncode}: {self.errors}"
            assert time.monotonic() < deadline, f"did not get there within {timeout_s:g} s: {self.errors}"
            time.sleep(0.05)

    def signal(self, number: int) -> None:
        """Send a signal to the command alone."""
        self._process.send_signal(number)

    def signal_group(self, number: int) -> None:
        """Send a signal to its process group, as a terminal does."""
        os.killpg(self._process.pid, number)

    def children(self) -> list[psutil.Process]:
        """Return the processes it started, and theirs."""
        return list(psutil.Process(self._process.pid).children(recursive=True))

    def agents(self) -> list[psutil.Process]:
        """Return the device agents that run for it, and their sessions."""
        return [child for child in self.children() if "qemu-aarch64" in " ".join(_words(child)[:1])]

    def leftovers(self, within_s: float = 10) -> list[str]:
        """Command lines of processes that belong to it and are still there after a while."""
        deadline = time.monotonic() + within_s
        while (found := self._belonging()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def _belonging(self) -> list[str]:
        mark = str(self.temporary)
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and (
                    process.environ().get("TMPDIR", "").startswith(mark) or mark in _line(process)
                ):
                    found.append(_line(process))
            except psutil.Error:
                continue
        return found


@dataclass(frozen=True)
class Ended:
    """Results of a command line, named as `Command` has them."""

    code: int
    out: str
    errors: str


def ended_here(folder: Path, *arguments: str) -> Ended:
    """Run a command line in `folder` as a `Command` would, but in this process, which has imported PyTorch and TVM."""
    streams = tuple(io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        patch.chdir(folder)
        patch.setenv("TVMMOBILE_DATA", str(folder / "data"))
        patch.setenv("COLUMNS", "80")
        code = run(arguments)
    out, errors = ((stream.flush(), stream.buffer.getvalue().decode())[1] for stream in streams)  # type: ignore[attr-defined]
    return Ended(code, out, errors)


def records(logs: Path, corrected: bool = False) -> list[dict[str, Any]]:
    """Every record in a log directory, each line well-formed and each schedule tried once.

    Args:
        corrected: true if a schedule may have been measured once more, because a clock's time in a network contradicted its record.
    """
    lines = [line for path in sorted(logs.glob("*/*.jsonl")) for line in path.read_text().splitlines()]
    found: list[dict[str, Any]] = [json.loads(line) for line in lines]
    keys = [json.dumps([record["task"], record["schedule"], corrected and record.get("again", False)]) for record in found]
    assert len(set(keys)) == len(keys)
    return found


def count_records(logs: Path) -> int:
    """Number of records in a log directory that are written to their end, while a run adds others."""
    return sum(path.read_bytes().count(b"\n") for path in logs.glob("*/*.jsonl"))


def _words(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def _line(process: psutil.Process) -> str:
    return " ".join(_words(process))
