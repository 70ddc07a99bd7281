"""The tables of `tvmmobile models`. All fit 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from tvmmobile.networks.models.costs import ModelCost
from tvmmobile.networks.models.published import NOTES, PAPER, REMARKS, Published, figures, paper_type_shares
from tvmmobile.networks.models.registry import FAMILIES
from tvmmobile.networks.models.separable import ConvShape, reduction, ways
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.system.console import output, table_of
from tvmmobile.system.errors import UserError

if TYPE_CHECKING:
    from tvmmobile.results.file import Context, VariantResult

UNKNOWN = "–"
_COUNTED = (
    "Counted: million multiply-adds (MACs) of one image, those of squeeze-and-excite included; "
    "million parameters, with batch norm and bias."
)
#: Sources with a column in a table of variants.
_MOST_SOURCES = 2
#: Columns of latencies that fit into 80 characters.
_MOST_COLUMNS = 2

_Key = tuple[str, float, int]


@dataclass(frozen=True)
class Column:
    """Latencies of variants, all of the same origin, precision and format; `mark` tells it from other columns, such as ` [a]`, "" for the
    only one.
    """

    context: Context
    dtype: str
    format: str
    variants: Mapping[_Key, VariantResult]
    mark: str

    @property
    def heading(self) -> str:
        """The column's heading, which always names the origin of the latencies."""
        return f"{self.context.kind}\nms{self.mark}"

    def cell(self, spec: ModelSpec) -> str:
        """Return the text for a variant."""
        from tvmmobile.results.report.wording import latency_ms

        found = self.variants.get(spec.key)
        return latency_ms(found.latency_us if found else None)

    def caption(self) -> str:
        """Return where the latencies come from."""
        from tvmmobile.results.report.wording import clean, origin_caption, plural
        from tvmmobile.running.formats import WORDS, C

        parts = [self.context.device, self.dtype, plural(self.context.threads, "thread")]
        parts += [WORDS.get(self.format, self.format)] if self.format != C else []
        return clean(f"Latency{self.mark} {origin_caption(self.context)}; {', '.join(parts)}.")

    def as_json(self, spec: ModelSpec) -> list[dict[str, Any]]:
        """Return the latency of a variant and its origin."""
        found = self.variants.get(spec.key)
        where = {"kind": self.context.kind, "device": self.context.device, "threads": self.context.threads}
        where |= {"dtype": self.dtype, "format": self.format}
        return [] if found is None else [where | {"latency_us": found.latency_us}]


def with_others(specs: Sequence[ModelSpec], columns: Sequence[Column]) -> list[ModelSpec]:
    """Add further variants that have latencies after the last one of each family."""
    shown = {spec.key for spec in specs}
    others = [ModelSpec(*key) for key in dict.fromkeys(key for column in columns for key in column.variants) if key not in shown]
    last = {spec.name: place for place, spec in enumerate(specs)}
    found: list[ModelSpec] = []
    for place, spec in enumerate(specs):
        found += [spec, *(other for other in others if last.get(other.name) == place)]
    return found


def latencies_of(paths: Sequence[Path]) -> tuple[Column, ...]:
    """Return the latencies in result files, or in directories with a `report.json`, without networks from files and what a board's state
    spoiled.

    Those of the same device, origin, precision and format share a column; if several contain a variant, the latest result counts.

    Raises:
        UserError: a file cannot be read, there are more kinds than columns, or a variant has two names.
    """
    from tvmmobile.results.file import read_results

    found: dict[object, tuple[Context, str, str, list[tuple[str, VariantResult]]]] = {}
    for path in paths:
        got = read_results(path / "report.json" if path.is_dir() else path)
        context = got.context
        for variant in got.variants:
            origin = context.device, context.kind, context.threads, context.timing_model, context.clock_hz
            way = variant.precision, variant.format
            column = found.setdefault((*way, *origin), (context, *way, []))
            if not (variant.invalid or variant.network_sha256):
                column[-1].append((context.date, variant))
    if len(found) > _MOST_COLUMNS:
        raise UserError(
            f"the results differ in device, precision, format, thread count or timing model in {len(found)} ways: "
            f"only {_MOST_COLUMNS} columns of latencies fit.",
            "Give fewer kinds of --results.",
        )
    marks = [f" [{letter}]" for letter in "ab"] if len(found) > 1 else [""]
    return tuple(
        Column(context, dtype, form, {(one.model, one.alpha, one.resolution): one for one in _latest(dated)}, mark)
        for (context, dtype, form, dated), mark in zip(found.values(), marks, strict=False)
    )


