"""The content of a report, computed once for all its formats: rows, the grid, sources of accuracy, the front, the fit, the notes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tvmmobile.results.file import Context, Results, VariantResult
from tvmmobile.results.report.fallback import fallback_lines, used_kernels
from tvmmobile.results.report.kernel_rows import far_off, kernel_table
from tvmmobile.results.report.law import Departure, PowerLaw, departures, fit_power_law
from tvmmobile.results.report.measured import is_measured
from tvmmobile.results.report.threads import thread_sentences
from tvmmobile.results.report.wording import UNKNOWN, clock, mebibytes, millions, percent, plural, scientific
from tvmmobile.results.report.zeros import zero_kernels, zero_sentences
from tvmmobile.running.formats import WORDS
from tvmmobile.system.errors import some_of


@dataclass(frozen=True)
class VariantRow:
    """Figures and notes of a variant, as every shape of report shows them.

    Attributes:
        index: its place in the report, from 0.
        peak_share: share of the core's FMA peak, 1 is all of it; `None` if the clock is unknown.
        source: number of its accuracy's source, from 1; `None` where no accuracy is known.
        on_front: no variant with accuracy of the same source is at least as fast and as accurate, and better in one.
        spread: interquartile range of the samples over their median; `None` with fewer than four.
        departure: departure from the α²ρ² law; `None` where there is nothing to compare with.
        series: its series in plots: those of one series differ in resolution alone. Named after α, and whatever is not the same in all
            rows: network, dtype, thread count, format.
    """

    index: int
    variant: VariantResult
    peak_share: float | None
    source: int | None
    on_front: bool
    spread: float | None
    departure: Departure | None = None
    series: str = ""

    @property
    def valid(self) -> bool:
        """True if the latency counts; other latencies are shown, and nothing is concluded from them."""
        return not self.variant.invalid


@dataclass(frozen=True)
class Grid:
    """Arranges latencies by α and resolution for one network, dtype, thread count and format.

    Attributes:
        title: e.g. `mobilenet_v1, float32, 1 thread, C library`.
        sides: the columns, largest first.
        lines: α and one row or `None` per column; largest α first.
    """

    title: str
    sides: tuple[str, ...]
    lines: tuple[tuple[float, tuple[VariantRow | None, ...]], ...]

    @property
    def rows(self) -> tuple[VariantRow, ...]:
        """The grid's rows, α by α."""
        return tuple(row for _, cells in self.lines for row in cells if row)

    def heat(self, row: VariantRow) -> float:
        """Return 0 for the fastest variant of the grid to 1 for the slowest, by the logarithm of latency."""
        low, high = min(_log_latency(each) for each in self.rows), max(_log_latency(each) for each in self.rows)
        return (_log_latency(row) - low) / (high - low) if high > low else 0.0


@dataclass(frozen=True)
class View:
    """Everything that a report shows.

    Attributes:
        rows: rows by network, then α and resolution, largest first.
        grids: one for each network, dtype, thread count and format.
        sources: sources of the accuracies; `VariantRow.source` counts them from 1.
        fit: latency against multiply-adds, `None` with too few variants.
        notes: meanings of the columns and their limits, one or two sentences each.
        remarks: remarks on these results in particular, a sentence each.
    """

    results: Results
    rows: tuple[VariantRow, ...]
    grids: tuple[Grid, ...]
    sources: tuple[str, ...]
    fit: PowerLaw | None
    notes: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    @property
    def context(self) -> Context:
        """The device, timing and versions that the numbers were obtained with."""
        return self.results.context

    @property
    def title(self) -> str:
        """The heading of the report."""
        models = ", ".join(dict.fromkeys(row.variant.model for row in self.rows))
        return f"{models} on {self.context.device}"

    @property
    def accuracy_note(self) -> str:
        """A description of top-1; "" where none is known."""
        published = "Top-1 is as published, not that of the weights timed here."
        measured = "Top-1 that was measured is that of the libraries timed here."
        kinds = dict.fromkeys(map(is_measured, self.sources))
        return " ".join(measured if kind else published for kind in sorted(kinds))

    @property
    def counted(self) -> bool:
        """True if core cycles and misses are known for some variant."""
        return any(row.variant.cycles is not None for row in self.rows)

    @property
    def sampled(self) -> bool:
        """True if some variant was timed more than once."""
        return any(len(row.variant.samples_us) > 1 for row in self.rows)

    def figures_of(self, row: VariantRow, decimals: int) -> list[str]:
        """Return the cells that tables share: costs, top-1 by source, share of the peak, memory, and the error with the given number of
        decimals.
        """
        variant = row.variant
        return [
            millions(variant.macs),
            millions(variant.parameters),
            *(f"{variant.top1:.1f}" if row.source == number else UNKNOWN for number in range(1, len(self.sources) + 1)),
            percent(row.peak_share),
            mebibytes(variant.peak_memory_bytes),
            scientific(variant.max_error, decimals),
        ]


