"""`tvmmobile logs`: tuning logs, and what to do after the timing model has changed."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tvmmobile.cli.options import Device, DeviceFilter
from tvmmobile.system.ranges import range_text, ranges_of

if TYPE_CHECKING:
    from rich.console import Console

    from tvmmobile.pipeline.rescore import RescoredLogs
    from tvmmobile.tuning.logs.inspection import Log
    from tvmmobile.tuning.records import Identity

_OwnLogs = Annotated[Path | None, typer.Option("--logs", metavar="DIR", file_okay=False, help="Log directory; default: your own.")]
#: Ranges of line numbers that are printed for one finding.
_RANGES = 8

logs = typer.Typer(add_completion=False, rich_markup_mode=None)


@logs.callback()
def _group() -> None:
    """Manage tuning logs: show, verify, merge, compact, rescore."""


@logs.command("show")
def show(
    device: DeviceFilter = None,
    directory: Annotated[
        Path | None, typer.Option("--logs", metavar="DIR", file_okay=False, help="Log directory; default: the shipped logs and your own.")
    ] = None,
) -> None:
    """Show kernels, records, failures and lowest latencies."""
    from tvmmobile.system.console import output
    from tvmmobile.system.environment import SHIPPED_LOGS
    from tvmmobile.system.errors import UserError
    from tvmmobile.tuning.logs.directories import chosen_device, own_logs, present_identity
    from tvmmobile.tuning.logs.inspection import inspect, logs_in

    directories = [directory] if directory is not None else [SHIPPED_LOGS, own_logs()]
    folder, present = chosen_device(device, directories) if device is not None else (None, present_identity)
    console = output()
    shown = 0
    for place in directories:
        try:
            paths = logs_in(place, folder)
        except UserError:
            if place is directories[-1] and not shown:
                raise
            continue
        console.print(str(place), soft_wrap=True)
        for name in dict.fromkeys(path.parent.name for path in paths):
            now = present(name)
            _print_device(console, [inspect(path, now) for path in paths if path.parent.name == name], now)
        shown += 1


@logs.command("verify")
def verify(
    device: DeviceFilter = None,
    directory: _OwnLogs = None,
    repair: Annotated[bool, typer.Option("--repair", help="Move bad lines from each log into FILE.cut beside it.")] = False,
) -> None:
    """Report bad lines in the logs (exit 1), or that there are none.

    Bad lines are those that are not records, duplicates, and records that belong in another file. Records of another timing model or TVM
    version, or of a later tvmmobile, are listed but kept; see tvmmobile logs rescore.
    """
    from tvmmobile.system.console import output
    from tvmmobile.tuning.logs.verify import looked_through

    console = output()
    found = []
    for log, now in looked_through(directory, device, repair):
        _print_log(console, log, repaired=repair)
        found.append(log)
        if now is None and any(line.held is not None and line.held.identity.origin.written for line in log.lines):
            console.print(f"{log.path}: {log.device} is not known on this machine, so its timing model was not checked", soft_wrap=True)
    _conclude(console, found, repair, [*(["--device", device] if device else []), *(["--logs", str(directory)] if directory else [])])


@logs.command("merge")
def merge(
    sources: Annotated[list[Path], typer.Argument(metavar="FROM...", help="Log directories or files to read.")],
    into: Annotated[Path, typer.Option("--into", metavar="DIR", file_okay=False, help="Directory to merge into; created if missing.")],
) -> None:
    """Merge the logs of several machines, keeping each schedule once.

    A record already in DIR wins, then the first FROM that has the schedule. Records of another timing model or TVM version are left out.
    """
    from tvmmobile.results.report.wording import plural
    from tvmmobile.system.console import output
    from tvmmobile.system.errors import UserError
    from tvmmobile.tuning.logs.merge import merge_logs

    merged = merge_logs(sources, into)
    console = output()
    for joined in merged.joined:
        console.print(f"{joined.path}: {joined.new} new, {joined.known} known", soft_wrap=True)
    for path in dict.fromkeys(refused.path for refused in merged.refused):
        console.print(f"{path}: left out", soft_wrap=True)
        _print_findings(console, ((refused.number, refused.why) for refused in merged.refused if refused.path == path))
    if merged.refused and not merged.joined:
        first, count = merged.refused[0], plural(len(merged.refused), "line")
        raise UserError(
            f"there was nothing to merge: none of {count} could be used. {first.path}, line {first.number}: {first.why}.",
            "See what the logs hold: tvmmobile logs show --logs DIR",
        )


@logs.command("compact")
def compact(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="PATH", help="Logs, or directories of them; default: your own.", show_default=False)
    ] = None,
    keep: Annotated[int, typer.Option("--keep", metavar="N", min=1, help="Fast records to keep per kernel.")] = 8,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report what would happen to each log; write nothing.")] = False,
) -> None:
    """Make logs small: keep what a search or a plan can still use.

    Kept for each kernel: the N fastest records, if within 10 % of the fastest; the fastest of each template; and each that was the
    fastest when it was measured. The others still count as trials. The old log is kept beside the new one as .bak, bad lines in .cut.
    """
    from tvmmobile.system.console import output
    from tvmmobile.system.errors import UserError
    from tvmmobile.tuning.logs.compact import compact_logs

    console = output()
    compacted = compact_logs(paths or (), keep=keep, dry_run=dry_run)
    for log in compacted:
        path = log.found.path
        _print_log(console, log.found, repaired=log.backup is not None)
        if not log.found.foreign:
            (old, new), (before, after) = log.records, log.size
            console.print(f"{path}: {log.kernels} kernels, {old} records: {new} kept; {_mb(before)} to {_mb(after)} MB", soft_wrap=True)
        if log.backup is not None:
            console.print(f"Written: {path} (before: {log.backup.name})", soft_wrap=True)
    foreign = [log.found for log in compacted if log.found.foreign]
    if foreign:
        raise UserError(f"{foreign[0].path} is not a tuning log: {foreign[0].foreign}.", "Move it away, or rename it.")


def _mb(count: int) -> str:
    return f"{count / 1e6:.2f}"


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

    The logs then hold only the new records; the old ones are kept beside them as .bak. Interrupt it at any time: finished scores are kept,
    and the same command resumes from there.
    """
    from tvmmobile.cli.progress import Shown
    from tvmmobile.pipeline.rescore import rescore_logs

    _report(rescore_logs(device, directory, keep=keep, jobs=jobs, listener=Shown()))


