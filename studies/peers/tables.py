"""The comparison as Markdown: a page for all boards, and one for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from studies.peers.kernels import BFLOAT_PRODUCT, HALF_LANES, HALF_MAKERS, MAKERS, QUANTISERS
from studies.peers.results import FiguresOrigin, PeerComparison, PeerKernel, PeerRow, best_peer, by_cell, our_ratio, our_row, ratio
from studies.peers.shortcuts import section
from studies.peers.systems import OURS_KEYS, peer_tolerance
from studies.trained.networks import CALIBRATION, OWN, TESTED, TRAINED, USUAL
from tvmmobile.graph.precision import FLOAT32, precision_named
from tvmmobile.results.report.wording import plural
from tvmmobile.system.markdown import markdown_table

#: Names of networks for people.
TITLES = {
    "mobilenet_v1": "MobileNet v1",
    "mobilenet_v2": "MobileNet v2",
    "mobilenet_v3_large": "MobileNet v3 Large",
    "mobilenet_v3_small": "MobileNet v3 Small",
}

_METHOD = """\
Every latency here is **modelled** on a virtual board; nothing was measured on hardware. Differences of a few percent between two systems
are within the model's error ([virtual-boards.md](../../docs/virtual-boards.md)).

{networks}, {precision}, batch 1. All systems have the same weights: `./studies/run export_models` converts our PyTorch model. Each system
is a Python program using the vendor's AArch64 wheel under QEMU. It runs the network once to warm up and once for the figures, from the
caller's NCHW array to an array of logits, and counts every copy and layout change; LiteRT takes NHWC, so its caller supplies NHWC. A
system whose output differs from PyTorch's by more than {tolerances} gets no figures.

Ours runs in two forms from the same tuning logs. As a C library ([c-library.md](../../docs/c-library.md)) it is called through ctypes
and works on the caller's arrays, aligned to cache lines as it requires. In TVM's Relax VM the copy of the input into TVM's tensor counts.
*Ours ÷ best peer* is the C library's ratio, or the VM's where no C library was run; *ours, ms* names the form.

{more}`./studies/run bench_peers` wrote this page and the boards' own; {json} has the figures of every run. With
`--known FILE.json --boards NAME… --out studies/results` it adds or renews boards in a file and keeps the others.
"""
_OTHER_PRECISIONS = """\
Half precision (`--dtype float16`) is compared in [benchmarks-half.md](benchmarks-half.md) and, for later networks,
[benchmarks-half-later.md](benchmarks-half-later.md); int8 in [benchmarks-int8.md](benchmarks-int8.md) and
[benchmarks-int8-later.md](benchmarks-int8-later.md). These pages say how each library is set to it.

"""
_KERNELS = """\
A library chooses its kernels for the core it detects. On a virtual board it sees the board's own ID registers, caches, clocks and features
in `/proc/cpuinfo` and `/sys`. Of big and little cores it sees only one kind, as if the others were offline; otherwise XNNPACK would use
the tile of the big cores for both. HWCAP and the register MIDR_EL1 are those of QEMU's core: QEMU 7.2 has no Cortex-A55 and no Cortex-A73,
and runs their programs on its Cortex-A76 and Cortex-A72, which have the same instructions. None of the libraries below reads the register
if all cores are alike. The hottest kernel contains the block with the most core cycles; in a wheel without symbols, its loop identifies
the kernel. IREE and tvmmobile choose kernels when they compile for the board.
"""
_ASKED = """\
Each of the others runs in float32 and in half precision, and *best peer* is the fastest of all these: half precision is not always
faster. The caller's arrays are float32, and their conversion counts. Half precision is enabled as each library's documentation says;
weights are converted when the network is loaded. QEMU runs the programs on its Cortex-A76, which reports half precision in HWCAP. IREE is
left out. A hottest block that computes in half precision has `fmla` with eight lanes (`.8h`), one in bfloat16 `bfmmla`.
"""
_QUANTISED = """\
All networks are quantised from the same float32 weights with the same {data}: symmetric
weights per output channel, activations per tensor. The caller's arrays are float32, and their conversion counts. *Error* is relative to
PyTorch in float32, so it includes the error of quantisation. IREE is left out.
"""
_TRAINED = """\
Each network was trained from scratch for {steps} steps on pictures of drawn digits, of {first} and {second} pixels
(`studies/trained/networks.py`), with 1000 outputs as in other comparisons.
In PyTorch it then gets {top1} % of {tested} other pictures right, of the side that it runs with here. Its input is such a picture
too.{others}

"""
_NOISE = "inputs of noise, because the weights are generated"
_DIGITS = f"{CALIBRATION} pictures of digits"
_GIVEN = "inputs that came with its file"
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
Its CPU kernels are XNNPACK's, like LiteRT's. No real board has been compared yet.
"""


def pages(comparison: PeerComparison, stem: str) -> dict[str, str]:
    """Return all documents by their path beside the JSON file: `STEM.md` for all boards, `STEM/BOARD.md` for each."""
    found = {f"{stem}.md": _index(comparison, stem)}
    return found | {f"{stem}/{board}.md": _board_page(comparison, board, stem) for board in comparison.context.boards}


