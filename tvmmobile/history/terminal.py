"""A history on the terminal: the series of each device, then the steps, the newest first."""

from __future__ import annotations

from tvmmobile.gate.report import kernel_line
from tvmmobile.history.series import CommitHistory, ExplainedStep, Series
from tvmmobile.history.steps import CONFIDENCE
from tvmmobile.results.report.wording import UNKNOWN, clean, clock, latency_ms, plural, signed

#: Kernels that are listed for a step; JSON has them all.
MOST_KERNELS = 5


def print_history(over: CommitHistory, since: int, most_steps: int) -> None:
    """Print a history, 80 columns wide.

    Args:
        since: commits that the column of changes reaches back.
        most_steps: steps that are listed.
    """
    from tvmmobile.system.console import output, table_of

    console = output()
    last = {explained.series: explained for explained in reversed(over.steps)}
    for (place, configuration), group in alike(over).items():
        table = table_of(("network", "last step"), ("commits", f"latest, ms\n{group[0].kind}", f"over {since}\ncommits"))
        for one in group:
            points = one.current.points
            change = one.since(since)
            explained = last.get(one)
            step = UNKNOWN if explained is None else f"{signed(explained.step.change)} at {over.commits[explained.after].short}"
            cells = (str(len(points)), latency_ms(points[-1].latency_us), UNKNOWN if change is None else signed(change))
            table.add_row(clean(one.network), clean(step), *cells)
        console.print(f"{clean(place)}\n{clean(configuration)}", soft_wrap=True)
        console.print(table)
    for explained in over.steps[:most_steps]:
        console.print(clean(step_sentence(over, explained)), soft_wrap=True)
        for kernel in explained.kernels[:MOST_KERNELS]:
            console.print(f"  {clean(kernel_line(kernel, explained.series.kind))}", soft_wrap=True)
    more = f"; {most_steps} are listed" if len(over.steps) > most_steps else ""
    more += f"; {plural(over.smaller, 'smaller step')} left out (--least)" if over.smaller else ""
    console.print(f"{plural(len(over.commits), 'commit')}, {f'{len(over.series)} series'}, {plural(len(over.steps), 'step')}{more}.")
    if over.left_out:
        console.print(f"{plural(over.left_out, 'result')} of dirty trees, or not valid, {'do' if over.left_out > 1 else 'does'} not count.")


def alike(over: CommitHistory) -> dict[tuple[str, str], list[Series]]:
    """Group series that differ only in the network, by the origin of their latencies and by precision and threads."""
    groups: dict[tuple[str, str], list[Series]] = {}
    for one in over.series:
        groups.setdefault((where(one), one.configuration), []).append(one)
    return groups


def where(series: Series) -> str:
    """Return the device and the origin of a series' latencies."""
    place = f"{series.current.cpu} at {clock(series.clock_hz)}"
    board = "" if series.kind == "modelled" else f" on {series.current.board}"
    return f"{series.device}: {series.kind}{board}, {place}"


def step_sentence(over: CommitHistory, explained: ExplainedStep) -> str:
    """Return a step in one line."""
    commits, step = over.commits, explained.step
    where_ = f"{explained.series.label} on {explained.series.device} ({explained.series.kind}): {signed(step.change)}"
    place = f"{commits[explained.after].short} {commits[explained.after].subject}".strip()
    if explained.series.kind == "modelled":
        return f"{where_} at {place}, after {commits[explained.before].short}"
    sure = f"{100 * CONFIDENCE:.0f} %"
    return (
        f"{where_} ({signed(step.low)} to {signed(step.high)}) at {place}; {sure} sure: after {commits[explained.earliest].short}, "
        f"not after {commits[explained.latest].short}; p {step.p:.1g}"
    )
