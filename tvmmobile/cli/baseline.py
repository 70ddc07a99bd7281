"""`tvmmobile baseline`: results kept to compare with, in a directory that can be committed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tvmmobile.cli.compare import BaselineDir
from tvmmobile.cli.options import Commit, DeviceFilter, HistoryFile

baseline = typer.Typer(add_completion=False, rich_markup_mode=None)


@baseline.callback()
def _group() -> None:
    """Keep results to compare with: save, list, show."""


@baseline.command("save")
def save(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="A report.json.")],
    baselines: BaselineDir = Path("baselines"),
    libraries: Annotated[
        Path | None,
        typer.Option("--libraries", metavar="DIR", file_okay=False, help="Directory of the libraries; default: that of RESULTS."),
    ] = None,
    history: HistoryFile = None,
    commit: Commit = None,
) -> None:
    """Save results as the baselines of their device, replacing older ones.

    The libraries are kept too: regress times them again when a new one may be slower.
    """
    from tvmmobile.cli.progress import errors
    from tvmmobile.gate.baselines import save_baselines
    from tvmmobile.history.recorder import recorder
    from tvmmobile.results.file import read_results
    from tvmmobile.system.files import check_writable

    found = read_results(results)
    check_writable(baselines, "--baselines")
    recorded = recorder(history, commit)
    folder = libraries or results.parent
    saved = save_baselines(found, folder, baselines)
    recorded.add(found, "baseline")
    for one in saved:
        typer.echo(str(one.path))
    without = [one.name for one in saved if not one.library_path.is_file()]
    if without:
        errors().print(
            f"{len(without)} of {len(saved)} were kept without their library, which is not in {folder}: regress will not be able to time "
            "them again. Name its folder with --libraries DIR.",
            soft_wrap=True,
        )


@baseline.command("list")
def list_baselines(baselines: BaselineDir = Path("baselines"), device: DeviceFilter = None) -> None:
    """List all baselines."""
    from tvmmobile.gate.baselines import find_baselines
    from tvmmobile.results.report.wording import clean, latency_ms, origin_caption
    from tvmmobile.system.console import output, table_of

    found = find_baselines(baselines, device)
    for context in {one.context.device: one.context for one in found}.values():
        table = table_of(("variant", "library"), (f"{context.kind}\nms", "samples", "date"))
        for one in found:
            if one.context.device == context.device:
                kept = "kept" if one.library_path.is_file() else "not kept"
                values = (latency_ms(one.variant.latency_us), str(len(one.variant.samples_us)), clean(one.context.date)[:10])
                table.add_row(one.name, kept, *values)
        output().print(clean(f"{context.device}: {origin_caption(context)}"), soft_wrap=True)
        output().print(table)


@baseline.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="VARIANT", help="Variant as printed by list, or a prefix of it.")],
    baselines: BaselineDir = Path("baselines"),
    device: DeviceFilter = None,
) -> None:
    """Show one baseline: where and how it was measured, and its kernels."""
    from tvmmobile.gate.baselines import baselines_named
    from tvmmobile.results.report.wording import clean, latency_ms, microseconds, origin_caption
    from tvmmobile.system.console import output, table_of

    for one in baselines_named(name, baselines, device):
        variant, context = one.variant, one.context
        samples = f"{len(variant.samples_us)} samples, {latency_ms(min(variant.samples_us))} to {latency_ms(max(variant.samples_us))} ms"
        lines = [
            f"{one.name} on {context.device}: {latency_ms(variant.latency_us)} ms {origin_caption(context)}",
            f"{samples}; saved from a run of {context.date}" if context.kind != "modelled" else f"from a run of {context.date}",
            f"timing model: {context.timing_model}" if context.timing_model else "",
            f"versions: {', '.join(f'{key} {version}' for key, version in context.versions.items())}",
            f"library: {variant.library_sha256}{'' if one.library_path.is_file() else ' (not kept)'}; weights: {variant.weights}",
        ]
        for line in filter(None, lines):
            output().print(clean(line), soft_wrap=True)
        table = table_of(("kernel",), ("recorded, us",))
        for kernel in variant.kernels:
            table.add_row(clean(kernel.name), microseconds(kernel.latency_us))
        output().print(table)
