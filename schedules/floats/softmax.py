"""Softmax or log-softmax in three passes: the maximum along an axis, the sum of exp(x - maximum), the results."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array, LayerParameters, Softmax
from tvmmobile.graph.precision import FLOAT16, FLOAT32
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel, parts_of, share
from tvmmobile.schedules.emit.vectors import Vectors
from tvmmobile.schedules.space import Knobs, Space, round_up, up_to, waste
from tvmmobile.schedules.template import STORAGE, THREADS, Template, layer_of


class AxisSoftmax(Template):
    """Accepts one softmax or log-softmax over any axis. Threads share the positions outside the axis.

    Exponentials are computed in half precision if the layer reads and writes it, else in float32, and always added up in float32.

    Knobs:
        vectors: vectors of sums at a time: of neighbouring positions of the trailing axes, or one per row if the axis is the last.
    """

    name = "softmax"
    version = 1
    handles = THREADS | STORAGE | {"trailing", "logarithm"}
    enough_trials = 3

    def _space(self, task: Task) -> Space | None:
        layer = task.region[0]
        if not isinstance(layer, Softmax) or task.precision.total != FLOAT32.name:
            return None
        most = layer.before if layer.behind == 1 else layer.behind // task.lanes
        return Space(self.name, self.version, {"vectors": up_to((1, 2, 4), most)}, lambda knobs: True, {"vectors": 4})

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return extents, and the waste of the last step."""
        layer = layer_of(task, Softmax)
        places, step = (layer.before, 1) if layer.behind == 1 else (layer.behind, task.lanes)
        return [*map(math.log2, (layer.before, layer.channels, layer.behind)), waste(places, knobs["vectors"] * step)]

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layer, kernel, vectors = layer_of(task, Softmax), Kernel(task), knobs["vectors"]
        half = task.storage == (FLOAT16, FLOAT16) and not layer.logarithm
        shapes = {"data": layer.input_shape, "least": (1,), "output": layer.output_shape}
        with kernel.named_body(**shapes) as buffers, kernel.team(task.threads) as thread:
            if layer.behind == 1:
                weights = None if layer.logarithm else kernel.scratch(vectors * round_up(layer.channels, kernel.lanes), totals=not half)
                first, last = share(thread, task.threads, layer.before)
                steps = (last - first) // vectors
                with kernel.loop(steps) as step:
                    _Rows(kernel, layer, buffers, weights, half, first + step * vectors, vectors).emit()
                with kernel.span(first + steps * vectors, last) as row:
                    _Rows(kernel, layer, buffers, weights, half, row, 1).emit()
            else:
                weights = None if layer.logarithm else kernel.scratch(layer.channels * vectors * kernel.lanes, totals=not half)
                for size, panels, start in parts_of(layer.behind, vectors * kernel.lanes, kernel.lanes, 1):
                    lanes = min(size, kernel.lanes)
                    with kernel.span(*share(thread, task.threads, layer.before * panels)) as panel:
                        place = panel // panels * (layer.channels * layer.behind) + start + panel % panels * size
                        _Columns(kernel, layer, buffers, weights, half, place, lanes, size // lanes).emit()
        return kernel.finish()

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return -infinity, shape (1,).

        It is an argument because Relax checks whether a kernel with a single input is a reshape, and that check fails without TIR blocks.
        """
        return [np.array([-np.inf], task.precision.arithmetic.numpy)]


@dataclass(frozen=True)
class _Softmax:
    """The base class of `_Rows` and `_Columns`.

    Attributes:
        buffers: buffers by argument name.
        weights: scratch buffer for exponentials; `None` for a log-softmax, which needs only their sum.
        half: true if exponentials are in half precision.
    """

    kernel: Kernel
    layer: Softmax
    buffers: dict[str, Buffer]
    weights: Buffer | None
    half: bool

    def _vectors_of(self, lanes: int) -> Vectors:
        """Return the arithmetic of maxima and exponentials."""
        return self.kernel.vectors(lanes) if self.half else self.kernel.vectors_of_totals(lanes)

    def _maxima(self, vectors: int, lanes: int) -> Buffer:
        """Return vectors in registers for running maxima, filled with -infinity."""
        kernel, least = self.kernel, self.buffers["least"][0]
        maxima = kernel.accumulators(vectors * lanes) if self.half else kernel.totals(vectors * lanes)
        kernel.fill(maxima, least if self.half else kernel.widened(least, 1), vectors, lanes)
        return maxima

    def _loaded(self, index: Expr, lanes: int) -> Expr:
        """Return consecutive numbers of the input."""
        load = self.kernel.load if self.half else self.kernel.load_wide
        return load(self.buffers["data"], index, lanes)

    def _larger(self, buffer: Buffer, value: Expr, place: int, lanes: int) -> None:
        """Update a vector of running maxima with `value`."""
        kernel = self.kernel
        kernel.store(buffer, kernel.T.max(kernel.load(buffer, place, lanes), value), place, lanes)

    def _weigh(self, value: Expr, largest: Expr, lanes: int, place: Expr, sums: tuple[Buffer, int]) -> None:
        """Store a vector of `Vectors.scaled_exp`(value - largest), and add it to a sum."""
        kernel, (buffer, at) = self.kernel, sums
        weight = kernel.T.bind(self._vectors_of(lanes).scaled_exp(value - largest))
        if self.weights is not None:
            kernel.store(self.weights, weight, place, lanes)
        kernel.store(buffer, kernel.load(buffer, at, lanes) + kernel.widened(weight, lanes), at, lanes)

    def _closing(self, total: Expr, largest: Expr, sums: Buffer, place: int, lanes: int) -> Expr:
        """Return the reciprocal of a sum of exponentials, or for a log-softmax its logarithm, which the results subtract."""
        kernel, scale = self.kernel, self._vectors_of(lanes).share_scale
        total = kernel.vectors_of_totals(lanes).spoiled(total, kernel.widened(largest, lanes) if self.half else largest)
        if not self.layer.logarithm:
            reciprocal = kernel.splat(kernel.total(scale), lanes) / total
            return kernel.T.bind(kernel.narrowed(reciprocal, lanes) if self.half else reciprocal)
        # TVM expands a bound value at each use, and then fails on names bound inside it.
        kernel.store(sums, kernel.T.log(total), place, lanes)
        return kernel.T.bind(kernel.load(sums, place, lanes))

    def _share(self, weight: Expr, closing: Expr, lanes: int) -> Expr:
        """Return a vector of results: exponentials, which `_weigh` stored, by their sum."""
        kernel = self.kernel
        if not self.half:
            return kernel.narrowed(weight * closing, lanes)
        return weight * closing * kernel.splat(kernel.number(1 / self._vectors_of(lanes).share_scale), lanes)


@dataclass(frozen=True)
class _Rows(_Softmax):
    """Emits a few rows of a softmax over the last axis.

    Attributes:
        first, count: first row, and number of rows.
    """

    first: Expr
    count: int

    def emit(self) -> None:
        """Emit all passes."""
        kernel, bind, lanes = self.kernel, self.kernel.T.bind, self.kernel.lanes
        maxima = self._maxima(self.count, lanes)
        for row, start, have in self._vectors():
            self._larger(maxima, self._value(row, start, have), row * lanes, lanes)
        largest = [self._joined(maxima, row, kernel.T.max) for row in range(self.count)]
        sums = kernel.totals(self.count * lanes)
        kernel.fill(sums, kernel.total(0.0), self.count, lanes)
        for row, start, have in self._vectors():
            place = row * round_up(self.layer.channels, lanes) + start
            self._weigh(self._value(row, start, have), kernel.splat(largest[row]), lanes, place, (sums, row * lanes))
        totals = [self._joined(sums, row, lambda a, b: a + b) for row in range(self.count)]
        closing = [self._closing(totals[row], largest[row], sums, row * lanes, 1) for row in range(self.count)]
        for row, start, have in self._vectors():
            if self.weights is None:
                value = self._value(row, start, have) - kernel.splat(largest[row]) - kernel.splat(closing[row])
                value = kernel.narrowed(value, lanes)
            else:
                weight = kernel.load(self.weights, row * round_up(self.layer.channels, lanes) + start)
                value = self._share(weight, kernel.splat(closing[row]), lanes)
            kernel.store_part(self.buffers["output"], value if have == lanes else bind(value), self._place(row, start), have)

    def _vectors(self) -> Iterator[tuple[int, Expr, int]]:
        """Emit a loop over the vectors of all rows; yield (row, first channel, number of channels). The last vectors may be partial."""
        kernel, lanes = self.kernel, self.kernel.lanes
        whole, rest = divmod(self.layer.channels, lanes)
        if whole:
            with kernel.loop(whole) as step:
                for row in range(self.count):
                    yield row, step * lanes, lanes
        if rest:
            for row in range(self.count):
                yield row, whole * lanes, rest

    def _place(self, row: int, channel: Expr) -> Expr:
        return (self.first + row) * self.layer.channels + channel

    def _value(self, row: int, start: Expr, have: int) -> Expr:
        """Return a vector of a row, padded with -infinity, since all values of a masked row may be the smallest finite number."""
        kernel, place = self.kernel, self._place(row, start)
        if have == kernel.lanes:
            return kernel.T.bind(self._loaded(place, have))
        least = self.buffers["least"][0] if self.half else kernel.widened(self.buffers["least"][0], 1)
        elements = [self._loaded(place + lane, 1) if lane < have else least for lane in range(kernel.lanes)]
        return kernel.T.bind(kernel.T.Shuffle(elements, list(range(kernel.lanes))))

    def _joined(self, sums: Buffer, row: int, join: Any) -> Expr:
        """Return the reduction of a row's vector to a scalar."""
        lanes = self.kernel.lanes
        return self.kernel.T.bind(reduce(join, [self.kernel.load(sums, row * lanes + lane, 1) for lane in range(lanes)]))


@dataclass(frozen=True)
class _Columns(_Softmax):
    """Emits neighbouring positions of the trailing axes.

    Attributes:
        first: index of the first position in the first channel.
        lanes, count: lanes per vector, and number of vectors.
    """

    first: Expr
    lanes: int
    count: int

    def emit(self) -> None:
        """Emit all passes."""
        kernel, bind, lanes = self.kernel, self.kernel.T.bind, self.lanes
        places = range(0, self.count * lanes, lanes)
        largest, sums = self._maxima(self.count, lanes), kernel.totals(self.count * lanes)
        kernel.fill(sums, kernel.total(0.0), self.count, lanes)
        with kernel.loop(self.layer.channels) as channel:
            for place in places:
                self._larger(largest, self._value(channel, place), place, lanes)
        most = [bind(kernel.load(largest, place, lanes)) for place in places]
        with kernel.loop(self.layer.channels) as channel:
            for place, top in zip(places, most, strict=True):
                weight = channel * (self.count * lanes) + place
                self._weigh(self._value(channel, place), top, lanes, weight, (sums, place))
        closing = [self._closing(kernel.load(sums, place, lanes), top, sums, place, lanes) for place, top in zip(places, most, strict=True)]
        with kernel.loop(self.layer.channels) as channel:
            for place, top, last in zip(places, most, closing, strict=True):
                if self.weights is None:
                    value = kernel.narrowed(self._value(channel, place) - top - last, lanes)
                else:
                    value = self._share(kernel.load(self.weights, channel * (self.count * lanes) + place, lanes), last, lanes)
                kernel.store(self.buffers["output"], value, self._place(channel, place), lanes)

    def _place(self, channel: Expr, place: int) -> Expr:
        return self.first + channel * self.layer.behind + place

    def _value(self, channel: Expr, place: int) -> Expr:
        return self.kernel.T.bind(self._loaded(self._place(channel, place), self.lanes))