def _report(done: RescoredLogs) -> None:
    from tvmmobile.results.report.wording import microseconds, plural
    from tvmmobile.system.console import output

    console = output()
    for kernel in done.kernels:
        ranks = f"{kernel.ranks_changed} of {len(kernel.new)} ranks changed" + (", another one is first" if kernel.best_is_another else "")
        best = f"best {microseconds(kernel.old_best_us)} us by the old model, {microseconds(kernel.new_best_us)} us now"
        console.print(f"{kernel.ranking.task.name}\n    {best}; {ranks}", soft_wrap=True)
    failed = sum(record.latency_us is None for kernel in done.kernels for record in kernel.new)
    changed = sum(kernel.best_is_another for kernel in done.kernels)
    console.print(
        f"{plural(len(done.kernels), 'kernel')}, {plural(sum(len(kernel.new) for kernel in done.kernels), 'schedule')}, {failed} failed; "
        f"another schedule is the fastest for {plural(changed, 'kernel')}. Latencies are modelled.",
        soft_wrap=True,
    )
    for task in done.left_out:
        console.print(f"left out: {task.name} (not in any variant that tvmmobile knows)", soft_wrap=True)
    for backup in done.backups:
        console.print(f"Written: {backup.with_suffix('')} (before: {backup.name})", soft_wrap=True)


