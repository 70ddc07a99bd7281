"""A history on the terminal: the series of each device, then the steps, the newest first."""

from __future__ import annotations

from tvmmobile.gate.report import kernel_line
from tvmmobile.history.series import CommitHistory, ExplainedStep, Series
from tvmmobile.history.steps import CONFIDENCE
from tvmmobile.results.report.wording import UNKNOWN, clean, latency_ms, plural, signed

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
    last = {told.series: told for told in reversed(over.steps)}
    for (place, how), group in alike(over).items():
        table = table_of(("network", "last step"), ("commits", f"latest, ms\n{group[0].kind}", f"over {since}\ncommits"))
        for one in group:
            points = one.current.points
            change = one.since(since)
            told = last.get(one)
            step = UNKNOWN if told is None else f"{signed(told.step.change)} at {over.commits[told.after].short}"
            cells = (str(len(points)), latency_ms(points[-1].latency_us), UNKNOWN if change is None else signed(change))
            table.add_row(clean(one.network), clean(step), *cells)
        console.print(f"{clean(place)}\n{clean(how)}", soft_wrap=True)
        console.print(table)
    for told in over.steps[:most_steps]:
        console.print(clean(step_sentence(over, told)), soft_wrap=True)
        for kernel in told.kernels[:MOST_KERNELS]:
            console.print(f"  {clean(kernel_line(kernel, told.series.kind))}", soft_wrap=True)
    more = f"; {most_steps} are listed" if len(over.steps) > most_steps else ""
    console.print(f"{plural(len(over.commits), 'commit')}, {f'{len(over.series)} series'}, {plural(len(over.steps), 'step')}{more}.")
    if left_out := sum(one.left_out for one in over.series):
        console.print(f"{plural(left_out, 'result')} of dirty trees, or not valid, {'do' if left_out > 1 else 'does'} not count.")


def alike(over: CommitHistory) -> dict[tuple[str, str], list[Series]]:
    """Return the series that differ in nothing but the network, by where their latencies were obtained, and by precision and threads."""
    groups: dict[tuple[str, str], list[Series]] = {}
    for one in over.series:
        groups.setdefault((where(one), one.how), []).append(one)
    return groups


def where(series: Series) -> str:
    """Return the device, and where and how a series' latencies were obtained."""
    place = f"{series.current.cpu} at {series.clock_hz / 1e9:g} GHz"
    board = "" if series.kind == "modelled" else f" on {series.current.board}"
    return f"{series.device}: {series.kind}{board}, {place}"


def step_sentence(over: CommitHistory, told: ExplainedStep) -> str:
    """Return a step in one line."""
    commits, step = over.commits, told.step
    where_ = f"{told.series.label} on {told.series.device} ({told.series.kind}): {signed(step.change)}"
    place = f"{commits[told.after].short} {commits[told.after].subject}".strip()
    if told.series.kind == "modelled":
        return f"{where_} at {place}, after {commits[told.before].short}"
    sure = f"{100 * CONFIDENCE:.0f} %"
    return (
        f"{where_} ({signed(step.low)} to {signed(step.high)}) at {place}; {sure} sure: after {commits[told.earliest].short}, "
        f"not after {commits[told.latest].short}; p {step.p:.1g}"
    )
