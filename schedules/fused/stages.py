"""Operators that compute element by element, move elements, or join those along axes, fused by Relax: any function of such stages."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from tvmmobile.graph.expressions import shape_of
from tvmmobile.graph.layers import Array, LayerParameters, Opaque
from tvmmobile.graph.stages import Stage, loads_of, mapped_loads, replaced, stages_of
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.boxes import Span, boxes_of
from tvmmobile.schedules.emit.kernel import Buffer, Expr, parts_of, share
from tvmmobile.schedules.space import Knobs, Space
from tvmmobile.schedules.template import Template, layer_of

#: Values of the variables of loops.
Places = dict[Any, Expr]
#: Marks a buffer that LLVM keeps in registers, as `Kernel.accumulators`.
_REGISTERS = {"disable_lower_builtin": True}
#: Lanes of vectors that are turned in squares: a square of more does not fit the registers.
MOST_TURNED = 8
#: Fewer elements are not worth a thread.
LEAST_SHARED = 8192


class Stages(Template):
    """Takes opaque layers whose functions are stages (`graph.stages`), of any types, on any number of threads.

    Tensors between element-wise operators do not exist. Each output is computed box by box, so that no element asks which part of a
    concatenation it is; axes that follow each other in all tensors are one. Sums and extrema along axes are kept in registers.

    Knobs:
        vectors: vectors that are computed together.
    """

    name, version = "stages", 1

    def space(self, task: Task) -> Space | None:
        """Return the schedules for `task`; its needs are in the function itself."""
        layer = task.region[0]
        if len(task.region) > 1 or not isinstance(layer, Opaque) or not layer.staged:
            return None
        return self._space(task)

    def emit(self, task: Task, knobs: Knobs, source: Any = None) -> Any:
        """Return the kernel of the unscheduled function `source`."""
        self._check(task, knobs)
        found = stages_of(source)
        assert found is not None, task.name
        return _Function(task, knobs["vectors"], source.params).of(found)

    def _space(self, task: Task) -> Space:
        return Space(self.name, self.version, {"vectors": (1, 2, 4)}, lambda knobs: True, {"vectors": 2})

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return the elements of the output and of the first input."""
        layer = layer_of(task, Opaque)
        return [math.log2(1 + math.prod(shape)) for shape in (layer.output_shape, layer.input_shape)]

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        raise ValueError(f"{task.name} needs its function")

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        return []


@dataclass(frozen=True)
class _Axis:
    """A loop: its variable, which runs from 0, and its extent."""

    variable: Any
    extent: int


class _Function:
    """A function under construction, with flat buffers.

    Args:
        parameters: parameters of the function of the stages.
    """

    def __init__(self, task: Task, vectors: int, parameters: Sequence[Any]) -> None:
        from tvm.script.ir_builder import IRBuilder
        from tvm.tirx.script import builder

        self.T, self.task, self.vectors, self._parameters = builder, task, vectors, parameters
        self._builder = IRBuilder()
        #: By the variable of the old buffer, and by the flat one's own.
        self.buffers: dict[Any, Buffer] = {}

    def of(self, stages: Sequence[Stage]) -> Any:
        """Return the finished function."""
        symbol = self.task.symbol
        with self._builder, self.T.prim_func(is_private=False, s_tir=True):
            self.T.func_name(symbol)
            self.T.func_attr({"global_symbol": symbol, "tirx.noalias": True})
            arguments = [
                self.T.arg(f"argument{number}", self.T.Buffer(shape_of(old), str(old.ty.dtype)))
                for number, old in enumerate(self._parameters)
            ]
            for old, argument in zip(self._parameters, arguments, strict=True):
                self._keep(old, self.T.decl_buffer((math.prod(shape_of(old)),), str(old.ty.dtype), data=argument.data))
            for stage in stages[:-1]:
                self._keep(stage.buffer, self.T.alloc_buffer((math.prod(extent for _, extent in stage.places),), _kind(stage.value)))
            for stage in stages:
                self._compute(stage, self.task.threads)
        return _in_root(self._builder.get())

    def _compute(self, stage: Stage, threads: int) -> None:
        """Emit the boxes of a stage, inside the loops over outer dimensions that none of them cuts."""
        boxes = list(boxes_of(stage))
        uncut = next((place for place, spans in enumerate(zip(*boxes, strict=True)) if len({*spans}) > 1), 0)
        threads = threads if stage.elements >= LEAST_SHARED else 1
        number = getattr(self.T, stage.index_type)
        with ExitStack() as loops:
            given: dict[Any, _Axis] = {}
            for variable, extent in stage.places[:uncut]:
                place = loops.enter_context(_loop(self.T, number, extent, threads))
                given[variable], threads = _Axis(place, extent), 1 if extent > 1 else threads
            for box in boxes:
                _Box(self, stage, box, given, threads).emit()

    def _keep(self, old: Any, flat: Buffer) -> None:
        self.buffers |= {old: flat, flat: flat}


