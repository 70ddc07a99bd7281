"""`tvmmobile logs`: tuning logs, and what to do after the timing model has changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tvmmobile.cli.log_files import merge, show, verify
from tvmmobile.cli.options import Device

if TYPE_CHECKING:
    from tvmmobile.pipeline.rescore import RescoredLogs

logs = typer.Typer(add_completion=False, rich_markup_mode=None)


@logs.callback()
def _group() -> None:
    """Manage tuning logs."""


logs.command("show")(show)
logs.command("verify")(verify)
logs.command("merge")(merge)


@logs.command("rescore")
def rescore(
    device: Device = "pi4",
    directory: Annotated[
        Path | None, typer.Option("--logs", metavar="DIR", file_okay=False, help="Log directory to rewrite; default: your own.")
    ] = None,
    keep: Annotated[int, typer.Option("--keep", metavar="N", min=1, help="Schedules to score per kernel, best old scores first.")] = 8,
    jobs: Annotated[
        int | None, typer.Option("--jobs", metavar="N", min=1, help="Number of worker processes; default: one per core.")
    ] = None,
) -> None:
    """Score each kernel's best schedules again with the current model.

    The logs then hold only the new records; the old ones are kept beside them
    as .bak. Interrupt it at any time: finished scores are kept, and the same
    command resumes from there.
    """
    from tvmmobile.cli.progress import Shown
    from tvmmobile.pipeline.rescore import rescore_logs

    _report(rescore_logs(device, directory, keep=keep, workers=jobs, listener=Shown()))


def _report(done: RescoredLogs) -> None:
    from tvmmobile.results.report.wording import plural
    from tvmmobile.system.console import output

    console = output()
    for one in done.kernels:
        ranks = f"{one.ranks_changed} of {len(one.new)} ranks changed" + (", another one is first" if one.best_is_another else "")
        console.print(
            f"{one.ranking.task.name}\n    best {_us(one.old_best_us)} us by the old model, {_us(one.new_best_us)} us now; {ranks}",
            soft_wrap=True,
        )
    failed = sum(record.latency_us is None for one in done.kernels for record in one.new)
    changed = sum(one.best_is_another for one in done.kernels)
    console.print(
        f"{plural(len(done.kernels), 'kernel')}, {plural(sum(len(one.new) for one in done.kernels), 'schedule')}, {failed} failed; "
        f"another schedule is the fastest for {plural(changed, 'kernel')}. Latencies are modelled.",
        soft_wrap=True,
    )
    for task in done.left_out:
        console.print(f"left out: {task.name} (not in any variant that tvmmobile knows)", soft_wrap=True)
    for backup in done.backups:
        console.print(f"Written: {backup.with_suffix('')} (before: {backup.name})", soft_wrap=True)


def _us(latency_us: float | None) -> str:
    return "–" if latency_us is None else f"{latency_us:.1f}"
