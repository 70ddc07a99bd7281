"""The reduction loop of a register tile as one block of inline assembly, its instructions in the order of `in_order_order`.

LLVM merges adjacent 8-byte loads into 16-byte loads, which cannot dual-issue on in-order cores, and moves loads away from where they are
free. So the loop is an LLVM function with inline assembly, which TVM imports into the kernel and LLVM inlines; LLVM allocates the
accumulators' registers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tvmmobile.schedules.emit.in_order_order import LANES, TEMPORARIES, LoopAction, TileShape, pass_order

#: Largest offset in bytes of an 8-byte load from its base register.
_REACH = 32760
VECTOR_BYTES = 16
#: Instruction that multiplies and adds, and its arrangements of sums, of W, and of an element of A.
_FLOATS, _HALVES, _WORDS = ("fmla", "4s", "4s", "s"), ("fmla", "8h", "8h", "h"), ("sdot", "4s", "16b", "4b")


@dataclass(frozen=True)
class InOrderLoop:
    """acc[row, column] += Σ A[row, k] · W[k, column] over `passes` passes of `TileShape.steps` K steps each.

    The elements are in float32, in half precision if a pass has eight K steps, or words of four bytes.

    Attributes:
        shape: shape of the register tile.
        passes: number of passes, at least two.
        row_bytes: bytes from one row of A to the next.
        step_bytes: bytes from one K step to the next in W.
        block: passes per channel block of A; 0 if K is contiguous in A.
        jump_bytes: bytes in A from the last vector of a block to the first one of the next block.
        alike: true if all rows have the first row's initial accumulators, which are then copied while the first loads run.
        words: true if the elements of A and W are words, of whose four bytes `SDOT` adds the products.
        chain: most passes in a chain of sums, see `TileShape.chained`; 0 without chains.
    """

    shape: TileShape
    passes: int
    row_bytes: int
    step_bytes: int
    block: int = 0
    jump_bytes: int = 0
    alike: bool = False
    words: bool = False
    chain: int = 0

    @property
    def fits(self) -> bool:
        """True if there are two passes or more, also in the last chain, and the offsets of all loads in a pass can be encoded."""
        furthest = max(self.row_bytes * (self.shape.rows - 1), self.step_bytes * (self.shape.steps + self.shape.weights)) + 2 * VECTOR_BYTES
        whole = self.row_bytes % 8 == 0 and self.step_bytes % 8 == 0 and self.step_bytes < 1024
        return self.passes > 1 and self.last_passes > 1 and whole and furthest <= _REACH

    @property
    def chains(self) -> int:
        """Number of chains, of nearly equal lengths."""
        return -(-self.passes // self.chain) if self.chain else 1

    @property
    def chain_passes(self) -> int:
        """Number of passes in each chain but the last."""
        return -(-self.passes // self.chains)

    @property
    def last_passes(self) -> int:
        """Number of passes in the last chain."""
        return self.passes - (self.chains - 1) * self.chain_passes

    @property
    def is_half(self) -> bool:
        """True if the elements are in half precision."""
        return self.shape.steps != LANES[0]

    @property
    def symbol(self) -> str:
        """Name of the loop's function, made of all attributes."""
        rows, vectors, beside = self.shape.rows, self.shape.vectors, self.shape.beside
        numbers = (rows, vectors, int(beside), self.passes, self.row_bytes, self.step_bytes, self.block, self.jump_bytes, int(self.alike))
        kind = "words_" if self.words else f"halves_{self.chain}_" if self.is_half else ""
        return f"tvmmobile_in_order_{kind}" + "_".join(str(number) for number in numbers)

    def inputs(self) -> dict[int, str | int]:
        """Return the initial value of each general register by operand number: the pointer `a` or `w`, or an integer."""
        general, passes = _General(self), self.chain_passes if self.chains > 1 else self.passes - 1
        initial: dict[str, str | int] = {"following": "a", "a": "a", "w": "w", "left": passes}
        if self.chains > 1:
            initial |= {"chains": self.chains - 1}
        if self.block:
            initial |= {"in_block": self.block, "jump": self.jump_bytes, "step": VECTOR_BYTES, "block": self.block}
        return {general[name]: value for name, value in initial.items()}

    def llvm(self) -> str:
        """Return the function `symbol`(accumulators, A, W), all pointers, in LLVM IR."""
        general, initial, count = _General(self), self.inputs(), self.shape.accumulators
        scratch = general.first - count
        kinds = ["<4 x float>"] * (count + scratch) + ["ptr"] * 3 + ["i64"] * (general.count - 3)
        begun = range(self.shape.vectors if self.alike else count)
        inputs = [f"<4 x float> %v{n}" for n in begun]
        inputs += [f"ptr %{value}" if isinstance(value, str) else f"i64 {value}" for value in initial.values()]
        # Each input is tied to the output register with its number. In half precision, elements come from the lower 16 registers ("x").
        constraints = ["=w" if n in begun else "=&w" for n in range(count)]
        elements = ["=&x" if self.is_half else "=&w"] * self.shape.rows
        constraints += [*elements, *["=&w"] * (scratch - self.shape.rows), *["=&r"] * general.count]
        constraints += [str(n) for n in (*begun, *initial)]
        head = f"@{self.symbol}(ptr %acc, ptr %a, ptr %w)"
        return inline_function(head, self.assembly(), kinds, constraints, inputs, count, len(begun))

    def assembly(self) -> list[str]:
        """Return the instructions; operands `$0`, `$1`, … are accumulators, vectors of A and W, then the registers of `_General`."""
        writer = _Writer(self)
        advance, finish = len(writer.advance), len(writer.finish)
        loop = pass_order(self.shape, last=False, advance=advance, finish=finish)
        end = pass_order(self.shape, last=True, advance=0, finish=0)
        lines = [*writer.before(), "1:", *map(writer.line, loop), "b.ne 1b", *writer.between()]
        return [*lines, *map(writer.line, end), *writer.totals()]


