"""The loops over K of `long` as a single piece of assembly.

A vector of sums holds four channels of a pixel. Data is read once, as eight pairs of bytes: a step's weights hold for each channel the pair
in its lane, and after the data has been rotated by one pair three times, every channel has met every pair. So nothing remains to be added
across lanes, a pixel's channels are stored together, and few registers hold many sums.

A tile is a stream of units, each the products of one pixel and four channels at one turn; the sum of a unit follows the products of the
next one, so that neither waits. LLVM would spill to the stack, and reload more often than necessary.

On a Cortex-A53 (`integer_in_order.py`) a unit of one 16-byte step takes four cycles, and of two steps six; each vector read, and
each rotation, takes one. A Cortex-A72 dispatches three slots a cycle, and every vector takes two: a unit takes six, or ten, which its
multiplier keeps up with, and each read or rotation two.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tvmmobile.graph.layers import Array
from tvmmobile.schedules.emit.in_order_loop import VECTOR_BYTES, inline_function
from tvmmobile.schedules.integers.in_order import TEMPORARIES, Cycles, Half, Refill, insertions, with_loads

#: Vector registers that there are, those of products under way and of weights, and how far a load of 8 bytes reaches.
_REGISTERS, _PRODUCTS, _WEIGHTS, _REACH = 32, 2, 4, 32760
#: Channels of a vector of sums, and as many turns; bytes of a number of the table.
FOUR, _WORD = 4, 4
#: Bytes of a step and of a half one.
STEP, HALF = 16, 8
#: General registers: pointers to A, to a panel's weights and to the table; pairs and single steps left; where the data of a step, or of a
#: pair's two, begins; and 8 bytes behind, as loads of 16 bytes reach far only in steps of 16.
_GENERAL = ("a", "w", "table", "pairs", "singles", "p0", "p1", "h0", "h1")


def transposed(weight: Array) -> Array:
    """Return the weights of a step or half a step, (channel, 16 or 8), flat, in a loop's order; half a step is padded."""
    channels, count = weight.shape
    pairs = count // 2
    lane, turn = np.arange(FOUR), np.arange(FOUR)[:, None]
    places = [(lane + turn + shift) % pairs for shift in range(0, pairs, FOUR)]  # (turn, lane), of the lower and upper bytes
    grouped = weight.reshape(channels // FOUR, FOUR, pairs, 2)
    halves = [grouped[:, lane, place].transpose(1, 0, 2, 3).reshape(FOUR, -1, HALF) for place in places]
    if count == HALF:
        halves.append(np.zeros_like(halves[0]))
    return np.ascontiguousarray(np.concatenate(halves, -1)).ravel()


@dataclass(frozen=True)
class Pass:
    """A pass over a step or two, the last of them perhaps half; `more` of its kind may follow."""

    steps: int
    half: bool = False
    more: bool = False

    def is_half(self, step: int) -> bool:
        """Return whether a step of the pass is half."""
        return self.half and step == self.steps - 1


@dataclass(frozen=True)
class StepsLoop:
    """sums[row, channel] += the products of a panel, over all of K.

    Attributes:
        rows, width: extents of the tile; the width divides by 4.
        row_bytes: bytes from one pixel of A to the next.
        steps: number of steps of 16 bytes of K.
        half: true if there are 8 bytes more.
        in_order: true if the core issues in order.
    """

    rows: int
    width: int
    row_bytes: int
    steps: int
    half: bool
    in_order: bool

    @property
    def ordered(self) -> bool:
        """True if steps are in a table's order, see `long.order_steps`, some in pairs."""
        return self.steps + self.half > 1

    @property
    def fits(self) -> bool:
        """True if the registers suffice, and loads reach every row."""
        reach = self.row_bytes * (self.rows - 1) + STEP * self.steps + 2 * VECTOR_BYTES
        return self.vectors <= _REGISTERS and self.row_bytes % HALF == 0 and reach <= _REACH

    @property
    def first_general(self) -> int:
        """The number of the first general register, among the assembly's."""
        return self.vectors

    @property
    def symbol(self) -> str:
        """A name that says all of it."""
        numbers = (self.rows, self.width, self.row_bytes, self.steps, int(self.half), int(self.in_order))
        return "tvmmobile_steps_" + "_".join(str(number) for number in numbers)

    @property
    def groups(self) -> int:
        """Vectors of a pixel's sums."""
        return self.width // FOUR

    @cached_property
    def _sums(self) -> int:
        return self.rows * self.groups

    @cached_property
    def vectors(self) -> int:
        """Sums, products under way, and what steps or pairs of them hold of A and of W."""
        return self._sums + _PRODUCTS + self.rows * (2 if self.ordered else 1) + _WEIGHTS

    def llvm(self) -> str:
        """Return the function `symbol`(sums, A, W[, table]), all pointers, as LLVM's text; all sums begin as the first pixel's."""
        pointers, general = _GENERAL[: 2 + self.ordered], len(_GENERAL) + (TEMPORARIES if self.in_order else 0)
        kinds = ["<4 x float>"] * self.vectors + ["ptr"] * len(pointers) + ["i64"] * (general - len(pointers))
        constraints = ["=w" if n < self.groups else "=&w" for n in range(self.vectors)] + ["=&r"] * general
        constraints += [str(n) for n in (*range(self.groups), *(self.vectors + number for number in range(len(pointers))))]
        inputs = [*(f"<4 x float> %v{n}" for n in range(self.groups)), *(f"ptr %{name}" for name in pointers)]
        head = f"@{self.symbol}({', '.join(f'ptr %{name}' for name in ('acc', *pointers))})"
        return inline_function(head, self.assembly(), kinds, constraints, inputs, self._sums, self.groups)

    def assembly(self) -> list[str]:
        """Return the instructions, registers as `$0`, `$1` and so on: vectors, those of `_GENERAL`, temporary ones."""
        copies = [f"mov ${{{n}}}.16b, ${{{n % self.groups}}}.16b" for n in range(self.groups, self._sums)]
        if not self.ordered:
            begin = [] if self.half else [f"mov {self._general('p0')}, {self._general('a')}"]
            return [*begin, *copies, *self._only(Pass(1, self.half))]
        counts = [f"ldrsw {self._general(left)}, [{self._general('table')}], #{_WORD}" for left in ("pairs", "singles")]
        pairs = self._repeated(Pass(2), self.steps // 2, "pairs", "2", "3") if self.steps > 1 else []
        singles = self._repeated(Pass(1), self.steps, "singles", "5", "6")
        found = [*counts, *copies]
        if pairs:
            found += [f"cbz {self._general('pairs')}, 4f", *pairs, "4:"]
        end = "7f" if self.half else "9f"
        found += [f"cbz {self._general('singles')}, {end}", *singles]
        return [*found, *(["7:", *self._last_half()] if self.half else ["9:"])]

    def _repeated(self, one: Pass, most: int, count: str, begin: str, end: str) -> list[str]:
        """Passes of a kind, as many as a register says: at least one, and so many at most."""
        left, loop = self._general(count), list[str]()
        if most > 1:
            loop = [f"subs {left}, {left}, #1", f"b.eq {end}f", f"{begin}:"]
            loop += [*self._pass(Pass(one.steps, more=True)), f"b.ne {begin}b", f"{end}:"]
        places = [f"p{step}" for step in range(one.steps)]
        return [*self._advance(*places), *self._begin(one), *loop, *self._pass(one)]

    def _last_half(self) -> list[str]:
        """Return half a step, with a whole one if the table has one for it."""
        joined, alone = self._general("pairs"), self._only(Pass(1, True))
        both = [*self._advance("p0"), *self._only(Pass(2, True))]
        return [f"ldrsw {joined}, [{self._general('table')}], #{_WORD}", f"cbz {joined}, 8f", *both, "b 9f", "8:", *alone, "9:"]

    def _only(self, one: Pass) -> list[str]:
        return [*self._begin(one), *self._pass(one)]

    def _advance(self, *places: str) -> list[str]:
        """Reads where the next step's, or the next two steps', data is."""
        registers, table = [self._general(place) for place in places], self._general("table")
        together = len(places) == 2 and not self.in_order  # on cores in order, that starts alone
        if together:
            loads = [f"ldpsw {', '.join(registers)}, [{table}], #{2 * _WORD}"]
        else:
            loads = [f"ldrsw {register}, [{table}], #{_WORD}" for register in registers]
        second_halves = [f"add {self._general(place.replace('p', 'h'))}, {self._general(place)}, #{HALF}" for place in places if self._odd]
        return [*loads, *(f"add {register}, {self._general('a')}, {register}" for register in registers), *second_halves]

    @property
    def _odd(self) -> bool:
        """True if some rows begin 8 bytes behind a multiple of 16."""
        return bool(self.row_bytes % VECTOR_BYTES) and self.rows > 1

    def _begin(self, one: Pass) -> list[str]:
        """Loads what a pass expects in registers: its data, and its first weights."""
        found = [self._fetch(self._w(one, 0, step), "w", self._block_bytes(step, 0), False) for step in range(one.steps)]
        for step, row in itertools.product(range(one.steps), range(self.rows)):
            found.append(self._fetch(self._a(step, row), *self._data(one, step, row), one.is_half(step)))
        return ([] if self.ordered or one.half or not self._odd else [f"add {self._general('h0')}, {self._general('p0')}, #{HALF}"]) + found

    def _data(self, one: Pass, step: int, row: int) -> tuple[str, int]:
        """Return the base register and offset of a row's data."""
        return ("a", row * self.row_bytes + self.steps * STEP) if one.is_half(step) else (f"p{step}", row * self.row_bytes)

    def _fetch(self, register: int, base: str, offset: int, half: bool) -> str:
        if half:
            return f"ldr ${{{register}:d}}, [{self._general(base)}, #{offset}]"
        if offset % VECTOR_BYTES:
            base, offset = base.replace("p", "h"), offset - HALF
        return f"ldr ${{{register}:q}}, [{self._general(base)}, #{offset}]"

    def _block_bytes(self, step: int, block: int) -> int:
        """Return the bytes from a pass's first weights to those of a step's block: four channels for each group at each turn."""
        return (step * FOUR * self.groups + block) * VECTOR_BYTES

    def _general(self, name: str) -> str:
        return f"${self.first_general + _GENERAL.index(name)}"

    def _temporary(self, number: int) -> str:
        return f"${self.first_general + len(_GENERAL) + number}"

    def _a(self, step: int, row: int) -> int:
        return self._sums + _PRODUCTS + _WEIGHTS + step * self.rows + row

    def _w(self, one: Pass, block: int, step: int) -> int:
        return self._sums + _PRODUCTS + (block * one.steps + step) % _WEIGHTS

    def _refills(self, one: Pass) -> Iterator[Refill]:
        """Yield the loads of a pass: weights, and if there are `more` of its kind, the first operands of the next one."""
        blocks, rows = FOUR * self.groups, self.rows
        ahead = _WEIGHTS // one.steps if self.in_order else 2
        for block, step in itertools.product(range(1, blocks + one.more), range(one.steps)):
            release, following = max(block - ahead + 1, 0) * rows, block == blocks
            offset = self._block_bytes(one.steps, 0) + self._block_bytes(step, 0) if following else self._block_bytes(step, block)
            yield Refill(self._w(one, block, step), "w", offset, release, block * rows, following)
        for row, step in itertools.product(range(rows if one.more else 0), range(one.steps)):
            yield Refill(self._a(step, row), *self._data(one, step, row), (blocks - 1) * rows + row + 1, blocks * rows, True)

    def _pass(self, one: Pass) -> list[str]:
        """Return one pass of the tile; if there are `more` of its kind, it loads what the next one begins with, and sets flags."""
        refills, w = sorted(self._refills(one), key=lambda refill: refill.need), self._general("w")
        early = self._advance(*(f"p{step}" for step in range(one.steps))) if one.more else []
        left = self._general("pairs" if one.steps == 2 else "singles")
        late = [f"add {w}, {w}, #{self._block_bytes(one.steps, 0)}", *([f"subs {left}, {left}, #1"] if one.more else [])]
        if not self.in_order:
            return [*self._renamed(one, refills, early), *late]
        waiting = [(refill, half) for refill in refills for half in range(2)]
        stream: list[Cycles] = []
        for unit, lines in enumerate(self._units(one)):
            stream += insertions(waiting, unit)
            stream += [Cycles([line], length, length) for line in lines for length in [2 if line.startswith("sadalp") else 1]]
        return list(with_loads(stream, early, late, self._load, self._insert))

    def _renamed(self, one: Pass, refills: list[Refill], early: list[str]) -> Iterator[str]:
        """Yield a pass on a core that renames registers: they are loaded as soon as what was there has been used."""
        first = FOUR * self._sums - self.rows
        for unit, lines in enumerate(self._units(one)):
            yield from early if unit == first else ()
            yield from (self._fetch(refill.register, refill.base, refill.offset, False) for refill in refills if refill.release == unit)
            yield from lines

    def _units(self, one: Pass) -> Iterator[list[str]]:
        """Yield the vector instructions of each unit: the sum of the one before the last, and its products; two more have sums alone."""
        units = [(turn, group, row) for turn in range(FOUR) for group in range(self.groups) for row in range(self.rows)]
        for number in range(len(units) + 2):
            product, lines = self._sums + number % _PRODUCTS, []
            if number >= _PRODUCTS:
                _, group, row = units[number - _PRODUCTS]
                lines.append(f"sadalp ${{{row * self.groups + group}}}.4s, ${{{product}}}.8h")
            if number < len(units):
                turn, group, row = units[number]
                lines += self._products(one, product, row, turn * self.groups + group)
                if group == self.groups - 1 and turn < FOUR - 1:
                    lines += [self._turn(self._a(step, row), one.is_half(step)) for step in range(one.steps)]
            yield lines

    def _products(self, one: Pass, product: int, row: int, block: int) -> Iterator[str]:
        """Yield a pixel's products with a block of weights; the first ones begin a sum of 16 bits."""
        for step, upper in itertools.product(range(one.steps), (False, True)):
            if upper and one.is_half(step):
                continue
            lanes, name = ("16b", "smlal2") if upper else ("8b", "smlal" if step else "smull")
            a, w = self._a(step, row), self._w(one, block, step)
            yield f"{name} ${{{product}}}.8h, ${{{a}}}.{lanes}, ${{{w}}}.{lanes}"

    def _turn(self, register: int, half: bool) -> str:
        """Every pair of bytes goes to the lane before its own."""
        name = f"${{{register}}}.{'8b' if half else '16b'}"
        return f"ext {name}, {name}, {name}, #2"

    def _load(self, half: Half, temporary: int) -> str:
        refill, number = half
        return f"ldr {self._temporary(temporary)}, [{self._general(refill.base)}, #{refill.offset + number * HALF}]"

    def _insert(self, half: Half, temporary: int) -> str:
        return f"ins ${{{half[0].register}}}.d[{half[1]}], {self._temporary(temporary)}"
