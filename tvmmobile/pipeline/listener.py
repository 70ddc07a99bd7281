"""The listener to a run's progress, and the plan that it receives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import ClassVar

from tvmmobile.devices.protocol import DeviceProfile
from tvmmobile.results.report.fallback import UsedKernel
from tvmmobile.system.errors import UserError
from tvmmobile.system.keywords import in_calls
from tvmmobile.tuning.claims import RefusedLine
from tvmmobile.tuning.search.tuner import SearchListener, TrialAssignment

#: Seconds of a trial on two desktop cores: besides its runs, and on a virtual board for each emulated multiply-add.
_TRIAL_S, _EMULATED_S_PER_MAC = 0.45, 2.2e-9


@dataclass(frozen=True)
class TuningPlan:
    """The work of a run.

    Attributes:
        profile: profile of the device.
        variants: number of networks.
        assignments: assignments of the first round, including those with nothing to do.
        first: trials per kernel in that round.
        trials: trials per kernel at most, for those that a network's plan may use.
        outdated: records that rest on another timing model and do not count.
        used: the kernels that the networks would have with the records there are.
        refused: lines of the logs that hold no record, or one that cannot be true.
        idle_as_typed: reason why there is nothing to try, a sentence in terms of the command line; "" where there is something, or
            nothing was asked for.
    """

    profile: DeviceProfile
    variants: int
    assignments: tuple[TrialAssignment, ...]
    first: int
    trials: int
    outdated: int
    used: tuple[UsedKernel, ...]
    refused: tuple[RefusedLine, ...] = ()
    idle_as_typed: str = ""

    @property
    def idle(self) -> str:
        """The reason why there is nothing to try, in terms of calls; "" where there is something, or nothing was asked for."""
        return in_calls(self.idle_as_typed)

    @property
    def kernels(self) -> int:
        """Distinct kernels."""
        return len({assignment.task for assignment in self.assignments})

    @property
    def missing(self) -> int:
        """Trials to run in the first round."""
        return missing_trials(self.assignments)

    @property
    def estimated_s(self) -> float:
        """Rough duration of the first round on two cores of a desktop, in seconds; a run itself shows the remaining time."""
        emulated = _EMULATED_S_PER_MAC if self.profile.origin.modelled else 0.0
        return sum(assignment.missing * (_TRIAL_S + assignment.task.macs * emulated) for assignment in self.assignments)


def missing_trials(assignments: Sequence[TrialAssignment]) -> int:
    """Return the number of trials still to run."""
    return sum(assignment.missing for assignment in assignments)


class Listener(SearchListener):
    """Receives a run's progress and does nothing: override what you need. All calls come from the thread that started the run.

    Attributes:
        of_commands: true for the command line's own listener: messages to it name options, `--keep`, and those to others keywords, `keep`.
    """

    of_commands: ClassVar[bool] = False

    def stage(self, what: str, total: int) -> AbstractContextManager[Callable[[str], None]]:
        """Report a stage of `total` items: `what` is `importing`, `compiling`, `verifying` or `pricing`.

        Returns:
            A context manager for the stage; the function that it yields is called with the name of each finished item.
        """
        return nullcontext(lambda _item: None)

    def plan_ready(self, plan: TuningPlan) -> None:
        """Report the `plan` of the run, once networks are imported and the logs' gaps are known."""

    def search(self, assignments: Sequence[TrialAssignment], kind: str) -> AbstractContextManager[SearchListener]:
        """Report a search, with the `assignments` to work on and the `kind` of its latencies, e.g. `modelled`.

        Returns:
            A context manager for the search; the listener that it yields hears of kernels and trials.
        """
        return nullcontext(self)

    def message(self, text: str) -> None:
        """Report a message about the run: `text` is a sentence or several."""


class _Quiet(Listener):
    def __repr__(self) -> str:
        return "Listener()"  # signatures show it


#: Ignores all progress.
QUIET: Listener = _Quiet()


def tell(listener: Listener, text: str) -> None:
    """Send a message, written in terms of the command line, to a listener in its terms."""
    listener.message(text if listener.of_commands else in_calls(text))


def check_listener(given: object) -> None:
    """Raise `UserError` for a call's listener that is none, such as the class instead of an instance."""
    if not isinstance(given, Listener):
        called = f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__
        raise UserError(f"{called} is not a listener.", "Give an instance of a subclass of tvmmobile.Listener, or leave it out.")