def inline_function(
    head: str,
    assembly: Sequence[str],
    kinds: Sequence[str],
    constraints: Sequence[str],
    inputs: Sequence[str],
    accumulators: int,
    begun: int,
) -> str:
    """Return an LLVM function that loads accumulators from `%acc` as `%v0`, `%v1`, …, runs the assembly, and stores its first results back.

    Args:
        head: name and parameters of the function.
        kinds: LLVM types of the assembly's results.
        constraints, inputs: constraints of all operands (results first), and values of the inputs.
        accumulators: number of accumulators.
        begun: number of accumulators that are loaded; the assembly initialises the others.
    """
    before, after = [], []
    kind = "{" + ", ".join(kinds) + "}"
    for n in range(accumulators):
        before.append(f"%p{n} = getelementptr <4 x float>, ptr %acc, i64 {n}")
        if n < begun:
            before.append(f"%v{n} = load <4 x float>, ptr %p{n}, align 16")
        after += [f"%r{n} = extractvalue {kind} %r, {n}", f"store <4 x float> %r{n}, ptr %p{n}, align 16"]
    text, operands = "\\0A".join(assembly), ",".join([*constraints, "~{cc}", "~{memory}"])
    call = f'%r = call {kind} asm sideeffect "{text}", "{operands}"({", ".join(inputs)})'
    return "\n".join([f"define internal void {head} alwaysinline nounwind {{", *before, call, *after, "ret void", "}", ""])


def lower_half(register: str) -> str:
    """Return an operand with the modifier for the lower 8 bytes of its register."""
    return register.replace("}", ":d}")


class _General:
    """Operand numbers of the general registers."""

    def __init__(self, loop: InOrderLoop) -> None:
        shape, blocked = loop.shape, ["in_block", "jump", "step", "block", "by"] if loop.block else []
        self.names = ["following", "a", "w", "left", *(["chains"] if loop.chains > 1 else []), *blocked]
        self.first = shape.sums + shape.rows + shape.weights
        self.count = len(self.names) + TEMPORARIES

    def __getitem__(self, name: str) -> int:
        return self.first + self.names.index(name)

    def temporary(self, number: int) -> int:
        return self.first + len(self.names) + number