class _Box:
    """The loops over a box of a stage's tensor.

    Args:
        given: the values of variables that outer loops have.
    """

    def __init__(self, function: _Function, stage: Stage, box: tuple[Span, ...], given: Mapping[Any, _Axis], threads: int) -> None:
        from tvm.sym.analyzer import Analyzer

        self.T, self.function, self.stage, self.threads, self.analyzer = function.T, function, stage, threads, Analyzer()
        self.output, self.number = function.buffers[stage.buffer], getattr(self.T, stage.index_type)
        at: dict[Any, Expr] = {}
        axes: tuple[list[_Axis], list[_Axis]] = ([], [])
        spans = (*box, *((0, extent) for _, extent in stage.over))
        for (old, _), (first, extent) in zip((*stage.places, *stage.over), spans, strict=True):
            at[old] = given[old].variable if old in given else self.number(first)
            if old in given:
                self._bind(given[old])
            elif extent > 1:
                axis = self._axis(extent)
                axes[len(at) > len(stage.places)].append(axis)
                at[old] = at[old] + axis.variable
            at[old] = at[old].astype(str(old.ty.dtype))
        self.value = self._flat(replaced(stage.value, at))
        self.target = self._place(stage.buffer, [at[old] for old, _ in stage.places])
        self.axes, self.over = map(self._joined, axes)

    def emit(self) -> None:
        """Emit all loops."""
        *outer, inner = self.axes or [self._axis(1)]
        columns = None if self.stage.join else self._columns_of_tiles(inner, outer)
        if columns:
            others = [axis for axis in outer if axis is not columns]
            with self._nest(others, self.threads) as at:
                self._across(columns, 1 if others else self.threads, lambda *part: self._tiles(inner, columns, at, *part))
        elif not self.stage.join:
            with self._nest(outer, self.threads) as at:
                self._across(inner, 1 if outer else self.threads, lambda *part: self._elements(inner, at, *part))
        elif self._lanes(inner) > 1 and self._is_dense(inner):
            with self._nest(outer, self.threads) as at:
                self._across(inner, 1 if outer else self.threads, lambda *part: self._columns(inner, at, *part))
        else:
            with self._nest([*outer, inner], self.threads) as at:
                self._row(at)

    def _elements(self, axis: _Axis, at: Places, start: Expr, count: int, lanes: int) -> None:
        """Compute vectors element by element."""
        for number in range(count):
            with self._lane(lanes) as lane:
                here = {**at, axis.variable: start + number * lanes + lane}
                self.T.buffer_store(self.output, replaced(self.value, here), [replaced(self.target, here)])

    def _columns_of_tiles(self, rows: _Axis, outer: Sequence[_Axis]) -> _Axis | None:
        """Find an axis along which numbers lie together that lie apart along the innermost one."""
        lanes = self._lanes(rows)
        if not 1 < lanes <= MOST_TURNED:
            return None
        return next((axis for axis in outer if self._lanes(axis) == lanes and self._interchanged(rows, axis)), None)

    def _interchanged(self, rows: _Axis, columns: _Axis) -> list[Any]:
        """Loads that are vectors along an axis, but not along the innermost one."""
        both = zip(loads_of(self.value), self._steps(rows)[1:], self._steps(columns)[1:], strict=True)
        return [load for load, apart, together in both if apart not in (0, 1) and together == 1]

    def _tiles(self, rows: _Axis, columns: _Axis, at: Places, first: Expr, count: int, width: int) -> None:
        """Compute a few columns in squares, and element by element at the edges."""
        for left in (first + vector * width for vector in range(count)):

            def part(start: Expr, number: int, height: int, left: Expr = left) -> None:
                if height == width > 1:
                    for group in range(number):
                        self._square(rows, columns, {**at, rows.variable: start + group * height, columns.variable: left}, width)
                    return
                for column in range(width):
                    self._elements(rows, {**at, columns.variable: left + column}, start, number, height)

            self._across(rows, 1, part)

    def _square(self, rows: _Axis, columns: _Axis, at: Places, lanes: int) -> None:
        """Compute a square, some of whose loads are vectors along its columns; `at` is its corner."""
        held = []
        for load in self._interchanged(rows, columns):
            corners = ({**at, rows.variable: at[rows.variable] + row} for row in range(lanes))
            vectors = [load.source[self.T.Ramp(replaced(load.indices[0], corner), 1, lanes)] for corner in corners]
            held.append((load, self.T.alloc_buffer((lanes * lanes,), _kind(load), scope="local", annotations=_REGISTERS)))
            for column, vector in enumerate(_transposed(vectors, self.T.Shuffle)):
                self.T.buffer_store(held[-1][1], vector, [self.T.Ramp(self.number(column * lanes), 1, lanes)])
        for column in range(lanes):
            with self._lane(lanes) as lane:
                here = {**at, rows.variable: at[rows.variable] + lane, columns.variable: at[columns.variable] + column}
                places = [(load, buffer[column * lanes + lane]) for load, buffer in held]
                value = mapped_loads(self.value, partial(_instead, places))
                self.T.buffer_store(self.output, replaced(value, here), [replaced(self.target, here)])

    def _columns(self, axis: _Axis, at: Places, start: Expr, count: int, lanes: int) -> None:
        """Compute vectors of neighbouring results."""
        results = self._begun(count, lanes)
        with self._nest(self.over) as steps:
            for number in range(count):
                with self._lane(lanes) as lane:
                    self._add(results, number * lanes + lane, {**at, **steps, axis.variable: start + number * lanes + lane})
        for number in range(count):
            with self._lane(lanes) as lane:
                here = {**at, axis.variable: start + number * lanes + lane}
                self.T.buffer_store(self.output, results[number * lanes + lane], [replaced(self.target, here)])

    def _row(self, at: Places) -> None:
        """Compute one result, of vectors of neighbouring elements that it joins."""
        *outer, inner = self.over or [self._axis(1)]
        lanes = self._lanes(inner)
        vectors = min(self.function.vectors, inner.extent // lanes) if lanes > 1 else 1
        results = self._begun(vectors, lanes)

        def add(start: Expr, count: int, wide: int) -> None:
            for number in range(count):
                with self._lane(wide) as lane:
                    self._add(results, number * wide + lane, {**at, **steps, inner.variable: start + number * wide + lane})

        with self._nest(outer) as steps:
            self._across(inner, 1, add)
        total = results[0]
        for place in range(1, vectors * lanes):
            total = self._join(total, results[place])
        self.T.buffer_store(self.output, total, [replaced(self.target, at)])

    def _begun(self, count: int, lanes: int) -> Buffer:
        """Registers with what the join begins with; of further elements that are joined with these, the neutral one."""
        kind, first = _kind(self.value), self.stage.first
        results = self.T.alloc_buffer((count * lanes,), kind, scope="local", annotations=_REGISTERS)
        for number in range(count):
            with self._lane(lanes) as lane:
                self.T.buffer_store(results, first, [number * lanes + lane])
        return results

    def _add(self, results: Buffer, place: Expr, at: Places) -> None:
        self.T.buffer_store(results, self._join(results[place], replaced(self.value, at)), [place])

    def _join(self, one: Expr, other: Expr) -> Expr:
        from tvm import tirx

        return getattr(tirx, self.stage.join)(one, other)

    def _across(self, axis: _Axis, threads: int, body: Callable[[Expr, int, int], None]) -> None:
        """Emit an axis in groups of vectors, then vectors, then elements: `body` gets the first place, vectors and lanes."""
        lanes = self._lanes(axis)
        for size, times, first in parts_of(axis.extent, lanes * (self.function.vectors if lanes > 1 else 1), lanes, 1):
            with self._loop(times, threads) as step:
                wide = min(lanes, size)
                body(first + step * size, size // wide, wide)

    @contextmanager
    def _nest(self, axes: Sequence[_Axis], threads: int = 1) -> Iterator[Places]:
        """Emit loops over axes; yield their variables' values. Threads share the outermost."""
        if not axes:
            yield {}
            return
        first, *others = axes
        with self._loop(first.extent, threads) as place, self._nest(others) as at:
            yield {first.variable: place, **at}

    def _loop(self, count: int, threads: int = 1) -> AbstractContextManager[Expr]:
        return _loop(self.T, self.number, count, threads)

    @contextmanager
    def _lane(self, lanes: int) -> Iterator[Expr]:
        if lanes == 1:
            yield self.number(0)
            return
        with self.T.vectorized(self.number(0), self.number(lanes)) as lane:
            yield lane

    def _axis(self, extent: int) -> _Axis:
        from tvm import tirx

        axis = _Axis(tirx.Var("place", self.stage.index_type), extent)
        self._bind(axis)
        return axis

    def _bind(self, axis: _Axis) -> None:
        """Tell the analyser of an axis."""
        from tvm import ir, tirx

        if isinstance(axis.variable, tirx.Var):
            self.analyzer.bind(axis.variable, ir.Range.from_min_extent(self.number(0), self.number(axis.extent)))

    def _flat(self, value: Expr) -> Expr:
        """Return an expression with loads from flat buffers."""
        buffers = self.function.buffers
        return mapped_loads(self.analyzer.simplify(value), lambda load: buffers[load.source][self._place(load.source, load.indices)])

    def _place(self, buffer: Any, indices: Sequence[Expr]) -> Expr:
        """Return the index of an element in the flat buffer."""
        from tvm import tirx

        place = self.number(0)
        for extent, index in zip(shape_of(buffer), indices, strict=True):
            narrowed = isinstance(index, tirx.Cast) and str(index.value.ty.dtype) == self.stage.index_type
            place = place * extent + (index.value if narrowed else index.astype(self.stage.index_type))
        return self.analyzer.simplify(place)

    def _joined(self, axes: Sequence[_Axis]) -> list[_Axis]:
        """Return axes, each joined with those behind it that follow it in all tensors."""
        found: list[_Axis] = []
        for axis in reversed(axes):
            if found:
                inner = found[0]
                whole = self._axis(axis.extent * inner.extent)
                at = {axis.variable: whole.variable // inner.extent, inner.variable: whole.variable % inner.extent}
                value, target = self._simple(replaced(self.value, at)), self._simple(replaced(self.target, at))
                if _divisions(value) <= _divisions(self.value) and not _divisions(target):
                    self.value, self.target, found[0] = value, target, whole
                    continue
            found.insert(0, axis)
        return found

    def _simple(self, value: Expr) -> Expr:
        """Return an expression of flat buffers simplified, with the places that it reads."""
        buffers = self.function.buffers
        return self.analyzer.simplify(mapped_loads(value, lambda load: buffers[load.source][self.analyzer.simplify(load.indices[0])]))

    def _lanes(self, axis: _Axis) -> int:
        """Return the lanes of a vector along an axis; 1 if elements do not lie evenly there, or are too few."""
        lanes = max(1, self.function.task.machine.vector_bytes // max(map(_bytes, (self.value, *loads_of(self.value)))))
        return lanes if axis.extent >= lanes and None not in self._steps(axis) else 1

    def _is_dense(self, axis: _Axis) -> bool:
        """Return whether neighbours along an axis are neighbours, or the same, in all tensors that are read."""
        return {*self._steps(axis)} <= {0, 1}

    def _steps(self, axis: _Axis) -> list[int | None]:
        """Return the distance of neighbours along an axis in each tensor; `None` where it varies."""
        from tvm import tirx

        at = {axis.variable: axis.variable + 1}
        places = (self.target, *(load.indices[0] for load in loads_of(self.value)))
        steps = (self.analyzer.simplify(replaced(place, at) - place) for place in places)
        return [int(step) if isinstance(step, tirx.IntImm) else None for step in steps]


@contextmanager
def _loop(T: Any, number: Callable[[int], Expr], count: int, threads: int) -> Iterator[Expr]:  # noqa: N803
    """Emit a loop, which threads share, unless it would run once; yield the iteration's number."""
    if count == 1:
        yield number(0)
    elif threads == 1:
        with T.serial(number(0), number(count)) as index:
            yield index
    else:
        with T.parallel(number(0), number(threads)) as thread, T.serial(*share(thread, threads, count)) as index:
            yield index


def _in_root(function: Any) -> Any:
    """Return a function whose body is a block, which TVM expects of one with no more than an input and an output."""
    from tvm import s_tir, tirx

    return function.with_body(s_tir.SBlockRealize([], tirx.const(True), s_tir.SBlock([], [], [], "root", function.body)))


def _transposed(vectors: Sequence[Expr], shuffle: Callable[..., Expr]) -> list[Expr]:
    """Return the columns of a square of rows, whose number is a power of two: as often as two halve it, the lanes of its halves in turn."""
    lanes, half = len(vectors), len(vectors) // 2
    low, high = ([place for lane in range(first, first + half) for place in (lane, lane + lanes)] for first in (0, half))
    for _ in range(lanes.bit_length() - 1):
        pairs = zip(vectors[:half], vectors[half:], strict=True)
        vectors = [shuffle([*pair], order) for pair in pairs for order in (low, high)]
    return [*vectors]


def _instead(places: Sequence[tuple[Any, Expr]], load: Any) -> Expr:
    """Return the expression in place of a load, if there is one."""
    return next((other for old, other in places if old.same_as(load)), load)


def _divisions(value: Expr) -> int:
    from tvm import tirx
    from tvm_ffi import structural_walk

    found: list[Any] = []
    structural_walk(value, ((tirx.FloorDiv, tirx.FloorMod), found.append))
    return len(found)


def _kind(value: Expr) -> str:
    return str(value.ty.dtype)


def _bytes(value: Expr) -> int:
    import tvm

    return max(1, int(tvm.DataType(_kind(value)).bits) // 8)
