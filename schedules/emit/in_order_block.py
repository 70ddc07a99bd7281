"""Multiplications without a loop, such as a depthwise tile's, as one piece of assembly in the order of `in_order_order`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from tvmmobile.schedules.emit.in_order_loop import VECTOR_BYTES, inline_function, lower_half
from tvmmobile.schedules.emit.in_order_order import TEMPORARIES, VECTOR_REGISTERS, HalfNeed, LoopAction, VectorHalf, shortest
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel

#: The furthest 8 bytes that a load reaches from its base register, in steps of 8 and of 1.
_REACH, _NEAR = 32760, 255
#: FMLAs from one use of an accumulator to the next (both cores' latency is less), and how far ahead to look for others.
_APART, _AHEAD = 8, 16
#: Blocks with fewer multiplications are left to LLVM.
LEAST = 16
#: Number of insertion policies to try: blocks are many, and the first few policies suit most.
_POLICIES = 3


@dataclass(frozen=True)
class VectorPlace:
    """A vector in memory: an offset in bytes from one of several pointers."""

    base: int
    offset: int

    @property
    def reached(self) -> bool:
        """True if loads reach both halves."""
        return 0 <= self.offset <= _NEAR - 8 or (self.offset % 8 == 0 and 0 <= self.offset <= _REACH - 8)


@dataclass(frozen=True)
class Multiplication:
    """Accumulator += x · y, or x · one lane of y where there is a `lane`."""

    accumulator: int
    x: VectorPlace
    y: VectorPlace
    lane: int | None = None


def spread(multiplications: Sequence[Multiplication]) -> tuple[Multiplication, ...]:
    """Reorder multiplications so that uses of an accumulator are apart where possible; each accumulator's own order stays."""
    left = list(multiplications)
    chosen: list[Multiplication] = []
    while left:
        recent = {one.accumulator for one in chosen[-_APART + 1 :]}
        free = (place for place, one in enumerate(left[:_AHEAD]) if one.accumulator not in recent)
        chosen.append(left.pop(next(free, 0)))
    return tuple(chosen)