class _Writer:
    """Writes a loop's instructions as assembly text."""

    def __init__(self, loop: InOrderLoop) -> None:
        self.loop, self.shape = loop, loop.shape
        self.general = _General(loop)
        g = {name: f"${self.general[name]}" for name in self.general.names}
        #: Instructions that advance the pointer to the next pass's A, which jumps from block to block.
        self.advance = (
            [
                f"subs {g['in_block']}, {g['in_block']}, #1",
                f"csel {g['by']}, {g['jump']}, {g['step']}, eq",
                f"csel {g['in_block']}, {g['block']}, {g['in_block']}, eq",
                f"add {g['following']}, {g['following']}, {g['by']}",
            ]
            if loop.block
            else [f"add {g['following']}, {g['following']}, #16"]
        )
        self.finish = [
            f"add {g['w']}, {g['w']}, #{loop.shape.steps * loop.step_bytes}",
            f"mov {g['a']}, {g['following']}",
            f"subs {g['left']}, {g['left']}, #1",
        ]

    def line(self, action: LoopAction) -> str:
        """Return the text of one instruction."""
        shape = self.shape
        if action.name == "multiply":
            k, j, i = action.place
            name, total, vector, element = _WORDS if self.loop.words else _HALVES if self.loop.is_half else _FLOATS
            a = f"{self._a(i)}.{element}[{k % (shape.steps // 2) if shape.beside else k}]"
            return f"{name} {self._sum(i * shape.vectors + j)}.{total}, {self._w(k * shape.vectors + j)}.{vector}, {a}"
        if action.half is None:
            kind, number = action.name[:-1], action.name[-1]
            return "nop" if action.name == "nop" else (self.advance if kind == "advance" else self.finish)[int(number)]
        half, temporary = action.half, f"${self.general.temporary(action.temporary)}"
        register = self._a(half.index) if half.of == "a" else self._w(half.index)
        if action.name == "insert":
            return f"ins {register}.d[{int(half.high)}], {temporary}"
        if action.name == "fetch":
            temporary = lower_half(register)
        return self._load(temporary, half.of, half.index, half.high, half.following)

    def before(self) -> Iterator[str]:
        """Yield the instructions before the loop, which load what the first pass expects in registers."""
        halves = [("w", n, high) for n in range(self.shape.ahead) for high in (False, True)]
        halves += [("a", row, False) for row in range(self.shape.rows)]
        vectors, copied = self.shape.vectors, self.shape.accumulators if self.loop.alike else 0
        copies = [f"mov ${{{n}}}.16b, ${{{n % vectors}}}.16b" for n in range(vectors, copied)] + self._zeros()
        for start in range(0, len(halves), TEMPORARIES):
            batch = halves[start : start + TEMPORARIES]
            for number, (of, index, high) in enumerate(batch):
                if copies:
                    yield copies.pop(0)
                yield self._load(f"${self.general.temporary(number)}", of, index, high, False)
            for number, (of, index, high) in enumerate(batch):
                register = self._a(index) if of == "a" else self._w(index)
                yield f"ins {register}.d[{int(high)}], ${self.general.temporary(number)}"
        yield from copies

    def between(self) -> list[str]:
        """Return the instructions between two chains, and the label after the last but one."""
        if self.loop.chains == 1:
            return []
        left, chains = f"${self.general['left']}", f"${self.general['chains']}"
        again = [*self.totals(), *self._zeros(), f"sub {chains}, {chains}, #1"]
        again += [f"mov {left}, #{self.loop.chain_passes}", f"cbnz {chains}, 1b", f"mov {left}, #{self.loop.last_passes - 1}", "b 1b"]
        return [f"cbz {chains}, 2f", *again, "2:"]

    def totals(self) -> list[str]:
        """Return the instructions that add a chain's sums to those of all chains."""
        return [f"fadd ${{{n}}}.8h, ${{{n}}}.8h, {self._sum(n)}.8h" for n in self._chained]

    def _zeros(self) -> list[str]:
        return [f"movi {self._sum(n)}.2d, #0" for n in self._chained]

    @property
    def _chained(self) -> range:
        """The numbers of the accumulators, if their sums are added in chains."""
        return range(self.shape.accumulators if self.shape.chained else 0)

    def _sum(self, n: int) -> str:
        """Return the register that accumulator `n`'s products are added to: its own, or, with chains, one of the last vector registers."""
        first = self.general.first - self.shape.accumulators if self.shape.chained else 0
        return f"${{{first + n}}}"

    def _load(self, temporary: str, of: str, index: int, high: bool, following: bool) -> str:
        if of == "a":
            base = "following" if following else "a"
            return f"ldr {temporary}, [${self.general[base]}, #{index * self.loop.row_bytes + 8 * high}]"
        k, j = divmod(index + following * self.shape.steps * self.shape.vectors, self.shape.vectors)
        return f"ldr {temporary}, [${self.general['w']}, #{k * self.loop.step_bytes + j * VECTOR_BYTES + 8 * high}]"

    def _a(self, row: int) -> str:
        return f"${{{self.shape.accumulators + row}}}"

    def _w(self, n: int) -> str:
        return f"${{{self.shape.accumulators + self.shape.rows + n % self.shape.weights}}}"
