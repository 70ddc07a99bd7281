"""Finds the commit at which a latency changed by running a command on commits between two results, halving their number.

The commits are checked out one after another in a separate worktree, which is always removed at the end.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import signal
import statistics
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tvmmobile.history.commits import Commit, commit_of
from tvmmobile.history.file import History
from tvmmobile.history.series import CommitHistory, Point, Series
from tvmmobile.results.file import VariantResult, read_results
from tvmmobile.results.report.wording import plural
from tvmmobile.system.errors import UserError
from tvmmobile.system.interrupts import deferred
from tvmmobile.system.programs import run_tool
from tvmmobile.system.scratch import scratch

#: Most runs of one commit whose latency is close to the threshold.
_MOST_RUNS = 4
#: Closer to the threshold than this many standard deviations, a commit is run again.
_CLOSE = 2.0
#: The two results must differ by this many standard deviations of their difference.
_APART = 3.0
#: Time that an interrupted command has to end in order.
_PATIENCE_S = 10.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Bisected:
    """The outcome of a bisection.

    Attributes:
        first: the first commit with the new latency.
        before: the last one with the old latency.
        skipped: commits between them that could not be timed.
    """

    first: Commit
    before: Commit
    skipped: int


@dataclass
class _Timer:
    """Times commits of a series with a command, and adds what it finds to the history.

    Attributes:
        tree: folder that commits are checked out in.
        result: the file in it that the command writes.
    """

    history: History
    series: Series
    command: Sequence[str]
    tree: Path
    result: Path
    say: Say

    def is_new(self, name: str, middle: float, sign: float) -> bool | None:
        """Return whether a commit's latency is on the new side of `middle`, a logarithm; `None` if it cannot be timed."""
        git(self.tree, "checkout", "--quiet", "--detach", "--force", name)
        git(self.tree, "clean", "--quiet", "-ffd")  # ignored files, such as what is built, stay: they save time
        commit, noise = commit_of("HEAD", self.tree), self.series.current.found.noise
        runs: list[float] = []
        problem = ""
        for _ in range(_MOST_RUNS):
            result = self._run(commit)
            if result is None:
                runs.clear()
                break
            problem = result.invalid
            if problem:
                continue
            runs.append(math.log(result.latency_us))
            if abs(statistics.fmean(runs) - middle) > _CLOSE * noise / math.sqrt(len(runs)):
                break
        if not runs:
            self.say(f"{name[:10]} {commit.subject}: cannot be timed, skipped{problem and f' ({problem})'}")
            return None
        new = sign * (statistics.fmean(runs) - middle) > 0
        latency_ms = math.exp(statistics.fmean(runs)) / 1e3
        self.say(f"{name[:10]} {commit.subject}: {latency_ms:.4g} ms {self.series.kind}, {'new' if new else 'old'} latency")
        return new

    def _run(self, commit: Commit) -> VariantResult | None:
        """Run the command; return the result of the series, valid or not; `None` if the command failed or wrote no file."""
        self.result.unlink(missing_ok=True)
        try:
            process = subprocess.Popen(self.command, cwd=self.tree, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True)
        except OSError as error:  # such as a script that this commit does not have
            self.say(f"{self.command[0]} cannot be started: {error.strerror}")
            return None
        try:
            code = process.wait()
        finally:
            with deferred(), contextlib.suppress(ProcessLookupError):
                if process.poll() is None:  # interrupted
                    os.killpg(process.pid, signal.SIGTERM)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(_PATIENCE_S)
                os.killpg(process.pid, signal.SIGKILL)  # and processes that it left running
                process.wait()
        if code != 0 or not self.result.is_file():
            return None
        results = read_results(self.result)
        found = [variant for variant in results.variants if self.series.holds(results.context, variant)]
        if len(found) != 1:
            raise UserError(
                f"the command's result has no {self.series.label} on {self.series.device} to compare.", "Let it time the series asked for."
            )
        self.history.add(results, commit, "bisect")
        return found[0]


