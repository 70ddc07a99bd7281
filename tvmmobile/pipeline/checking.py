"""Runs a library once on the machine that built it, and records the outcome in its manifest."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tvmmobile.pipeline.agreement import agrees, disagreement, error_of, session_timeout_s
from tvmmobile.pipeline.diagnosis import Difference
from tvmmobile.pipeline.movement import note_rounding
from tvmmobile.running.emulation import NotRunnable, RunHere, run_here
from tvmmobile.running.library import Library
from tvmmobile.running.manifest import note_check
from tvmmobile.running.measure import MeasureError
from tvmmobile.system.errors import Disagreement, please_report
from tvmmobile.system.files import replacing
from tvmmobile.system.scratch import scratch

#: The longest that a check may take, in seconds.
MOST_CHECK_S = 1800.0


def checked(error: float, place: str) -> dict[str, Any]:
    """Return the manifest's entries for a library that agrees with its reference on `place`."""
    return {"checked": True, "check": {"error": float(f"{error:.2g}"), "place": place}}


def unchecked(why: str) -> dict[str, Any]:
    """Return the manifest's entries for a library that was not run."""
    return {"checked": False, "check": {"why": why}}


def check(library: Library, rounding: Callable[[], float], explain: Callable[[int, float], Difference | None]) -> None:
    """Run a library once on its reference input, with each of its sets of kernels, compare its outputs, and note it in the manifest.

    Args:
        library: library with its manifest and reference.
        rounding: measures the error that roundings explain, where there is more than the tolerance.
        explain: finds, given a set's place and that error, where the values differ first; returns `None` where that cannot be found.

    Raises:
        Disagreement: it does not run, or returns something else.
    """
    timeout_s = min(session_timeout_s(library), MOST_CHECK_S)
    runs: list[RunHere] = []
    for number in range(len(library.facts.cores)):
        try:
            done = run_here(library, timeout_s, number)
        except NotRunnable as error:
            return note_check(library.manifest_path, unchecked(str(error)))
        except MeasureError as error:
            raise _failure(library, error) from error
        if not agrees(library, done.error):
            note_rounding(library, moves := rounding())
            if not agrees(library, done.error):
                first = explain(number, moves)
                remedy = _remedy(first.remedy if first else please_report("network"))
                raise disagreement(library, done.place, error_of(done.error), remedy, first.where if first else "")
        runs.append(done)
    places = ", ".join(dict.fromkeys(done.place for done in runs))
    return note_check(library.manifest_path, checked(max(done.error for done in runs), places))


def _remedy(advice: str) -> str:
    return f"Nothing was written. {advice} With --no-check the library is written as it is."


def _failure(library: Library, error: MeasureError) -> Disagreement:
    """Return the error for a library that was compiled but does not run."""
    verb = "does not finish" if error.kind == "timeout" else "does not run"
    return Disagreement(f"{library.path.name} {verb} once it is compiled: {error.reason}.", _remedy(please_report("network")))


@contextmanager
def handed_over(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; unless the body raises, its files are moved to `folder`, each atomically and the manifest last."""
    with scratch("unchecked") as filled:
        yield filled
        for path in sorted(filled.iterdir(), key=lambda path: path.suffix == ".json"):
            with replacing(folder / path.name) as temporary:
                shutil.move(path, temporary)
