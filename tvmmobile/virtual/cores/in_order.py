"""Schedules a repeated block on a core that issues in order, at most two instructions a cycle.

The rules of one core, such as `cortex_a53.py`, turn each instruction into a `IssueStep`; this engine knows no instructions. There are no
cache misses and no branch mispredictions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

#: Registers, each with a stage.
Stages = tuple[tuple[str, int], ...]
#: Instructions a cycle, and 64-bit halves of vector registers that they may work on together.
ISSUE_WIDTH = 2
LANES = 2
_WARM_TRIPS = 3
_TRIPS = 11


@dataclass(frozen=True)
class IssueStep:
    """One instruction as an in-order core issues it. A stage is a number of cycles after issue.

    Attributes:
        reads: registers, and the stage at which each is needed.
        writes: registers, and the stage at which each can be used.
        keeps: true if the written registers keep a part of what they held, so that they are ready when both parts are.
        cycles: number of cycles that it issues; in all but the first of them, the second slot is free for other work.
        unit: the unit that it has to itself while it issues: `memory`, `branch`, `multiply`; `` for nothing.
        lanes: halves of vector registers that it works on, of the two a cycle.
        first: true if it only issues as the first of a cycle.
        alone: true if nothing issues in its first cycle but it.
        adds: the adder's lanes that it takes while it issues.
        adds_late: the adder's lanes that it takes later.
        adds_late_stage: cycles after issue at which it takes these.
        soon: true if it works, and gives its results, a cycle earlier if its operands are there a cycle earlier.
        busy: a unit that it keeps busy without holding up what does not need it, and the cycles; (``, 0) for none.
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
    """The state of issue."""

    def __init__(self) -> None:
        self.cycle = 0
        self.used = 0  # slots of this cycle
        self.lanes = 0
        self.held_until = 0  # the first slot and both lanes belong to a step of several cycles before that
        self.free: defaultdict[str, int] = defaultdict(int)  # when each unit is
        self.adder: defaultdict[int, int] = defaultdict(int)  # lanes taken, by cycle
        self.ready: defaultdict[str, int] = defaultdict(int)
        self.written: defaultdict[str, int] = defaultdict(lambda: -1)  # when the last write to a vector register issued
        self.last_cycle = 0  # up to which anything issued
        self.waits = {"registers": 0, "resources": 0}  # cycles in which nothing issued, by what the next step waited for

    def add_all(self, steps: Sequence[IssueStep]) -> None:
        """Issue instructions one after another."""
        for step in steps:
            self.add(step)

    def add(self, step: IssueStep) -> None:
        """Issue one instruction, as early as it can."""
        # No generators here and in `_fits`: modelling spends its time here.
        soonest, ready, written = self.cycle + (self.used >= ISSUE_WIDTH), self.ready, self.written
        at = self.cycle
        for name, stage in step.reads:
            if ready[name] - stage > at:
                at = ready[name] - stage
        for name, _ in step.writes:  # of two writes to a vector register, the second waits a cycle (two loads of a lane, for one)
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
        """Return the state that later issues depend on, relative to the current cycle."""
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
    """Return the cycles per execution of steps that run over and over, on average."""
    if not steps:
        return 0.0
    issue, seen = _Issue(), dict[Hashable, int]()
    ends: list[int] = []  # of each trip
    while len(ends) < _TRIPS:
        issue.add_all(steps)
        ends.append(issue.last_cycle)
        before = seen.setdefault(issue.state(), len(ends))
        if before < len(ends):  # from here on every trip repeats an earlier one
            period, cycles = len(ends) - before, ends[-1] - ends[before - 1]
            while len(ends) < _TRIPS:
                ends.append(ends[-period] + cycles)
    return (ends[-1] - ends[_WARM_TRIPS - 1]) / (_TRIPS - _WARM_TRIPS)


def steady_cycles(block: Sequence[str], step_of: Callable[[str], IssueStep]) -> float:
    """Return the cycles per execution of a block from `disassemble` in a loop, on a core with these rules; no cache misses."""
    return steady_issue([step_of(text) for text in block if text])


def waits_of(block: Sequence[str], step_of: Callable[[str], IssueStep]) -> dict[str, float]:
    """Return the reasons why a block in a loop waits, in percent of its cycles, as `mca.pressures_of` names them.

    `registers` are results of earlier steps, `resources` units, halves of registers and a place in a cycle.
    """
    issue, steps = _Issue(), [step_of(text) for text in block if text]
    for _ in range(_TRIPS):
        issue.add_all(steps)
    return {name: 100 * cycles / max(issue.last_cycle, 1) for name, cycles in issue.waits.items()}