@dataclass(frozen=True)
class InOrderBlock:
    """Multiplications in their order, in float32.

    Attributes:
        accumulators, bases: number of accumulators, and of base addresses.
        beside: true if an insertion starts beside an FMLA.
    """

    multiplications: tuple[Multiplication, ...]
    accumulators: int
    bases: int
    beside: bool

    @property
    def fits(self) -> bool:
        """True if registers suffice for what the block reads, loads reach it, and it is long enough to pay."""
        reached = all(place.reached for multiplication in self.multiplications for place in (multiplication.x, multiplication.y))
        return reached and len(self.multiplications) >= LEAST and self._registers is not None

    @property
    def symbol(self) -> str:
        """The name of the block's function."""
        return f"tvmmobile_in_order_{hashlib.sha256(repr(self).encode()).hexdigest()[:16]}"

    @cached_property
    def _vectors(self) -> dict[VectorPlace, tuple[int, int]]:
        """The vectors that are read, in the order of their first uses, with the first and the last use."""
        uses: dict[VectorPlace, tuple[int, int]] = {}
        for number, one in enumerate(self.multiplications):
            for place in (one.x, one.y):
                uses[place] = (uses.get(place, (number, 0))[0], number)
        return uses

    @cached_property
    def _registers(self) -> list[tuple[int, int]] | None:
        """Each vector's register, and how many FMLAs must have started before it is overwritten; `None` if there are too few registers."""
        free = [(0, register) for register in range(VECTOR_REGISTERS - self.accumulators)]
        found: list[tuple[int, int]] = []
        busy: list[tuple[int, int]] = []
        for first, last in self._vectors.values():
            free += [(until + 1, register) for until, register in busy if until < first]
            busy = [(until, register) for until, register in busy if until >= first]
            if not free:
                return None
            release, register = min(free)
            free.remove((release, register))
            busy.append((last, register))
            found.append((register, release))
        return found

    @property
    def first_base(self) -> int:
        """The first pointer's number among the assembly's operands."""
        return 2 * self.accumulators + self._scratch + TEMPORARIES

    @property
    def _scratch(self) -> int:
        """Number of registers for the vectors that the block reads."""
        assert self._registers is not None
        return 1 + max(register for register, _ in self._registers)

    def llvm(self) -> str:
        """Return the function `symbol`(accumulators, base 0, base 1, …), all pointers, as LLVM's text."""
        scratch = self._scratch
        kinds = ["<4 x float>"] * (self.accumulators + scratch) + ["i64"] * TEMPORARIES
        constraints = ["=w"] * self.accumulators + ["=&w"] * scratch + ["=&r"] * TEMPORARIES
        constraints += [str(n) for n in range(self.accumulators)] + ["r"] * self.bases
        inputs = [f"<4 x float> %v{n}" for n in range(self.accumulators)] + [f"ptr %b{n}" for n in range(self.bases)]
        parameters = ", ".join(["ptr %acc", *(f"ptr %b{n}" for n in range(self.bases))])
        return inline_function(f"@{self.symbol}({parameters})", self.assembly(), kinds, constraints, inputs, *[self.accumulators] * 2)

    def assembly(self) -> list[str]:
        """Return the instructions. Registers are numbered: accumulators, vectors, temporary ones and, after as many inputs, pointers."""
        assert self._registers is not None
        numbers = {place: number for number, place in enumerate(self._vectors)}
        waiting, multiplies = [], []
        for (first, _), (number, (_, release)) in zip(self._vectors.values(), enumerate(self._registers), strict=True):
            waiting += [HalfNeed(VectorHalf("v", number, high, False), release, first) for high in (False, True)]
        for count, one in enumerate(self.multiplications):
            halves = [VectorHalf("v", numbers[place], high, False) for place in (one.x, one.y) for high in (False, True)]
            multiplies.append((LoopAction("multiply", (count, 0, 0)), tuple(halves)))
        order = shortest(multiplies, waiting, self.beside, policies=_POLICIES)
        return [self._line(action, list(numbers), numbers) for action in order]

    def _line(self, action: LoopAction, places: Sequence[VectorPlace], numbers: dict[VectorPlace, int]) -> str:
        assert self._registers is not None
        if action.name == "multiply":
            one = self.multiplications[action.place[0]]
            x, y = (f"${{{self.accumulators + self._registers[numbers[place]][0]}}}" for place in (one.x, one.y))
            return f"fmla ${{{one.accumulator}}}.4s, {x}.4s, {y}.{'4s' if one.lane is None else f's[{one.lane}]'}"
        if action.half is None:
            return "nop"
        first = self.accumulators + self._scratch
        temporary, index, high = f"${first + action.temporary}", action.half.index, int(action.half.high)
        register = f"${{{self.accumulators + self._registers[index][0]}}}"
        if action.name == "insert":
            return f"ins {register}.d[{high}], {temporary}"
        if action.name == "fetch":
            temporary = lower_half(register)
        place = places[index]
        return f"ldr {temporary}, [${self.first_base + place.base}, #{place.offset + VECTOR_BYTES // 2 * high}]"


def multiply_in_order(
    kernel: Kernel, acc: Buffer, multiplications: Sequence[Multiplication], count: int, places: Sequence[tuple[Buffer, Expr]]
) -> bool:
    """Emits multiplications into `count` accumulators; `bases` are elements of buffers. Returns whether a block can hold them."""
    block = InOrderBlock(spread(multiplications), count, len(places), kernel.inner == 2)
    if not block.fits:
        return False
    kernel.call(block.symbol, block.llvm, (acc, 0), *places)
    return True


def multiply_window(
    kernel: Kernel,
    acc: Buffer,
    products: Iterable[tuple[int, int, int, int]],
    rows: Mapping[int, tuple[Buffer, Expr, int]],
    weights: tuple[Buffer, Expr],
) -> bool:
    """Emit a depthwise tile's multiplications, one value of the window after another; return whether there is such a block.

    Args:
        products: output, row and column of the window, tap.
        rows: buffer of each row of the window, its element of column 0, and the elements from column to column.
        weights: the buffer, and the element of tap 0.
    """
    ordered = sorted(products, key=lambda product: product[1:3])
    first = min((column for _, _, column, _ in ordered), default=0)
    used = sorted({row for _, row, _, _ in ordered})
    size, lanes = kernel.bytes, kernel.lanes
    found = []
    for output, row, column, tap in ordered:
        value = VectorPlace(used.index(row), (column - first) * rows[row][2] * size)
        found.append(Multiplication(output, value, VectorPlace(len(used), tap * lanes * size)))
    places = [(buffer, start + first * pitch) for buffer, start, pitch in (rows[row] for row in used)]
    count = 1 + max((output for output, _, _, _ in ordered), default=0)
    return multiply_in_order(kernel, acc, found, count, [*places, weights])
