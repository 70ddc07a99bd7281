"""The loops over K of `long` as one block of inline assembly.

A vector of sums holds four channels of a pixel. A vector of data is loaded once, as eight pairs of bytes. A step's weights hold, for each
channel, the pair that is in its lane; after three rotations of the data by one pair, every channel has been multiplied with every pair. So
no sums across lanes are needed, a pixel's channels are contiguous, and few registers hold many sums.

A tile is a stream of units, each the products of one pixel and four channels at one rotation; a unit's accumulation follows the products of
the next unit, so that neither waits. LLVM would spill, and reload more often than necessary.

On a Cortex-A53 (see `in_order.py`), a unit of one 16-byte step takes four cycles, one of two steps six; each load of a vector and each
rotation takes one. A Cortex-A72 dispatches three slots per cycle, and every vector instruction takes two: a unit takes six or ten slots,
with which its multiplier keeps up, and each load or rotation two.
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

#: Number of vector registers, of those for products and of those for weights, and largest offset in bytes of an 8-byte load.
_REGISTERS, _PRODUCTS, _WEIGHTS, _REACH = 32, 2, 4, 32760
#: Channels per vector of sums, which is also the number of rotations; and bytes per integer of the table.
FOUR, _WORD = 4, 4
#: Bytes per step and per half step.
STEP, HALF = 16, 8
#: General registers: pointers to A, to a panel's weights and to the table; remaining pairs and single steps; pointers to the data of a step
#: or of a pair's two steps; and the same plus 8 bytes, because offsets of 16-byte loads are multiples of 16.
_GENERAL = ("a", "w", "table", "pairs", "singles", "p0", "p1", "h0", "h1")


def transposed(weight: Array) -> Array:
    """Return the weights (channel, 16 or 8) of a step or half step as a flat array in the loop's order; a half step is zero-padded."""
    channels, count = weight.shape
    pairs = count // 2
    lane, turn = np.arange(FOUR), np.arange(FOUR)[:, None]
    places = [(lane + turn + shift) % pairs for shift in range(0, pairs, FOUR)]  # (rotation, lane), for the lower and upper bytes
    grouped = weight.reshape(channels // FOUR, FOUR, pairs, 2)
    halves = [grouped[:, lane, place].transpose(1, 0, 2, 3).reshape(FOUR, -1, HALF) for place in places]
    if count == HALF:
        halves.append(np.zeros_like(halves[0]))
    return np.ascontiguousarray(np.concatenate(halves, -1)).ravel()


@dataclass(frozen=True)
class Pass:
    """A pass of the loop.

    Attributes:
        steps: number of steps of K, 1 or 2.
        half: true if the last step is a half step.
        more: true if another pass of the same kind follows.
    """

    steps: int
    half: bool = False
    more: bool = False

    def is_half(self, step: int) -> bool:
        """Return whether a step of the pass is half."""
        return self.half and step == self.steps - 1


@dataclass(frozen=True)
class StepsLoop:
    """The loop sums[row, channel] += Σ A[row, k] · W[k, channel] of a tile over all of K.

    Attributes:
        rows, width: pixels and channels of the tile; the width is a multiple of 4.
        row_bytes: bytes from one pixel of A to the next.
        steps: number of whole steps of K.
        half: true if a half step follows.
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
        """True if a table gives the order of the steps, see `long.order_steps`."""
        return self.steps + self.half > 1

    @property
    def fits(self) -> bool:
        """True if the operands fit the registers, and the offsets of all loads can be encoded."""
        reach = self.row_bytes * (self.rows - 1) + STEP * self.steps + 2 * VECTOR_BYTES
        return self.vectors <= _REGISTERS and self.row_bytes % HALF == 0 and reach <= _REACH

    @property
    def first_general(self) -> int:
        """Operand number of the first general register in the assembly."""
        return self.vectors

    @property
    def symbol(self) -> str:
        """Name of the loop's function, made of all attributes."""
        numbers = (self.rows, self.width, self.row_bytes, self.steps, int(self.half), int(self.in_order))
        return "tvmmobile_steps_" + "_".join(str(number) for number in numbers)

    @property
    def groups(self) -> int:
        """Number of vectors of sums per pixel."""
        return self.width // FOUR

    @cached_property
    def _sums(self) -> int:
        return self.rows * self.groups

    @cached_property
    def vectors(self) -> int:
        """Number of vector registers: for sums, products, and the vectors of A and W that a pass holds."""
        return self._sums + _PRODUCTS + self.rows * (2 if self.ordered else 1) + _WEIGHTS

    def llvm(self) -> str:
        """Return the function `symbol`(sums, A, W[, table]), all pointers, in LLVM IR; all pixels get the first pixel's initial sums."""
        pointers, general = _GENERAL[: 2 + self.ordered], len(_GENERAL) + (TEMPORARIES if self.in_order else 0)
        kinds = ["<4 x float>"] * self.vectors + ["ptr"] * len(pointers) + ["i64"] * (general - len(pointers))
        constraints = ["=w" if n < self.groups else "=&w" for n in range(self.vectors)] + ["=&r"] * general
        constraints += [str(n) for n in (*range(self.groups), *(self.vectors + number for number in range(len(pointers))))]
        inputs = [*(f"<4 x float> %v{n}" for n in range(self.groups)), *(f"ptr %{name}" for name in pointers)]
        head = f"@{self.symbol}({', '.join(f'ptr %{name}' for name in ('acc', *pointers))})"
        return inline_function(head, self.assembly(), kinds, constraints, inputs, self._sums, self.groups)

    def assembly(self) -> list[str]:
        """Return the instructions; operands `$0`, `$1`, … are vectors, the registers of `_GENERAL`, and temporaries."""
        copies = [f"mov ${{{n}}}.16b, ${{{n % self.groups}}}.16b" for n in range(self.groups, self._sums)]
        if not self.ordered:
            begin = [] if self.half else [f"mov {self._general('p0')}, {self._general('a')}"]
            return [*begin, *copies, *self._only(Pass(1, self.half))]
        counts = [f"ldrsw {self._general(left)}, [{self._general('table')}], #{_WORD}" for left in ("pairs", "singles")]
        pairs = self._repeated(Pass(2), self.steps // 2, "pairs", "2", "3") if self.steps > 1 else []
        singles = self._repeated(Pass(1), self.steps, "singles", "5", "6")
        lines = [*counts, *copies]
        if pairs:
            lines += [f"cbz {self._general('pairs')}, 4f", *pairs, "4:"]
        end = "7f" if self.half else "9f"
        lines += [f"cbz {self._general('singles')}, {end}", *singles]
        return [*lines, *(["7:", *self._last_half()] if self.half else ["9:"])]

    def _repeated(self, one: Pass, most: int, count: str, begin: str, end: str) -> list[str]:
        """Return a loop of passes; register `count` has their number, from 1 to `most`; `begin` and `end` are its labels."""
        left, loop = self._general(count), list[str]()
        if most > 1:
            loop = [f"subs {left}, {left}, #1", f"b.eq {end}f", f"{begin}:"]
            loop += [*self._pass(Pass(one.steps, more=True)), f"b.ne {begin}b", f"{end}:"]
        places = [f"p{step}" for step in range(one.steps)]
        return [*self._advance(*places), *self._begin(one), *loop, *self._pass(one)]

    def _last_half(self) -> list[str]:
        """Return the pass over the half step, together with a whole step if the table has a partner for it."""
        joined, alone = self._general("pairs"), self._only(Pass(1, True))
        paired = [*self._advance("p0"), *self._only(Pass(2, True))]
        return [f"ldrsw {joined}, [{self._general('table')}], #{_WORD}", f"cbz {joined}, 8f", *paired, "b 9f", "8:", *alone, "9:"]

    def _only(self, one: Pass) -> list[str]:
        return [*self._begin(one), *self._pass(one)]

    def _advance(self, *places: str) -> list[str]:
        """Return the instructions that set the pointers to the data of the next step or pair of steps, from the table."""
        registers, table = [self._general(place) for place in places], self._general("table")
        together = len(places) == 2 and not self.in_order  # on in-order cores, LDPSW cannot dual-issue
        if together:
            loads = [f"ldpsw {', '.join(registers)}, [{table}], #{2 * _WORD}"]
        else:
            loads = [f"ldrsw {register}, [{table}], #{_WORD}" for register in registers]
        second_halves = [f"add {self._general(place.replace('p', 'h'))}, {self._general(place)}, #{HALF}" for place in places if self._odd]
        return [*loads, *(f"add {register}, {self._general('a')}, {register}" for register in registers), *second_halves]

    @property
    def _odd(self) -> bool:
        """True if some rows begin at an odd multiple of 8 bytes."""
        return bool(self.row_bytes % VECTOR_BYTES) and self.rows > 1

    def _begin(self, one: Pass) -> list[str]:
        """Return the instructions that load what a pass expects in registers: its data, and its first weights."""
        loads = [self._fetch(self._w(one, 0, step), "w", self._block_bytes(step, 0), False) for step in range(one.steps)]
        for step, row in itertools.product(range(one.steps), range(self.rows)):
            loads.append(self._fetch(self._a(step, row), *self._data(one, step, row), one.is_half(step)))
        return ([] if self.ordered or one.half or not self._odd else [f"add {self._general('h0')}, {self._general('p0')}, #{HALF}"]) + loads

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
        """Return the offset in bytes from a pass's first weights to a block of a step: four channels at one rotation."""
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
        """Yield the loads of a pass: weights, and if `more` passes follow, the first operands of the next one."""
        blocks, rows = FOUR * self.groups, self.rows
        ahead = _WEIGHTS // one.steps if self.in_order else 2
        for block, step in itertools.product(range(1, blocks + one.more), range(one.steps)):
            release, following = max(block - ahead + 1, 0) * rows, block == blocks
            offset = self._block_bytes(one.steps, 0) + self._block_bytes(step, 0) if following else self._block_bytes(step, block)
            yield Refill(self._w(one, block, step), "w", offset, release, block * rows, following)
        for row, step in itertools.product(range(rows if one.more else 0), range(one.steps)):
            yield Refill(self._a(step, row), *self._data(one, step, row), (blocks - 1) * rows + row + 1, blocks * rows, True)

    def _pass(self, one: Pass) -> list[str]:
        """Return one pass of the tile; if `more` passes follow, it loads the next one's first operands and sets the flags of the loop."""
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
        """Yield a pass for cores that rename registers: a register is reloaded as soon as its old value has been used."""
        first = FOUR * self._sums - self.rows
        for unit, lines in enumerate(self._units(one)):
            yield from early if unit == first else ()
            yield from (self._fetch(refill.register, refill.base, refill.offset, False) for refill in refills if refill.release == unit)
            yield from lines

    def _units(self, one: Pass) -> Iterator[list[str]]:
        """Yield the vector instructions of each unit: the accumulation of the unit two before it, then its products."""
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
        """Yield a pixel's products with a block of weights, added in 16 bits; the first instruction initialises the sum."""
        for step, upper in itertools.product(range(one.steps), (False, True)):
            if upper and one.is_half(step):
                continue
            lanes, name = ("16b", "smlal2") if upper else ("8b", "smlal" if step else "smull")
            a, w = self._a(step, row), self._w(one, block, step)
            yield f"{name} ${{{product}}}.8h, ${{{a}}}.{lanes}, ${{{w}}}.{lanes}"

    def _turn(self, register: int, half: bool) -> str:
        """Return the rotation of a register by one pair of bytes towards lower lanes."""
        name = f"${{{register}}}.{'8b' if half else '16b'}"
        return f"ext {name}, {name}, {name}, #2"

    def _load(self, half: Half, temporary: int) -> str:
        refill, number = half
        return f"ldr {self._temporary(temporary)}, [{self._general(refill.base)}, #{refill.offset + number * HALF}]"

    def _insert(self, half: Half, temporary: int) -> str:
        return f"ins ${{{half[0].register}}}.d[{half[1]}], {self._temporary(temporary)}"
