"""The networks of the MobileNets paper's comparisons, and those that came later, with their latency on one board.

    ./studies/run compare_networks                           # from the shipped logs, the page on stdout
    ./studies/run compare_networks --out studies/results/networks.md    # and networks.json, for `tvmmobile models --results`
    ./studies/run compare_networks --results out/vgg16/report.json out/xception/report.json    # these are not run again

Each network is compiled from the tuning logs, checked against PyTorch and run on the virtual Pi 4. What the logs lack is compiled with
the nearest record or the template's usual knobs, and the page says for how many kernels that is. Ends with 5 if a library disagrees with
PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from studies.harness import Options, option, study
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.published import COMPARED, figures
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.pipeline.bench import bench
from tvmmobile.pipeline.compile import compile_models
from tvmmobile.results.file import Results, VariantResult, read_results, write_results
from tvmmobile.results.report.beside import join
from tvmmobile.results.report.wording import latency_ms, millions, scientific, signed
from tvmmobile.running.formats import VM
from tvmmobile.system.environment import SHIPPED_LOGS
from tvmmobile.system.files import write_text
from tvmmobile.system.markdown import markdown_table

DEVICE = "pi4-virtual"
V1, THINNER = ModelSpec("mobilenet_v1", 1.0, 224), ModelSpec("mobilenet_v1", 0.75, 224)
FULL, SHALLOW = ModelSpec("mobilenet_v1_full", 1.0, 224), ModelSpec("mobilenet_v1_shallow", 1.0, 224)


@dataclass(frozen=True)
class Statement:
    """Two networks that the MobileNets paper compares.

    Attributes:
        title: the paper's statement on them.
        table: number of the table with the statement.
        first, second: the networks; changes are the first's against the second's.
    """

    title: str
    table: int
    first: ModelSpec
    second: ModelSpec


STATEMENTS = (
    Statement("Thinner is better than shallower", 5, THINNER, SHALLOW),
    Statement("Separable convolutions versus full ones", 4, V1, FULL),
)


def run(specs: Sequence[ModelSpec], logs: Path, threads: int) -> Results:
    """Compile, check and time the networks."""
    libraries = compile_models([Model(spec) for spec in specs], DEVICE, threads=threads, logs=logs, format=VM, check=False)
    return bench(libraries, DEVICE, repeat=1, warmup_runs=1)


def with_missing(known: list[Results], logs: Path, threads: int) -> Results:
    """Return all networks: those of `known` as they are, the others compiled, checked and timed now."""
    found = {(variant.model, variant.alpha, variant.resolution) for one in known for variant in one.variants}
    missing = [spec for spec in COMPARED if (spec.name, spec.alpha, spec.resolution) not in found]
    return join([*known, *([run(missing, logs, threads)] if missing else [])]).results


def top1_of(spec: ModelSpec) -> tuple[float | None, str]:
    """Return the first published accuracy in percent, and its source."""
    found = next(iter(figures(spec.name, spec.alpha, spec.resolution)), None)
    return (found.top1, found.source) if found else (None, "")


def table(specs: Sequence[ModelSpec], results: Mapping[ModelSpec, VariantResult]) -> list[str]:
    """Return the networks as a Markdown table."""
    sources = list(dict.fromkeys(source for _, source in map(top1_of, specs) if source))
    headings = ["network", "α-side", "multiply-adds, M", "parameters, M", "top-1, %", "modelled ms", "multiply-adds per µs", "untuned"]
    rows = []
    for spec in specs:
        result = results[spec]
        top1, source = top1_of(spec)
        distinct = {kernel.name: kernel.latency_us for kernel in result.kernels}
        unmeasured = sum(latency is None for latency in distinct.values())
        rows.append(
            (
                spec.name,
                f"{spec.alpha}-{spec.resolution}",
                millions(result.macs),
                millions(result.parameters),
                f"{top1} [{sources.index(source) + 1}]" if top1 is not None else "–",
                latency_ms(result.latency_us),
                f"{result.macs / result.latency_us:.0f}",
                f"{unmeasured} of {len(distinct)}" if unmeasured else "",
                scientific(result.max_error, 0),
            )
        )
    return [*markdown_table([*headings, "error"], rows, 2), "", *(f"{number}. {source}" for number, source in enumerate(sources, start=1))]


def comparison(statement: Statement, results: Mapping[ModelSpec, VariantResult]) -> list[str]:
    """Return a comparison of the paper's, with latencies beside its counts."""
    first, second = results[statement.first], results[statement.second]
    rows: list[tuple[object, ...]] = []
    accuracies = [top1_of(spec)[0] or 0.0 for spec in (statement.first, statement.second)]
    for spec, result, top1 in zip((statement.first, statement.second), (first, second), accuracies, strict=True):
        name = f"{spec.name} {spec.alpha}-{spec.resolution}"
        rows.append((name, millions(result.macs), millions(result.parameters), top1, latency_ms(result.latency_us)))
    counts = signed(first.macs / second.macs - 1), signed(first.parameters / second.parameters - 1)
    changes = *counts, f"{accuracies[0] - accuracies[1]:+.1f} points", f"**{signed(first.latency_us / second.latency_us - 1)}**"
    headings = "network", "multiply-adds, M", "parameters, M", "top-1, %", "modelled ms"
    lines = markdown_table(headings, [*rows, ("first relative to second", *changes)])
    return [f"## {statement.title}", "", *lines, "", f"Table {statement.table} of arXiv 1704.04861.", ""]


def page(specs: Sequence[ModelSpec], results: Results) -> str:
    """Return the page."""
    by_key = {(result.model, result.alpha, result.resolution): result for result in results.variants}
    found = {spec: by_key[spec.name, spec.alpha, spec.resolution] for spec in specs}
    context = results.context
    threads = "one thread" if context.threads == 1 else f"{context.threads} threads"
    intro = f"""# How the networks compare

Latencies are **modelled** on the virtual {context.board} ({context.cpu} at {context.clock_hz / 1e9:.1f} GHz, {threads}, float32, batch 1,
timing model `{context.timing_model}`); nothing was measured on hardware. Each library was checked against PyTorch first; *error* is the
largest difference relative to the output's largest magnitude. Multiply-adds and parameters are counted ([models.md](../../docs/models.md));
accuracies are as published. *Untuned* is the number of distinct kernels without a record of their own, compiled with the nearest
shape's schedule or a template's default knobs; such networks can still become faster.

`./studies/run compare_networks` wrote this page; `tvmmobile models --results studies/results/networks.json` shows the same table.
"""
    statements = [line for statement in STATEMENTS for line in comparison(statement, found)]
    versions = ", ".join(f"{name} {version}" for name, version in context.versions.items())
    return "\n".join([intro, *table(specs, found), "", *statements, f"{versions}; {context.date}"]) + "\n"


@study(
    option("--logs", SHIPPED_LOGS, "tuning logs (default: the shipped ones)"),
    option("--results", [], "of `tvmmobile tune` or `bench`", type=Path, nargs="+", metavar="REPORT.json"),
    option("--threads", 1),
    option("--out", None, "write the page there, and the results beside it as JSON", type=Path, metavar="PAGE.md"),
)
def main(options: Options) -> None:
    """Run the comparison."""
    results = with_missing([read_results(path) for path in options.results], options.logs, options.threads)
    text = page(COMPARED, results)
    if options.out is None:
        print(text, end="")
    else:
        write_text(options.out, text)
        write_results(results, options.out.with_suffix(".json"))