def bisect(
    history: History, over: CommitHistory, good: str | None, bad: str | None, command: Sequence[str], result: str, say: Say
) -> Bisected:
    """Find the commit between two results of the only series in `over` at which its latency changed.

    Args:
        good, bad: commits with results, the older one first; by default those that the series' last step lies between.
        command: run in the folder of each commit; exits with 0 after writing a result file.
        result: the result file of that command, relative to the folder.
        say: called with a line for each commit.

    Raises:
        UserError: the commits have no results or are not one after the other in git, their latencies do not differ beyond the noise, the
            command cannot be started in the newer one, its result is of something else, or no commit between them can be timed.
    """
    if not over.series:
        raise UserError("all results are of dirty trees, or not valid.", "Time two commits with tvmmobile bench --history FILE.")
    if len(over.series) != 1:
        names = "; ".join(f"{one.label} on {one.device}" for one in over.series[:3])
        raise UserError(f"{len(over.series)} series match, such as {names}.", "Choose one with --network, --device, --dtype and --threads.")
    if not command:
        raise UserError("no command is given.", "Give it after --, such as: -- ./time_it")
    series = over.series[0]
    steps = [step for step in over.steps if step.line is series.current]
    if good is None and bad is None and not steps:
        since = " since its board or timing model changed" if over.steps else ""
        raise UserError(f"{series.label} has no step{since}.", "Name two commits with --good and --bad.")
    ends = (steps[0].earliest, steps[0].latest) if steps else (None, None)
    old, new = (_point(over, series, name, end) for name, end in zip((good, bad), ends, strict=True))
    noise = series.current.found.noise * math.sqrt(1 / len(old.results) + 1 / len(new.results))
    difference, middle = math.log(new.latency_us / old.latency_us), math.log(new.latency_us * old.latency_us) / 2
    if abs(difference) <= _APART * noise or difference == 0:
        change = f"by {math.expm1(difference):+.1%}" if difference else "in nothing"
        raise UserError(f"the two latencies differ {change}, which noise explains.", "Name commits further apart, or time them more often.")
    first, last = over.commits[old.commit].name, over.commits[new.commit].name
    chain = _between(first, last)
    with _worktree(last) as tree:
        _check_command(command[0], tree, last)
        say(f"{plural(len(chain), 'commit')}, {old.latency_us / 1e3:.4g} and {new.latency_us / 1e3:.4g} ms {series.kind}")
        timer = _Timer(history, series, command, tree, tree / result, say)
        return _halved([first, *chain], lambda name: timer.is_new(name, middle, math.copysign(1.0, difference)))


def _check_command(program: str, tree: Path, commit: str) -> None:
    """Raise `UserError` if a program cannot be started in the folder of a commit."""
    if shutil.which(tree / program if os.path.dirname(program) else program) is None:
        raise UserError(
            f"{program} is not a program that can be started in commit {commit[:10]}.",
            "Give the whole path of a program outside the checkout, and make it executable.",
        )


def _halved(names: list[str], is_new: Callable[[str], bool | None]) -> Bisected:
    """Find the first new commit, of which the first is old and the last is new; raise `UserError` if none between can be timed."""
    known: dict[int, bool | None] = {0: False, len(names) - 1: True}
    while True:
        low = max(place for place, new in known.items() if new is False)
        high = min(place for place, new in known.items() if new)
        left = [place for place in range(low + 1, high) if place not in known]
        if not left:
            if high - low == len(names) - 1 > 1:
                raise UserError(
                    f"no commit between {names[0][:10]} and {names[-1][:10]} could be timed.",
                    f"Run the command in one of them to see why: git worktree add ../tried {names[high // 2][:10]}",
                )
            return Bisected(commit_of(names[high]), commit_of(names[low]), high - low - 1)
        place = min(left, key=lambda one: abs(one - (low + high) / 2))
        known[place] = is_new(names[place])


def _point(over: CommitHistory, series: Series, name: str | None, number: int | None) -> Point:
    """Return the point of the commit called `name`, or with that number."""
    if name is None and number is None:
        raise UserError("only one commit is given, and there is no step.", "Name two commits with --good and --bad.")
    full = name and commit_of(name).name
    for point in reversed(series.current.points):
        if point.commit == number if full is None else over.commits[point.commit].name == full:
            return point
    raise UserError(f"{series.label} has no result of {name}.", "Time that commit with tvmmobile bench --history FILE.")


def _between(first: str, last: str) -> list[str]:
    """Return the commits after `first` up to `last` along first parents, the oldest first."""
    remedy = "Run this in the checkout, and name commits of one branch, the older one first."
    chain = git(None, "rev-list", "--reverse", "--first-parent", f"{first}..{last}", "--", remedy=remedy).split()
    common = git(None, "merge-base", first, last, remedy=remedy).strip()
    if common != first or not chain:
        raise UserError(f"{first[:10]} is not an ancestor of {last[:10]}.", remedy)
    return chain


@contextmanager
def _worktree(name: str) -> Iterator[Path]:
    """Check a commit out in a worktree in a temporary folder, until the context ends."""
    git(None, "worktree", "prune")  # of bisections that were killed
    with scratch("bisect") as folder:
        tree = folder / "tree"
        try:
            git(None, "worktree", "add", "--quiet", "--detach", str(tree), name)
            yield tree
        finally:
            with deferred(), contextlib.suppress(UserError):
                git(None, "worktree", "remove", "--force", "--force", str(tree))


def git(folder: Path | None, *words: str, remedy: str = "Run it in a git checkout with the commits.") -> str:
    """Run git and return its output; raise `UserError` if it fails."""
    try:
        return run_tool(["git", *words], f"git {words[0]}", remedy, folder=folder)
    except FileNotFoundError:
        raise UserError("git is not installed.", "Install it: apt-get install git") from None
