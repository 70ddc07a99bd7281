"""What a depthwise convolution reads from the buffer before it besides computed outputs: zeros, and columns of the part before."""

from __future__ import annotations

from tvmmobile.schedules.chain_place import Place
from tvmmobile.schedules.emit import Expr


def emit_borders(place: Place) -> None:
    """Complete the rows that a layer has written in a step: those outside the image are zeros altogether."""
    T, stage = place.kernel.T, place.stage  # noqa: N806
    with place.kernel.loop(stage.rows.step) as number:
        row = place.first_row + number
        start = T.bind(place.row_at(stage, row))
        with T.If(T.And(row >= 0, row < stage.rows.size)):
            with T.Then():
                _sides(place, row, start)
            with T.Else():
                _zeros(place, start, stage.row)


def _sides(place: Place, row: Expr, start: Expr) -> None:
    """Columns before and behind those that were computed."""
    stage, axis, part = place.stage, place.stage.columns, place.moment.part
    if axis.padding:
        with place.kernel.where(*([part == 0] if axis.pieces > 1 else [])):
            _zeros(place, start, axis.padding * stage.channels)
    for piece in range(axis.pieces):
        missing = axis.needed(piece) - axis.size
        if missing > 0:
            with place.kernel.where(*([part == piece] if axis.pieces > 1 else [])):
                _zeros(place, start + (axis.size - axis.base(piece)) * stage.channels, missing * stage.channels)
    if not stage.kept:
        return
    kept = stage.kept + place.moment.block * stage.kept_block
    kept = kept + (row - place.moment.first * stage.rows.step - stage.rows.offset) * stage.kept_row
    with place.kernel.where(part > 0):
        _copy(place, start, kept, stage.kept_row)
    with place.kernel.where(part < axis.pieces - 1):
        following = (part + 1) * axis.step + axis.offset - axis.halo
        _copy(place, kept, start + (following - place.base(axis)) * stage.channels, stage.kept_row)


def _zeros(place: Place, start: Expr, count: int) -> None:
    with place.kernel.loop(count // place.kernel.lanes) as index:
        place.kernel.store(place.scratch, place.kernel.splat(place.kernel.number(0)), start + index * place.kernel.lanes)


def _copy(place: Place, target: Expr, source: Expr, count: int) -> None:
    with place.kernel.loop(count // place.kernel.lanes) as index:
        place.kernel.store(
            place.scratch, place.kernel.load(place.scratch, source + index * place.kernel.lanes), target + index * place.kernel.lanes
        )