def view_of(results: Results, remarks: Sequence[str] = ()) -> View:
    """Return what a report of `results`, at least one variant, shows; `remarks` are sentences to print besides."""
    groups: dict[tuple[str, str, int, str], list[VariantResult]] = {}
    for variant in results.variants:
        groups.setdefault(_group(variant), []).append(variant)
    ordered = [variant for group in groups.values() for variant in sorted(group, key=lambda one: (-one.alpha, -one.resolution))]
    sources = tuple(dict.fromkeys(_source(variant) for variant in ordered if variant.top1 is not None))
    front = {index for source in sources for index in _front(ordered, source)}
    words = {group: _words(group) for group in groups}
    differing = [place for place, values in enumerate(zip(*words.values(), strict=True)) if len(set(values)) > 1]
    departed = _departures(ordered, results.context)
    rows = tuple(
        VariantRow(
            index,
            variant,
            variant.peak_share(results.context),
            sources.index(_source(variant)) + 1 if variant.top1 is not None else None,
            index in front,
            variant.spread,
            departed.get(index),
            ", ".join([*(words[_group(variant)][place] for place in differing), f"α {variant.alpha}"]),
        )
        for index, variant in enumerate(ordered)
    )
    grids = tuple(_grid(", ".join(parts), [row for row in rows if _group(row.variant) == group]) for group, parts in words.items())
    valid = [row.variant for row in rows if row.valid]
    fit = fit_power_law([variant.macs for variant in valid], [variant.latency_us for variant in valid])
    spoiled = [f"{variant.name} is not valid: {variant.invalid}." for variant in ordered if variant.invalid]
    doubts = filter(None, [doubt_sentence(results)])
    sentences = (*remarks, *thread_sentences(results), *zero_sentences(results), *spoiled, *doubts)
    return View(results, rows, grids, sources, fit, _notes(results, sources), sentences)


def doubt_sentence(results: Results) -> str:
    """Name the kernels that took far more or less time within a network than their records say; "" for none."""
    doubted = {kernel.name: kernel for variant in results.variants for kernel in far_off(variant)}
    if not doubted:
        return ""
    each = [f"{name} {kernel.network_us:.1f} us, and its record says {kernel.latency_us:.1f}" for name, kernel in doubted.items()]
    return (
        f"{plural(len(doubted), 'kernel')} took more than twice or less than half of what {'its' if len(doubted) == 1 else 'their'} tuning "
        f"records say, within a network ({results.context.kind}): {some_of(each)}. tvmmobile tune measures such kernels again."
    )


def pareto_front(costs: Sequence[float], gains: Sequence[float]) -> list[int]:
    """Return the points that no other beats (no worse in cost and gain, better in one of them): indices by ascending cost."""
    order = sorted(range(len(costs)), key=lambda index: (costs[index], -gains[index]))
    front: list[int] = []
    for index in order:
        same = bool(front) and (costs[front[-1]], gains[front[-1]]) == (costs[index], gains[index])
        if not front or same or gains[index] > gains[front[-1]]:
            front.append(index)
    return front


def _group(variant: VariantResult) -> tuple[str, str, int, str]:
    return variant.model, variant.precision, variant.threads, variant.format


def _words(group: tuple[str, str, int, str]) -> tuple[str, ...]:
    """Describe a group in words."""
    model, dtype, threads, form = group
    return model, dtype, plural(threads, "thread"), WORDS.get(form, form)


def _source(variant: VariantResult) -> str:
    return variant.top1_source or "source not stated"


