"""The comparison as a picture: each system's modelled time over the best peer's, one panel for each board and thread count."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peers.results import BenchmarkContext, PeerRow, best_peer, by_cell, ratio
from peers.systems import OURS
from tvmmobile.system.files import replacing

#: Distinct also without colour.
_MARKERS = "osD^vP*"
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#999999")  # Okabe and Ito's, which the colour-blind can tell apart
_OURS = "#d55e00"


def draw(context: BenchmarkContext, rows: Sequence[PeerRow], path: Path) -> None:
    """Write the picture as SVG, whole; the same rows give the same file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    places = list(dict.fromkeys((row.cell.board, row.cell.threads) for row in rows))
    widths = [max(3, len({row.cell for row in rows if (row.cell.board, row.cell.threads) == place})) for place in places]
    with matplotlib.rc_context({"svg.hashsalt": "tvmmobile", "svg.fonttype": "path", "font.size": 9}):
        size = (2.5 + 0.5 * sum(widths), 4.2)
        figure, panels = pyplot.subplots(1, len(places), figsize=size, squeeze=False, sharey=True, width_ratios=widths)
        for panel, (board, threads) in zip(panels[0], places, strict=True):
            members = [row for row in rows if (row.cell.board, row.cell.threads) == (board, threads)]
            _panel(panel, context, members)
            facts = context.boards[board]
            panel.set_title(f"{facts.board}, {threads} thread{'s' if threads > 1 else ''}", fontsize=9)
        panels[0][0].set_ylabel("modelled latency ÷ that of the best peer")
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=min(len(labels), 3 if size[0] < 9 else 6), frameon=False, fontsize=8)
        hashes = ", ".join(facts.timing_model for facts in context.boards.values())
        figure.suptitle(f"float32, batch 1; modelled, timing model {hashes}", fontsize=9)
        figure.tight_layout(rect=(0, 0.09, 1, 1))
        with replacing(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})
        pyplot.close(figure)


def _panel(panel: object, context: BenchmarkContext, rows: Sequence[PeerRow]) -> None:
    from matplotlib.axes import Axes

    assert isinstance(panel, Axes)
    cells = by_cell(rows)
    for number, (key, title) in enumerate(context.titles.items()):
        points = []
        for at, members in enumerate(cells.values()):
            best = best_peer(members)
            points += [(at, found) for row in members if row.system == key and (found := ratio(row, best)) is not None]
        colour = _OURS if key == OURS else _COLOURS[number % len(_COLOURS)]
        size = 45 if key == OURS else 25
        places = [at for at, _ in points]
        panel.scatter(places, [value for _, value in points], marker=_MARKERS[number % 7], color=colour, s=size, label=title, zorder=3)
    panel.axhline(1, color="#888888", linewidth=0.8)
    panel.set_xticks(range(len(cells)), [cell.variant for cell in cells], rotation=60, ha="right")
    panel.set_ylim(bottom=0)
    panel.set_xlim(-0.6, len(cells) - 0.4)
    panel.grid(axis="y", color="#dddddd", linewidth=0.6)
