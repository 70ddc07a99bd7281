"""Options of the search for schedules."""

from __future__ import annotations

from dataclasses import dataclass

from tvmmobile.pipeline.options.option import HelpOrder, Options, option
from tvmmobile.pipeline.options.run import RunArguments
from tvmmobile.system.errors import UserError
from tvmmobile.tuning.search import STRATEGIES

#: As texts list them: "evolution, climb or random".
_NAMES = " or ".join(", ".join(STRATEGIES).rsplit(", ", 1))


def known_strategy(name: str) -> str:
    """Return the strategy; raise `UserError` for one that is not known."""
    if name not in STRATEGIES:
        raise UserError(f"strategy {name!r} is not known.", f"Give --strategy {_NAMES}.")
    return name


@dataclass(frozen=True)
class SearchOptions(Options):
    """Options of the search for schedules."""

    trials: int | None = option(
        None,
        "--trials N",
        "Trials per kernel, logged ones included; above 2, promising kernels only. Default: 8; 0 where shipped logs have any.",
        order=HelpOrder.TRIALS,
        typer_settings={"min": 0},
    )
    fresh: bool = option(False, "--fresh", "Ignore all logs; start an empty one under --out.", order=HelpOrder.LOGS)
    strategy: str = option(STRATEGIES[0], "--strategy NAME", f"Search strategy: {_NAMES}.", order=HelpOrder.SEARCH, parse=known_strategy)
    seed: int = option(0, api_doc="Seed for the search.")


class TuneArguments(RunArguments, total=False):
    """For type checkers: the keywords of calls that take `RunOptions` and `SearchOptions`; a test holds them equal."""

    trials: int | None
    fresh: bool
    strategy: str
    seed: int
