"""Derives the latency of each network over commits from a history's results, and its steps with the kernels that changed.

A series is what a user follows: one network variant on one device, in one precision and thread count, at one clock; modelled and measured
latencies are different series. Within a series only results of the same board and timing model form a line, because others cannot be
compared: a new timing model begins a new line.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tvmmobile.devices.protocol import Kind
from tvmmobile.gate.kernel_changes import KernelChange, kernel_changes
from tvmmobile.history.file import Entry, History, identity_of
from tvmmobile.history.steps import Segmentation, Step, find_steps
from tvmmobile.results.file import Context, KernelResult, VariantResult
from tvmmobile.results.report.wording import plural
from tvmmobile.running.formats import WORDS, C
from tvmmobile.system.errors import UserError
from tvmmobile.virtual.board import device_among

#: Results on either side of a step that its kernels' times are medians of.
_SIDE = 3
#: Columns that the results of a series share, and those that the results of a line share as well.
IDENTITY = ("model", "alpha", "side", "dtype", "format", "threads", "device", "kind", "clock_hz")
COMPARABLE = ("board", "cpu", "timing_model")
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class Point:
    """The latency of one commit in a line.

    Attributes:
        commit: its number among the history's commits.
        latency_us: geometric mean of the medians of its runs, in microseconds.
        least_us: least of all samples.
        spread: median of its runs' interquartile ranges over their medians; `None` where none has enough samples.
        results: numbers of its runs in the file.
        verdict: the gate's last verdict; "" without one.
        baseline: one of its runs was saved as a baseline.
    """

    commit: int
    latency_us: float
    least_us: float
    spread: float | None
    results: tuple[int, ...]
    verdict: str
    baseline: bool


@dataclass(frozen=True)
class LatencyLine:
    """Latencies that can be compared, in the order of their commits, and the steps among them.

    Attributes:
        board, cpu, timing_model: properties that they share besides their series; "" for no timing model.
        points: one for each commit.
        found: the steps; indices are those of `points`.
    """

    board: str
    cpu: str
    timing_model: str
    points: tuple[Point, ...]
    found: Segmentation


@dataclass(frozen=True)
class Series:
    """One network variant on one device in one precision, thread count and format, at one clock; modelled, measured or emulated.

    Attributes:
        lines: lines of latencies, by the last commit of each, the current one last.
        left_out: results that do not count: of dirty trees, and invalid ones.
        smaller: number of its steps that are too small to be listed.
    """

    model: str
    alpha: float
    side: str
    dtype: str
    format: str
    threads: int
    device: str
    kind: Kind
    clock_hz: float
    lines: tuple[LatencyLine, ...]
    left_out: int
    smaller: int = 0

    @property
    def network(self) -> str:
        """The network variant, e.g. `mobilenet_v1 1.0-224`."""
        return f"{self.model} {self.alpha}-{self.side}"

    @property
    def configuration(self) -> str:
        """Precision, threads, and the format unless it is a C library's."""
        return f"{self.dtype}, {plural(self.threads, 'thread')}" + (f", {WORDS.get(self.format, self.format)}" if self.format != C else "")

    @property
    def label(self) -> str:
        """Network, precision, threads and format, without device and clock."""
        return f"{self.network} {self.configuration}"

    def holds(self, context: Context, variant: VariantResult) -> bool:
        """Return whether a result belongs to this series and can be compared with its newest."""
        own = {name: getattr(self, name) for name in IDENTITY} | {name: getattr(self.current, name) for name in COMPARABLE}
        return identity_of(context, variant) == own

    @property
    def current(self) -> LatencyLine:
        """The line that the newest result belongs to."""
        return self.lines[-1]

    def since(self, commits: int) -> float | None:
        """Return the change of the latest latency from that of a given number of commits earlier in the line; `None` if the line is
        shorter.
        """
        points = self.current.points
        return points[-1].latency_us / points[-1 - commits].latency_us - 1 if len(points) > commits else None

    def is_noise(self, change: float) -> bool:
        """Return whether two runs of the same code often differ by this fraction."""
        return abs(math.log1p(change)) <= max(2 * math.sqrt(2) * self.current.found.noise, 5e-4)


