"""The products of a chain: one step's rows, one after another."""

from __future__ import annotations

from tvmmobile.schedules.chain_place import Place
from tvmmobile.schedules.emit import Expr
from tvmmobile.schedules.matmul import Extent, MatmulTile, Panel, panels


def panel_width(channels: int, blocks: int, wanted: int, lanes: int) -> int:
    """Channels per panel: as wanted, or where channels come in blocks the most up to it that divide a block."""
    if blocks == 1:
        return wanted
    return next(width for width in range(wanted, 0, -lanes) if channels // blocks % width == 0)


def emit_product(place: Place) -> None:
    """All rows of a step that lie inside the image."""
    width = panel_width(place.layer.out_channels, place.knobs["blocks"], place.knobs["columns"], place.kernel.lanes)
    widths = panels(place.stage.channels, width, place.kernel.lanes)
    if place.knobs["order"] == 1:
        for panel in widths:
            with place.kernel.loop(panel.count) as index, place.kernel.loop(place.stage.rows.step) as row:
                _row(place, place.first_row + row, [(panel, 1, index)])
    else:
        with place.kernel.loop(place.stage.rows.step) as row:
            _row(place, place.first_row + row, [(panel, panel.count, 0) for panel in widths])


def _row(place: Place, row: Expr, widths: list[tuple[Panel, int, Expr]]) -> None:
    """One row: (panel, how many, number of the first one) for each kind of panel."""
    rows, layer = place.stage.rows, place.layer
    inside = [] if _always_inside(place) else [row >= 0, row < rows.size]
    with place.kernel.where(*inside):
        a, first_a = place.input(row)
        c, first_c = place.target(row)
        buffer, weights = place.weights
        tile, columns = place.tiles(place.knobs["rows"])
        matmul = MatmulTile(place.kernel, a, buffer, place.bias, c, place.kernel.lanes, layer.clamp)
        with columns as column:
            for panel, count, first in widths:
                with place.kernel.loop(count) as number:
                    index = place.moment.block * (place.stage.channels // panel.width) + first + number
                    at = weights + (panel.channel + index * panel.width) * layer.in_channels
                    part = Extent(0, layer.in_channels, True, True)
                    matmul.emit(first_a + column, first_c + column, tile, panel, index, part, at)


def _always_inside(place: Place) -> bool:
    rows = place.stage.rows
    return rows.offset == 0 and rows.lead == 0 and rows.size % rows.step == 0
