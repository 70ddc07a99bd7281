"""`tvmmobile tune`: tune what the logs lack, then compile, verify, time and report."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tvmmobile.cli import options
from tvmmobile.cli.generated import with_cli_options
from tvmmobile.cli.network import Variants
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.options.network import NetworkOptions
from tvmmobile.pipeline.options.option import HelpOrder
from tvmmobile.pipeline.options.run import RunOptions
from tvmmobile.pipeline.options.search import SearchOptions

if TYPE_CHECKING:
    from tvmmobile.history.recorder import Recorder
    from tvmmobile.pipeline.listener import TuningPlan
    from tvmmobile.results.file import Results

DryRun = Annotated[bool, typer.Option("--dry-run", help="Print kernels, trials and a time estimate, then exit."), HelpOrder.DEVICE]


@with_cli_options(LibraryOptions, RunOptions, SearchOptions, variants=Variants, network=NetworkOptions)
def tune(
    target: options.Target = "arm",
    device: options.Devices = None,
    history: options.HistoryFile = None,
    commit: options.Commit = None,
    dry_run: DryRun = False,
    require_hardware: options.RequireHardware = False,
    pin: options.Pin = False,
    *,
    variants: Variants,
    network: NetworkOptions,
    **chosen: Any,
) -> None:
    """Tune what the logs lack; compile, verify, time and report.

    Tuning finds fast schedules for a network's kernels on a device. Without --alpha and --resolution: the published variants (MobileNet v1:
    the paper's 16). Interrupt it at any time: finished trials are kept, and the same command resumes from there.
    """
    from tvmmobile.cli.progress import Shown
    from tvmmobile.devices.registry import find_device
    from tvmmobile.history.recorder import recorder
    from tvmmobile.pipeline.request import devices_of
    from tvmmobile.pipeline.tune import plan_tuning
    from tvmmobile.pipeline.tune_together import tune_together
    from tvmmobile.results.report.wording import plural
    from tvmmobile.system.console import output

    boards = devices_of([find_device(name, require_hardware, pin) for name in options.names_of(device)])
    options.check_target(target)
    models = variants.models(network)
    if dry_run:
        for board in boards:
            _print_plan(plan_tuning(models, board, **chosen, listener=Shown()))
        return
    recorded, out = recorder(history, commit), chosen["out"]
    found = tune_together(models, boards, **chosen, seed=network.seed, listener=Shown()).results
    for results in found:
        _report(results, out if len(found) == 1 else out / results.context.device, recorded)
    if len(found) > 1:
        count = plural(len(found[0].variants), "library")
        output().print(f"Written to {out}: {count} with the kernels of {len(found)} devices", soft_wrap=True)


def _report(results: Results, out: Path, recorded: Recorder) -> None:
    """Write the report beside the libraries and add it to the history; print the table and what was written."""
    from tvmmobile.results.report import print_table, write_report
    from tvmmobile.results.report.wording import plural
    from tvmmobile.system.console import output

    paths = write_report(results, out)
    recorded.add(results, "tune")
    print_table(results)
    count = plural(len(results.variants), "library")
    output().print(f"Written to {out}: {count}, {', '.join(path.name for path in paths)}", soft_wrap=True)


def _print_plan(plan: TuningPlan) -> None:
    from tvmmobile.results.report.fallback import fallback_lines
    from tvmmobile.results.report.wording import plural
    from tvmmobile.system.console import output, table_of

    table = table_of(("kernel",), ("records", "trials"))
    for assignment in plan.assignments:
        name = assignment.title.replace("+", " +\n  ")  # of several layers: one a line, or it would not fit
        table.add_row(name, str(assignment.done), str(assignment.missing))
    output().print(table)
    for line in fallback_lines(plan.used):
        output().print(line, soft_wrap=True)
    part = "The first round" if plan.trials > plan.first else "Tuning"
    minutes = plural(math.ceil(plan.estimated_s / 60), "minute")
    output().print(f"{part} takes about {minutes} on two desktop cores; nothing was run.")
