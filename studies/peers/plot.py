"""The comparison as pictures: ours over the best peer on all boards, and on each board each system's time over the best peer's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.peers.results import FiguresOrigin, PeerComparison, PeerRow, best_peer, by_cell, our_ratio, ratio
from studies.peers.systems import OURS, OURS_C
from tvmmobile.results.report.wording import plural
from tvmmobile.system.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Distinct also without colour.
_MARKERS = "osD^vX*"
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#999999")  # Okabe and Ito's, which the colour-blind can tell apart
_OWN = {OURS_C: ("#d55e00", "P"), OURS: ("#a63603", "x")}
_OTHERS = "other variants"
#: Most networks that marks on one line tell apart.
_MOST_MARKS = 20


def draw_boards(comparison: PeerComparison, path: Path) -> None:
    """Write the picture of all boards as SVG, whole; the same figures give the same file.

    A line for each board and thread count, a mark for each network where ours and a peer have a time. Where there are many on one board, a
    line for each network instead, the lowest ratio first.
    """
    places = list(dict.fromkeys((row.cell.board, row.cell.threads) for row in comparison.rows))
    if len(places) == 1 and len(by_cell(comparison.rows)) > _MOST_MARKS:
        _draw_networks(comparison, path)
        return
    with _figure(path, (8.0, 1.6 + 0.32 * len(places)), 1) as (figure, (panel,)):
        names, marks, boards = [], dict[str, list[tuple[float, int]]](), list(comparison.context.boards)
        for at, (board, threads) in enumerate(places):
            if boards.index(board) % 2:
                panel.axhspan(at - 0.5, at + 0.5, color="#f3f3f3", zorder=0)
            names.append(f"{comparison.context.boards[board].board}, {plural(threads, 'thread')}")
            for cell, members in by_cell(comparison.rows_of(board, threads)).items():
                found = our_ratio(members)
                if found is not None:
                    marks.setdefault(cell.variant if cell.on_diagonal else _OTHERS, []).append((found, at))
        for number, (label, points) in enumerate(sorted(marks.items(), key=lambda item: item[0] == _OTHERS)):
            other = label == _OTHERS
            style: dict[str, Any] = {
                "marker": "|" if other else _MARKERS[number % 7],
                "s": 40 if other else 36,
                "zorder": 2 if other else 3,
            }
            colour = "#888888" if other else _COLOURS[number % 5]
            panel.scatter([value for value, _ in points], [at for _, at in points], color=colour, label=label, **style)
        _finish_lines(panel, names, [value for points in marks.values() for value, _ in points])
        panel.set_title(f"{comparison.context.dtype}, batch 1; all modelled", fontsize=9)
        if marks:
            panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)
        figure.set_figheight(max(figure.get_figheight(), 0.6 + 0.2 * len(marks)))  # beside many networks' names
        figure.tight_layout()


def _draw_networks(comparison: PeerComparison, path: Path) -> None:
    """Draw the networks on the only board."""
    ratios = ((cell, our_ratio(members)) for cell, members in by_cell(comparison.rows).items())
    found = sorted((value, cell.variant) for cell, value in ratios if value is not None)
    [facts], [threads] = comparison.context.boards.values(), {row.cell.threads for row in comparison.rows}
    with _figure(path, (8.0, 1.2 + 0.17 * len(found)), 1) as (figure, (panel,)):
        panel.scatter([value for value, _ in found], range(len(found)), color=_COLOURS[0], s=20, zorder=3)
        _finish_lines(panel, [name for _, name in found], [value for value, _ in found])
        panel.tick_params(axis="y", labelsize=7)
        title = f"{facts.board}, {plural(threads, 'thread')}, {comparison.context.dtype}, batch 1; all modelled"
        panel.set_title(title, fontsize=9)
        figure.tight_layout()


def _finish_lines(panel: Axes, names: Sequence[str], values: Sequence[float]) -> None:
    """Names the lines of ratios and marks where the systems are equally fast."""
    panel.axvline(1, color="#888888", linewidth=0.8)
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.set_xlim(min([0.5, *values]) - 0.05, max([1.0, *values]) + 0.05)
    panel.grid(axis="x", color="#dddddd", linewidth=0.6)
    panel.set_xlabel("ours ÷ best other library, modelled latency: less is faster")


def draw_board(comparison: PeerComparison, board: str, path: Path) -> None:
    """Write the picture of one board as SVG, whole: a panel for each thread count."""
    facts, origin, rows = comparison.context.boards[board], comparison.context.origin(board), comparison.rows_of(board)
    counts = list(dict.fromkeys(row.cell.threads for row in rows))
    widths = [max(4, len(by_cell(comparison.rows_of(board, count)))) for count in counts]
    height = max([4.2, *(2.2 + 0.11 * len(row.cell.model) for row in rows)])  # networks' names are below
    with _figure(path, (max(6.5, 1.5 + 0.42 * sum(widths)), height), len(counts), widths) as (figure, panels):
        for panel, count in zip(panels, counts, strict=True):
            _panel(panel, origin, comparison.rows_of(board, count))
            panel.set_title(plural(count, "thread"), fontsize=9)
        if panels:
            panels[0].set_ylabel("latency ÷ best peer's")
            handles, labels = panels[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="lower center", ncols=3, frameon=False, fontsize=8)
        figure.suptitle(f"{facts.board}, {comparison.context.dtype}, batch 1; modelled, timing model {facts.timing_model}", fontsize=9)
        figure.tight_layout(rect=(0, 0.09, 1, 1))


@contextmanager
def _figure(path: Path, size: tuple[float, float], panels: int, widths: Sequence[int] | None = None) -> Iterator[tuple[Any, list[Axes]]]:
    """Open a figure with panels in a row; write the file when the body has drawn it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with matplotlib.rc_context({"svg.hashsalt": "tvmmobile", "svg.fonttype": "path", "font.size": 9}):
        figure, axes = pyplot.subplots(1, max(panels, 1), figsize=size, squeeze=False, sharey=True, width_ratios=widths or None)
        yield figure, list(axes[0])
        with replacing(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})
        pyplot.close(figure)


def _panel(panel: Axes, origin: FiguresOrigin, rows: Sequence[PeerRow]) -> None:
    cells = by_cell(rows)
    for number, (key, title) in enumerate(origin.titles.items()):
        points = []
        for at, members in enumerate(cells.values()):
            best = best_peer(members)
            points += [(at, found) for row in members if row.system == key and (found := ratio(row, best)) is not None]
        colour, marker = _OWN.get(key, (_COLOURS[number % len(_COLOURS)], _MARKERS[number % 7]))
        size = 45 if key in _OWN else 25
        places = [at for at, _ in points]
        panel.scatter(places, [value for _, value in points], marker=marker, color=colour, s=size, label=title, zorder=3)
    panel.axhline(1, color="#888888", linewidth=0.8)
    panel.set_xticks(range(len(cells)), [cell.variant.replace(" ", "\n") for cell in cells], rotation=60, ha="right")
    panel.set_ylim(bottom=0)
    panel.set_xlim(-0.6, len(cells) - 0.4)
    panel.grid(axis="y", color="#dddddd", linewidth=0.6)
