"""The loops over K of `integer_long` as one piece of assembly, for cores that issue in order as a Cortex-A53 does.

LLVM moves products away from the sums that they go to, has no registers left for them, and spills. Here a tile is a stream of units, each
the products of one pixel and one channel; the sum of a unit follows the products of the next one, so that neither waits. On these cores a
load of 16 bytes takes two cycles, and one of 8 into a general register none beside a product. So data comes that way, and two halves of
different registers are inserted in a cycle of their own when what was there has been used. A step of 16 bytes takes four cycles for each
pixel and channel, and one for each vector that is read; a pair of steps takes six, and two.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from tvmmobile.schedules.in_order_loop import VECTOR_BYTES, inline_function

#: Vector registers that there are, those of products under way, and how far a load of 8 bytes reaches.
_REGISTERS, _PRODUCTS, _REACH = 32, 2, 32760
#: Bytes of a number of the table.
_WORD = 4
#: Cycles from a load to the insertion of what it gives.
_LOADED = 4
#: General registers: pointers to A, to a panel's weights and to the table; pairs and single steps left; where the data of a step, or of a
#: pair's two, begins, and that of the next pass.
_GENERAL = ("a", "w", "table", "pairs", "singles", "p0", "p1", "q0", "q1")
#: General registers that loads go through.
_TEMPORARIES = 12

#: What a pass adds up: the first step, with which sums begin; another one; a pair of steps.
Kind = Literal["first", "single", "pair"]


@dataclass(frozen=True)
class Refill:
    """A vector register that a pass fills.

    Attributes:
        register: its number.
        base, offset: the general register by name, and bytes from there, that it is filled with.
        release, need: units that start before it may be overwritten, and that may start before it is filled.
    """

    register: int
    base: str
    offset: int
    release: int
    need: int


@dataclass
class _Cycles:
    """Vector instructions that start together.

    Attributes:
        vectors: their text; none where they insert.
        length: cycles that they take.
        free: instructions on general registers that may start meanwhile.
        halves: what they insert, by refill and number of the half.
        others: the instructions on general registers: loads of halves, and text.
    """

    vectors: list[str]
    length: int
    free: int
    halves: list[tuple[Refill, int]] = field(default_factory=list)
    others: list[tuple[Refill, int] | str] = field(default_factory=list)


@dataclass(frozen=True)
class StepsLoop:
    """sums[row, channel] = Σ of the products of all steps of a panel, in four lanes each.

    Attributes:
        rows, width: of the tile.
        row_bytes: from one pixel of A to the next.
        steps: of 16 bytes of K.
        ordered: whether they are in a table's order, see `integer_long.order_steps`, some in pairs; else as they come.
    """

    rows: int
    width: int
    row_bytes: int
    steps: int
    ordered: bool

    @property
    def fits(self) -> bool:
        """Whether the registers suffice, and loads reach every row."""
        reach = self.row_bytes * (self.rows - 1) + 2 * VECTOR_BYTES
        return self._vectors <= _REGISTERS and self.row_bytes % (VECTOR_BYTES // 2) == 0 and reach <= _REACH

    @property
    def first_general(self) -> int:
        """The number of the first general register, among the assembly's."""
        return self._vectors

    @property
    def symbol(self) -> str:
        """A name that says all of it."""
        return f"tvmmobile_steps_{self.rows}_{self.width}_{self.row_bytes}_{self.steps}_{int(self.ordered)}"

    @cached_property
    def _sums(self) -> int:
        return self.rows * self.width

    @cached_property
    def _vectors(self) -> int:
        """Sums, products under way, and what steps or pairs of them hold of A and of W."""
        single, pair = self.rows + self.width, 2 + 2 * self.width
        return self._sums + _PRODUCTS + (max(single, pair) if self.ordered else single)

    def llvm(self) -> str:
        """The function `symbol`(sums, A, W), or (sums, A, W, table), all pointers, as LLVM's text."""
        pointers, general = _GENERAL[: 2 + self.ordered], len(_GENERAL) + _TEMPORARIES
        kinds = ["<4 x float>"] * self._vectors + ["ptr"] * len(pointers) + ["i64"] * (general - len(pointers))
        constraints = ["=&w"] * self._vectors + ["=&r"] * general + [str(self._vectors + number) for number in range(len(pointers))]
        head = f"@{self.symbol}({', '.join(f'ptr %{name}' for name in ('acc', *pointers))})"
        return inline_function(head, self.assembly(), kinds, constraints, [f"ptr %{name}" for name in pointers], self._sums, 0)

    def assembly(self) -> list[str]:
        """The instructions, registers as `$0`, `$1` and so on: vectors, those of `_GENERAL`, temporary ones."""
        if self.ordered:
            return self._in_the_tables_order()
        begin = [f"mov {self._general('p0')}, {self._general('a')}", *self._begin("single")]
        more = self.steps - 1
        if not more:
            return [*begin, *self._pass("first", False)]
        begin += [*self._pass("first", True), f"mov {self._general('singles')}, #{more - 1}"]
        return [*begin, *(self._loop("single", 1) if more > 1 else ()), *self._pass("single", False)]

    def _in_the_tables_order(self) -> list[str]:
        """The first step, as many pairs as the table says, and as many single steps."""
        table, pairs, singles = (self._general(name) for name in ("table", "pairs", "singles"))
        counts = [f"ldrsw {left}, [{table}], #{_WORD}" for left in (pairs, singles)]
        first = [*counts, *self._advance("p0"), *self._begin("single"), *self._pass("first", True)]
        begin = [f"cbz {pairs}, 4f", *self._advance("p1"), *self._begin("pair"), f"subs {pairs}, {pairs}, #1", "b.eq 3f"]
        paired = [*begin, *self._loop("pair", 2), "3:", *self._pass("pair", False)]
        between = [f"cbz {singles}, 6f", *self._advance("p0"), *self._begin("single")]
        rest = ["4:", f"subs {singles}, {singles}, #1", "b.eq 5f", *self._loop("single", 1), "5:", *self._pass("single", False), "6:"]
        return [*first, *paired, *between, *rest]

    def _advance(self, place: str) -> list[str]:
        """Reads where the next step's data is."""
        register = self._general(place)
        return [f"ldrsw {register}, [{self._general('table')}], #{_WORD}", f"add {register}, {self._general('a')}, {register}"]

    def _begin(self, kind: Kind) -> list[str]:
        """Loads what a pass expects in registers; a pair has its first step's."""
        found = [(self._w(1, j), "w", (self.width + j) * VECTOR_BYTES) for j in range(self.width)]
        found.append((self._a("pair", 0, 1), "p1", 0))
        if kind != "pair":
            found = [(self._w(0, j), "w", j * VECTOR_BYTES) for j in range(self.width)]
            found += [(self._a(kind, row, 0), "p0", row * self.row_bytes) for row in range(self._ahead)]
        return [f"ldr ${{{register}:q}}, [{self._general(base)}, #{offset}]" for register, base, offset in found]

    def _loop(self, kind: Kind, label: int) -> list[str]:
        return [f"{label}:", *self._pass(kind, True), f"b.ne {label}b"]

    def _general(self, name: str) -> str:
        return f"${self._vectors + _GENERAL.index(name)}"

    def _temporary(self, number: int) -> str:
        return f"${self._vectors + len(_GENERAL) + number}"

    @property
    def _ahead(self) -> int:
        """Rows of A that a pass of single steps loads for the next: as many as let each insertion find another one."""
        return min(1 + (self.rows + self.width) % 2, self.rows)

    def _w(self, step: int, channel: int) -> int:
        """The register of a channel's weights; the second step's follow what the first one takes with two rows of A."""
        return self._sums + _PRODUCTS + channel + step * (self.width + 2)

    def _a(self, kind: Kind, row: int, step: int) -> int:
        """The register of a row's data: of a pair of steps, all rows share two."""
        return self._sums + _PRODUCTS + self.width + (step if kind == "pair" else row)

    def _refills(self, kind: Kind, more: bool) -> Iterator[Refill]:
        """What a pass loads: rows of A that are not there yet, and if there are `more` of its kind, what the next one expects."""
        width, units = self.width, self._sums
        steps, ahead = (2, 1) if kind == "pair" else (1, self._ahead)
        for row in range(ahead, self.rows + (ahead if more else 0)):
            following, place = divmod(row, self.rows)
            # Early enough to find another one to share a cycle with; of a pair of steps, each row takes the last one's registers.
            release = row * width if steps == 2 else max(row - 1, 1) * width
            if following and steps == 1:
                release = max(place + 1, self.rows - 2) * width
            for step in range(steps):
                base = f"{'q' if following and self.ordered else 'p'}{step}"
                offset = place * self.row_bytes + (VECTOR_BYTES if following and not self.ordered else 0)
                yield Refill(self._a(kind, place, step), base, offset, min(release, units), min(row * width, units))
        for step, channel in itertools.product(range(steps if more else 0), range(width)):
            offset = ((steps + step) * width + channel) * VECTOR_BYTES
            yield Refill(self._w(step, channel), "w", offset, units - width + channel + 1, units)

    def _pass(self, kind: Kind, more: bool) -> list[str]:
        """One pass of the tile; if there are `more` of its kind, it loads what the next one begins with, and sets flags."""
        stream = self._stream(kind, more)
        steps = 2 if kind == "pair" else 1
        early, late = [], [f"add {self._general('w')}, {self._general('w')}, #{steps * self.width * VECTOR_BYTES}"]
        if more and self.ordered:
            early = [line for step in range(steps) for line in self._advance(f"q{step}")]
            late += [f"mov {self._general(f'p{step}')}, {self._general(f'q{step}')}" for step in range(steps)]
        elif more:
            late.append(f"add {self._general('p0')}, {self._general('p0')}, #{VECTOR_BYTES}")
        if more and kind != "first":
            left = self._general("pairs" if kind == "pair" else "singles")
            late.append(f"subs {left}, {left}, #1")
        before = _place_loads(stream, early)
        last = max((number for number, cycles in enumerate(stream) if any(not isinstance(one, str) for one in cycles.others)), default=0)
        for line in late:
            last = next((number for number in range(last, len(stream)) if stream[number].free > 0), len(stream) - 1)
            stream[last].free -= 1
            stream[last].others.append(line)
        return list(self._text(before, stream))

    def _stream(self, kind: Kind, more: bool) -> list[_Cycles]:
        """The vector instructions of a pass. Before a unit's products is the sum of the one before the last, and before that, insertions."""
        waiting = [(refill, half) for refill in sorted(self._refills(kind, more), key=lambda one: one.need) for half in range(2)]
        stream: list[_Cycles] = []
        for unit in range(self._sums + 2):
            if unit <= self._sums:
                stream += _insertions(waiting, unit)
            if unit >= 2:
                name, length = ("saddlp", 1) if kind == "first" else ("sadalp", 2)
                product = self._sums + unit % 2
                stream.append(_Cycles([f"{name} ${{{unit - 2}}}.4s, ${{{product}}}.8h"], length, length))
            if unit < self._sums:
                stream += [_Cycles([line], 1, 1) for line in self._products(kind, unit)]
        assert not waiting
        return stream

    def _products(self, kind: Kind, unit: int) -> Iterator[str]:
        """A pixel's and a channel's products; the first ones begin a sum of 16 bits."""
        row, channel = divmod(unit, self.width)
        for step, half in itertools.product(range(2 if kind == "pair" else 1), ("", "2")):
            lanes, name = ("16b", "smlal2") if half else ("8b", "smlal" if step else "smull")
            a, w = self._a(kind, row, step), self._w(step, channel)
            yield f"{name} ${{{self._sums + unit % 2}}}.8h, ${{{a}}}.{lanes}, ${{{w}}}.{lanes}"

    def _text(self, before: Sequence[tuple[Refill, int]], stream: Sequence[_Cycles]) -> Iterator[str]:
        """The instructions' text; a temporary register is free as soon as it was inserted."""
        free, held = list(range(_TEMPORARIES)), {}

        def load(one: tuple[Refill, int]) -> str:
            held[one] = free.pop(0)
            refill, half = one
            return f"ldr {self._temporary(held[one])}, [{self._general(refill.base)}, #{refill.offset + half * VECTOR_BYTES // 2}]"

        yield from map(load, before)
        for cycles in stream:
            yield from cycles.vectors
            for one in cycles.halves:
                temporary = held.pop(one)
                free.append(temporary)
                yield f"ins ${{{one[0].register}}}.d[{one[1]}], {self._temporary(temporary)}"
            for other in cycles.others:
                yield other if isinstance(other, str) else load(other)


