"""Building blocks with which templates emit TIR: buffers, vectors and loops.

Kernels are built with TVM's IR builder rather than by transforming a naive loop nest: a Python loop is unrolled, a `T.serial` loop stays
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
#: Attribute of functions that templates emit (flat buffers, 32-bit indices, explicit vectors, no blocks), for `kernels.lowering`.
PLAIN = "tvmmobile.plain"
#: A half-open range of indices: the first, and one past the last.
Span = tuple[Expr, Expr]


def share(thread: Expr, threads: int, count: int) -> Span:
    """Return a thread's share of `count` equal pieces; all of them if `thread` is `None`, which means single-threaded."""
    return (0, count) if thread is None else (thread * count // threads, (thread + 1) * count // threads)


def parts_of(extent: int, *sizes: int) -> Iterator[tuple[int, int, int]]:
    """Cut an extent into parts of the first size, the remainder into parts of the next size, and so on.

    Yield (size, number of parts, start of the first part); sizes without parts are skipped.
    """
    start = 0
    for size in sizes:
        count = (extent - start) // size
        if count:
            yield size, count, start
        start += count * size


@dataclass(frozen=True)
class VectorGroup:
    """Consecutive groups of vectors, all of the same size.

    Attributes:
        lanes, vectors: elements per vector, and vectors per group.
        count: number of groups.
        first: first element of the first group.
    """

    lanes: int
    vectors: int
    count: int
    first: int

    @property
    def size(self) -> int:
        """Elements per group."""
        return self.lanes * self.vectors


def vector_groups(extent: int, lanes: int, most: int) -> list[VectorGroup]:
    """Cut an extent into groups of `most` vectors, then a group of the remaining vectors, then one of single elements."""
    whole, single = divmod(extent, lanes)
    count, rest = divmod(whole, most)
    first, last = count * most * lanes, whole * lanes
    groups = (VectorGroup(lanes, most, count, 0), VectorGroup(lanes, rest, 1, first), VectorGroup(1, single, 1, last))
    return [group for group in groups if group.count and group.vectors]


class Kernel:
    """A task's TIR function under construction, with flat buffers in its precision.

    Attributes:
        lanes, bytes: elements per vector, and bytes per element.
        chain, group: see `Precision`.
        inner: instruction order of a register tile's loop, see `template.with_inner`.
        has_words: true if the elements that are multiplied are words of four bytes.

    Args:
        grouped: names of arguments with weights in groups, see `Precision`; other constants have the type that kernels compute in.
        places: names of arguments that hold indices, as 32-bit integers.
    """

    has_words = False

    def __init__(
        self, task: Task, knobs: Knobs = MappingProxyType({}), grouped: Collection[str] = (), places: Collection[str] = ()
    ) -> None:
        from tvm.script.ir_builder import IRBuilder
        from tvm.tirx.script import builder

        self.T = builder
        self.lanes, self.bytes, self._symbol, self._stored_as = task.lanes, task.precision.bytes, task.symbol, task.precision
        self._precision, self.chain, self.group = task.precision.arithmetic, task.precision.chain, task.precision.group
        data, output = task.storage
        #: Precision of each argument that is not stored in the kernel's precision, and the buffers of such arguments.
        sides = {*task.side_shapes, *(name for layer in task.region for name in layer.side_shapes)}
        stored = {"data": data, "output": output, **dict.fromkeys([*sides, *grouped], task.precision)}
        if task.region[0].weights:  # regions of several layers have no such weights
            stored["weight"] = storage_named(task.region[0].weights)
        self._storage = {name: kind for name, kind in stored.items() if kind != self._precision}
        self._converted: list[Buffer] = []
        self._types: dict[Buffer, str] = {}
        self._places = frozenset(places)
        ordered = self.lanes * self.bytes == task.machine.vector_bytes and data == task.precision
        self.inner = knobs.get("inner", 0) if ordered else 0
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
        """Return the TVM dtype of an argument's elements."""
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
        """Call a function defined in LLVM IR with pointers to these elements; it is inlined."""
        pointers = (buffer.access_ptr("rw", offset=index) for buffer, index in places)
        self.T.evaluate(self.result_of("void", symbol, llvm, *pointers))

    def result_of(self, kind: str, symbol: str, llvm: Callable[[], str], *arguments: Expr) -> Expr:
        """Return a call of a function defined in LLVM IR, with result type `kind`."""
        if symbol not in self._imported:
            self._imported[symbol] = llvm()
        return self.T.call_extern(kind, symbol, *arguments)

    @contextmanager
    def loop(self, count: Expr) -> Iterator[Expr]:
        """Emit a serial loop, or only its body if it runs once; yield the iteration's index."""
        if isinstance(count, int) and count == 1:
            yield 0
            return
        with self.T.serial(0, count) as index:
            yield index

    @contextmanager
    def span(self, start: Expr, end: Expr) -> Iterator[Expr]:
        """Emit a loop from `start` to `end`, or only its body if it runs once; yield the index."""
        with self.loop(end - start) as index:
            yield start + index

    @contextmanager
    def pieces(self, first: Expr, count: Expr, size: int) -> Iterator[Expr]:
        """Emit a loop over `count` consecutive pieces of `size`, or only its body for one piece; yield where each piece begins."""
        with self.loop(count) as index:
            yield first + index * size

    def tiles(self, run: Run) -> AbstractContextManager[Expr]:
        """Return a context that emits a loop over a run's tiles and gives each tile's first output index."""
        return self.pieces(run.start, run.count, run.size)

    @contextmanager
    def team(self, threads: int) -> Iterator[Expr]:
        """Emit a parallel loop with one iteration per thread; yield the thread's index, or `None` if there is only one thread.

        In a C library, a kernel's parallel loops run without a barrier in between, so none may read what another one writes, unless
        the kernel has `scratch` allocated outside of them: then each waits for the one before.
        """
        if threads == 1:
            yield None
            return
        with self.T.parallel(0, threads) as thread:
            yield thread

    @contextmanager
    def where(self, *conditions: Expr) -> Iterator[None]:
        """Emit an `if` around the code emitted inside, true if all conditions hold."""
        if not conditions:
            yield
            return
        conjunction: Any = conditions[0]
        for condition in conditions[1:]:
            conjunction = self.T.And(conjunction, condition)
        with self.T.If(conjunction), self.T.Then():
            yield

    def accumulators(self, elements: int) -> Buffer:
        """Return a buffer that LLVM keeps in registers; without the annotation TVM would allocate it on the heap."""
        return self._in_registers(elements, self._precision.accumulator)

    def places(self, elements: int) -> Buffer:
        """Return a buffer of 32-bit integers in registers, as `accumulators` does."""
        return self._in_registers(elements, "int32")

    def totals(self, elements: int) -> Buffer:
        """Return a buffer in registers, as `accumulators` does, for long sums, see `Precision.total`."""
        return self._in_registers(elements, self._precision.total)

    def _in_registers(self, elements: int, dtype: str) -> Buffer:
        return self.T.alloc_buffer((elements,), dtype, scope="local", annotations={"disable_lower_builtin": True})

    def reduced(self, first: Expr, count: int, value_of: Callable[[Expr, int], Expr], join: Callable[[Expr, Expr], Expr]) -> Expr:
        """Reduce `count` values from index `first` on to a scalar of the type of `totals`.

        Args:
            value_of: maps an index and a number of lanes to the values there.
            join: associative function of two scalars, or of two vectors.
        """
        partial_results = []
        for lanes, steps, start in parts_of(count, self.lanes, 1):
            so_far = self.totals(lanes)
            self.store(so_far, value_of(first + start, lanes), 0, lanes)
            if steps > 1:
                with self.loop(steps - 1) as step:
                    value = value_of(first + start + (step + 1) * lanes, lanes)
                    self.store(so_far, join(self.load(so_far, 0, lanes), value), 0, lanes)
            partial_results += [self.load(so_far, lane, 1) for lane in range(lanes)]
        return self.T.bind(reduce(join, partial_results))

    def widened(self, value: Expr, lanes: int) -> Expr:
        """Return values cast to the type of `totals`; unchanged if that is not wider."""
        return self._cast(value, lanes, self._precision.total)

    def narrowed(self, value: Expr, lanes: int) -> Expr:
        """Return totals cast to the kernel's type; unchanged if the output has another precision, to which `store` converts."""
        return value if "output" in self._storage else self._cast(value, lanes, self._precision.name)

    def _cast(self, value: Expr, lanes: int, dtype: str) -> Expr:
        if self._precision.total == self._precision.name:
            return value
        return Vectors(dtype, lanes, self.T.bind, bool(self._precision.bits)).cast(value)

    def vectors_of_totals(self, lanes: int) -> Vectors:
        """Return the arithmetic on vectors of `lanes` totals."""
        return Vectors(self._precision.total, lanes, self.T.bind, bool(self._precision.bits))

    def is_converted(self, buffer: Buffer) -> bool:
        """Return whether `load` and `store` convert a buffer's elements, because its precision differs from the kernel's."""
        return self.is_narrow(buffer) or any(buffer.same_as(converted) for converted in self._converted)

    def is_narrow(self, buffer: Buffer) -> bool:
        """Return whether a buffer holds bfloat16, which is widened when it is loaded."""
        return self._type(buffer) == BFLOAT16.name

    def _type(self, buffer: Buffer) -> str:
        """Return the type of a buffer's elements, which TVM takes almost as long to name as it takes to load an element."""
        if buffer not in self._types:
            self._types[buffer] = str(buffer.dtype)
        return self._types[buffer]

    def scratch(self, elements: int, totals: bool = False) -> Buffer:
        """Allocate a buffer in the executing thread's workspace, in the task's precision or in the type of `totals`."""
        return self.T.alloc_buffer((elements,), self._precision.total if totals else self._stored_as.name)

    def number(self, value: float) -> Expr:
        """Return a constant of the type of `accumulators`."""
        return getattr(self.T, self._precision.accumulator)(value)

    def total(self, value: float) -> Expr:
        """Return a constant of the type of `totals`."""
        return getattr(self.T, self._precision.total)(value)

    @property
    def least_normal(self) -> float:
        """Smallest positive normal number of the kernel's type."""
        return float(self._precision.limits.smallest_normal)

    def fill(self, buffer: Buffer, number: Expr, vectors: int, lanes: int = 0) -> None:
        """Store a number to all elements of the buffer's first `vectors` vectors."""
        lanes = lanes or self.lanes
        for place in range(0, vectors * lanes, lanes):
            self.store(buffer, self.splat(number, lanes), place, lanes)

    def at(self, index: Expr, lanes: int = 0) -> Expr:
        """Return the index of `lanes` consecutive elements. Here and below, 0 lanes means a whole vector."""
        lanes = lanes or self.lanes
        return self.T.Ramp(index, 1, lanes) if lanes > 1 else index

    def load(self, buffer: Buffer, index: Expr, lanes: int = 0) -> Expr:
        """Return `lanes` consecutive elements, in the kernel's precision."""
        value = buffer[self.at(index, lanes)]
        if self.is_narrow(buffer):
            value = widened(value, lanes or self.lanes)
            return value if self._precision.accumulator == FLOAT32.name else self.vectors(lanes).cast(value)
        return self.vectors(lanes).cast(value) if self.is_converted(buffer) else value

    def load_wide(self, buffer: Buffer, index: Expr, lanes: int = 0) -> Expr:
        """Return `lanes` consecutive elements in the type of `totals`, as they are if that is how they are stored."""
        if self._type(buffer) == self._precision.total:
            return buffer[self.at(index, lanes)]
        return self.widened(self.load(buffer, index, lanes), lanes or self.lanes)

    def store(self, buffer: Buffer, value: Expr, index: Expr, lanes: int = 0) -> None:
        """Store `lanes` values to consecutive elements, in the buffer's precision."""
        if self.is_converted(buffer):
            value = self._stored(self._type(buffer), value, lanes or self.lanes)
        self.T.buffer_store(buffer, value, [self.at(index, lanes)])

    def _stored(self, dtype: str, value: Expr, lanes: int) -> Expr:
        """Return values converted to a stored dtype; floats are rounded to integers."""
        if storage_named(dtype).is_integer:
            return self.vectors(lanes).rounded(value)
        if dtype == BFLOAT16.name:
            return narrowed(self, value, lanes)
        return Vectors(dtype, lanes, self.T.bind, False).cast(value)

    def load_part(self, buffer: Buffer, index: Expr, lanes: int) -> Expr:
        """Return a whole vector whose first `lanes` elements are loaded and whose other elements are zeros."""
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
        """Return one lane of a vector broadcast to all lanes, which LLVM selects as an FMLA by element."""
        return self.T.Broadcast(self.T.Shuffle([vector], [lane]), self.lanes)

    def multiply_add(self, so_far: Expr, weight: Expr, value: Expr) -> Expr:
        """Return a vector of sums plus `weight * value`."""
        return so_far + weight * value

    def intrinsic(self, kind: str, name: str, *arguments: Expr) -> Expr:
        """Return a call of LLVM's pure intrinsic `llvm.NAME` with result type `kind`."""
        return self.T.call_llvm_pure_intrin(kind, f"llvm.{name}", *arguments)

    def dot(self, so_far: Expr, left: Expr, right: Expr) -> Expr:
        """Return `SDOT`: four int32 sums, each plus the products of four int8 pairs."""
        return self.intrinsic("int32x4", "aarch64.neon.sdot.v4i32.v16i8", so_far, left, right)

    def lane_within(self, buffer: Buffer, line: Expr, offset: int, low: int, high: int) -> Expr:
        """Return the element at `line + offset` broadcast to all lanes, loaded with a vector inside [low, high) of the line if it fits."""
        if high - low < self.lanes:
            return self.splat(self.load(buffer, line + offset, 1))
        vector = min(low + (offset - low) // self.lanes * self.lanes, high - self.lanes)
        return self.lane(self.load(buffer, line + vector), offset - vector)

    def splat(self, scalar: Expr, lanes: int = 0) -> Expr:
        """Return a scalar broadcast to all lanes."""
        lanes = lanes or self.lanes
        return self.T.Broadcast(scalar, lanes) if lanes > 1 else scalar

    def vectors(self, lanes: int = 0) -> Vectors:
        """Return the kernel's arithmetic on vectors of `lanes` lanes."""
        own = self._precision
        return Vectors(own.accumulator, lanes or self.lanes, self.T.bind, bool(own.bits), own.total)
