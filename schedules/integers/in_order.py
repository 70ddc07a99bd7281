"""A pass of `steps` in an order for cores that issue in order as a Cortex-A53 does.

On these cores a load of 16 bytes takes two cycles, and one of 8 into a general register none beside a product. So data comes that way, and
two halves of different registers are inserted in a cycle of their own when what was there has been used: a cycle for each vector. LLVM has
loads of 16 bytes, moves products away from the sums that they go to, has no registers left for them, and spills.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

#: Cycles from a load to the insertion of what it gives.
_LOADED = 4
#: General registers that loads go through.
TEMPORARIES = 12


@dataclass(frozen=True)
class Refill:
    """A vector register that a pass fills.

    Attributes:
        register: its number.
        base, offset: the general register by name, and bytes from there, that it is filled with.
        release, need: units that start before it may be overwritten, and that may start before it is filled.
        following: true if it is what the next pass begins with.
    """

    register: int
    base: str
    offset: int
    release: int
    need: int
    following: bool


#: A half of what a register is filled with, by its number.
Half = tuple[Refill, int]


@dataclass
class Cycles:
    """Vector instructions that start together.

    Attributes:
        vectors: their text; none where they insert.
        length: cycles that they take.
        free: instructions on general registers that may start meanwhile.
        halves: the halves of vectors that they insert.
        others: the instructions on general registers: loads of halves, and text.
    """

    vectors: list[str]
    length: int
    free: int
    halves: list[Half] = field(default_factory=list)
    others: list[Half | str] = field(default_factory=list)


def insertions(waiting: list[Half], unit: int) -> Iterator[Cycles]:
    """Take insertions before a unit from what is `waiting`, most urgent first: two of different registers, or one that is due."""
    while able := [half for half in waiting if half[0].release <= unit]:
        first = able[0]
        count = {refill: sum(other is refill for other, _ in able) for refill, _ in able}
        # Of three registers, each one's halves go with another one's.
        second = max((half for half in able if half[0] is not first[0]), key=lambda half: count[half[0]], default=None)
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
    """Yield the text of a pass: its vector instructions, with the loads of what they insert between them.

    Args:
        early, late: instructions on general registers that come before all loads of what follows, and after all loads.
        load, insert: the text of a half's load to one of the temporary registers, and of its insertion from there.
    """
    before = _place_loads(stream, early)
    last = max((number for number, cycles in enumerate(stream) if any(not isinstance(one, str) for one in cycles.others)), default=0)
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
    """Place the loads of inserted halves as late as possible, after those that are `early`; return the loads that must come before."""
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