@dataclass(frozen=True)
class ExplainedStep:
    """A step in words and numbers: where it is, and the kernels that changed by most.

    Attributes:
        series, line, step: the series, the line in it and the step in the line.
        before, after: numbers of the commits before and after it, where it most likely is.
        earliest, latest: it came after the first and not after the second of these commits, with the confidence of `steps.CONFIDENCE`.
        kernels: kernels whose times changed by most in the step's direction, or that have other schedules.
    """

    series: Series
    line: LatencyLine
    step: Step
    before: int
    after: int
    earliest: int
    latest: int
    kernels: tuple[KernelChange, ...]


@dataclass(frozen=True)
class MeasuredCommit:
    """A commit with results.

    Attributes:
        name: its hash, or what it was called.
        dirty: tracked files differed from it.
        time: time of the commit, in seconds since 1970.
        subject: the first line of its message.
    """

    name: str
    dirty: bool
    time: int
    subject: str

    @property
    def short(self) -> str:
        """Abbreviated name of the commit, with `+` for a dirty tree."""
        return (self.name[:10] if _HASH.fullmatch(self.name) else self.name) + "+" * self.dirty


@dataclass(frozen=True)
class CommitHistory:
    """A history as series over commits.

    Attributes:
        commits: all commits with results, the oldest first.
        series: series that have at least one result that counts.
        steps: their steps, the newest first.
        left_out: results that do not count: of dirty trees, and invalid ones.
    """

    commits: tuple[MeasuredCommit, ...]
    series: tuple[Series, ...]
    steps: tuple[ExplainedStep, ...]
    left_out: int

    @property
    def smaller(self) -> int:
        """Number of steps that are too small to be listed."""
        return sum(one.smaller for one in self.series)


@dataclass(frozen=True)
class SeriesFilter:
    """The series to show; `None` means any. `network` is part of the variant's name."""

    network: str | None = None
    device: str | None = None
    dtype: str | None = None
    threads: int | None = None

    def has(self, entry: Entry) -> bool:
        """Return whether a result belongs to such a series."""
        name = f"{entry.model} {entry.alpha}-{entry.side}"
        found = (entry.device, entry.dtype, entry.threads)
        wanted = (self.device, self.dtype, self.threads)
        return (self.network or "") in name and all(one in (None, other) for one, other in zip(wanted, found, strict=True))


def over_commits(history: History, wanted: SeriesFilter, least: float) -> CommitHistory:
    """Read a history; steps smaller than the share `least` are left out. Steps are sorted, the newest first.

    Raises:
        UserError: it has no results of the kind that is wanted, or is damaged.
    """
    known = history.entries()
    if wanted.device is not None:
        wanted = replace(wanted, device=device_among(wanted.device, {entry.device for entry in known}))
    entries = [entry for entry in known if wanted.has(entry)]
    if not entries:
        add, show = "Add some: tvmmobile history add FILE report.json", "See all that it has: tvmmobile history show FILE"
        raise UserError(f"{history.path} has no such results.", show if known else add)
    commits = list(dict.fromkeys(MeasuredCommit(entry.name, bool(entry.dirty), entry.time, entry.subject) for entry in entries))
    numbers = {(commit.name, commit.dirty): number for number, commit in enumerate(commits)}
    groups: dict[tuple[object, ...], list[Entry]] = {}
    for entry in entries:
        groups.setdefault(tuple(getattr(entry, name) for name in IDENTITY), []).append(entry)
    series = tuple(filter(None, (_series(group, numbers, least) for group in groups.values())))
    steps = [
        _with_kernels(history, one, line, step) for one in series for line in one.lines for step in line.found.steps if _shows(step, least)
    ]
    left_out = sum(not _counts(entry) for entry in entries)
    return CommitHistory(tuple(commits), series, tuple(sorted(steps, key=lambda step: -step.after)), left_out)


def _shows(step: Step, least: float) -> bool:
    return abs(step.change) >= least


def _counts(entry: Entry) -> bool:
    return not entry.invalid and not entry.dirty


