"""Another user of this machine, who has Python's standard library and bad intentions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

NOBODY = 65534

#: What every stranger knows: the numbers of the protocols.
TOOLS = """
import json, os, select, socket, struct, sys, time
TRACKER, AGENT, RPC, OLD = 0x746D7401, 0x746D6101, 0xFF271, 0x2F271
def dial(port):
    return socket.create_connection(("127.0.0.1", int(port)), timeout=2)
def hear(sock, most=1 << 20, wait=0.3):
    heard = b""
    sock.settimeout(wait)
    try:
        while len(heard) < most and (chunk := sock.recv(most - len(heard))):
            heard += chunk
    except OSError:
        pass
    return heard
def told(message):
    text = json.dumps(message).encode()
    return struct.pack("<i", len(text)) + text
def tagged(message, tag=bytes(32)):
    text = tag + json.dumps(message).encode()
    return struct.pack("<i", len(text)) + text
"""


def _python() -> str:
    """Return one that every user may run."""
    return shutil.which("python3", path="/usr/local/bin:/usr/bin") or sys.executable


@contextmanager
def stranger(code: str, *arguments: object, user: int = NOBODY) -> Iterator[subprocess.Popen[str]]:
    """Run a script as that user while the context lasts, `TOOLS` before it; skips the test where that is not possible."""
    if user != os.geteuid() and os.geteuid() != 0:
        pytest.skip("only root can act as another user")
    words = [_python(), "-I", "-S", "-c", TOOLS + code, *map(str, arguments)]
    other = {"user": user, "group": user, "extra_groups": []} if user != os.geteuid() else {}
    with subprocess.Popen(words, cwd="/", env={}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **other) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def strangers_answer(code: str, *arguments: object) -> str:
    """Return the output of a script until it ends, run as that user."""
    with stranger(code, *arguments) as process:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        return out.strip()


def line_of(process: subprocess.Popen[str]) -> str:
    """Return the next line it prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()
