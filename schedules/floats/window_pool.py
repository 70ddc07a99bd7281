"""What pools of windows share: a window is read once per tile of output pixels, channel by channel."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from tvmmobile.graph.layers import MaxPool, MeanPool, WindowPool
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.epilogue import Ends
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel
from tvmmobile.schedules.emit.window_nest import emit_windows, window_space, window_width
from tvmmobile.schedules.space import Knobs, Space, waste
from tvmmobile.schedules.template import PIECES, STORAGE, THREADS, Template, layer_of


class WindowPooling(Template):
    """Takes one pool of any window, stride and padding, NHWC, its input in one tensor or in pieces.

    Attributes:
        kind: of the layer.
        constant: name of the kernel's only constant, a single number. (Relax checks whether a kernel of one argument is a reshape, and
            fails if it has no blocks.)

    Knobs: those of `Depthwise`.
    """

    handles = PIECES | THREADS | STORAGE
    enough_trials = 16
    kind: type[MaxPool | MeanPool]
    constant: str

    def _space(self, task: Task) -> Space | None:
        layer = task.region[0]
        if not isinstance(layer, self.kind):
            return None
        return window_space(self.name, self.version, layer, task, constants=0)

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Size, window, stride, tile, loads per output, and what the tile wastes at the edges."""
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

    def emitted(
        self,
        task: Task,
        knobs: Knobs,
        ends: Callable[[Kernel, Mapping[str, Buffer]], Ends],
        add: Callable[[Kernel, Expr, Expr], Expr],
    ) -> Any:
        """The kernel.

        Args:
            ends: of a kernel and its buffers, how results begin and end.
            add: of a kernel, a result so far and another value, the result with this one.
        """
        layer, kernel = layer_of(task, WindowPool), Kernel(task)
        shapes = {**layer.side_shapes, self.constant: (1,)}
        with kernel.named_body(data=layer.input_shape, **shapes, output=layer.output_shape) as buffers:
            more = lambda so_far, value, *_: add(kernel, so_far, value)  # noqa: E731
            emit_windows(ends(kernel, buffers), more, layer, knobs, buffers, task.threads)
        return kernel.finish()
