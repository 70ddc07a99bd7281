"""Gives readers mutated samples and judges what they make of them: a value, or an error that they may raise, in time and in little memory.

`READERS` of `readers.py` is the table of what is fuzzed; `./scripts/fuzz` and `test_fuzz.py` run it.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

from hostile.mutations import Shape, mutated

from tvmmobile.system.errors import UserError

#: Of the processor's time, and of the clock's for readers that wait: more is a hang.
DEADLINE_S, WAIT_S = 3.0, 30.0
#: Beyond what the process has when the samples are read.
MOST_MEMORY = 1 << 30
#: Where files are written without a disk.
_MEMORY_DISK = Path("/dev/shm")
#: Of a message: what does not fit on a screen is not a sentence.
_MOST_CHARACTERS = 1500
#: Trials of the minimiser for one finding.
_MOST_TRIALS = 3000

Read = Callable[[bytes], object]


@dataclass(frozen=True)
class Reader:
    """A reader of what others wrote.

    Attributes:
        name: the reader's name, for people and for `--reader`.
        shape: shape of its samples.
        prepare: given an empty folder, returns samples that are accepted, and what reads an input and uses what was read.
        allowed: exceptions that it raises for an input that it refuses.
        cost: time for an input, as a multiple of a quick reader's; of the inputs it gets so much less.
        deadline_s: limit of the processor's time for one input; `None` for `DEADLINE_S`.
    """

    name: str
    shape: Shape
    prepare: Callable[[Path], tuple[Sequence[bytes], Read]]
    allowed: tuple[type[Exception], ...] = (UserError,)
    cost: int = 1
    deadline_s: float | None = None


@dataclass(frozen=True)
class Finding:
    """An input that a reader does not stand; `fault` says what came of it, `where` the last lines of the program that ran."""

    reader: str
    number: int
    content: bytes
    fault: str
    where: str


@dataclass
class Tally:
    """Counts of a reader's inputs by outcome."""

    inputs: int = 0
    accepted: int = 0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)


class _Overdue(BaseException):
    """Not an `Exception`, which some readers catch."""


class Judge:
    """A reader that is ready, with its samples read once."""

    def __init__(self, reader: Reader, folder: Path) -> None:
        self.reader = reader
        self.samples, self._read = reader.prepare(folder)
        for sample in self.samples:
            self._read(sample)  # a sample that is refused would make a poor start

    def input(self, seed: int, number: int) -> bytes:
        """Return one input; the same numbers give the same bytes."""
        return self.drawn(Random(f"{self.reader.name} {seed} {number}"))

    def drawn(self, random: Random) -> bytes:
        """Return one input from a source of random numbers."""
        return mutated(random.choice(self.samples), self.reader.shape, random)

    def verdict(self, content: bytes) -> tuple[str, str]:
        """ "accepted", "refused", or what is wrong and where."""
        try:
            with _deadline(self.reader.deadline_s or DEADLINE_S):
                self._read(content)
        except self.reader.allowed as error:
            problem = _unsaid(error) if isinstance(error, UserError) else ""
            return (problem, _where(error)) if problem else ("refused", "")
        except _Overdue as error:
            return "no end in time", _where(error)
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:300]}", _where(error)
        return "accepted", ""

    def minimised(self, finding: Finding) -> Finding:
        """Return the finding with fewer bytes: what can go without another fault goes."""
        kind, content, trials = finding.fault.partition(":")[0], finding.content, 0
        step = max(1, len(content) // 2)
        while step and trials < _MOST_TRIALS:
            place = 0
            while place < len(content) and trials < _MOST_TRIALS:
                shorter = content[:place] + content[place + step :]
                trials += 1
                fault, where = self.verdict(shorter)
                if (fault.partition(":")[0], where) == (kind, finding.where):
                    content = shorter
                else:
                    place += step
            step //= 2
        return Finding(finding.reader, finding.number, content, finding.fault, finding.where)


def quick_folder(within: Path | None = None) -> tempfile.TemporaryDirectory[str]:
    """Return a folder for many small files, in memory where the system has a place for that and it is not to be in another one."""
    return tempfile.TemporaryDirectory(prefix="tvmmobile-fuzz-", dir=within or (_MEMORY_DISK if _MEMORY_DISK.is_dir() else None))


@contextlib.contextmanager
def judging(reader: Reader, within: Path | None = None) -> Iterator[Judge]:
    """A judge with a folder of its own, a limit on memory, and the environment as it was afterwards; `within` may outlive this process."""
    variables = dict(os.environ)
    with quick_folder(within) as folder:
        judge = Judge(reader, Path(folder))
        try:
            with _bounded_memory():
                yield judge
        finally:
            os.environ.clear()
            os.environ.update(variables)


def fuzz(judge: Judge, seed: int, numbers: Sequence[int], begun: Callable[[int], None] = lambda _number: None) -> Tally:
    """Judge the inputs with these numbers; each kind of fault is kept once. `begun` hears of each input before it is read."""
    tally, seen = Tally(), set()
    start = time.monotonic()
    for number in numbers:
        begun(number)
        content = judge.input(seed, number)
        fault, where = judge.verdict(content)
        tally.inputs += 1
        tally.accepted += fault == "accepted"
        if fault not in ("accepted", "refused") and (fault.partition(":")[0], where) not in seen:
            seen.add((fault.partition(":")[0], where))
            tally.findings.append(Finding(judge.reader.name, number, content, fault, where))
    tally.seconds = time.monotonic() - start
    return tally


def share(reader: Reader, readers: Sequence[Reader], inputs: int) -> int:
    """Return the number of inputs that a reader gets."""
    return math.ceil(inputs / reader.cost / sum(1 / one.cost for one in readers))


def _unsaid(error: UserError) -> str:
    """Return the fault in an error's wording; "" for none."""
    text = str(error.message)
    if not text.strip() or len(text) > _MOST_CHARACTERS:
        return f"a message of {len(text)} characters: {text[:80]}"
    bad = next((character for character in text if ord(character) < 32 or 127 <= ord(character) < 160), "")
    return f"a message with {bad!a}: {text[:200]!a}" if bad else ""


def _where(error: BaseException) -> str:
    """Return the innermost line of the project's own code."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/tvmmobile/" in frame.filename]
    return f"{frames[-1].filename.rpartition('/tvmmobile/')[2]}:{frames[-1].lineno}" if frames else ""


def _ring(_number: int, _frame: FrameType | None) -> None:
    raise _Overdue


@contextlib.contextmanager
def _deadline(processor_s: float) -> Iterator[None]:
    """A limit on the processor's time, which other programs do not use up, and a wide one on the clock's."""
    before: list[Any] = [signal.signal(number, _ring) for number in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, processor_s)
    signal.setitimer(signal.ITIMER_REAL, WAIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in zip((signal.SIGPROF, signal.SIGALRM), before, strict=True):
            signal.signal(number, handler)


@contextlib.contextmanager
def _bounded_memory() -> Iterator[None]:
    """A limit on what is reserved beyond the present."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    before, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_MEMORY, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, most))