def _series(entries: Sequence[Entry], numbers: dict[tuple[str, bool], int], least: float) -> Series | None:
    """Return the series of these results; `None` if none are valid."""
    counting = [entry for entry in entries if _counts(entry)]
    lines: dict[tuple[str, ...], list[Entry]] = {}
    for entry in counting:
        lines.setdefault(tuple(getattr(entry, name) for name in COMPARABLE), []).append(entry)
    lines_of_latencies = [_line(group, numbers) for group in lines.values()]
    if not lines_of_latencies:
        return None
    first = entries[0]
    identity = {name: getattr(first, name) for name in IDENTITY}
    ordered = tuple(sorted(lines_of_latencies, key=lambda line: line.points[-1].commit))
    smaller = sum(not _shows(step, least) for line in ordered for step in line.found.steps)
    return Series(**identity, lines=ordered, left_out=len(entries) - len(counting), smaller=smaller)


def _line(entries: Sequence[Entry], numbers: dict[tuple[str, bool], int]) -> LatencyLine:
    runs: dict[int, list[Entry]] = {}
    for entry in entries:
        runs.setdefault(numbers[entry.name, bool(entry.dirty)], []).append(entry)
    points = tuple(_point(commit, group) for commit, group in runs.items())
    exact = entries[0].kind == "modelled"
    found = find_steps([point.latency_us for point in points], [len(point.results) for point in points], exact)
    return LatencyLine(**{name: getattr(entries[0], name) for name in COMPARABLE}, points=points, found=found)


def _point(commit: int, runs: Sequence[Entry]) -> Point:
    spreads = [run.spread for run in runs if run.spread is not None]
    verdicts = [run.verdict for run in runs if run.verdict]
    medians = [run.median_us for run in runs]
    return Point(
        commit,
        # Not rounded where all are equal, as modelled ones are: it would be above the least sample, or below.
        medians[0] if len(set(medians)) == 1 else math.exp(statistics.fmean(map(math.log, medians))),
        min(run.least_us for run in runs),
        statistics.median(spreads) if spreads else None,
        tuple(run.id for run in runs),
        verdicts[-1] if verdicts else "",
        any(run.baseline for run in runs),
    )


def _with_kernels(history: History, series: Series, line: LatencyLine, step: Step) -> ExplainedStep:
    numbers = [point.commit for point in line.points]
    places = [one.at for one in line.found.steps]
    index = places.index(step.at)
    begin, end = [0, *places][index], [*places, len(numbers)][index + 1]
    old = line.points[max(begin, step.first - _SIDE) : max(step.first, begin + 1)]
    new = line.points[min(step.last, end - 1) : min(step.last + _SIDE, end)]
    before, after = (_kernels(history, [point.results[-1] for point in side]) for side in (old[::-1], new))
    sign = math.copysign(1.0, step.change)
    changes = kernel_changes(before, after, line.found.levels[index])
    same_way = [change for change in changes if sign * (change.added_us or 0.0) > 0 or change.base_schedule != change.new_schedule]
    kernels = tuple(sorted(same_way, key=lambda one: -sign * (one.added_us or 0.0)))
    earliest, latest = numbers[step.first - 1], numbers[step.last]
    return ExplainedStep(series, line, step, numbers[step.at - 1], numbers[step.at], earliest, latest, kernels)


def _kernels(history: History, results: Sequence[int]) -> list[KernelResult]:
    """Return the kernels of the first result, with the medians of their times in all results that have the same kernels."""
    nearest, *others = [history.kernels(result) for result in results]
    same = [nearest, *(other for other in others if list(map(_identity, other)) == list(map(_identity, nearest)))]
    times = [(_median([one.latency_us for one in each]), _median([one.network_us for one in each])) for each in zip(*same, strict=True)]
    return [replace(one, latency_us=record, network_us=network) for one, (record, network) in zip(nearest, times, strict=True)]


def _identity(kernel: KernelResult) -> tuple[str, str]:
    return kernel.name, kernel.schedule


def _median(times: Sequence[float | None]) -> float | None:
    known = [time for time in times if time is not None]
    return statistics.median(known) if known else None