def _print_device(console: Console, logs: list[Log], present: Identity | None) -> None:
    """Print a table for each identity: latencies of different ones must not share a column."""
    from tvmmobile.results.report.wording import UNKNOWN, plural
    from tvmmobile.system.console import table_of
    from tvmmobile.tuning.claims import short
    from tvmmobile.tuning.logs.inspection import model_name, shares

    found = [share for log in logs for share in shares(log)]
    for identity in dict.fromkeys(share.identity for share in found):
        origin = identity.origin.kind
        heading = f"{identity.device}: {origin}, {model_name(identity)}, TVM {short(identity.tvm)}"
        if present is not None and identity != present:
            heading += "\nThese do not count: " + ", ".join(_differences(identity, present))
        table = table_of(("log",), ("threads", "kernels", "records", "failed", f"fastest, us\n{origin}"))
        for share in found:
            if share.identity == identity:
                best = UNKNOWN if share.best_us is None else f"{share.best_us:.2f}"
                table.add_row(share.dtype, *map(str, (share.threads, share.kernels, share.records, share.failed)), best)
        console.print(f"\n{heading}")
        console.print(table)
    for log in logs:
        uncounted = sum(line.counted is None for line in log.lines)
        if log.foreign or uncounted:
            what = log.foreign or f"{plural(uncounted, 'line')} not counted here: see tvmmobile logs verify"
            console.print(f"{log.path.name}: {what}", soft_wrap=True)


def _differences(identity: Identity, present: Identity) -> list[str]:
    from tvmmobile.tuning.logs.inspection import model_name

    different = [model_name(present)] if identity.origin != present.origin else []
    return [f"now it is {what}" for what in [*different, *([f"TVM {present.tvm}"] if identity.tvm != present.tvm else [])]]


def _print_log(console: Console, log: Log, *, repaired: bool) -> None:
    """Print a log's faults and what was done about them; nothing if there are none."""
    from tvmmobile.results.report.wording import plural
    from tvmmobile.tuning.logs.verify import cut_file

    if log.foreign:
        console.print(f"{log.path}: {log.foreign}; its lines were not checked", soft_wrap=True)
    if log.faults:
        done = f": {plural(len(log.faults), 'line')} cut, kept in {cut_file(log.path).name}" if repaired else ""
        console.print(f"{log.path}{done}", soft_wrap=True)
        _print_findings(console, ((line.number, line.fault) for line in log.faults))
    remarks = [(line.number, line.remark) for line in log.lines if line.remark]
    if remarks:
        console.print(f"{log.path}: kept, but not used", soft_wrap=True)
        _print_findings(console, remarks)


def _print_findings(console: Console, findings: Iterable[tuple[int, str]]) -> None:
    numbers: dict[str, list[int]] = {}
    for number, what in findings:
        numbers.setdefault(what, []).append(number)
    for what, members in numbers.items():
        console.print(f"  {_lines(members)}: {what}", soft_wrap=True)


def _lines(numbers: list[int]) -> str:
    """Return `line 3`, or `lines 3, 5-9`; of many ranges, the first ones and the number of further lines."""
    ranges = ranges_of(numbers)
    shown = ", ".join(itertools.starmap(range_text, ranges[:_RANGES]))
    more = sum(last - first + 1 for first, last in ranges[_RANGES:])
    return f"line{'s' if len(numbers) > 1 else ''} {shown}" + (f" and {more} more" if more else "")


def _conclude(console: Console, logs: list[Log], repaired: bool, options: list[str]) -> None:
    from tvmmobile.results.report.wording import plural
    from tvmmobile.system.errors import UserError

    faulty = [log for log in logs if log.faults]
    faults = sum(len(log.faults) for log in faulty)
    if faulty and not repaired:
        first = faulty[0]
        raise UserError(
            f"{plural(faults, 'line')} in {plural(len(faulty), 'log')} {'is' if faults == 1 else 'are'} bad. "
            f"The first: {first.path}, line {first.faults[0].number}: {first.faults[0].fault}.",
            f"Run: tvmmobile logs verify --repair {shlex.join(options)}".rstrip(),
        )
    foreign = [log for log in logs if log.foreign]
    if foreign:
        raise UserError(f"{foreign[0].path} is not a tuning log: {foreign[0].foreign}.", "Move it away, or rename it.")
    records = sum(len(line.counted.records) for log in logs for line in log.lines if line.counted is not None)
    unused = sum(bool(line.remark) for log in logs for line in log.lines)
    state = f"{plural(faults, 'line')} cut" if faults else "all is well"
    console.print(
        f"{plural(len(logs), 'log')}, {plural(records, 'record')}: {state}" + (f"; {unused} not used" if unused else ""), soft_wrap=True
    )
