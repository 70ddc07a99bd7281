"""Compares a model with measurements: whether it ranks them correctly, and which of its terms best explains its errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field

from tvmmobile.virtual.board import Board
from tvmmobile.virtual.calibration.fit import Observation
from tvmmobile.virtual.calibration.terms import Parameter, overlaps, summed_ms, term_ms, terms_of

#: Least number of pairs for a meaningful rank correlation.
FEWEST_RANKED = 4
#: Name of the term of the core's cycles, whose factor is 1.
CORE = "core"
#: A term is reported as wrong if it explains at least this share of the squared errors, and their root mean square is at least this large.
_EXPLAINS, _LEAST_ERROR = 0.3, 0.02
_Share = Annotated[float, Field(ge=0, le=1e6)]


def spearman(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Return Spearman's rank correlation; `None` for too few pairs, or if all first or all second values are equal."""
    if len(pairs) < FEWEST_RANKED or any(len(set(column)) == 1 for column in zip(*pairs, strict=True)):
        return None
    from scipy.stats import spearmanr  # takes a second

    return float(spearmanr([first for first, _ in pairs], [second for _, second in pairs]).statistic)


@dataclass(frozen=True)
class TermError:
    """The share of the model's errors that one term would explain if it alone were wrong.

    Attributes:
        name: `core`, or one of the terms of misses.
        value: factor of the term in the model.
        alone: factor of the term that minimises the squared relative errors, with all other terms unchanged.
        explained: fraction of the squared relative errors that this removes.
    """

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")

    name: str
    value: _Share
    alone: _Share
    explained: Annotated[float, Field(ge=0, le=1)]


def relative_errors(board: Board, parameters: Sequence[Parameter], observations: Sequence[Observation]) -> list[float]:
    """Return the relative error of each observation: modelled / measured - 1."""
    return [sum(observed_ms(board, parameters, seen).values()) / seen.measured_ms - 1 for seen in observations]


def observed_ms(board: Board, parameters: Sequence[Parameter], seen: Observation) -> dict[str, float]:
    """Return the modelled terms of an observation in milliseconds, by name."""
    return summed_ms(term_ms(board, part.core_cycles, part.misses, parameters) for part in seen.parts)


def term_errors(board: Board, parameters: Sequence[Parameter], observations: Sequence[Observation]) -> tuple[TermError, ...]:
    """Return the terms that occur in the observations, in descending order of the errors that they explain."""
    missing = [-error for error in relative_errors(board, parameters, observations)]
    squares = sum(error * error for error in missing)
    terms = []
    for name, value in ((CORE, 1.0), *((p.name, p.value) for p in parameters)):
        amounts = [_amount_ms(board, parameters, name, seen) / seen.measured_ms for seen in observations]
        weight = sum(amount * amount for amount in amounts)
        if not weight:
            continue
        alone = max(0.0, value + sum(error * amount for error, amount in zip(missing, amounts, strict=True)) / weight)
        left = sum((error - (alone - value) * amount) ** 2 for error, amount in zip(missing, amounts, strict=True))
        terms.append(TermError(name, value, alone, max(0.0, 1 - left / squares) if squares else 0.0))
    return tuple(sorted(terms, key=lambda term: -term.explained))


def erring(terms: Sequence[TermError], errors: Sequence[float]) -> TermError | None:
    """Return the term that explains most of the errors; `None` if they are small, or if no term explains enough of them."""
    if not terms or sum(error * error for error in errors) < len(errors) * _LEAST_ERROR**2:
        return None
    return terms[0] if terms[0].explained >= _EXPLAINS else None


def _amount_ms(board: Board, parameters: Sequence[Parameter], name: str, seen: Observation) -> float:
    """Return a run's milliseconds for a parameter of 1; on overlapping cores, only for the traffic that is not hidden."""
    if name == CORE:
        return seen.core_cycles / board.clock_hz * 1e3
    value = next(p.value for p in parameters if p.name == name)
    if value and overlaps(board):
        return observed_ms(board, parameters, seen)[name] / value
    return terms_of(board)[name].amount_ms(board, seen.misses)
