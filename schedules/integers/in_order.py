"""Instruction scheduling of a pass of `steps` for in-order cores like the Cortex-A53.

On these cores a 16-byte load takes two cycles, but an 8-byte load into a general register is free beside a product. So operands are loaded
that way, and two halves of different registers are inserted in a cycle of their own once their old values have been used: one cycle per
vector. LLVM would emit 16-byte loads, move products away from the sums that they are added to, run out of registers, and spill.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

#: Cycles from a load to the insertion of its result.
_LOADED = 4
#: General registers that loads go through.
TEMPORARIES = 12


@dataclass(frozen=True)
class Refill:
    """A vector register that a pass fills with new data.

    Attributes:
        register: number of the vector register.
        base, offset: name of the general register that points to the data, and offset in bytes.
        release: number of units that must have started before the register may be overwritten.
        need: number of units that may start before the register is filled.
        following: true if the data belongs to the next pass.
    """

    register: int
    base: str
    offset: int
    release: int
    need: int
    following: bool


#: A refill, and which half of it: 0 or 1.
Half = tuple[Refill, int]


@dataclass
class Cycles:
    """Vector instructions that are scheduled as a group, with the instructions on general registers that issue beside them.

    Attributes:
        vectors: text of the vector instructions; empty for insertions.
        length: cycles that the group takes.
        free: free issue slots for instructions on general registers.
        halves: halves that the group inserts.
        others: instructions on general registers: loads of halves, or text.
    """

    vectors: list[str]
    length: int
    free: int
    halves: list[Half] = field(default_factory=list)
    others: list[Half | str] = field(default_factory=list)


def insertions(waiting: list[Half], unit: int) -> Iterator[Cycles]:
    """Remove from `waiting` (most urgent first) the insertions to do before a unit, and yield them: pairs of halves of different registers,
    or a single half that is due.
    """
    while ready := [half for half in waiting if half[0].release <= unit]:
        first = ready[0]
        count = {refill: sum(candidate is refill for candidate, _ in ready) for refill, _ in ready}
        # Taking the second half from the register with most halves left lets the halves of three registers all be paired.
        second = max((half for half in ready if half[0] is not first[0]), key=lambda half: count[half[0]], default=None)
        if second is None and first[0].need > unit:
            return
        halves = [first, second] if second else [first]
        for half in halves:
            waiting.remove(half)
        yield Cycles([], 1, 2 - len(halves), halves)


def with_loads(
    stream: Sequence[Cycles],
    early: Sequence[str],
    late: Sequence[str],
    load: Callable[[Half, int], str],
    insert: Callable[[Half, int], str],
) -> Iterator[str]:
    """Yield the text of a pass: its vector instructions, interleaved with the loads of the halves that they insert.

    Args:
        early, late: instructions on general registers that precede all loads for the next pass, and that follow all loads.
        load, insert: functions that give the text of a half's load into a temporary register, and of its insertion from there.
    """
    before = _place_loads(stream, early)
    last = max((number for number, cycles in enumerate(stream) if any(not isinstance(other, str) for other in cycles.others)), default=0)
    for line in late:
        last = next((number for number in range(last, len(stream)) if stream[number].free > 0), len(stream) - 1)
        stream[last].free -= 1
        stream[last].others.append(line)
    held: dict[Half, int] = {}
    free = list(range(TEMPORARIES))
    for cycles in (Cycles([], 0, 0, others=[*before]), *stream):
        yield from cycles.vectors
        for half in cycles.halves:
            free.append(held[half])
            yield insert(half, held.pop(half))
        for other in cycles.others:
            if isinstance(other, str):
                yield other
            else:
                held[other] = free.pop(0)
                yield load(other, held[other])


def _place_loads(stream: Sequence[Cycles], early: Sequence[str]) -> list[Half]:
    """Place the `early` instructions as early and the loads of inserted halves as late as possible; return the loads that do not fit and
    must precede the pass.
    """
    begins = [0, *itertools.accumulate(cycles.length for cycles in stream)]
    first = 0
    for line in early:
        first = next(number for number in range(first, len(stream)) if stream[number].free > 0)
        stream[first].free -= 1
        stream[first].others.append(line)
    before = []
    for number in reversed(range(len(stream))):
        for half in reversed(stream[number].halves):
            soonest = first if half[0].following and early else 0
            places = [place for place in range(soonest, number) if stream[place].free > 0 and begins[place] + _LOADED <= begins[number]]
            if places:
                stream[places[-1]].free -= 1
                stream[places[-1]].others.insert(len(early) if places[-1] <= first else 0, half)
            elif soonest:
                stream[number - 1].others.append(half)
            else:
                before.append(half)
    return before[::-1]
