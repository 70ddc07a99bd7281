"""Chooses the cores for our programs: the fastest kind that the board's system allows this user.

Android puts programs into cpusets by their importance, `background` and `restricted` among them, and Linux by cgroups and containers. A
program cannot leave its cpuset: `sched_setaffinity` beyond it fails, or is restricted to it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection

from tvmmobile.devices.board.parts import fastest
from tvmmobile.devices.board.probe import read_files
from tvmmobile.devices.board.registered import RegisteredBoard
from tvmmobile.devices.board.remote import Remote
from tvmmobile.system.errors import DeviceUnavailable
from tvmmobile.system.ranges import range_text, ranges_of

_ALLOWED = re.compile(r"^Cpus_allowed_list:[ \t]*([0-9,-]{1,200})$", re.MULTILINE)
_RANGE = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")
#: A shell's exit code for a missing program.
_NOT_FOUND = 127


def allowed_cores(remote: Remote, board: RegisteredBoard) -> tuple[frozenset[int], str]:
    """Return the cores that our programs may run on, and their cpuset's name; all cores and "" if the board does not tell.

    `cat` reads its own entries in /proc; it is started in the same way as the agent.
    """
    status, cpuset = (f"{board.root.rstrip('/')}/proc/self/{name}" for name in ("status", "cpuset"))
    files = read_files(remote, [status, cpuset])
    every_core = frozenset(board.facts.core_numbers)
    found = _ALLOWED.search(files[status])
    listed = _numbers(found[1]) & every_core if found else every_core
    return listed or every_core, files[cpuset][:200]


def _numbers(text: str) -> frozenset[int]:
    """Return the numbers in text such as `0-3,6`; other text is ignored."""
    found = [match for part in text.split(",") if (match := _RANGE.fullmatch(part))]
    return frozenset(number for match in found for number in range(int(match[1]), min(int(match[2] or match[1]), 4095) + 1))


def fast_core_words(remote: Remote, board: RegisteredBoard) -> list[str]:
    """Return words before the agent's command that confine it to the board's fastest cores; none if all cores are alike.

    None either if the board has no `taskset`, which `core_notes` reports, or if an emulator's host has too few cores.

    Raises:
        DeviceUnavailable: this user's programs may not run on any of the fastest cores.
    """
    numbers = _fastest_numbers(board)
    if len(numbers) == len(board.facts.cores):
        return []
    allowed, cpuset = allowed_cores(remote, board)
    usable = [number for number in numbers if number in allowed]
    name = board.facts.model or "the board"
    if not usable:
        where = f" (cpuset {cpuset})" if cpuset else ""
        raise DeviceUnavailable(
            f"{name} lets our programs run on {_cores(allowed)} only{where}; its fastest are {_cores(numbers)}.",
            "Turn its screen on and unlock it; on Linux, start the SSH server outside of a cpuset.",
        )
    # A mask without 0x is hexadecimal for util-linux's taskset, and the only form that Android's accepts.
    words = ["taskset", f"{sum(1 << number for number in usable):x}"]
    tried = remote.run([*words, "true"])
    if tried.status == 0:
        return words
    if tried.status == _NOT_FOUND or board.runner:  # an emulator runs on the cores of another machine
        return []
    raise DeviceUnavailable(
        f"{name} does not keep our programs on {_cores(usable)}: {tried.stderr.strip() or f'taskset ended with {tried.status}'}.",
        "Turn its screen on and unlock it; then run: taskset " + words[1] + " true",
    )


def core_notes(remote: Remote, board: RegisteredBoard) -> list[str]:
    """Return remarks on the cores that measurements will use, one sentence each."""
    numbers = _fastest_numbers(board)
    usable = [number for number in numbers if number in allowed_cores(remote, board)[0]]
    notes = []
    if len(usable) < len(numbers):
        notes.append(f"Of its {len(numbers)} fastest cores our programs may use {len(usable)}: no more threads than that make sense.")
    if len(numbers) < len(board.facts.cores) and not board.runner and not fast_core_words(remote, board):
        notes.append("It has no taskset, so measurements run on slow cores as well as on fast ones.")
    return notes


def _fastest_numbers(board: RegisteredBoard) -> list[int]:
    """Return Linux's numbers of the fastest cores."""
    return [board.facts.core_numbers[index] for index in fastest(board.facts.cores)]


def _cores(numbers: Collection[int]) -> str:
    """Return text such as `core 7` or `cores 0-3,6`."""
    text = ",".join(itertools.starmap(range_text, ranges_of(sorted(numbers))))
    return f"core{'s' * (len(numbers) > 1)} {text}"
