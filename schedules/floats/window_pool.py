"""Max and average pools over windows: each tile of output pixels × a few channels loads its input window once."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array, LayerParameters, MaxPool, MeanPool, WindowPool
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.epilogue import Ends, Spot
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel
from tvmmobile.schedules.emit.window_nest import emit_windows, window_space, window_width
from tvmmobile.schedules.space import Knobs, Space, waste
from tvmmobile.schedules.template import PIECES, STORAGE, THREADS, Template, layer_of


@dataclass(frozen=True)
class PoolEnds(Ends):
    """Accumulators that all have the same initial value.

    Attributes:
        start: buffer of that value, shape (1,).
    """

    start: Buffer

    def begin(self, spot: Spot) -> Expr:
        """Return the initial value."""
        return self.kernel.splat(self.start[0], spot.lanes)


class WindowPooling(Template):
    """Accepts one pool of any window, stride and padding, NHWC, with one input tensor or pieces.

    Attributes:
        kind: class of the layer.
        constant: name of the kernel's only constant, the initial value of results. It is an argument because Relax checks whether a kernel
            with a single input is a reshape, and that check fails without TIR blocks.
        start: value of that constant.
        ends: class that initialises and finishes results.

    Knobs: those of `Depthwise`.
    """

    version = 1
    handles = PIECES | THREADS | STORAGE
    enough_trials = 16
    kind: type[MaxPool | MeanPool]
    constant: str
    start: float
    ends: type[PoolEnds] = PoolEnds

    def _space(self, task: Task) -> Space | None:
        layer = task.region[0]
        if not isinstance(layer, self.kind):
            return None
        return window_space(self.name, self.version, layer, task, constants=0, each=self.registers_each(task))

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return the size, window, stride, tile, loads per output, and the tile's waste at the edges."""
        layer = layer_of(task, WindowPool)
        kernel, stride = layer.kernel[0], layer.stride[0]
        outputs, window = knobs["rows"] * knobs["columns"], window_width(layer, knobs)
        return [
            math.log2(layer.out_height * layer.out_width),
            math.log2(layer.channels),
            kernel,
            stride,
            outputs,
            window * ((knobs["rows"] - 1) * stride + kernel) / outputs,
            waste(layer.out_height, knobs["rows"]),
            waste(layer.out_width, knobs["columns"]),
        ]

    def registers_each(self, task: Task) -> int:
        """Return the number of registers per vector of running results."""
        return 1

    @abstractmethod
    def combined(self, kernel: Kernel, so_far: Expr, value: Expr, lanes: int) -> Expr:
        """Return a running result combined with another value of the window."""

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layer, kernel = layer_of(task, WindowPool), Kernel(task)
        shapes = {**layer.side_shapes, self.constant: (1,)}
        with kernel.named_body(data=layer.input_shape, **shapes, output=layer.output_shape) as buffers:
            add = lambda so_far, value, _channel, _tap, lanes: self.combined(kernel, so_far, value, lanes)  # noqa: E731
            emit_windows(self.ends(kernel, buffers[self.constant]), add, layer, knobs, buffers, task.threads)
        return kernel.finish()

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return the initial value of results, shape (1,)."""
        return [np.array([self.start], task.precision.arithmetic.numpy)]


class WindowMax(WindowPooling):
    """Accepts one max pool."""

    name = "max_pool"
    kind = MaxPool
    constant, start = "least", -np.inf

    def combined(self, kernel: Kernel, so_far: Expr, value: Expr, lanes: int) -> Expr:
        """Return the larger value."""
        return kernel.T.max(so_far, value)


@dataclass(frozen=True)
class _MeanEnds(PoolEnds):
    """Sums that are divided by the number of values; they are totals, since half precision would soon overflow."""

    def accumulators(self, elements: int) -> Buffer:
        """Return a buffer of totals in registers."""
        return self.kernel.totals(elements)

    def begin(self, spot: Spot) -> Expr:
        """Return the initial value as a total."""
        return self.kernel.widened(super().begin(spot), spot.lanes)

    def finish(self, value: Expr, spot: Spot) -> Expr:
        """Return the mean."""
        totals = self.kernel.vectors_of_totals(spot.lanes)
        if isinstance(spot.taps, int):
            mean = value * totals.number(1 / spot.taps)
        else:
            mean = value / totals.cast(self.kernel.splat(spot.taps, spot.lanes))
        return self.kernel.narrowed(mean, spot.lanes)


class WindowMean(WindowPooling):
    """Accepts one average pool that does not count padding."""

    name = "mean_pool"
    kind = MeanPool
    constant, start = "nothing", 0.0
    ends = _MeanEnds

    def registers_each(self, task: Task) -> int:
        """Return the number of registers per vector of totals."""
        return task.precision.arithmetic.vectors_of_totals

    def combined(self, kernel: Kernel, so_far: Expr, value: Expr, lanes: int) -> Expr:
        """Return the sum."""
        return so_far + kernel.widened(value, lanes)
