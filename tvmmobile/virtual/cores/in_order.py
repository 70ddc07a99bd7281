"""Schedules a repeated block on a dual-issue in-order core.

A core's rules, such as `cortex_a53.py`, convert each instruction to an `IssueStep`; the scheduler itself does not know instructions. There
are no cache misses or mispredicted branches.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

#: (register, stage) for several registers.
Stages = tuple[tuple[str, int], ...]
#: Most instructions per cycle, and most 64-bit halves of vector registers on which they operate together.
ISSUE_WIDTH = 2
LANES = 2
_WARM_TRIPS = 3
_TRIPS = 11


@dataclass(frozen=True)
class IssueStep:
    """An instruction's issue on an in-order core. A stage is a number of cycles after issue.

    Attributes:
        reads: registers, and the stage at which each is needed.
        writes: registers, and the stage at which each can be used.
        keeps: true if it writes only part of its registers, which are ready when the other part is ready, too.
        cycles: number of cycles for which it issues; in all but the first of them, the second slot is free for other instructions.
        unit: unit that it occupies while it issues: `memory`, `branch`, `multiply`; "" for none.
        lanes: number of 64-bit halves of vector registers on which it operates, of the two per cycle.
        first: true if it only issues in the first slot of a cycle.
        alone: true if no other instruction issues in its first cycle.
        adds: number of the adder's lanes that it occupies while it issues.
        adds_late: number of the adder's lanes that it occupies later.
        adds_late_stage: stage at which it occupies these.
        soon: true if its results are ready a cycle earlier if its operands are ready a cycle earlier.
        busy: (unit, cycles) that it occupies without delaying instructions that do not need it; ("", 0) for none.
    """

    reads: Stages = ()
    writes: Stages = ()
    keeps: bool = False
    cycles: int = 1
    unit: str = ""
    lanes: int = 0
    first: bool = False
    alone: bool = False
    adds: int = 0
    adds_late: int = 0
    adds_late_stage: int = 0
    soon: bool = False
    busy: tuple[str, int] = ("", 0)


class _Issue:
    """The state of the issue stage."""

    def __init__(self) -> None:
        self.cycle = 0
        self.used = 0  # slots in this cycle
        self.lanes = 0
        self.held_until = 0  # until this cycle, a step of several cycles occupies the first slot and both lanes
        self.free: defaultdict[str, int] = defaultdict(int)  # cycle in which each unit becomes free
        self.adder: defaultdict[int, int] = defaultdict(int)  # occupied lanes, by cycle
        self.ready: defaultdict[str, int] = defaultdict(int)
        self.written: defaultdict[str, int] = defaultdict(lambda: -1)  # cycle in which the last write to each vector register issued
        self.last_cycle = 0  # end of the last issue
        self.waits = {"registers": 0, "resources": 0}  # cycles in which nothing issued, by what the next step waited for

    def add_all(self, steps: Sequence[IssueStep]) -> None:
        """Issue instructions one after another."""
        for step in steps:
            self.add(step)

    def add(self, step: IssueStep) -> None:
        """Issue one instruction as early as possible."""
        # Without generators here and in `_fits`, where modelling spends its time.
        soonest, ready, written = self.cycle + (self.used >= ISSUE_WIDTH), self.ready, self.written
        at = self.cycle
        for name, stage in step.reads:
            if ready[name] - stage > at:
                at = ready[name] - stage
        for name, _ in step.writes:  # the second of two writes to a vector register waits a cycle, as with two loads of lanes
            if name[0] == "v" and written[name] >= at:
                at = written[name] + 1
        self.waits["registers"] += max(0, at - soonest)
        soonest = max(soonest, at)
        while not self._fits(step, at):
            at += 1
        self.waits["resources"] += max(0, at - soonest)
        if at > self.cycle:
            self.cycle, self.used, self.lanes = at, int(at < self.held_until), 0
        self.used = ISSUE_WIDTH if step.alone else self.used + 1
        self.lanes += step.lanes
        if step.cycles > 1:
            self.held_until = at + step.cycles
        if step.unit:
            self.free[step.unit] = at + step.cycles
        if step.busy[0]:
            self.free[step.busy[0]] = at + step.busy[1]
        if step.adds:
            for cycle in range(at, at + step.cycles):
                self.adder[cycle] += step.adds
        if step.adds_late:
            self.adder[at + step.adds_late_stage] += step.adds_late
        soon = int(step.soon and all(ready[name] - stage < at for name, stage in step.reads))
        for name, stage in step.writes:
            stage -= soon
            ready[name] = max(ready[name], at + stage) if step.keeps else at + stage
            written[name] = at
        self.last_cycle = max(self.last_cycle, at + step.cycles)
        if step.unit == "branch":
            self.used = ISSUE_WIDTH  # the following instructions are fetched again

    def state(self) -> Hashable:
        """Return the state on which later issues depend, relative to the current cycle."""
        now = self.cycle
        for cycle in [cycle for cycle in self.adder if cycle < now]:
            del self.adder[cycle]
        return (
            (self.used, self.lanes, max(0, self.held_until - now), self.last_cycle - now),
            tuple(max(0, cycle - now) for cycle in self.free.values()),
            tuple(sorted((cycle - now, lanes) for cycle, lanes in self.adder.items() if lanes)),
            tuple(max(-1, cycle - now) for cycle in self.ready.values()),
            tuple(max(-1, cycle - now) for cycle in self.written.values()),
        )

    def _fits(self, step: IssueStep, at: int) -> bool:
        used, lanes = (self.used, self.lanes) if at == self.cycle else (0, 0)
        if at < self.held_until:
            used, lanes = max(used, 1), LANES
        if used + (ISSUE_WIDTH if step.alone else 1) > ISSUE_WIDTH or (step.first and used) or lanes + step.lanes > LANES:
            return False
        if (step.unit and self.free[step.unit] > at) or (step.busy[0] and self.free[step.busy[0]] > at):
            return False
        if step.adds:
            for cycle in range(at, at + step.cycles):
                if self.adder[cycle] + step.adds > LANES:
                    return False
        return not step.adds_late or self.adder[at + step.adds_late_stage] + step.adds_late <= LANES


def steady_issue(steps: Sequence[IssueStep]) -> float:
    """Return the mean cycles per execution of steps that run repeatedly."""
    if not steps:
        return 0.0
    issue, seen = _Issue(), dict[Hashable, int]()
    ends: list[int] = []  # end of each iteration
    while len(ends) < _TRIPS:
        issue.add_all(steps)
        ends.append(issue.last_cycle)
        before = seen.setdefault(issue.state(), len(ends))
        if before < len(ends):  # from here on, iterations repeat periodically
            period, cycles = len(ends) - before, ends[-1] - ends[before - 1]
            while len(ends) < _TRIPS:
                ends.append(ends[-period] + cycles)
    return (ends[-1] - ends[_WARM_TRIPS - 1]) / (_TRIPS - _WARM_TRIPS)


def steady_cycles(block: Sequence[str], step_of: Callable[[str], IssueStep]) -> float:
    """Return the cycles per execution of a block in a loop, given as text from `disassemble`, on a core with these rules."""
    return steady_issue([step_of(text) for text in block if text])


def waits_of(block: Sequence[str], step_of: Callable[[str], IssueStep]) -> dict[str, float]:
    """Return what a block in a loop waits for, in percent of its cycles, with the names of `mca.pressures_of`.

    `registers` stands for results of earlier steps; `resources` for units, lanes and issue slots.
    """
    issue, steps = _Issue(), [step_of(text) for text in block if text]
    for _ in range(_TRIPS):
        issue.add_all(steps)
    return {name: 100 * cycles / max(issue.last_cycle, 1) for name, cycles in issue.waits.items()}
