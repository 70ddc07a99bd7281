"""The loops of a chain: parts of columns, blocks of channels, steps of rows, and in each step every layer in turn."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.chain_borders import emit_borders
from tvmmobile.schedules.chain_depthwise import emit_depthwise
from tvmmobile.schedules.chain_image import emit_image
from tvmmobile.schedules.chain_memory import arrange
from tvmmobile.schedules.chain_place import Moment, Place
from tvmmobile.schedules.chain_product import emit_product
from tvmmobile.schedules.emit import Buffer, Expr, Kernel
from tvmmobile.schedules.space import Knobs


class ChainNest:
    """The whole kernel's loops. Threads share steps; each has rings of its own and begins with the rows that its first step needs."""

    def __init__(self, kernel: Kernel, layers: Sequence[Conv2d], knobs: Knobs, task: Task, buffers: Sequence[Buffer]) -> None:
        self.kernel, self.T, self.knobs, self.threads = kernel, kernel.T, knobs, task.threads
        self.data, *constants, self.output = buffers
        self.constants = list(zip(constants[::2], constants[1::2], strict=True))
        self.memory = arrange(layers, knobs, task)
        self.stages = self.memory.stages

    def emit(self) -> None:
        """The whole nest."""
        steps = self.stages[-1].rows.pieces
        if self.threads == 1:
            self._share(0, steps)
            return
        with self.T.parallel(0, self.threads) as thread:
            self._share(thread * steps // self.threads, (thread + 1) * steps // self.threads)

    def _share(self, begin: Expr, end: Expr) -> None:
        """Steps `begin` to `end`, after those that their halos need."""
        scratch = self.kernel.scratch(self.memory.elements)
        lead = self.stages[0].rows.lead
        with self.kernel.loop(self.stages[-1].columns.pieces) as part, self.kernel.loop(self.knobs["blocks"]) as block:
            if self.knobs["gather"]:
                self._gather(scratch, block)
            with self.T.serial(0, end - begin + lead) as count:
                # Bound to variables they are opaque to TVM's analysis of regions, which divides by zero over their expressions.
                step = self.T.bind(begin - lead + count)
                opaque = part if isinstance(part, int) else self.T.bind(part)
                moment = Moment(block, opaque, step, begin - lead)
                for index in range(len(self.stages)):
                    self._layer(index, scratch, moment, count)

    def _layer(self, index: int, scratch: Buffer, moment: Moment, count: Expr) -> None:
        """A layer in a step, unless no later one needs it there."""
        stage = self.stages[index]
        source = self.stages[index - 1] if index else None
        last = stage is self.stages[-1]
        build = partial(Place, self.kernel, self.knobs, stage, source, last, moment, self.data, self.output, scratch)
        place = build(*self.constants[index])
        late = self.stages[0].rows.lead - stage.rows.lead
        with self.kernel.where(*([count >= late] if late else [])):
            if stage.layer.is_depthwise:
                emit_depthwise(place)
            elif stage.layer.is_pointwise:
                emit_product(place)
            else:
                emit_image(place)
            if stage.padded:
                emit_borders(place)

    def _gather(self, scratch: Buffer, block: Expr) -> None:
        """Copy the weights of a block of channels next to what they are used with, where neither displaces the other."""
        for stage, (weight, _) in zip(self.stages, self.constants, strict=True):
            assert stage.weights is not None
            with self.T.serial(0, stage.weight_elements // self.kernel.lanes) as index:
                value = self.kernel.load(weight, block * stage.weight_elements + index * self.kernel.lanes)
                self.kernel.store(scratch, value, stage.weights + index * self.kernel.lanes)
