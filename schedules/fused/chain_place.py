"""One layer of a chain in one step of one part: the indices of its inputs and outputs, and loops over its columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from tvmmobile.graph.layers import Conv2d
from tvmmobile.schedules.emit.activations import Activation, input_of, output_of
from tvmmobile.schedules.emit.epilogue import Epilogue, Spot
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel
from tvmmobile.schedules.emit.tiles import Taps, cut, taps_along
from tvmmobile.schedules.fused.chain_memory import ChainAxis, ChainStage, tile_for
from tvmmobile.schedules.space import Knobs


@dataclass(frozen=True)
class LoopPosition:
    """The values of the loop variables.

    Attributes:
        block, part, step: indices of the channel block, of the part of columns and of the step of rows; leading steps are negative.
        first: first step of the thread.
    """

    block: Expr
    part: Expr
    step: Expr
    first: Expr


@dataclass(frozen=True)
class Place:
    """One layer in one step.

    Attributes:
        stage, source: stage of the layer, and stage of the layer before it (`None` for the first layer).
        last: true for the region's last layer.
        data, output, scratch: buffers of the region's input, of its output, and of everything in between.
        weight: buffer of the layer's packed weights.
        epilogue: epilogue of the layer.
    """

    kernel: Kernel
    knobs: Knobs
    stage: ChainStage
    source: ChainStage | None
    last: bool
    moment: LoopPosition
    data: Buffer
    output: Buffer
    scratch: Buffer
    weight: Buffer
    epilogue: Epilogue

    @property
    def layer(self) -> Conv2d:
        """The layer itself."""
        return self.stage.layer

    @property
    def first_channel(self) -> Expr:
        """First output channel of the block."""
        return self.moment.block * self.stage.channels

    @property
    def first_row(self) -> Expr:
        """First output row of the step; rows of the step may lie outside the image."""
        return self.row_in_step(self.stage)

    @property
    def weights(self) -> tuple[Buffer, Expr]:
        """The buffer of the weights, and the index where those of channel 0 are, or would be if the block contained it."""
        if self.stage.weights is None:
            return self.weight, 0
        return self.scratch, self.stage.weights - self.moment.block * self.stage.weight_elements

    def row_in_step(self, stage: ChainStage) -> Expr:
        """Return the first output row of the step in a stage."""
        return self.moment.step * stage.rows.step + stage.rows.offset

    def input(self, row: Expr) -> tuple[Activation, Expr]:
        """Return the activation that holds an input row, and the pixel of its column 0 there."""
        if self.source is None:
            return input_of(self.layer, {"data": self.data})[0], row * self.layer.width
        return self._buffered(self.source, row, 0), 0

    def target(self, row: Expr) -> tuple[Activation, Expr]:
        """Return the activation that holds an output row (channels counted over all blocks), and the pixel of its column 0 there."""
        if self.last:
            return output_of(self.layer, self.output), row * self.layer.out_width
        return self._buffered(self.stage, row, self.first_channel), 0

    def spot(self, target: Expr, row: Expr, column: Expr, channel: Expr) -> Spot:
        """Return the spot of an output vector that is stored at `target`."""
        T = self.kernel.T  # noqa: N806
        # Rows of a step may lie outside the image, where they are never read.
        place = lambda tensor: tensor.at(T.max(T.min(row, self.layer.out_height - 1), 0) * self.layer.out_width + column, channel)  # noqa: E731
        return Spot(channel, target, place, self.kernel.lanes, self.kernel.lanes)

    def _buffered(self, stage: ChainStage, row: Expr, first_channel: Expr) -> Activation:
        origin = self.kernel.T.bind(self.row_at(stage, row) - self.base(stage.columns) * stage.channels - first_channel)
        return Activation(self.scratch, stage.columns.pitch, stage.channels, stage.channels, origin)

    def row_at(self, stage: ChainStage, row: Expr) -> Expr:
        """Return the index in the scratch memory of a row of a stage's buffer; the row may be negative."""
        if not stage.padded:
            return stage.buffer + (row - self.row_in_step(stage)) * stage.row
        T = self.kernel.T  # noqa: N806
        lowest = stage.ring + (stage.rows.lead + 1) * stage.rows.step
        return stage.buffer + T.truncmod(row + (lowest // stage.ring + 1) * stage.ring, T.int32(stage.ring)) * stage.row

    # Columns of the part.

    def begin(self, axis: ChainAxis) -> Expr:
        """Return `ChainAxis.begin` for the part, as an expression."""
        T, part = self.kernel.T, self.moment.part  # noqa: N806
        if isinstance(part, int):
            return axis.begin(part)
        begin = part * axis.step + axis.offset
        if axis.offset > 0:
            begin = T.Select(part == 0, T.int32(0), begin)
        elif axis.offset < 0:
            begin = T.max(begin, T.int32(0))
        return T.min(begin, T.int32(axis.size)) if (axis.pieces - 1) * axis.step + axis.offset > axis.size else begin

    def end(self, axis: ChainAxis) -> Expr:
        """Return `ChainAxis.end` for the part, as an expression."""
        T, part = self.kernel.T, self.moment.part  # noqa: N806
        if isinstance(part, int):
            return axis.end(part)
        end = (part + 1) * axis.step + axis.offset
        if axis.pieces * axis.step + axis.offset < axis.size:
            end = T.Select(part == axis.pieces - 1, T.int32(axis.size), end)
        elif axis.pieces * axis.step + axis.offset > axis.size:
            end = T.min(end, T.int32(axis.size))
        return T.max(end, T.int32(0)) if axis.step + axis.offset < 0 else end

    def base(self, axis: ChainAxis) -> Expr:
        """Return `ChainAxis.base` for the part, as an expression."""
        part = self.moment.part
        if isinstance(part, int):
            return axis.base(part)
        base = part * axis.step + axis.offset - axis.halo
        if axis.offset - axis.halo == -axis.padding:
            return base
        return self.kernel.T.Select(part == 0, self.kernel.T.int32(-axis.padding), base)

    def tiles(self, wanted: int) -> tuple[int, AbstractContextManager[Expr]]:
        """Return a tile's length and a loop over the part's tiles, for layers whose columns all need the same taps."""
        axis = self.stage.columns
        tile = tile_for(axis, wanted)
        return tile, self._tiles(self.begin(axis), self.end(axis), tile, axis.lengths)

    def bordered_tiles(self, wanted: int) -> Iterator[tuple[Taps, Callable[[], AbstractContextManager[Expr]]]]:
        """Yield (taps of a tile, loop over tiles with these taps) for the left border, the right border and the middle."""
        axis, T = self.stage.columns, self.kernel.T  # noqa: N806
        taps = taps_along(self.layer, 1)
        if axis.pieces == 1:
            for run in cut(taps, min(wanted, axis.size)):
                yield run.taps, lambda run=run: self.kernel.tiles(run)  # type: ignore[misc]
            return
        tile = tile_for(axis, wanted, borders=True)
        full = (0, self.layer.kernel[1])
        left, right = (any(tap != full for tap in side) for side in (taps[:tile], taps[-tile:]))
        # The last parts may have no columns.
        final = sum(length > 0 for length in axis.lengths) - 1
        is_first, is_final = self.moment.part == 0, self.moment.part == final
        begin, end, lengths = self.begin(axis), self.end(axis), axis.lengths
        if left:
            yield tuple(taps[:tile]), lambda: self._only(is_first, 0)
            begin, lengths[0] = begin + T.Select(is_first, T.int32(tile), T.int32(0)), lengths[0] - tile
        if right:
            yield tuple(taps[-tile:]), lambda: self._only(is_final, axis.size - tile)
            end, lengths[final] = end - T.Select(is_final, T.int32(tile), T.int32(0)), lengths[final] - tile
        yield (full,) * tile, lambda: self._tiles(begin, end, tile, lengths)

    @contextmanager
    def _tiles(self, begin: Expr, end: Expr, tile: int, lengths: list[int]) -> Iterator[Expr]:
        """Emit a loop over tiles from `begin` to `end`; the last tile overlaps with the one before it if tiles do not divide the length.

        Args:
            lengths: `end - begin` in each part.
        """
        T = self.kernel.T  # noqa: N806
        exact = all(length % tile == 0 for length in lengths)
        counts = {-(-max(length, 0) // tile) for length in lengths}
        count = counts.pop() if len(counts) == 1 else T.bind(T.truncdiv(end - begin + (tile - 1), T.int32(tile)))
        with self.kernel.loop(count) as index:
            start = begin + index * tile
            yield start if exact else T.min(start, end - tile)

    @contextmanager
    def _only(self, condition: Expr, start: int) -> Iterator[Expr]:
        with self.kernel.where(condition):
            yield start