def _latest(dated: Sequence[tuple[str, VariantResult]]) -> Iterable[VariantResult]:
    from tvmmobile.results.file import by_key

    return by_key(variant for _, variant in sorted(dated, key=lambda one: one[0])).values()


def print_comparison(costs: Sequence[ModelCost], latencies: Sequence[Column]) -> None:
    """Print all networks in one table, with the first published figures of each; latencies take the place of published costs."""
    printed = () if latencies else ("printed",)
    headings = ("MACs\ncounted", *printed, "params\ncounted", *printed, "top-1\n% [n]", *(column.heading for column in latencies))
    table = table_of(("network", "α-side"), headings)
    sources: list[str] = []
    for cost in costs:
        first = next(iter(figures(*cost.spec.key)), None)
        if first and first.source not in sources:
            sources.append(first.source)
        table.add_row(
            cost.spec.name,
            f"{cost.spec.alpha}-{cost.spec.resolution}",
            _macs(cost),
            *(_printed(first.macs_m if first else None) for _ in printed),
            _params(cost),
            *(_printed(first.params_m if first else None) for _ in printed),
            f"{_top1(first)} [{sources.index(first.source) + 1}]" if first else UNKNOWN,
            *(column.cell(cost.spec) for column in latencies),
        )
    console = output()
    console.print(table)
    console.print(_COUNTED)
    console.print(f"ImageNet top-1{' and printed counts' if printed else ''}: as published, from [n]. {UNKNOWN}: unknown.")
    for number, source in enumerate(sources, start=1):
        console.print(f"[{number}] {source}")
    _print_end({cost.spec.name for cost in costs}, latencies)


def print_variants(costs: Sequence[ModelCost], latencies: Sequence[Column]) -> None:
    """Print the variants of one family beside published figures; latencies take the place of published costs."""
    sources = _main_sources(costs)
    labels = [label for label, _ in sources]
    printed = [] if latencies else labels
    headings = ["α", "side", "MACs\ncounted", *printed, "params\ncounted", *printed]
    headings += [f"top-1, %\n{labels[0]}", *labels[1:]] if labels else []
    table = table_of((), (*headings, *(column.heading for column in latencies)))
    alphas = [cost.spec.alpha for cost in costs]
    for number, cost in enumerate(costs):
        by_source = {found.source: found for found in figures(*cost.spec.key)}
        published = [by_source.get(source) for _, source in sources]
        table.add_row(
            str(cost.spec.alpha),
            str(cost.spec.resolution),
            _macs(cost),
            *(_printed(found.macs_m if found else None) for found in published[: len(printed)]),
            _params(cost),
            *(_printed(found.params_m if found else None) for found in published[: len(printed)]),
            *map(_top1, published),
            *(column.cell(cost.spec) for column in latencies),
            end_section=len(set(alphas)) < len(alphas) and alphas[number : number + 2] != alphas[number : number + 1] * 2,
        )
    console = output()
    console.print(costs[0].spec.name)
    console.print(table)
    console.print(_COUNTED)
    for label, source in sources:
        console.print(f"{label}: {source}", soft_wrap=True)
        if source in REMARKS:
            console.print(f"    {REMARKS[source]}")
    if sources:
        console.print(f"{UNKNOWN}: not published there.")
    _print_end({costs[0].spec.name}, latencies)