def _index(comparison: PeerComparison, stem: str) -> str:
    networks = ", ".join(TITLES.get(model, model) for model in dict.fromkeys(row.cell.model for row in comparison.rows))
    parts = [
        "# Latency compared with other libraries",
        "",
        _METHOD.format(json=f"[{stem}.json]({stem}.json)", networks=networks, **_placeholders(comparison, stem)),
        f"![Ours over the best other library, on each board]({stem}.svg)",
        "",
        "## Boards",
        "",
        *boards_table({stem: comparison}),
        "",
        "The last two columns are modelled milliseconds of the first network; each board's page has all networks and all libraries.",
        "",
        *_kernel_sections(comparison),
        _LEFT_OUT,
    ]
    return "\n".join(parts).rstrip() + "\n"


def _placeholders(comparison: PeerComparison, stem: str) -> dict[str, str]:
    """Describe the precision and the weights in words."""
    dtype = comparison.context.dtype
    peers, ours = (f"{bound:.0e}".replace("e-0", "e-") for bound in (peer_tolerance(dtype), precision_named(dtype).network_tolerance))
    more = "" if dtype != FLOAT32.name else _OTHER_PRECISIONS
    return {
        "more": (_trained(comparison, stem) if comparison.context.weights == TRAINED else "") + more,
        "precision": dtype,
        "tolerances": f"{peers} of the largest magnitude{f' (ours: {ours})' if ours != peers else ''}",
    }


def _trained(comparison: PeerComparison, stem: str) -> str:
    """Describe how networks were trained and how well; links the page with generated weights, named alike without `-trained`."""
    generated = stem.removesuffix(f"-{TRAINED}")
    others = f" [{generated}.md]({generated}.md) has generated weights." if generated != stem else ""
    right = sorted(set(comparison.context.top1.values()))
    top1 = " to ".join(f"{value:g}" for value in dict.fromkeys((right[0], right[-1]))) if right else "–"
    (first, _), (second, _) = USUAL.batches
    return _TRAINED.format(steps=USUAL.steps, first=first, second=second, top1=top1, tested=TESTED, others=others)


def boards_table(comparisons: Mapping[str, PeerComparison], folder: str = "") -> list[str]:
    """Return a line for each board and thread count of some comparisons, with links to the boards' pages.

    Args:
        comparisons: the comparisons, by the stem of their files.
        folder: folder of these, as links name it.
    """
    lines = [line for stem, comparison in comparisons.items() for line in _board_lines(comparison, f"{folder}{stem}")]
    headings = "board", "core", "first network", "threads", "networks", "ours ÷ best peer", "best peer, ms", "ours, ms"
    return markdown_table(headings, lines, 3)


def _board_lines(comparison: PeerComparison, pages: str) -> Iterator[list[object]]:
    for board, threads in dict.fromkeys((row.cell.board, row.cell.threads) for row in comparison.rows):
        facts, cells = comparison.context.boards[board], by_cell(comparison.rows_of(board, threads))
        ratios = [found for members in cells.values() if (found := our_ratio(members)) is not None]
        over = (f"{min(ratios):.2f} to {max(ratios):.2f}" if len(ratios) > 1 else f"{ratios[0]:.2f}") if ratios else "–"
        first, members = next(iter(cells.items()))
        best, ours = best_peer(members), our_row(members)
        titles = comparison.context.origin(board).titles
        peer, own = (f"{_short(titles[row.system])} {_ms(row, None)}".removeprefix("ours, ") if row else "–" for row in (best, ours))
        core = f"{facts.cpu} at {facts.clock_hz / 1e9:g} GHz{'' if facts.calibrated else ', uncalibrated'}"
        yield [f"[{facts.board}]({pages}/{board}.md)", core, first.variant, threads, len(cells), over, peer, own]


def _kernel_sections(comparison: PeerComparison) -> Iterator[str]:
    """Yield sections on how each peer decides on its kernels or is set to a precision, and on its hottest kernel on each core."""
    data = {TRAINED: _DIGITS, OWN: _GIVEN}.get(comparison.context.weights, _NOISE)
    asked, looks = ({key: choice.looks_at for key, choice in makers.items()} for makers in (HALF_MAKERS, MAKERS))
    half = "Half precision in the other libraries", _ASKED, "takes half precision from", "in 16 bits"
    yield from _section(comparison.kernels, asked, *half, _in_half)
    integers = "Integers in the other libraries", _QUANTISED.format(data=data), "quantised by", "its loop"
    yield from _section(comparison.kernels, QUANTISERS, *integers, _in_integers, 6)
    float32 = "Kernels of the other libraries", _KERNELS, "decides by", "as its makers intend"
    yield from _section(comparison.kernels, looks, *float32, _as_intended)


