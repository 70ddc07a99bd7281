"""How schedules are searched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from tvmmobile.pipeline.options.option import Options, Place, option
from tvmmobile.system.errors import UserError

STRATEGIES = ("evolution", "climb", "random")


def known_strategy(name: str) -> str:
    """The strategy; raises `UserError` for one that is not known."""
    if name not in STRATEGIES:
        raise UserError(f"strategy {name!r} is not known.", "Give --strategy evolution, climb or random.")
    return name


@dataclass(frozen=True)
class SearchOptions(Options):
    """How schedules are searched."""

    trials: int | None = option(
        None,
        Place.TRIALS,
        "--trials",
        metavar="N",
        min=0,
        help="Trials per kernel, logged ones included; above 2, promising kernels only. Default: 8; 0 where shipped logs have any.",
    )
    fresh: bool = option(False, Place.LOGS, "--fresh", help="Ignore all logs; start an empty one under --out.")
    strategy: str = option(
        STRATEGIES[0],
        Place.SEARCH,
        "--strategy",
        read=known_strategy,
        metavar="NAME",
        help="Search strategy: evolution, climb or random.",
    )
    seed: int = option(0, Place.SEARCH, about="Seed for the search.")


class SearchArguments(TypedDict, total=False):
    """The keywords of `SearchOptions` in calls."""

    trials: int | None
    fresh: bool
    strategy: str
    seed: int
