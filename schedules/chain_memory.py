"""What lies where in the scratch memory of a chain: rows between its layers, columns kept from part to part, and weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.chain_geometry import ChainAxis, Reader, axes
from tvmmobile.schedules.machine import round_up
from tvmmobile.schedules.space import Knobs

#: Bytes of a cache line, to which everything is aligned.
LINE_BYTES = 64


def readers(layers: Sequence[Conv2d], axis: int) -> list[Reader]:
    """How the layers read along rows (axis 0) or columns (1)."""
    sizes = [(layer.out_height, layer.out_width)[axis] for layer in layers]
    return [Reader(size, layer.kernel[axis], layer.stride[axis], layer.padding[axis]) for layer, size in zip(layers, sizes, strict=True)]


@dataclass(frozen=True)
class Stage:
    """One layer of a chain, and the buffer behind it.

    Attributes:
        rows, columns: its outputs, in steps and in parts.
        channels: of its output in one block of channels.
        buffer: first element of the buffer.
        kept: first element of the copies of each row's last columns, 0 where there are none; `kept_block` elements per block of channels.
        weights: first element of the copy of its weights; `None` where they are read in place.
    """

    layer: Conv2d
    rows: ChainAxis
    columns: ChainAxis
    channels: int
    buffer: int = 0
    kept: int = 0
    kept_block: int = 0
    weights: int | None = None

    @property
    def ring(self) -> int:
        """Rows of the buffer."""
        return self.rows.step + self.rows.halo

    @property
    def padded(self) -> bool:
        """Whether the next layer reads padding and rows of earlier steps, as a depthwise convolution does."""
        return self.rows.kernel > 1 or self.columns.kernel > 1

    @property
    def row(self) -> int:
        """Elements of a row of the buffer."""
        return self.columns.pitch * self.channels

    @property
    def kept_row(self) -> int:
        """Elements of a row's last columns that the next part reads."""
        return self.columns.halo * self.channels

    @property
    def weight_elements(self) -> int:
        """Weights of one block of channels."""
        return math.prod(self.layer.weight_shape) // self.layer.out_channels * self.channels


@dataclass(frozen=True)
class ChainMemory:
    """The stages of a chain and the elements of one thread's scratch memory."""

    stages: tuple[Stage, ...]
    elements: int

    @property
    def resident(self) -> int:
        """Elements that every step comes back to, and that should therefore stay in the first-level cache."""
        return sum(stage.ring * stage.row for stage in self.stages[:-1]) + sum(stage.weight_elements for stage in self.stages)


def arrange(layers: Sequence[Conv2d], knobs: Knobs, task: Task) -> ChainMemory:
    """Cut the layers' outputs as the knobs say and place what lies between them, one after another so that it cannot displace itself."""
    blocks, line = knobs["blocks"], LINE_BYTES // task.precision.bytes
    width = -(-layers[-1].out_width // knobs["parts"])
    dearest = max(range(len(layers)), key=lambda index: layers[index].macs)
    cut = zip(layers, axes(readers(layers, 0), knobs["strip"]), axes(readers(layers, 1), width, dearest), strict=True)
    stages = [Stage(layer, rows, columns, layer.out_channels // blocks) for layer, rows, columns in cut]
    end = 0
    for index, stage in enumerate(stages[:-1]):
        stages[index] = replace(stage, buffer=end)
        end += round_up(stage.ring * stage.row, line)
    if knobs["gather"]:
        for index, stage in enumerate(stages):
            stages[index] = replace(stage, weights=end)
            end += round_up(stage.weight_elements, line)
    for index, stage in enumerate(stages[:-1]):
        if stage.columns.pieces > 1 and stage.kept_row:
            rows = (-(-stage.rows.pieces // task.threads) + stages[0].rows.lead) * stage.rows.step
            block = round_up(rows * stage.kept_row, line)
            stages[index] = replace(stage, kept=end, kept_block=block)
            end += blocks * block
    return ChainMemory(tuple(stages), end)
