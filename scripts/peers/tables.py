"""The comparison as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sharing import markdown_table

from peers.results import BenchmarkContext, BoardFacts, PeerRow, best_peer, by_cell, ratio
from peers.systems import OURS

#: Names of networks for people.
TITLES = {
    "mobilenet_v1": "MobileNet v1",
    "mobilenet_v2": "MobileNet v2",
    "mobilenet_v3_large": "MobileNet v3 Large",
    "mobilenet_v3_small": "MobileNet v3 Small",
}

_METHOD = """\
Every latency here is **modelled** on a virtual board; nothing was measured on hardware. Differences of a few percent between two systems
are within the model's error ([virtual-boards.md](virtual-boards.md)).

{networks}, float32, batch 1. All systems have the same weights: `scripts/export_models` converts our PyTorch model. Each system is a
Python program using the vendor's AArch64 wheel under QEMU. It runs the network once to warm up and once for the figures, from the
caller's NCHW array to an array of logits, and counts every copy and layout change; LiteRT takes NHWC, so its caller supplies NHWC. Ours
runs in TVM's Relax VM, and the copy of the input into TVM's tensor counts. A system whose output differs from PyTorch's by more than
1e-3 of the largest magnitude (ours: 1e-4) gets no figures.

`./scripts/bench_peers` wrote this page; {json} has the figures of every run.
"""
_COLUMNS = """\
*Core cycles* are those of the schedule behind the latency, with llvm-mca's own in parentheses. Cycles, instructions and misses are summed
over threads. *Error* is the largest difference from PyTorch's output, relative to its largest magnitude.
"""
_SPREAD = """\
Threads interleave differently in every run, so cells with several threads ran twice: the table has the mean, ± half the difference.
"""
_LEFT_OUT = """\
## Left out

ExecuTorch 1.5.1 has AArch64 wheels, but they depend on PyTorch's AArch64 wheel, which is built for CUDA (427 MB, plus the CUDA libraries).
Its CPU kernels are XNNPACK's, like LiteRT's. Real boards: none is registered yet.
"""


def markdown(context: BenchmarkContext, rows: Sequence[PeerRow], stem: str) -> str:
    """The whole document.

    Args:
        context: where and how the figures were got.
        rows: the figures, those of a cell beside each other.
        stem: of the JSON file and the plot beside it.
    """
    parts = [
        "# How fast, compared with others",
        "",
        _METHOD.format(json=f"[{stem}.json]({stem}.json)", networks=_networks(rows)),
        f"![Modelled latency]({stem}.svg)",
        "",
    ]
    for place in dict.fromkeys((row.cell.board, row.cell.threads) for row in rows):
        members = [row for row in rows if (row.cell.board, row.cell.threads) == place]
        parts += _section(context, context.boards[place[0]], place[1], members)
    parts += ["## Columns", "", _COLUMNS]
    if any(row.spread is not None for row in rows):
        parts += [_SPREAD]
    parts += [_LEFT_OUT, "## Versions", "", *_versions(context)]
    return "\n".join(parts) + "\n"


def _networks(rows: Sequence[PeerRow]) -> str:
    return ", ".join(TITLES.get(model, model) for model in dict.fromkeys(row.cell.model for row in rows))


def _section(context: BenchmarkContext, board: BoardFacts, threads: int, rows: Sequence[PeerRow]) -> Iterator[str]:
    keys = [key for key in context.titles if any(row.system == key for row in rows)]
    calibrated = "" if board.calibrated else ", uncalibrated: the core's time alone"
    yield f"## {board.board}, {board.cpu} at {board.clock_hz / 1e9:g} GHz, {threads} thread{'s' if threads > 1 else ''}"
    yield ""
    yield f"Modelled milliseconds (`{board.name}`, timing model `{board.timing_model}`{calibrated}):"
    yield ""
    compared = OURS in keys and len(keys) > 1
    latencies, details = [], []
    for cell, members in by_cell(rows).items():
        best = best_peer(members)
        found = {row.system: row for row in members}
        values = [_ms(found.get(key), best) for key in keys]
        ours = found.get(OURS)
        latencies.append([cell.variant, *values, *([_ratio(ratio(ours, best) if ours else None)] if compared else [])])
        details += [(cell.variant, _short(context.titles[row.system]), *_details(row, best)) for row in members]
    systems = [_short(context.titles[key]) for key in keys]
    yield from markdown_table(["variant", *systems, *(["ours ÷ best peer"] if compared else [])], latencies)
    yield ""
    yield from _remarks(rows)
    figures = "ms", "÷ best peer", "core cycles, M", "instructions, M", "L1D misses, M", "DRAM, MB", "error"
    yield from markdown_table(("variant", "system", *figures), details, 2)
    yield ""


def _details(row: PeerRow, best: PeerRow | None) -> list[str]:
    if not row.runs:
        return [f"failed: {row.failure}", *[""] * 6]
    cycles = f"{_millions(row.mean('core_cycles'))} ({_millions(row.mean('llvm_mca_cycles'))})"
    counts = [_millions(row.mean("instructions")), f"{row.mean('l1d_misses') / 1e6:.2f}", f"{row.mean('dram_bytes') / 1e6:.1f}"]
    return [_ms(row, None), _ratio(ratio(row, best)), cycles, *counts, f"{max(run.difference for run in row.runs):.0e}"]


def _remarks(rows: Sequence[PeerRow]) -> Iterator[str]:
    lacking = [row for row in rows if row.untuned and row.untuned[0]]
    if lacking:
        least, most = (sum(row.untuned[part] for row in lacking if row.untuned) for part in (0, 1))
        of = "a variant" if len(lacking) == 1 else f"{len(lacking)} variants"
        yield f"Ours is not fully tuned here: {least} of {most} kernels of {of} have no record for this timing model and thread count"
        yield "and were compiled with the nearest shape's schedule."
        yield ""


def _versions(context: BenchmarkContext) -> Iterator[str]:
    yield f"- {', '.join(context.titles.values())}"
    yield f"- {', '.join(f'{name} {version}' for name, version in context.versions.items())}"
    yield f"- tuning logs `{context.logs}`; {context.date}"
    if context.known:
        yield f"- peers' figures: an earlier comparison with the same versions; {context.known}"


def _ms(row: PeerRow | None, best: PeerRow | None) -> str:
    """A time with its spread; bold for the best peer."""
    if row is None:
        return "–"
    if row.modelled_ms is None:
        return "failed"
    text = f"{row.modelled_ms:.1f}" if row.modelled_ms >= 9.95 else f"{row.modelled_ms:.2f}"
    text += f" ± {row.spread / 2:.1%}".replace("%", " %") if row.spread is not None else ""
    return f"**{text}**" if best is not None and row == best else text


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _millions(value: float) -> str:
    return f"{value / 1e6:.1f}"


def _short(title: str) -> str:
    """A system's title without its version."""
    return "ours" if title.startswith("tvmmobile") else title.rsplit(" ", 1)[0]
