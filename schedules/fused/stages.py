"""Opaque layers of element-wise operators, data movement and reductions, fused by Relax: schedules any TIR function of such stages."""

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

#: Values of loop variables.
Places = dict[Any, Expr]
#: Annotations of a buffer that LLVM keeps in registers, as in `Kernel.accumulators`.
_REGISTERS = {"disable_lower_builtin": True}
#: Most lanes of vectors that are transposed in square tiles: a larger square does not fit the registers.
MOST_TRANSPOSED = 8
#: Fewest elements of a stage that threads share.
LEAST_SHARED = 8192


class Stages(Template):
    """Accepts opaque layers whose functions consist of stages (`graph.stages`), of any types, on any number of threads.

    Element-wise operators are inlined. Each output is computed box by box, so that no element tests which part of a concatenation it is in;
    axes that are adjacent in all tensors are merged. Reductions are kept in registers.

    Knobs:
        vectors: vectors that are computed together.
    """

    name, version = "stages", 1

    def space(self, task: Task) -> Space | None:
        """Return the schedules for `task`, or `None`. `handles` does not matter: the function itself says what it needs."""
        layer = task.region[0]
        if len(task.region) > 1 or not isinstance(layer, Opaque) or not layer.staged:
            return None
        return self._space(task)

    def emit(self, task: Task, knobs: Knobs, source: Any = None) -> Any:
        """Return the kernel for the unscheduled TIR function `source`."""
        self._check(task, knobs)
        stages = stages_of(source)
        assert stages is not None, task.name
        return _Function(task, knobs["vectors"], source.params).of(stages)

    def _space(self, task: Task) -> Space:
        return Space(self.name, self.version, {"vectors": (1, 2, 4)}, lambda knobs: True, {"vectors": 2})

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return the logarithms of the numbers of elements of the output and the first input."""
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
    """A TIR function under construction, with flat buffers.

    Args:
        parameters: parameters of the unscheduled function.
    """

    def __init__(self, task: Task, vectors: int, parameters: Sequence[Any]) -> None:
        from tvm.script.ir_builder import IRBuilder
        from tvm.tirx.script import builder

        self.T, self.task, self.vectors, self._parameters = builder, task, vectors, parameters
        self._builder = IRBuilder()
        #: Flat buffers, by the buffer of the unscheduled function and by the flat buffer itself.
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
        """Emit the boxes of a stage, inside the loops over the outer dimensions that are not cut into boxes."""
        boxes = list(boxes_of(stage))
        uncut = next((place for place, spans in enumerate(zip(*boxes, strict=True)) if len({*spans}) > 1), 0)
        threads = threads if stage.elements >= LEAST_SHARED else 1
        number = getattr(self.T, stage.index_type)
        with ExitStack() as loops:
            outer_loops: dict[Any, _Axis] = {}
            for variable, extent in stage.places[:uncut]:
                place = loops.enter_context(_loop(self.T, number, extent, threads))
                outer_loops[variable], threads = _Axis(place, extent), 1 if extent > 1 else threads
            for box in boxes:
                _Box(self, stage, box, outer_loops, threads).emit()

    def _keep(self, old: Any, flat: Buffer) -> None:
        self.buffers |= {old: flat, flat: flat}


class _Box:
    """The loops over a box of a stage's tensor.

    Args:
        outer_loops: enclosing loops, by the stage's variable.
    """

    def __init__(self, function: _Function, stage: Stage, box: tuple[Span, ...], outer_loops: Mapping[Any, _Axis], threads: int) -> None:
        from tvm.sym.analyzer import Analyzer

        self.T, self.function, self.stage, self.threads, self.analyzer = function.T, function, stage, threads, Analyzer()
        self.output, self.number = function.buffers[stage.buffer], getattr(self.T, stage.index_type)
        at: dict[Any, Expr] = {}
        axes: tuple[list[_Axis], list[_Axis]] = ([], [])
        spans = (*box, *((0, extent) for _, extent in stage.over))
        for (old, _), (first, extent) in zip((*stage.places, *stage.over), spans, strict=True):
            at[old] = outer_loops[old].variable if old in outer_loops else self.number(first)
            if old in outer_loops:
                self._bind(outer_loops[old])
            elif extent > 1:
                axis = self._axis(extent)
                axes[len(at) > len(stage.places)].append(axis)
                at[old] = at[old] + axis.variable
            at[old] = at[old].astype(str(old.ty.dtype))
        self.value = self._flat(replaced(stage.value, at))
        self.target = self._place(stage.buffer, [at[old] for old, _ in stage.places])
        self.axes, self.over = map(self._merged, axes)

    def emit(self) -> None:
        """Emit all loops."""
        *outer, inner = self.axes or [self._axis(1)]
        columns = None if self.stage.join else self._columns_of_tiles(inner, outer)
        if columns:
            outermost = [axis for axis in outer if axis is not columns]
            with self._nest(outermost, self.threads) as at:
                self._across(columns, 1 if outermost else self.threads, lambda *part: self._tiles(inner, columns, at, *part))
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
        """Emit `count` vectors of an element-wise stage, from `start` on along an axis."""
        for number in range(count):
            with self._lane(lanes) as lane:
                here = {**at, axis.variable: start + number * lanes + lane}
                self.T.buffer_store(self.output, replaced(self.value, here), [replaced(self.target, here)])

    def _columns_of_tiles(self, rows: _Axis, outer: Sequence[_Axis]) -> _Axis | None:
        """Return an outer axis along which some loads are contiguous that are strided along the innermost axis, or `None`."""
        lanes = self._lanes(rows)
        if not 1 < lanes <= MOST_TRANSPOSED:
            return None
        return next((axis for axis in outer if self._lanes(axis) == lanes and self._interchanged(rows, axis)), None)

    def _interchanged(self, rows: _Axis, columns: _Axis) -> list[Any]:
        """Return the loads that are contiguous along `columns` but strided along `rows`."""
        strides = zip(loads_of(self.value), self._steps(rows)[1:], self._steps(columns)[1:], strict=True)
        return [load for load, row_stride, column_stride in strides if row_stride not in (0, 1) and column_stride == 1]

    def _tiles(self, rows: _Axis, columns: _Axis, at: Places, first: Expr, count: int, width: int) -> None:
        """Emit `count` vectors of columns in transposed squares, and element by element at the edges."""
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
        """Emit a square at corner `at`, whose interchanged loads are vectors along the columns that are transposed in registers."""
        transposed = []
        for load in self._interchanged(rows, columns):
            corners = ({**at, rows.variable: at[rows.variable] + row} for row in range(lanes))
            vectors = [load.source[self.T.Ramp(replaced(load.indices[0], corner), 1, lanes)] for corner in corners]
            transposed.append((load, self.T.alloc_buffer((lanes * lanes,), _kind(load), scope="local", annotations=_REGISTERS)))
            for column, vector in enumerate(_transposed(vectors, self.T.Shuffle)):
                self.T.buffer_store(transposed[-1][1], vector, [self.T.Ramp(self.number(column * lanes), 1, lanes)])
        for column in range(lanes):
            with self._lane(lanes) as lane:
                here = {**at, rows.variable: at[rows.variable] + lane, columns.variable: at[columns.variable] + column}
                values = [(load, buffer[column * lanes + lane]) for load, buffer in transposed]
                value = mapped_loads(self.value, partial(_replacement, values))
                self.T.buffer_store(self.output, replaced(value, here), [replaced(self.target, here)])

    def _columns(self, axis: _Axis, at: Places, start: Expr, count: int, lanes: int) -> None:
        """Emit `count` vectors of neighbouring results of a reduction, from `start` on along an axis."""
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
        """Emit one result of a reduction, over vectors of the elements that it reduces."""
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
        """Return a buffer in registers of `count` vectors of running results, filled with the reduction's initial value."""
        kind, first = _kind(self.value), self.stage.first
        results = self.T.alloc_buffer((count * lanes,), kind, scope="local", annotations=_REGISTERS)
        for number in range(count):
            with self._lane(lanes) as lane:
                self.T.buffer_store(results, first, [number * lanes + lane])
        return results

    def _add(self, results: Buffer, place: Expr, at: Places) -> None:
        self.T.buffer_store(results, self._join(results[place], replaced(self.value, at)), [place])

    def _join(self, left: Expr, right: Expr) -> Expr:
        from tvm import tirx

        return getattr(tirx, self.stage.join)(left, right)

    def _across(self, axis: _Axis, threads: int, body: Callable[[Expr, int, int], None]) -> None:
        """Emit loops over an axis in groups of vectors, then vectors, then elements, by calling `body(first index, vectors, lanes)`."""
        lanes = self._lanes(axis)
        for size, times, first in parts_of(axis.extent, lanes * (self.function.vectors if lanes > 1 else 1), lanes, 1):
            with self._loop(times, threads) as step:
                wide = min(lanes, size)
                body(first + step * size, size // wide, wide)

    @contextmanager
    def _nest(self, axes: Sequence[_Axis], threads: int = 1) -> Iterator[Places]:
        """Emit loops over axes; yield the values of their variables. Threads share the outermost loop."""
        if not axes:
            yield {}
            return
        first, *inner = axes
        with self._loop(first.extent, threads) as place, self._nest(inner) as at:
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
        """Tell the analyser the range of an axis's variable."""
        from tvm import ir, tirx

        if isinstance(axis.variable, tirx.Var):
            self.analyzer.bind(axis.variable, ir.Range.from_min_extent(self.number(0), self.number(axis.extent)))

    def _flat(self, value: Expr) -> Expr:
        """Return an expression whose loads are from flat buffers."""
        buffers = self.function.buffers
        return mapped_loads(self.analyzer.simplify(value), lambda load: buffers[load.source][self._place(load.source, load.indices)])

    def _place(self, buffer: Any, indices: Sequence[Expr]) -> Expr:
        """Return the index in the flat buffer of an element of `buffer`."""
        from tvm import tirx

        place = self.number(0)
        for extent, index in zip(shape_of(buffer), indices, strict=True):
            narrowed = isinstance(index, tirx.Cast) and str(index.value.ty.dtype) == self.stage.index_type
            place = place * extent + (index.value if narrowed else index.astype(self.stage.index_type))
        return self.analyzer.simplify(place)

    def _merged(self, axes: Sequence[_Axis]) -> list[_Axis]:
        """Merge each axis with the inner axes that are adjacent to it in all tensors."""
        merged: list[_Axis] = []
        for axis in reversed(axes):
            if merged:
                inner = merged[0]
                whole = self._axis(axis.extent * inner.extent)
                at = {axis.variable: whole.variable // inner.extent, inner.variable: whole.variable % inner.extent}
                value, target = self._simple(replaced(self.value, at)), self._simple(replaced(self.target, at))
                if _divisions(value) <= _divisions(self.value) and not _divisions(target):
                    self.value, self.target, merged[0] = value, target, whole
                    continue
            merged.insert(0, axis)
        return merged

    def _simple(self, value: Expr) -> Expr:
        """Return an expression of flat buffers, simplified together with the indices of its loads."""
        buffers = self.function.buffers
        return self.analyzer.simplify(mapped_loads(value, lambda load: buffers[load.source][self.analyzer.simplify(load.indices[0])]))

    def _lanes(self, axis: _Axis) -> int:
        """Return the lanes of a vector along an axis; 1 if elements have no constant stride there, or are too few."""
        lanes = max(1, self.function.task.machine.vector_bytes // max(map(_bytes, (self.value, *loads_of(self.value)))))
        return lanes if axis.extent >= lanes and None not in self._steps(axis) else 1

    def _is_dense(self, axis: _Axis) -> bool:
        """Return whether all tensors have stride 0 or 1 along an axis."""
        return {*self._steps(axis)} <= {0, 1}

    def _steps(self, axis: _Axis) -> list[int | None]:
        """Return the stride along an axis of the output and of each load; `None` where it varies."""
        from tvm import tirx

        at = {axis.variable: axis.variable + 1}
        places = (self.target, *(load.indices[0] for load in loads_of(self.value)))
        steps = (self.analyzer.simplify(replaced(place, at) - place) for place in places)
        return [int(step) if isinstance(step, tirx.IntImm) else None for step in steps]


@contextmanager
def _loop(T: Any, number: Callable[[int], Expr], count: int, threads: int) -> Iterator[Expr]:  # noqa: N803
    """Emit a loop, shared by threads, or only its body if it runs once; yield the iteration's index."""
    if count == 1:
        yield number(0)
    elif threads == 1:
        with T.serial(number(0), number(count)) as index:
            yield index
    else:
        with T.parallel(number(0), number(threads)) as thread, T.serial(*share(thread, threads, count)) as index:
            yield index


def _in_root(function: Any) -> Any:
    """Return a function whose body is a root block, which TVM expects of functions with at most one input and one output."""
    from tvm import s_tir, tirx

    return function.with_body(s_tir.SBlockRealize([], tirx.const(True), s_tir.SBlock([], [], [], "root", function.body)))


def _transposed(vectors: Sequence[Expr], shuffle: Callable[..., Expr]) -> list[Expr]:
    """Return the columns of a square of row vectors, whose number is a power of two, by log2 rounds of zipping its two halves."""
    lanes, half = len(vectors), len(vectors) // 2
    low, high = ([place for lane in range(first, first + half) for place in (lane, lane + lanes)] for first in (0, half))
    for _ in range(lanes.bit_length() - 1):
        pairs = zip(vectors[:half], vectors[half:], strict=True)
        vectors = [shuffle([*pair], order) for pair in pairs for order in (low, high)]
    return [*vectors]


def _replacement(values: Sequence[tuple[Any, Expr]], load: Any) -> Expr:
    """Return the value that replaces a load, or the load itself if there is none."""
    return next((value for old, value in values if old.same_as(load)), load)


def _divisions(value: Expr) -> int:
    from tvm import tirx
    from tvm_ffi import structural_walk

    divisions: list[Any] = []
    structural_walk(value, ((tirx.FloorDiv, tirx.FloorMod), divisions.append))
    return len(divisions)


def _kind(value: Expr) -> str:
    return str(value.ty.dtype)


def _bytes(value: Expr) -> int:
    import tvm

    return max(1, int(tvm.DataType(_kind(value)).bits) // 8)