def _insertions(waiting: list[tuple[Refill, int]], unit: int) -> Iterator[_Cycles]:
    """Those before a unit, taken from what is `waiting`, most urgent first: two of different registers, or one that is due."""
    while able := [one for one in waiting if one[0].release <= unit]:
        first = able[0]
        count = {refill: sum(other is refill for other, _ in able) for refill, _ in able}
        # Of three registers, each one's halves go with another one's.
        second = max((one for one in able if one[0] is not first[0]), key=lambda one: count[one[0]], default=None)
        if second is None and first[0].need > unit:
            return
        halves = [first, second] if second else [first]
        for one in halves:
            waiting.remove(one)
        yield _Cycles([], 1, 2 - len(halves), halves)


def _place_loads(stream: Sequence[_Cycles], early: Sequence[str]) -> list[tuple[Refill, int]]:
    """Puts the loads of what is inserted beside other instructions, each as late as it can be, after those that are `early`; returns
    what has to be loaded before."""
    begins = [0, *itertools.accumulate(cycles.length for cycles in stream)]
    first = 0
    for line in early:
        first = next(number for number in range(first, len(stream)) if stream[number].free > 0)
        stream[first].free -= 1
        stream[first].others.append(line)
    before = []
    for number in reversed(range(len(stream))):
        for one in reversed(stream[number].halves):
            soonest = first if one[0].base.startswith("q") else 0
            places = [place for place in range(soonest, number) if stream[place].free > 0 and begins[place] + _LOADED <= begins[number]]
            if places:
                stream[places[-1]].free -= 1
                stream[places[-1]].others.insert(len(early) if places[-1] <= first else 0, one)
            elif soonest:
                stream[number - 1].others.append(one)
            else:
                before.append(one)
    return before[::-1]
