"""The plots of kernels: a variant's roofline, and bars of time beside multiply-adds by layer type for all variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tvmmobile.results.report.figures import FRAME, STYLES, Mark, Plot, PlotLine, ticks, x_axis, y_axis
from tvmmobile.results.report.kernel_rows import OTHER, KernelRow, KernelTable, KindRow, kind_rows
from tvmmobile.results.report.view import VariantRow, View
from tvmmobile.results.report.wording import label_of, percent

#: Number of layer types with their own style; the others share one.
_OWN_STYLES = STYLES - 1


@dataclass(frozen=True)
class BarPart:
    """A part of a bar: where it begins and how long it is, as shares of the whole bar."""

    start: float
    length: float
    style: int
    described: str


@dataclass(frozen=True)
class Bars:
    """The two bars of a variant."""

    row: VariantRow
    time: tuple[BarPart, ...]
    macs: tuple[BarPart, ...]


@dataclass(frozen=True)
class KindBars:
    """Time beside multiply-adds by layer type.

    Attributes:
        kinds: layer types and their styles, for the legend.
    """

    bars: tuple[Bars, ...]
    kinds: tuple[tuple[str, int], ...]


def kind_styles(view: View) -> dict[str, int]:
    """Return a style for each layer type in any variant: the same everywhere in a report, the types with most time first."""
    weights: dict[str, float] = {}
    for row in view.rows:
        for kind in kind_rows(row.variant):
            weights[kind.kind] = weights.get(kind.kind, 0.0) + (kind.time_share or 0.0)
    order = sorted((kind for kind in weights if kind != OTHER), key=lambda kind: -weights[kind])
    styles = {kind: min(place, _OWN_STYLES) for place, kind in enumerate(order)}
    return styles | ({OTHER: _OWN_STYLES} if OTHER in weights else {})


def kind_bars(view: View) -> KindBars | None:
    """Draw bars of every variant whose kernels' times and types are known; `None` without one."""
    styles = kind_styles(view)
    bars = []
    for row in view.rows:
        kinds = sorted(kind_rows(row.variant), key=lambda kind: list(styles).index(kind.kind))
        if kinds and any(kind.time_share for kind in kinds):
            time = _parts(kinds, [kind.time_share for kind in kinds], styles, f"of the time, {view.context.kind}")
            macs = _parts(kinds, [kind.macs_share for kind in kinds], styles, "of the multiply-adds")
            bars.append(Bars(row, time, macs))
    return KindBars(tuple(bars), _legend(styles)) if bars else None


def roofline_plot(view: View, row: VariantRow, table: KernelTable, styles: Mapping[str, int]) -> Plot | None:
    """Plot speed against operations per byte, with both roofs; `None` where bytes are not known. `styles` are from `kind_styles`."""
    shown = [line for line in table.rows if line.gflops is not None and line.intensity is not None]
    if not shown:
        return None
    context, roof = view.context, table.roof
    x = x_axis([line.intensity or 0.0 for line in shown] + ([roof.ridge] if roof.ridge else []))
    y = y_axis([line.gflops or 0.0 for line in shown] + ([roof.compute_gflops] if roof.compute_gflops else []))
    lines = []
    if roof.compute_gflops:
        level = tuple((value, y.at(roof.compute_gflops)) for value in (FRAME.left, FRAME.right))
        lines.append(PlotLine("floor", f"FMA peak, {roof.compute_gflops:.1f} GFLOP/s", level))
    if roof.memory_gb_per_s is not None and roof.ridge is not None:
        # Below the bottom of the plot it is invisible.
        left = max(x.low, y.low / roof.memory_gb_per_s)
        right = min(x.high, roof.ridge)
        if left < right:
            memory = ((x.at(left), y.at(left * roof.memory_gb_per_s)), (x.at(right), y.at(right * roof.memory_gb_per_s)))
            lines.append(PlotLine("fit", f"memory, {roof.memory_gb_per_s:.2g} GB/s", memory))
    marks = [
        Mark(x.at(line.intensity or 1.0), y.at(line.gflops or 1.0), styles[line.kernel.kind or OTHER], _described(line, context.kind))
        for line in shown
    ]
    used = {line.kernel.kind or OTHER for line in shown}
    hidden = sum(line.gflops is not None and line.moved_bytes == 0 for line in table.rows)
    moved = "bytes that memory gave and took" if table.moved == "dram" else "least bytes: input, weights and output once"
    remark = moved + (f"; {hidden} of {len(table.rows)} kernels moved none and are not shown" if hidden else "")
    return Plot(
        f"roofline-{row.index}",
        f"Roofline of {label_of(row.variant)}, {context.kind}",
        remark,
        "floating-point operations for each byte",
        f"GFLOP/s ({context.kind})",
        ticks(x),
        ticks(y),
        tuple(lines),
        tuple(marks),
        _legend({kind: style for kind, style in styles.items() if kind in used}),
    )


def _described(line: KernelRow, kind: str) -> str:
    limit = f"; {line.limit} limits it, {percent(line.limit_share)} % of what that allows" if line.limit else ""
    return f"{line.kernel.name}: {line.gflops:.2f} GFLOP/s {kind}, {line.intensity:.3g} operations a byte{limit}"


def _parts(kinds: Sequence[KindRow], shares: Sequence[float | None], styles: Mapping[str, int], what: str) -> tuple[BarPart, ...]:
    parts, start = [], 0.0
    for kind, share in zip(kinds, shares, strict=True):
        if share:
            parts.append(BarPart(start, share, styles[kind.kind], f"{kind.kind}: {percent(share)} % {what}"))
            start += share
    return tuple(parts)


def _legend(styles: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """Return the legend; types that share the last style share its entry."""
    names: dict[int, list[str]] = {}
    for kind, style in styles.items():
        names.setdefault(style, []).append(kind)
    return tuple((", ".join(members), style) for style, members in names.items())