def print_layers(costs: Sequence[ModelCost]) -> None:
    """Print every layer and every layer type of each variant."""
    console = output()
    for cost in costs:
        spec = cost.spec
        console.print(
            f"{spec.name} {spec.alpha}-{spec.resolution}: {cost.macs / 1e6:.1f} M multiply-adds, {cost.parameters / 1e6:.2f} M parameters"
        )
        console.print(_layer_table(cost))
        console.print(_type_table(cost))
        if paper_type_shares(*spec.key):
            console.print(
                f"paper: {PAPER}, table 2. It prints 1.19 for the 3×3 convolution;\nits column then sums to 99.29, and a count gives 1.91."
            )
    console.print(
        "dw: depthwise; g3: in 3 groups; se: squeeze-and-excite; /2: stride 2.\n"
        "Shares of parameters count weights alone, without batch norm and bias."
    )


def print_ways(shape: ConvShape) -> None:
    """Print the cost of every way to compute a layer."""
    table = table_of(("", "formula"), ("MACs", "weights", "share, %"))
    for way in ways(shape):
        table.add_row(way.name, way.formula, f"{way.macs:,}", f"{way.weights:,}", f"{100 * way.ratio:.2f}")
    console = output()
    console.print(
        f"D_K = {shape.kernel}, M = {shape.inputs}, N = {shape.outputs}, D_F = {shape.side}"
        + (f", G = {shape.groups}" if shape.groups > 1 else "")
    )
    console.print(table)
    ratio = reduction(shape)
    console.print(f"separable / standard = 1/N + 1/D_K² = {ratio:.4f}, or {1 / ratio:.2f} times fewer\n({PAPER}, section 3.1)")


def _main_sources(costs: Sequence[ModelCost]) -> list[tuple[str, str]]:
    """Return (label, source) of those that published most of these variants, in the order of preference."""
    counts: dict[tuple[str, str], int] = {}
    for cost in costs:
        for found in figures(*cost.spec.key):
            counts[found.label, found.source] = counts.get((found.label, found.source), 0) + 1
    most = sorted(counts, key=lambda source: -counts[source])[:_MOST_SOURCES]
    return sorted(most, key=lambda source: list(counts).index(source))


def _print_end(names: set[str], latencies: Sequence[Column]) -> None:
    console = output()
    for column in latencies:
        console.print(column.caption())
    for name in FAMILIES:
        if name in names and name in NOTES:
            console.print(f"{name}: {NOTES[name]}")


def _macs(cost: ModelCost) -> str:
    return f"{cost.macs / 1e6:.1f}"


def _params(cost: ModelCost) -> str:
    return f"{cost.parameters / 1e6:.2f}"


def _printed(number: float | None) -> str:
    return UNKNOWN if number is None else f"{number:g}"


def _top1(found: Published | None) -> str:
    return UNKNOWN if found is None or found.top1 is None else f"{found.top1:.1f}"


def _layer_table(cost: ModelCost) -> Table:
    table = table_of(("layer", "type"), ("input", "output", "MACs, M", "weights, k"))
    for item in cost.layers:
        layer = item.layer
        table.add_row(
            layer.name,
            layer.short_label,
            f"{layer.in_side}²×{layer.in_channels}",
            f"{layer.out_side}²×{layer.out_channels}",
            f"{item.macs / 1e6:.3f}",
            f"{item.weights / 1e3:.1f}",
        )
    return table


def _type_table(cost: ModelCost) -> Table:
    shares = paper_type_shares(*cost.spec.key)
    paper = ("paper",) if shares else ()
    table = table_of(("layer type",), ("layers", "MACs, M", "share, %", *paper, "weights, k", "share, %", *paper))
    for item in cost.by_type():
        share = shares.get(item.label)
        cells = [item.label, str(item.layers), f"{item.macs / 1e6:.3f}", f"{item.macs_percent:.2f}"]
        cells += [f"{share.macs:.2f}"] if share else []
        cells += [f"{item.weights / 1e3:.1f}", f"{item.weights_percent:.2f}"]
        cells += [f"{share.params:.2f}"] if share else []
        table.add_row(*cells)
    return table