def _log_latency(row: VariantRow) -> float:
    return math.log(max(row.variant.latency_us, 1e-9))


def _front(variants: Sequence[VariantResult], source: str) -> list[int]:
    """Return the Pareto front of accuracies from one source and latencies that count."""
    indices = [
        index for index, variant in enumerate(variants) if variant.top1 is not None and _source(variant) == source and not variant.invalid
    ]
    gains = [variants[index].top1 or 0.0 for index in indices]
    return [indices[place] for place in pareto_front([variants[index].latency_us for index in indices], gains)]


def _departures(variants: Sequence[VariantResult], context: Context) -> dict[int, Departure]:
    """Return by index how variants depart from the law within their network, dtype, thread count and format; square images alone do."""
    found: dict[int, Departure] = {}
    for group in dict.fromkeys(map(_group, variants)):
        indices = [
            index for index, variant in enumerate(variants) if _group(variant) == group and not variant.invalid and not variant.input
        ]
        found |= dict(zip(indices, departures([variants[index] for index in indices], context), strict=False))
    return found


def _grid(title: str, rows: Sequence[VariantRow]) -> Grid:
    sides = dict.fromkeys(row.variant.side for row in sorted(rows, key=lambda row: -row.variant.resolution))
    alphas = sorted({row.variant.alpha for row in rows}, reverse=True)
    cells = {(row.variant.alpha, row.variant.side): row for row in rows}
    return Grid(title, tuple(sides), tuple((alpha, tuple(cells.get((alpha, side)) for side in sides)) for alpha in alphas))


def _beyond(variant: VariantResult, context: Context) -> set[str]:
    """Return the limits, `compute` and `memory`, that the network or a kernel of it is beyond."""
    rows = kernel_table(variant, context).rows
    above = (variant.peak_share(context) or 0.0) > 1 or any((row.peak_share or 0.0) > 1 for row in rows)
    found = {"memory"} if any(row.limit == "memory" and (row.limit_share or 0.0) > 1 for row in rows) else set()
    return found | {"compute"} if above else found


def _notes(results: Results, sources: tuple[str, ...]) -> tuple[str, ...]:
    context = results.context
    own = any(variant.network_sha256 for variant in results.variants)
    whence = "from the table of layers" + (", those of a network from a file in its graph" if own else "")
    notes = [f"Multiply-adds (MACs) of one image and parameters, batch norm and bias included, are counted {whence}."]
    if not all(map(is_measured, sources)):
        weights = "; ".join(dict.fromkeys(variant.weights for variant in results.variants))
        notes.append(f"Top-1 is the published accuracy of the network as its source trained it. The weights timed here: {weights}.")
    if any(map(is_measured, sources)):
        notes.append("Top-1 that was measured is that of the library, on images whose classes are known (tvmmobile evaluate).")
    peaks = " or ".join(f"{context.fma_lanes(dtype):g} {dtype}" for dtype in dict.fromkeys(variant.dtype for variant in results.variants))
    notes.append(
        "Share of FMA peak: multiply-adds over those the core could have done in that time, "
        f"{peaks} a cycle and thread at {clock(context.clock_hz)}."
    )
    beyond = {limit for variant in results.variants for limit in _beyond(variant, context)}
    if "compute" in beyond:
        sparse = ", and kernels that leave zeros out," if any(map(zero_kernels, results.variants)) else ""
        notes.append(
            f"Above 100 % of it: Strassen's and Winograd's algorithms{sparse} need fewer multiply-adds than are counted for a layer."
        )
    if "memory" in beyond:
        notes.append(
            "Above 100 % of what memory allows: the limit is for alternating reads and writes; a kernel that mostly reads may get more."
        )
    if context.kind == "modelled":
        notes.append("Core cycles exclude the cost of misses. DRAM: lines read from memory and written back to it.")
    emulator = "; on a virtual board the code that QEMU translated is part of it" if context.kind == "modelled" else ""
    notes.append(f"Peak memory: increase of the process's resident memory: library, weights, activations{emulator}.")
    judges = " or ".join(dict.fromkeys(variant.reference for variant in results.variants))
    notes.append(f"Max error: largest difference from the output of {judges}, relative to its largest magnitude.")
    return (*notes, *fallback_lines(used_kernels(results.variants)))
