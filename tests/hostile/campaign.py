"""Many inputs for each reader, each reader in a process of its own: one that crashes or never returns is a finding like any other."""

from __future__ import annotations

import mmap
import os
import pickle
import selectors
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hostile.fuzzing import WAIT_S, Finding, Judge, Reader, Tally, fuzz, judging, quick_folder

#: Without a new input in that time a process is stopped: the deadlines within it have failed.
_STUCK_S = 2 * WAIT_S
#: The same while samples are made, which imports what takes minutes on a busy machine.
_PREPARED_S = 10 * WAIT_S
_NUMBER_BYTES = 8


def campaign(readers: Sequence[Reader], seed: int, numbers: Callable[[Reader], Sequence[int]]) -> Iterator[tuple[Reader, Tally]]:
    """Fuzz the readers one after the other; their findings are minimised, but for those that ended the process."""
    for reader in readers:
        with quick_folder() as folder:  # a process that is killed leaves its own
            yield reader, _in_process(reader, seed, numbers(reader), Path(folder))


def _in_process(reader: Reader, seed: int, numbers: Sequence[int], folder: Path) -> Tally:
    """Return the tally of a process that may not survive it."""
    place = mmap.mmap(-1, _NUMBER_BYTES)  # 1 more than the number of what is being read, for when the process cannot say so any more
    reading, writing = os.pipe()
    start, child = time.monotonic(), os.fork()
    if child == 0:
        os.close(reading)
        _child(reader, seed, numbers, folder, place, writing)
    os.close(writing)
    answer = _answer(reading, place, child)
    _, status = os.waitpid(child, 0)
    if answer:
        tally: Tally = pickle.loads(answer)
        return tally
    number = max(0, int.from_bytes(place[:], "little") - 1)
    code = os.waitstatus_to_exitcode(status)
    fault = f"killed by {signal.Signals(-code).name}" if code < 0 else f"the process ended with {code}"
    with judging(reader) as judge:
        content = judge.input(seed, number)
    done = numbers.index(number) if number in numbers else 0
    return Tally(done, 0, time.monotonic() - start, [Finding(reader.name, number, content, fault, "")])


def _answer(reading: int, place: mmap.mmap, child: int) -> bytes:
    """Return the process's output; kill it once it makes no progress."""
    answer, last, since = b"", b"", time.monotonic()
    with selectors.DefaultSelector() as selector, open(reading, "rb", buffering=0) as pipe:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if selector.select(1.0):
                chunk = pipe.read(1 << 16)
                if not chunk:
                    return answer
                answer += chunk
            elif place[:] != last:
                last, since = place[:], time.monotonic()
            elif time.monotonic() - since > (_STUCK_S if any(place[:]) else _PREPARED_S):
                os.kill(child, signal.SIGKILL)


def _child(reader: Reader, seed: int, numbers: Sequence[int], folder: Path, place: mmap.mmap, writing: int) -> None:
    """Does not return: whatever the process inherited is its parent's to clean up."""
    code = 1
    try:
        warnings.simplefilter("ignore")
        with judging(reader, folder) as judge:
            tally = fuzz(
                judge, seed, numbers, lambda number: place.__setitem__(slice(None), (number + 1).to_bytes(_NUMBER_BYTES, "little"))
            )
            tally.findings = [_minimised(judge, finding) for finding in tally.findings]
        with open(writing, "wb") as pipe:
            pickle.dump(tally, pipe)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _minimised(judge: Judge, finding: Finding) -> Finding:
    return finding if "no end in time" in finding.fault else judge.minimised(finding)