def _section(
    kernels: Sequence[PeerKernel],
    decided: Mapping[str, str],
    heading: str,
    introduction: str,
    how: str,
    column: str,
    facts: Callable[[PeerKernel], tuple[str, str]],
    texts: int = 5,
) -> Iterator[str]:
    """Yield one section, if it has a kernel; `facts` are a kernel's name and what stands in the `column` behind it."""
    chosen = [one for one in kernels if one.system in decided]
    if not chosen:
        return
    titles = {one.system: _short(one.title) for one in chosen}
    yield from (f"## {heading}", "", introduction)
    yield from markdown_table(("library", how), [(titles[key], text) for key, text in decided.items() if key in titles], 2)
    yield ""
    rows = [(one.cpu, titles[one.system], *facts(one), f"{one.board}, {one.variant}", f"{one.kernel.share * 100:.0f} %") for one in chosen]
    yield from markdown_table(("core", "library", "hottest kernel", column, "seen on", "share of core cycles"), rows, texts)
    yield ""


def _named(one: PeerKernel) -> str:
    return f"`{one.kernel.name or f'unknown: {one.kernel.loop}'}`"


def _in_half(one: PeerKernel) -> tuple[str, str]:
    return _named(one), "yes" if HALF_LANES in one.kernel.loop or BFLOAT_PRODUCT in one.kernel.loop else "no"


def _in_integers(one: PeerKernel) -> tuple[str, str]:
    return f"`{one.kernel.name}`" if one.kernel.name else "", one.kernel.loop


def _as_intended(one: PeerKernel) -> tuple[str, str]:
    wanted = MAKERS[one.system].kernel(one.cpu)
    return _named(one), "yes" if one.kernel.name == wanted else f"no, `{wanted}`"


def _board_page(comparison: PeerComparison, board: str, stem: str) -> str:
    context, facts = comparison.context, comparison.context.boards[board]
    origin, rows = context.origin(board), comparison.rows_of(board)
    counts = list(dict.fromkeys(row.cell.threads for row in rows))
    calibrated = "" if facts.calibrated else ", uncalibrated: the core's time alone"
    parts = [
        f"# {facts.board}, {facts.cpu} at {facts.clock_hz / 1e9:g} GHz, compared with other libraries",
        "",
        f"Everything here is **modelled** (`{board}`, timing model `{facts.timing_model}`{calibrated}).",
        f"[{stem}.md](../{stem}.md) explains the method and lists the other boards.",
        "",
        f"![Modelled latency]({board}.svg)",
        "",
    ]
    for threads in counts:
        parts += _latencies(origin, threads, comparison.rows_of(board, threads))
    parts += ["## Columns", "", _COLUMNS]
    if any(row.spread is not None for row in rows):
        parts += [_SPREAD]
    parts += section({row.cell.variant: row.shortcuts for row in rows if row.shortcuts})
    for threads in counts:
        parts += _all_figures(origin, threads, comparison.rows_of(board, threads))
    return "\n".join([*parts, "## Versions", "", *_versions(origin)]) + "\n"


def _latencies(origin: FiguresOrigin, threads: int, rows: Sequence[PeerRow]) -> Iterator[str]:
    """Yield milliseconds of all systems, a line for each network."""
    keys = [key for key in origin.titles if any(row.system == key for row in rows)]
    yield from (f"## {plural(threads, 'thread')}", "", "Modelled milliseconds:", "")
    compared = any(key in OURS_KEYS for key in keys) and any(key not in OURS_KEYS for key in keys)
    lines = []
    for cell, members in by_cell(rows).items():
        best, found = best_peer(members), {row.system: row for row in members}
        lines.append([cell.variant, *(_ms(found.get(key), best) for key in keys), *([_ratio(our_ratio(members))] if compared else [])])
    systems = [_short(origin.titles[key]) for key in keys]
    yield from markdown_table(["variant", *systems, *(["ours ÷ best peer"] if compared else [])], lines)
    yield ""
    yield from _remarks(rows)


def _all_figures(origin: FiguresOrigin, threads: int, rows: Sequence[PeerRow]) -> Iterator[str]:
    """Yield all figures of every system."""
    yield from (f"## All figures, {plural(threads, 'thread')}", "")
    figures = "ms", "÷ best peer", "core cycles, M", "instructions, M", "L1D misses, M", "DRAM, MB", "error"
    cells = by_cell(rows).items()
    lines = [
        (cell.variant, _short(origin.titles[row.system]), *_details(row, best_peer(members))) for cell, members in cells for row in members
    ]
    yield from markdown_table(("variant", "system", *figures), lines, 2)
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


def _versions(origin: FiguresOrigin) -> Iterator[str]:
    yield f"- {', '.join(origin.titles.values())}"
    yield f"- {', '.join(f'{name} {version}' for name, version in origin.versions.items())}"
    yield f"- tuning logs `{origin.logs}`; {origin.date}"
    if origin.known:
        yield f"- peers' figures: an earlier comparison with the same versions; {origin.known}"


def _ms(row: PeerRow | None, best: PeerRow | None) -> str:
    """Format a time with its spread; bold for the best peer."""
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
    """Return a system's title without its version."""
    if title.startswith("tvmmobile"):
        return "ours, C library" if "C library" in title else "ours, VM"
    return title.rsplit(" ", 1)[0]
