"""Small steps from which templates build TIR: buffers, vectors and loops.

Kernels are built with TVM's IR builder rather than by transforming naive loops: a Python loop unrolls, a `T.serial` loop stays
a loop, and LLVM sees exactly what is emitted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import reduce
from types import MappingProxyType
from typing import Any

from tvmmobile.graph.precision import BFLOAT16, FLOAT32, storage_named
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.bfloats import narrowed, widened
from tvmmobile.schedules.emit.tiles import Run
from tvmmobile.schedules.emit.vectors import Vectors
from tvmmobile.schedules.space import Knobs

Expr = Any
Buffer = Any
#: Marks functions that templates emit: flat buffers, 32-bit indices, explicit vectors, no blocks. `kernels.lowering` uses it.
PLAIN = "tvmmobile.plain"
#: A range of equal pieces: first and one after the last.
Span = tuple[Expr, Expr]


def share(thread: Expr, threads: int, count: int) -> Span:
    """Return a thread's share of `count` equal pieces; all of them if the thread is `None`, the only one."""
    return (0, count) if thread is None else (thread * count // threads, (thread + 1) * count // threads)


def parts_of(extent: int, *sizes: int) -> Iterator[tuple[int, int, int]]:
    """Cut an extent into parts of the first size, what remains into parts of the next one, and so on; yield a size, how many parts have
    it, and where they begin. Sizes without parts are left out.
    """
    start = 0
    for size in sizes:
        count = (extent - start) // size
        if count:
            yield size, count, start
        start += count * size


@dataclass(frozen=True)
class VectorGroup:
    """Groups of consecutive vectors, all with equally many.

    Attributes:
        lanes, vectors: elements of a vector, and vectors of a group.
        count: groups, one after another.
        first: element with which they begin.
    """

    lanes: int
    vectors: int
    count: int
    first: int

    @property
    def size(self) -> int:
        """Elements of a group."""
        return self.lanes * self.vectors


def vector_groups(extent: int, lanes: int, most: int) -> list[VectorGroup]:
    """Cut an extent into groups of `most` vectors, then one of the vectors that remain, then one of single elements."""
    whole, single = divmod(extent, lanes)
    count, rest = divmod(whole, most)
    first, last = count * most * lanes, whole * lanes
    groups = (VectorGroup(lanes, most, count, 0), VectorGroup(lanes, rest, 1, first), VectorGroup(1, single, 1, last))
    return [group for group in groups if group.count and group.vectors]


class Kernel:
    """A task's TIR function under construction, with flat buffers in its precision.

    Attributes:
        lanes, bytes: elements of a vector, and the size of one.
        chain, group: see `Precision`.
        inner: the order of a register tile's loop, see `template.with_inner`.

    Args:
        grouped: arguments with weights in groups, see `Precision`; other constants are in what kernels compute in.
        places: arguments of 32-bit integers, which say where something is.
    """

    def __init__(
        self, task: Task, knobs: Knobs = MappingProxyType({}), grouped: Collection[str] = (), places: Collection[str] = ()
    ) -> None:
        from tvm.script.ir_builder import IRBuilder
        from tvm.tirx.script import builder

        self.T = builder
        self.lanes, self.bytes, self._symbol, self._stored_as = task.lanes, task.precision.bytes, task.symbol, task.precision
        self._precision, self.chain, self.group = task.precision.arithmetic, task.precision.chain, task.precision.group
        data, output = task.storage
        #: Precisions of arguments that differ from the kernel's, by argument; and their buffers.
        sides = {*task.side_shapes, *(name for layer in task.region for name in layer.side_shapes)}
        stored = {"data": data, "output": output, **dict.fromkeys([*sides, *grouped], task.precision)}
        if task.region[0].weights:  # no region of several layers has such weights
            stored["weight"] = storage_named(task.region[0].weights)
        self._storage = {name: kind for name, kind in stored.items() if kind != self._precision}
        self._converted: list[Buffer] = []
        self._places = frozenset(places)
        self.inner = knobs.get("inner", 0) if (self.lanes, self.bytes) == (4, 4) and data == task.precision else 0
        self._ir_builder = IRBuilder()
        self._imported: dict[str, str] = {}

    @contextmanager
    def body(self, **shapes: tuple[int, ...]) -> Iterator[list[Buffer]]:
        """Open the function with one argument per name and shape; yield them as flat buffers."""
        with self._ir_builder, self.T.prim_func(is_private=False, s_tir=True):
            self.T.func_name(self._symbol)
            self.T.func_attr({"global_symbol": self._symbol, "tirx.noalias": True, PLAIN: True})
            types = list(map(self.type_of, shapes))
            arguments = [self.T.arg(name, self.T.Buffer(shape, kind)) for (name, shape), kind in zip(shapes.items(), types, strict=True)]
            flat = []
            for argument, (name, shape), kind in zip(arguments, shapes.items(), types, strict=True):
                whole = len(shape) == 1
                flat.append(argument if whole else self.T.decl_buffer((math.prod(shape),), kind, data=argument.data))
                if name in self._storage:
                    self._converted.append(flat[-1])
            yield flat

    def type_of(self, argument: str) -> str:
        """Return TVM's name of the type of an argument's elements."""
        return "int32" if argument in self._places else self._storage.get(argument, self._precision).name

    @contextmanager
    def named_body(self, **shapes: tuple[int, ...]) -> Iterator[dict[str, Buffer]]:
        """Open the function as `body` does; yield its buffers by argument name."""
        with self.body(**shapes) as flat:
            yield dict(zip(shapes, flat, strict=True))

    def finish(self) -> Any:
        """Return the finished function."""
        from tvm.ir import StringImm
        from tvm.tirx import AttrStmt, IntImm

        function = self._ir_builder.get()
        if not self._imported:
            return function
        text = StringImm("\n".join(self._imported.values()))
        return function.with_body(AttrStmt(IntImm("int32", 0), "pragma_import_llvm", text, function.body))

    def call(self, symbol: str, llvm: Callable[[], str], *places: tuple[Buffer, Expr]) -> None:
        """Call a function of pointers to these elements that LLVM's text defines; it is inlined."""
        pointers = (buffer.access_ptr("rw", offset=index) for buffer, index in places)
        self.T.evaluate(self.result_of("void", symbol, llvm, *pointers))

    def result_of(self, kind: str, symbol: str, llvm: Callable[[], str], *arguments: Expr) -> Expr:
        """Return a call of a function that LLVM's text defines, with any arguments."""
        if symbol not in self._imported:
            self._imported[symbol] = llvm()
        return self.T.call_extern(kind, symbol, *arguments)

    @contextmanager
    def loop(self, count: Expr) -> Iterator[Expr]:
        """Emit a loop, unless it would run once; yield the iteration's number."""
        if isinstance(count, int) and count == 1:
            yield 0
            return
        with self.T.serial(0, count) as index:
            yield index

    @contextmanager
    def span(self, start: Expr, end: Expr) -> Iterator[Expr]:
        """Emit a loop from `start` to `end`, unless it would run once."""
        with self.loop(end - start) as index:
            yield start + index

    @contextmanager
    def pieces(self, first: Expr, count: Expr, size: int) -> Iterator[Expr]:
        """Emit a loop over `count` pieces that follow each other, unless there is only one; yield where each begins."""
        with self.loop(count) as index:
            yield first + index * size

    def tiles(self, run: Run) -> AbstractContextManager[Expr]:
        """Return a loop over the tiles of a run; yield the tile's first output index."""
        return self.pieces(run.start, run.count, run.size)

    @contextmanager
    def team(self, threads: int) -> Iterator[Expr]:
        """Emit a loop whose iterations are threads; yield the thread's number, `None` if there is only one.

        Loops of one kernel write different outputs, and none reads what another writes: in a C library they do not wait for each other.
        """
        if threads == 1:
            yield None
            return
        with self.T.parallel(0, threads) as thread:
            yield thread

    @contextmanager
    def where(self, *conditions: Expr) -> Iterator[None]:
        """Code emitted inside runs only if all conditions hold."""
        if not conditions:
            yield
            return
        every: Any = conditions[0]
        for condition in conditions[1:]:
            every = self.T.And(every, condition)
        with self.T.If(every), self.T.Then():
            yield

    def accumulators(self, elements: int) -> Buffer:
        """Return a buffer that LLVM keeps in registers; without the annotation TVM would allocate it on the heap."""
        return self._in_registers(elements, self._precision.accumulator)

    def places(self, elements: int) -> Buffer:
        """Return a buffer as `accumulators` does, for 32-bit integers."""
        return self._in_registers(elements, "int32")

    def totals(self, elements: int) -> Buffer:
        """Return a buffer as `accumulators` does, for sums that grow with every term, see `Precision.total`."""
        return self._in_registers(elements, self._precision.total)

    def _in_registers(self, elements: int, dtype: str) -> Buffer:
        return self.T.alloc_buffer((elements,), dtype, scope="local", annotations={"disable_lower_builtin": True})

    def reduced(self, first: Expr, count: int, value_of: Callable[[Expr, int], Expr], join: Callable[[Expr, Expr], Expr]) -> Expr:
        """Return one number of `count` values from an index on, vector by vector, in the type of `totals`.

        Args:
            value_of: maps an index and lanes to the values there.
            join: function that joins two numbers, or two vectors of them.
        """
        found = []
        for lanes, steps, start in parts_of(count, self.lanes, 1):
            so_far = self.totals(lanes)
            self.store(so_far, value_of(first + start, lanes), 0, lanes)
            if steps > 1:
                with self.loop(steps - 1) as step:
                    value = value_of(first + start + (step + 1) * lanes, lanes)
                    self.store(so_far, join(self.load(so_far, 0, lanes), value), 0, lanes)
            found += [self.load(so_far, lane, 1) for lane in range(lanes)]
        return self.T.bind(reduce(join, found))

    def widened(self, value: Expr, lanes: int) -> Expr:
        """Return numbers in the type of `totals`; unchanged if that is not wider."""
        return self._cast(value, lanes, self._precision.total)

    def narrowed(self, value: Expr, lanes: int) -> Expr:
        """Return totals in the type that is stored; `store` converts them for an output in another precision."""
        return value if "output" in self._storage else self._cast(value, lanes, self._precision.name)

    def _cast(self, value: Expr, lanes: int, dtype: str) -> Expr:
        if self._precision.total == self._precision.name:
            return value
        return Vectors(dtype, lanes, self.T.bind, bool(self._precision.bits)).cast(value)

    def vectors_of_totals(self, lanes: int) -> Vectors:
        """Return arithmetic on vectors of `lanes` totals."""
        return Vectors(self._precision.total, lanes, self.T.bind, bool(self._precision.bits))

    def is_converted(self, buffer: Buffer) -> bool:
        """Return whether a buffer is an argument in another precision than the kernel's, which `load` and `store` convert."""
        return self.is_narrow(buffer) or any(buffer.same_as(other) for other in self._converted)

    @staticmethod
    def is_narrow(buffer: Buffer) -> bool:
        """Return whether a buffer holds numbers that are widened when they are loaded."""
        return str(buffer.dtype) == BFLOAT16.name

    def scratch(self, elements: int, totals: bool = False) -> Buffer:
        """Return a buffer in memory, perhaps of `totals`: one allocation at this point, in the workspace of the executing thread."""
        return self.T.alloc_buffer((elements,), self._precision.total if totals else self._stored_as.name)

    def number(self, value: float) -> Expr:
        """Return a constant."""
        return getattr(self.T, self._precision.accumulator)(value)

    def total(self, value: float) -> Expr:
        """Return a constant of the type of `totals`."""
        return getattr(self.T, self._precision.total)(value)

    @property
    def least_normal(self) -> float:
        """The least number with all digits of what kernels compute in."""
        return float(self._precision.limits.smallest_normal)

    def fill(self, buffer: Buffer, number: Expr, vectors: int, lanes: int = 0) -> None:
        """Store a number to all elements of the first vectors."""
        lanes = lanes or self.lanes
        for place in range(0, vectors * lanes, lanes):
            self.store(buffer, self.splat(number, lanes), place, lanes)

    def at(self, index: Expr, lanes: int = 0) -> Expr:
        """Return the index of `lanes` consecutive elements; 0 means a whole vector, here and below."""
        lanes = lanes or self.lanes
        return self.T.Ramp(index, 1, lanes) if lanes > 1 else index

    def load(self, buffer: Buffer, index: Expr, lanes: int = 0) -> Expr:
        """Return `lanes` consecutive elements, in the kernel's precision."""
        value = buffer[self.at(index, lanes)]
        if self.is_narrow(buffer):
            value = widened(value, lanes or self.lanes)
            return value if self._precision.accumulator == FLOAT32.name else self.vectors(lanes).cast(value)
        return self.vectors(lanes).cast(value) if self.is_converted(buffer) else value

    def store(self, buffer: Buffer, value: Expr, index: Expr, lanes: int = 0) -> None:
        """Store `lanes` values to consecutive elements, in the buffer's precision."""
        if self.is_converted(buffer):
            value = self._stored(str(buffer.dtype), value, lanes or self.lanes)
        self.T.buffer_store(buffer, value, [self.at(index, lanes)])

    def _stored(self, dtype: str, value: Expr, lanes: int) -> Expr:
        """Return values in another precision; real numbers are rounded to integers."""
        if storage_named(dtype).is_integer:
            return self.vectors(lanes).rounded(value)
        if dtype == BFLOAT16.name:
            return narrowed(self, value, lanes)
        return Vectors(dtype, lanes, self.T.bind, False).cast(value)

    def load_part(self, buffer: Buffer, index: Expr, lanes: int) -> Expr:
        """Return a whole vector of which only the first `lanes` elements exist in the buffer; the others are zeros."""
        if lanes == self.lanes:
            return self.load(buffer, index)
        elements = [self.load(buffer, index + lane, 1) if lane < lanes else self.number(0.0) for lane in range(self.lanes)]
        return self.T.Shuffle(elements, list(range(self.lanes)))

    def store_part(self, buffer: Buffer, vector: Expr, index: Expr, lanes: int) -> None:
        """Store the first `lanes` lanes of a whole vector."""
        if lanes == self.lanes:
            self.store(buffer, vector, index)
            return
        for lane in range(lanes):
            self.store(buffer, self.T.Shuffle([vector], [lane]), index + lane, 1)

    def lane(self, vector: Expr, lane: int) -> Expr:
        """Return one lane of a vector in all lanes, which becomes the indexed operand of FMLA."""
        return self.T.Broadcast(self.T.Shuffle([vector], [lane]), self.lanes)

    def multiply_add(self, so_far: Expr, weight: Expr, value: Expr) -> Expr:
        """Return a vector of sums with one more product."""
        return so_far + weight * value

    def intrinsic(self, kind: str, name: str, *arguments: Expr) -> Expr:
        """Return a call of LLVM's intrinsic `llvm.NAME`, with a result of this type."""
        return self.T.call_llvm_pure_intrin(kind, f"llvm.{name}", *arguments)

    def dot(self, so_far: Expr, one: Expr, other: Expr) -> Expr:
        """Return four sums, each with the products of four bytes."""
        return self.intrinsic("int32x4", "aarch64.neon.sdot.v4i32.v16i8", so_far, one, other)

    def lane_within(self, buffer: Buffer, line: Expr, offset: int, low: int, high: int) -> Expr:
        """Return the element at `line + offset` in all lanes, from vectors that stay within [low, high) of the line."""
        if high - low < self.lanes:
            return self.splat(self.load(buffer, line + offset, 1))
        vector = min(low + (offset - low) // self.lanes * self.lanes, high - self.lanes)
        return self.lane(self.load(buffer, line + vector), offset - vector)

    def splat(self, scalar: Expr, lanes: int = 0) -> Expr:
        """Return a scalar in all lanes."""
        lanes = lanes or self.lanes
        return self.T.Broadcast(scalar, lanes) if lanes > 1 else scalar

    def vectors(self, lanes: int = 0) -> Vectors:
        """Return arithmetic on vectors with that many lanes."""
        own = self._precision
        return Vectors(own.accumulator, lanes or self.lanes, self.T.bind, bool(own.bits), own.total)
