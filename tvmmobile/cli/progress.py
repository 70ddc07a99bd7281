"""Progress on stderr: a bar on a terminal, a line per kernel elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from tvmmobile.pipeline.listener import Listener
from tvmmobile.pipeline.sentences import outdated_sentence, skipped_lines
from tvmmobile.results.report.wording import plural
from tvmmobile.tuning.search.tuner import SearchListener, TrialAssignment

if TYPE_CHECKING:
    from tvmmobile.graph.tasks import Task
    from tvmmobile.pipeline.listener import TuningPlan
    from tvmmobile.tuning.records import Record


def errors() -> Console:
    """Return the console for progress and remarks, on stderr."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


class Shown(Listener):
    """Shows the course of a run on stderr."""

    of_commands = True

    @contextmanager
    def stage(self, what: str, total: int) -> Iterator[Callable[[str], None]]:
        """Implement `Listener.stage`."""
        console = errors()
        columns = (TextColumn("{task.description:<10}"), BarColumn(20), MofNCompleteColumn(), TextColumn("{task.fields[item]}"))
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            bar = progress.add_task(what, total=total, item="")
            yield lambda item: progress.update(bar, advance=1, item=item)

    def plan_ready(self, plan: TuningPlan) -> None:
        """Implement `Listener.plan_ready`."""
        from tvmmobile.virtual.board import load_board
        from tvmmobile.virtual.summary import doubt

        profile, origin = plan.profile, plan.profile.origin
        face = f"{profile.board} ({origin.kind})"
        if origin.modelled:
            face = f"the virtual {profile.board} (latencies are modelled{doubt(load_board(profile.board_file))})"
        self.message(
            f"{profile.name}: {face}\n{plural(plan.variants, 'variant')}, {plural(plan.kernels, 'distinct kernel')}, "
            f"{plural(sum(assignment.done for assignment in plan.assignments), 'record')}, {plural(plan.missing, 'trial')} to run"
            + (f", then up to {plan.trials} for each kernel a plan may use" if plan.trials > plan.first else "")
        )
        if plan.idle_as_typed:
            self.message(plan.idle_as_typed)
        if plan.refused:
            self.message(skipped_lines(plan.refused))
        if plan.outdated:
            self.message(outdated_sentence(plan.outdated))

    def search(self, assignments: Sequence[TrialAssignment], kind: str) -> AbstractContextManager[SearchListener]:
        """Implement `Listener.search`."""
        return TuningProgress(assignments, kind)

    def message(self, text: str) -> None:
        """Implement `Listener.message`."""
        errors().print(text, soft_wrap=True)


class TuningProgress(SearchListener):
    """Shows the course of a tuning run, finished assignments included: kernel, trials, time left, best latency and failures."""

    def __init__(self, assignments: Sequence[TrialAssignment], kind: str) -> None:
        self._kind = kind
        self._console = errors()
        self._total = sum(assignment.missing for assignment in assignments)
        self._kernels = sum(1 for assignment in assignments if assignment.missing)
        self._kernel = 0
        self._finished = 0
        self._failures: Counter[Task] = Counter()
        self._progress = Progress(
            BarColumn(8),  # the rest takes up to 70 of 80 columns
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._bar: TaskID = self._progress.add_task("tuning", total=self._total, status="")

    def __enter__(self) -> TuningProgress:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def kernel_started(self, assignment: TrialAssignment) -> None:
        """Implement `SearchListener.kernel_started`."""
        self._kernel += 1
        self._progress.update(self._bar, status=f"kernel {self._kernel}/{self._kernels}")

    def trial_finished(self, record: Record, best: Record | None) -> None:
        """Implement `SearchListener.trial_finished`."""
        self._failures[record.task] += record.latency_us is None
        failures = self._failures[record.task]
        status = f"kernel {self._kernel}/{self._kernels}, best {_latency(best)} {self._kind}"
        if failures:
            status += f", {failures} failed"
        self._progress.update(self._bar, advance=1, status=status)

    def kernel_finished(self, assignment: TrialAssignment, best: Record | None) -> None:
        """Implement `SearchListener.kernel_finished`."""
        self._finished += 1
        head = f"[{self._finished}/{self._kernels}] {assignment.title}"
        failures = self._failures.pop(assignment.task, 0)
        failed = f", {failures} failed" if failures else ""
        self._progress.console.print(
            f"{head}\n    best {_latency(best)} {self._kind} after {plural(assignment.missing, 'trial')}{failed}", soft_wrap=True
        )


def _latency(best: Record | None) -> str:
    return "–" if best is None or best.latency_us is None else f"{best.latency_us:.1f} us"
