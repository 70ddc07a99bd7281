"""The loops over K of `integer_long` as one piece of assembly.

A tile is a stream of units, each the products of one pixel and one channel; the sum of a unit follows the products of the next one, so that
neither waits. LLVM reads what does not fit in its registers from the stack, and more often than has to be.

On a Cortex-A53 (`integer_in_order.py`) a step of 16 bytes takes four cycles for each pixel and channel, and one for each vector that is
read; a pair of steps takes six, and two. A Cortex-A72 dispatches three slots a cycle, of which every vector takes two: a step takes six
slots for each pixel and channel, and two for each vector that is read; a pair of steps ten and four, which its multiplier keeps up with.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from tvmmobile.schedules.in_order_loop import VECTOR_BYTES, inline_function
from tvmmobile.schedules.integer_in_order import TEMPORARIES, Cycles, Half, Refill, insertions, with_loads

#: Vector registers that there are, those of products under way, and how far a load of 8 bytes reaches.
_REGISTERS, _PRODUCTS, _REACH = 32, 2, 32760
#: Bytes of a number of the table.
_WORD = 4
#: Steps from which a table has no pair, or at least two.
MANY = 4
#: Steps from which the loop is better than LLVM's on a core that does not issue in order.
FEWEST = 3
#: General registers: pointers to A, to a panel's weights and to the table; pairs and single steps left; where the data of a step, or of a
#: pair's two, begins, and that of the next pass; and 8 bytes behind p0 and p1, as loads of 16 bytes reach far only in steps of 16.
_GENERAL = ("a", "w", "table", "pairs", "singles", "p0", "p1", "q0", "q1", "h0", "h1")


@dataclass(frozen=True)
class Pass:
    """What a pass adds up: a step or a pair of steps, with which sums begin if it is the `first`; whether there are `more` of its kind."""

    steps: int
    first: bool
    more: bool


@dataclass(frozen=True)
class StepsLoop:
    """sums[row, channel] = Σ of the products of all steps of a panel, in four lanes each.

    Attributes:
        rows, width: of the tile.
        row_bytes: from one pixel of A to the next.
        steps: of 16 bytes of K.
        ordered: whether they are in a table's order, see `integer_long.order_steps`, some in pairs; else as they come.
        in_order: whether the core issues in order.
    """

    rows: int
    width: int
    row_bytes: int
    steps: int
    ordered: bool
    in_order: bool

    @property
    def fits(self) -> bool:
        """Whether the registers suffice, and loads reach every row."""
        if not self.in_order and self.steps < FEWEST:
            return False
        reach = self.row_bytes * (self.rows - 1) + 2 * VECTOR_BYTES
        return self._vectors <= _REGISTERS and self.row_bytes % (VECTOR_BYTES // 2) == 0 and reach <= _REACH

    @property
    def first_general(self) -> int:
        """The number of the first general register, among the assembly's."""
        return self._vectors

    @property
    def symbol(self) -> str:
        """A name that says all of it."""
        numbers = (self.rows, self.width, self.row_bytes, self.steps, int(self.ordered), int(self.in_order))
        return "tvmmobile_steps_" + "_".join(str(number) for number in numbers)

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
        pointers, general = _GENERAL[: 2 + self.ordered], len(_GENERAL) + (TEMPORARIES if self.in_order else 0)
        kinds = ["<4 x float>"] * self._vectors + ["ptr"] * len(pointers) + ["i64"] * (general - len(pointers))
        constraints = ["=&w"] * self._vectors + ["=&r"] * general + [str(self._vectors + number) for number in range(len(pointers))]
        head = f"@{self.symbol}({', '.join(f'ptr %{name}' for name in ('acc', *pointers))})"
        return inline_function(head, self.assembly(), kinds, constraints, [f"ptr %{name}" for name in pointers], self._sums, 0)

    def assembly(self) -> list[str]:
        """The instructions, registers as `$0`, `$1` and so on: vectors, those of `_GENERAL`, temporary ones."""
        table, pairs, singles = (self._general(name) for name in ("table", "pairs", "singles"))
        if not self.ordered:
            begin = [f"mov {self._general('p0')}, {self._general('a')}", f"mov {singles}, #{self.steps - 1}"]
            return [*begin, *self._begin(1), *self._in_turn()]
        counts = [f"ldrsw {left}, [{table}], #{_WORD}" for left in (pairs, singles)]
        begin = [*counts, *self._advance("p0"), *self._begin(1), f"cbnz {pairs}, 6f"]
        return [*begin, f"subs {singles}, {singles}, #1", *self._in_turn(), "b 9f", "6:", *self._in_pairs(), "9:"]

    def _in_pairs(self) -> list[str]:
        """One pair, or of `MANY` steps at least two; then single steps, of which there are few, so that each loads what it needs.

        A tile that ends with a pair ends with the last instructions: what follows them begins meanwhile.
        """
        pairs, singles = self._general("pairs"), self._general("singles")
        found, last = [*self._advance("p1"), *self._begin(2)], self._pass(Pass(2, self.steps < MANY, False))
        if self.steps >= MANY:
            found += [*self._pass(Pass(2, True, True)), f"subs {pairs}, {pairs}, #2", "b.eq 3f"]
            found += ["2:", *self._pass(Pass(2, False, True)), "b.ne 2b", "3:"]
        if self.steps > 2:
            rest = [*self._advance("p0"), *self._begin(1), *self._pass(Pass(1, False, False))]
            found += [f"cbz {singles}, 7f", *last, "4:", *rest, f"subs {singles}, {singles}, #1", "b.ne 4b", "b 9f", "7:"]
        return [*found, *last]

    def _in_turn(self) -> list[str]:
        """Single steps alone; of these are left as many as follow the first."""
        if self.steps == 1:
            return self._pass(Pass(1, True, False))
        loop: list[str] = []
        if self.steps > 2:
            singles = self._general("singles")
            loop = [f"subs {singles}, {singles}, #1", "b.eq 5f", "1:", *self._pass(Pass(1, False, True)), "b.ne 1b", "5:"]
        return [*self._pass(Pass(1, True, True)), *loop, *self._pass(Pass(1, False, False))]

    def _advance(self, *places: str) -> list[str]:
        """Reads where the next step's, or the next two steps', data is."""
        registers, table = [self._general(place) for place in places], self._general("table")
        together = len(places) == 2 and not self.in_order  # on cores in order, that starts alone
        if together:
            loads = [f"ldpsw {', '.join(registers)}, [{table}], #{2 * _WORD}"]
        else:
            loads = [f"ldrsw {register}, [{table}], #{_WORD}" for register in registers]
        return [*loads, *(f"add {register}, {self._general('a')}, {register}" for register in registers)]

    def _begin(self, steps: int) -> list[str]:
        """Loads what a pass of single steps or of pairs expects in registers; a pair has its first step's already."""
        found = [(self._w(1, j), "w", (self.width + j) * VECTOR_BYTES) for j in range(self.width)]
        found.append((self._a(2, 0, 1), "p1", 0))
        if steps == 1:
            found = [(self._a(1, row, 0), "p0", row * self.row_bytes) for row in range(self._ahead)]
            found += [(self._w(0, j), "w", j * VECTOR_BYTES) for j in range(self.width)]
        return [*self._behind(steps - 1), *(self._fetch(*one) for one in found)]

    def _behind(self, step: int) -> list[str]:
        """Where 8 bytes behind a step's data are, if a row begins there."""
        odd = self.row_bytes % VECTOR_BYTES and self.rows > 1
        return [f"add {self._general(f'h{step}')}, {self._general(f'p{step}')}, #{VECTOR_BYTES // 2}"] if odd else []

    def _fetch(self, register: int, base: str, offset: int) -> str:
        if offset % VECTOR_BYTES:
            base, offset = base.replace("p", "h"), offset - VECTOR_BYTES // 2
        return f"ldr ${{{register}:q}}, [{self._general(base)}, #{offset}]"

    def _general(self, name: str) -> str:
        return f"${self._vectors + _GENERAL.index(name)}"

    def _temporary(self, number: int) -> str:
        return f"${self._vectors + len(_GENERAL) + number}"

    @property
    def _ahead(self) -> int:
        """Rows of A that a pass of single steps loads for the next: as many as let each insertion find another one."""
        return min(1 + (self.rows + self.width) % 2, self.rows) if self.in_order else 1

    def _w(self, step: int, channel: int) -> int:
        """The register of a channel's weights; the second step's follow what the first one takes with two rows of A."""
        return self._sums + _PRODUCTS + channel + step * (self.width + 2)

    def _a(self, steps: int, row: int, step: int) -> int:
        """The register of a row's data: of a pair of steps, all rows share two."""
        return self._sums + _PRODUCTS + self.width + (step if steps == 2 else row)

    def _refills(self, one: Pass) -> Iterator[Refill]:
        """What a pass loads: rows of A that are not there yet, and if there are `more` of its kind, what the next one expects."""
        width, units, steps = self.width, self._sums, one.steps
        ahead = 1 if steps == 2 else self._ahead
        for row in range(ahead, self.rows + (ahead if one.more else 0)):
            following, place = row >= self.rows, row % self.rows
            # Early enough to find another one to share a cycle with; of a pair of steps, each row takes the last one's registers.
            release = row * width if steps == 2 else max(row - 1, 1) * width
            if following and steps == 1:
                release = max(place + 1, self.rows - (2 if self.in_order else 1)) * width
            for step in range(steps):
                base = f"{'q' if following and self.ordered and self.in_order else 'p'}{step}"
                offset = place * self.row_bytes + (VECTOR_BYTES if following and not self.ordered else 0)
                yield Refill(self._a(steps, place, step), base, offset, min(release, units), min(row * width, units), following)
        for step, channel in itertools.product(range(steps if one.more else 0), range(width)):
            offset = ((steps + step) * width + channel) * VECTOR_BYTES
            yield Refill(self._w(step, channel), "w", offset, units - width + channel + 1, units, True)

    def _pass(self, one: Pass) -> list[str]:
        """One pass of the tile; if there are `more` of its kind, it loads what the next one begins with, and sets flags."""
        refills, w, steps = sorted(self._refills(one), key=lambda one: one.need), self._general("w"), range(one.steps)
        late = [f"add {w}, {w}, #{one.steps * self.width * VECTOR_BYTES}"]
        left = self._general("pairs" if one.steps == 2 else "singles")
        counted = [f"subs {left}, {left}, #1"] if one.more and not one.first else []
        if one.more and not self.ordered:
            late.append(f"add {self._general('p0')}, {self._general('p0')}, #{VECTOR_BYTES}")
        more = one.more and self.ordered
        if not self.in_order:
            behind = [line for step in steps for line in self._behind(step)]
            advance = [*self._advance(*(f"p{step}" for step in steps)), *behind] if more else []
            return [*self._renamed(one, refills, advance), *late, *(behind if one.more and not more else ()), *counted]
        early = self._advance(*(f"q{step}" for step in steps)) if more else []
        late += [f"mov {self._general(f'p{step}')}, {self._general(f'q{step}')}" for step in steps if more]
        waiting = [(refill, half) for refill in refills for half in range(2)]
        stream: list[Cycles] = []
        for unit, lines in enumerate(self._units(one)):
            stream += insertions(waiting, unit)
            stream += [Cycles([line], length, length) for line in lines for length in [2 if line.startswith("sadalp") else 1]]
        return list(with_loads(stream, early, [*late, *counted], self._load, self._insert))

    def _renamed(self, one: Pass, refills: list[Refill], advance: list[str]) -> Iterator[str]:
        """A pass on a core that renames registers: they are loaded as soon as what was there has been used."""
        for unit, lines in enumerate(self._units(one)):
            for following in (False, True):
                now = [refill for refill in refills if refill.release == unit and refill.following == following]
                yield from (self._fetch(refill.register, refill.base, refill.offset) for refill in now)
                yield from advance if unit == (self.rows - 1) * self.width and not following else ()
            yield from lines

    def _units(self, one: Pass) -> Iterator[list[str]]:
        """The vector instructions of each unit: the sum of the one before the last, and its products; two more have sums alone."""
        for unit in range(self._sums + 2):
            product, lines = self._sums + unit % _PRODUCTS, []
            if unit >= _PRODUCTS:
                lines.append(f"{'saddlp' if one.first else 'sadalp'} ${{{unit - _PRODUCTS}}}.4s, ${{{product}}}.8h")
            if unit < self._sums:
                lines += self._products(one.steps, unit)
            yield lines

    def _products(self, steps: int, unit: int) -> Iterator[str]:
        """A pixel's and a channel's products; the first ones begin a sum of 16 bits."""
        row, channel = divmod(unit, self.width)
        for step, half in itertools.product(range(steps), ("", "2")):
            lanes, name = ("16b", "smlal2") if half else ("8b", "smlal" if step else "smull")
            a, w = self._a(steps, row, step), self._w(step, channel)
            yield f"{name} ${{{self._sums + unit % _PRODUCTS}}}.8h, ${{{a}}}.{lanes}, ${{{w}}}.{lanes}"

    def _load(self, half: Half, temporary: int) -> str:
        refill, number = half
        return f"ldr {self._temporary(temporary)}, [{self._general(refill.base)}, #{refill.offset + number * VECTOR_BYTES // 2}]"

    def _insert(self, half: Half, temporary: int) -> str:
        return f"ins ${{{half[0].register}}}.d[{half[1]}], {self._temporary(temporary)}"
