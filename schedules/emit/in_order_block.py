"""Straight-line multiplications, such as a depthwise tile's, as one block of inline assembly in the order of `in_order_order`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from tvmmobile.schedules.emit.in_order_loop import VECTOR_BYTES, inline_function, lower_half
from tvmmobile.schedules.emit.in_order_order import TEMPORARIES, VECTOR_REGISTERS, HalfNeed, LoopAction, VectorHalf, shortest
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel

#: Largest offset in bytes of an 8-byte load from its base register, in multiples of 8 and of 1.
_REACH, _NEAR = 32760, 255
#: FMLAs between two uses of an accumulator (more than both cores' latency), and how many multiplications to look ahead for others.
_APART, _AHEAD = 8, 16
#: Blocks with fewer multiplications are left to LLVM.
LEAST = 16
#: Number of insertion policies to try: there are many blocks, and the first few policies suit most.
_POLICIES = 3


@dataclass(frozen=True)
class VectorPlace:
    """A vector in memory: an offset in bytes from one of several pointers."""

    base: int
    offset: int

    @property
    def reached(self) -> bool:
        """True if the offsets of both halves can be encoded in a load."""
        return 0 <= self.offset <= _NEAR - 8 or (self.offset % 8 == 0 and 0 <= self.offset <= _REACH - 8)


@dataclass(frozen=True)
class Multiplication:
    """One FMLA: accumulator += x · y, or x · y[lane] if `lane` is set."""

    accumulator: int
    x: VectorPlace
    y: VectorPlace
    lane: int | None = None


def spread(multiplications: Sequence[Multiplication]) -> tuple[Multiplication, ...]:
    """Reorder multiplications so that uses of an accumulator are `_APART` where possible; the order within each accumulator stays."""
    remaining = list(multiplications)
    ordered: list[Multiplication] = []
    while remaining:
        recent = {multiplication.accumulator for multiplication in ordered[-_APART + 1 :]}
        free = (place for place, multiplication in enumerate(remaining[:_AHEAD]) if multiplication.accumulator not in recent)
        ordered.append(remaining.pop(next(free, 0)))
    return tuple(ordered)


@dataclass(frozen=True)
class InOrderBlock:
    """A straight-line sequence of multiplications.

    Attributes:
        accumulators, bases: number of accumulators, and of base pointers.
        beside: true if the core can issue an insertion in the same cycle as an FMLA.
        is_half: true if the elements are in half precision, else they are in float32.
    """

    multiplications: tuple[Multiplication, ...]
    accumulators: int
    bases: int
    beside: bool
    is_half: bool = field(default=False, repr=False)  # the symbol names it beside the hash

    @property
    def fits(self) -> bool:
        """True if the operands fit the registers, their offsets can be encoded, and the block is long enough to pay.

        In half precision, elements of vectors would have to lie in the lower 16 registers.
        """
        if self.is_half and any(multiplication.lane is not None for multiplication in self.multiplications):
            return False
        reached = all(place.reached for multiplication in self.multiplications for place in (multiplication.x, multiplication.y))
        return reached and len(self.multiplications) >= LEAST and self._registers is not None

    @property
    def symbol(self) -> str:
        """Name of the block's function, a hash of its fields."""
        return f"tvmmobile_in_order_{'halves_' * self.is_half}{hashlib.sha256(repr(self).encode()).hexdigest()[:16]}"

    @cached_property
    def _vectors(self) -> dict[VectorPlace, tuple[int, int]]:
        """First and last use of each vector that is read, in order of first use."""
        uses: dict[VectorPlace, tuple[int, int]] = {}
        for number, multiplication in enumerate(self.multiplications):
            for place in (multiplication.x, multiplication.y):
                uses[place] = (uses.get(place, (number, 0))[0], number)
        return uses

    @cached_property
    def _registers(self) -> list[tuple[int, int]] | None:
        """Register of each vector, and how many FMLAs must have started before it may be overwritten; `None` if registers run out."""
        free = [(0, register) for register in range(VECTOR_REGISTERS - self.accumulators)]
        allocated: list[tuple[int, int]] = []
        busy: list[tuple[int, int]] = []
        for first, last in self._vectors.values():
            free += [(until + 1, register) for until, register in busy if until < first]
            busy = [(until, register) for until, register in busy if until >= first]
            if not free:
                return None
            release, register = min(free)
            free.remove((release, register))
            busy.append((last, register))
            allocated.append((register, release))
        return allocated

    @property
    def first_base(self) -> int:
        """Operand number of the first base pointer in the assembly."""
        return 2 * self.accumulators + self._scratch + TEMPORARIES

    @property
    def _scratch(self) -> int:
        """Number of registers that hold vectors the block reads."""
        assert self._registers is not None
        return 1 + max(register for register, _ in self._registers)

    def llvm(self) -> str:
        """Return the function `symbol`(accumulators, base 0, base 1, …), all pointers, in LLVM IR."""
        scratch = self._scratch
        kinds = ["<4 x float>"] * (self.accumulators + scratch) + ["i64"] * TEMPORARIES
        constraints = ["=w"] * self.accumulators + ["=&w"] * scratch + ["=&r"] * TEMPORARIES
        constraints += [str(n) for n in range(self.accumulators)] + ["r"] * self.bases
        inputs = [f"<4 x float> %v{n}" for n in range(self.accumulators)] + [f"ptr %b{n}" for n in range(self.bases)]
        parameters = ", ".join(["ptr %acc", *(f"ptr %b{n}" for n in range(self.bases))])
        return inline_function(f"@{self.symbol}({parameters})", self.assembly(), kinds, constraints, inputs, *[self.accumulators] * 2)

    def assembly(self) -> list[str]:
        """Return the instructions; operands are accumulators, vectors, temporaries, the accumulators again as inputs, and base pointers."""
        assert self._registers is not None
        numbers = {place: number for number, place in enumerate(self._vectors)}
        waiting, multiplies = [], []
        for (first, _), (number, (_, release)) in zip(self._vectors.values(), enumerate(self._registers), strict=True):
            waiting += [HalfNeed(VectorHalf("v", number, high, False), release, first) for high in (False, True)]
        for count, multiplication in enumerate(self.multiplications):
            x, y = multiplication.x, multiplication.y
            halves = [VectorHalf("v", numbers[place], high, False) for place in (x, y) for high in (False, True)]
            multiplies.append((LoopAction("multiply", (count, 0, 0)), tuple(halves)))
        order = shortest(multiplies, waiting, self.beside, policies=_POLICIES)
        return [self._line(action, list(numbers), numbers) for action in order]

    def _line(self, action: LoopAction, places: Sequence[VectorPlace], numbers: dict[VectorPlace, int]) -> str:
        assert self._registers is not None
        if action.name == "multiply":
            fmla = self.multiplications[action.place[0]]
            x, y = (f"${{{self.accumulators + self._registers[numbers[place]][0]}}}" for place in (fmla.x, fmla.y))
            vector = "8h" if self.is_half else "4s"
            return f"fmla ${{{fmla.accumulator}}}.{vector}, {x}.{vector}, {y}.{vector if fmla.lane is None else f's[{fmla.lane}]'}"
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
    """Emit multiplications into `count` accumulators as an `InOrderBlock`; emit nothing and return false if they do not fit one.

    Args:
        places: buffer and index of each base pointer.
    """
    block = InOrderBlock(spread(multiplications), count, len(places), kernel.inner == 2, kernel.bytes == 2)
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
    """Emit a depthwise tile's multiplications, one input value after another; emit nothing and return false if they do not fit a block.

    Args:
        products: (output, input row, input column, tap) of each product.
        rows: (buffer, index of column 0, elements from one column to the next) for each input row.
        weights: the buffer, and the index of tap 0.
    """
    ordered = sorted(products, key=lambda product: product[1:3])
    first = min((column for _, _, column, _ in ordered), default=0)
    used = sorted({row for _, row, _, _ in ordered})
    size, lanes = kernel.bytes, kernel.lanes
    multiplications = []
    for output, row, column, tap in ordered:
        value = VectorPlace(used.index(row), (column - first) * rows[row][2] * size)
        multiplications.append(Multiplication(output, value, VectorPlace(len(used), tap * lanes * size)))
    places = [(buffer, start + first * pitch) for buffer, start, pitch in (rows[row] for row in used)]
    count = 1 + max((output for output, _, _, _ in ordered), default=0)
    return multiply_in_order(kernel, acc, multiplications, count, [*places, weights])
