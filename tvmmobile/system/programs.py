"""Runs system programs to their end."""

from __future__ import annotations

import errno
import importlib.util
import os
import signal
import subprocess
from pathlib import Path

from tvmmobile.system.emulators import slowdown
from tvmmobile.system.errors import UserError

#: Words in a compiler's message about one of its own programs that this signal ended.
_TOO_LARGE = str(signal.strsignal(signal.SIGXFSZ))


def run_tool(command: list[str], what: str, remedy: str, timeout_s: float = 600, folder: Path | None = None) -> str:
    """Run a program to its end and return its standard output; raise `UserError` with the end of it if it fails or takes too long, and
    `OSError` if a file grows beyond this process's limit.

    It runs in `folder`, by default in this process's. The limit applies to a normal machine; an emulated one gets more time (`slowdown`).
    """
    timeout_s *= slowdown()
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False, cwd=folder)
    except subprocess.TimeoutExpired:
        raise UserError(f"{what} did not end within {timeout_s:g} s.", remedy) from None
    if done.returncode != 0:
        output = (done.stderr or done.stdout).strip()
        if done.returncode == -signal.SIGXFSZ or _TOO_LARGE in output:
            raise OSError(errno.EFBIG, f"{what} failed: {os.strerror(errno.EFBIG)}")
        raise UserError(f"{what} failed: {output[-1200:]}", remedy)
    return done.stdout


def signal_name(number: int) -> str:
    """Return the name of a signal, such as `SIGSEGV`; `signal 40` for one without a name, such as a real-time signal."""
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def zig_program() -> Path | None:
    """Return the program of the package ziglang, which contains clang and lld; `None` if the package is not installed."""
    found = importlib.util.find_spec("ziglang")
    program = Path(found.origin).with_name("zig") if found and found.origin else None
    return program if program and program.is_file() else None
