"""The C++ agent's readers under AddressSanitizer and UBSan on this machine, fed with mutations of what a true client sent.

Scripts of visitors go to `agent_reception.cc`, sessions to `agent_stream.cc`. `session.bin` is what `AgentSession` said to an agent after
the handshake while it uploaded a file, put two arrays and got them back; the addresses of the arrays lie in the memory that
`agent_stream.cc` gives to tensors.
"""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from hostile.fuzzing import quick_folder
from hostile.mutations import mutate_bytes

from tvmmobile.devices.agent.build import sources
from tvmmobile.devices.agents.session import BULK_MAGIC
from tvmmobile.system.environment import cache_dir
from tvmmobile.system.files import made_once

HERE = Path(__file__).parent
SESSION = (HERE / "session.bin").read_bytes()
COMPILER = "g++"
_FLAGS = (*("-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror"), "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
#: A session that asks for gigabytes at once is ended, as on a board without that much memory.
_OPTIONS = {"ASAN_OPTIONS": "allocator_may_return_null=1:max_allocation_size_mb=64:detect_leaks=1", "UBSAN_OPTIONS": "print_stacktrace=1"}
_WRITE, _FILE = 1, 3
#: Of a script: what `Step` in `agent_reception.cc` says.
_ARRIVES, _CONNECTS, _HELLO, _CLAIM, _ENDS, _TIME_PASSES, _NEW_OFFER = range(7)
_AT_ONCE = 2000
#: For so many sessions.
_DEADLINE_S = 120.0


@dataclass(frozen=True)
class Crash:
    """A session that a program does not survive, and what the sanitizers say."""

    number: int
    session: bytes
    report: str


@dataclass(frozen=True)
class Ran:
    """Sessions that were served: how many, in how many seconds, what came of each in the program's words, and the first crash."""

    sessions: int
    seconds: float
    lines: tuple[str, ...]
    crash: Crash | None


def build(name: str) -> Path:
    """Return the program of `name`.cc, compiled if it is not in the cache."""
    source = HERE / f"{name}.cc"
    digest = hashlib.sha256(repr(_FLAGS).encode())
    for path in (source, *sources()):
        digest.update(path.read_bytes())
    with made_once(cache_dir() / f"{name}-{digest.hexdigest()[:16]}") as folder:
        if folder is not None:
            include = f"-I{sources()[0].parent}"
            subprocess.run([COMPILER, *_FLAGS, include, str(source), "-o", str(folder / name)], check=True)
    return cache_dir() / f"{name}-{digest.hexdigest()[:16]}" / name


def session(seed: int, number: int, sample: bytes = SESSION) -> bytes:
    """Return a mutated session; the same numbers give the same bytes."""
    random = Random(f"{seed} {number}")
    pieces = messages(sample)
    for _ in range(random.choice((1, 1, 2, 3))):
        place = random.randrange(len(pieces))
        kind = random.randrange(5)
        if kind == 0:
            del pieces[place]
        elif kind == 1:
            pieces.insert(random.randrange(len(pieces) + 1), pieces[place])
        elif kind == 2:
            pieces[place] = pieces[place][:8] + mutate_bytes(pieces[place][8:], random)
        elif kind == 3:
            pieces[place] = mutate_bytes(pieces[place][:32], random) + pieces[place][32:]
        else:
            pieces[place] = mutate_bytes(pieces[place], random)
        pieces = pieces or [b""]
    content = b"".join(pieces)
    return mutate_bytes(content, random) if random.randrange(2) else content


def script(seed: int, number: int) -> bytes:
    """Steps of several visitors at the agent's port, most of them clients who know the secret and are changed in a byte or not at all."""
    random = Random(f"script {seed} {number}")
    steps = []
    for _ in range(random.randrange(1, 5)):
        visitor = random.randrange(3 if random.randrange(4) else 256)
        steps += [(_CONNECTS, visitor, b""), (_HELLO, visitor, _change(random, 8)), (_CLAIM, visitor, _change(random, 4))]
    for _ in range(random.choice((0, 0, 1, 2, 5))):
        what = random.choice((_ARRIVES, _ARRIVES, _ENDS, _TIME_PASSES, _NEW_OFFER, _HELLO, _CLAIM, _CONNECTS))
        step = (what, random.randrange(4), random.randbytes(random.choice((0, 1, 4, 36, 40, 72, 255))))
        steps.insert(random.randrange(len(steps) + 1), step)
    if random.randrange(40) == 0:  # a crowd
        steps = [(_CONNECTS, visitor, b"") for visitor in range(random.randrange(60, 120))] + steps
    if random.randrange(4) == 0:
        random.shuffle(steps)
    return b"".join(bytes([what, visitor, len(content)]) + content for what, visitor, content in steps)


def _change(random: Random, chance: int) -> bytes:
    """Return a byte to change and how, and now and then where to cut; nothing most of the time."""
    if random.randrange(chance):
        return b""
    return bytes([random.randrange(256), random.randrange(256), random.randrange(256)])[: random.choice((2, 2, 3))]


def messages(sample: bytes) -> list[bytes]:
    """TVM's packets and the bulk frames of a session, each whole."""
    found, place = [], 0
    while place < len(sample):
        (length,) = struct.unpack_from("<Q", sample, place)
        size = 8 + length
        if length == BULK_MAGIC:
            operation, name_bytes, _, payload = struct.unpack_from("<IIqQ", sample, place + 8)
            size = 32 + name_bytes + (payload if operation in (_WRITE, _FILE) else 0)
        found.append(sample[place : place + size])
        place += size
    return found


def serve(program: Path, sessions: Sequence[bytes], *arguments: str) -> Ran:
    """Give a program sessions, in a folder of its own, until it ends or has served all."""
    start, lines = time.monotonic(), list[str]()
    with quick_folder() as name:
        folder = Path(name)
        (folder / "work").mkdir()
        for first in range(0, len(sessions), _AT_ONCE):
            part = sessions[first : first + _AT_ONCE]
            done = subprocess.run(
                [str(program), *arguments],
                input=b"".join(struct.pack("<I", len(one)) + one for one in part),
                cwd=folder / "work",
                env=os.environ | _OPTIONS,
                capture_output=True,
                timeout=_DEADLINE_S,
                check=False,
            )
            lines += (served := done.stdout.decode().splitlines())
            if done.returncode != 0 or len(served) != len(part):
                crash = Crash(first + len(served), part[min(len(served), len(part) - 1)], done.stderr.decode(errors="replace")[:3000])
                return Ran(first + len(served), time.monotonic() - start, tuple(lines), crash)
        outside = [path.name for path in folder.iterdir() if path.name != "work"]
        crash = Crash(-1, b"", f"written outside the session's folder: {outside}") if outside else None
        return Ran(len(sessions), time.monotonic() - start, tuple(lines), crash)
