"""What measurements say of a model: whether it ranks them right, and which of its terms explains best what it gets wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field

from tvmmobile.virtual.board import Board
from tvmmobile.virtual.calibration.fit import Observation
from tvmmobile.virtual.calibration.terms import Parameter, overlaps, summed_ms, term_ms, terms_of

#: Fewer pairs have no rank correlation worth a number.
FEWEST_RANKED = 4
#: The term of the core's own cycles, whose factor is 1.
CORE = "core"
#: A term errs if it explains at least this much of squared errors that are at least so large (relative, root mean square).
_EXPLAINS, _LEAST_ERROR = 0.3, 0.02
_Share = Annotated[float, Field(ge=0, le=1e6)]


def spearman(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's rank correlation; `None` for too few pairs, or where all on one side are equal."""
    if len(pairs) < FEWEST_RANKED or any(len(set(column)) == 1 for column in zip(*pairs, strict=True)):
        return None
    from scipy.stats import spearmanr  # takes a second

    return float(spearmanr([one for one, _ in pairs], [other for _, other in pairs]).statistic)


@dataclass(frozen=True)
class TermError:
    """What one term could do about the errors of the model, if it alone were wrong.

    Attributes:
        name: `core`, or one of the terms of misses.
        value: what it is multiplied by in the model.
        alone: what it would have to be multiplied by for the least squared relative errors, all other terms as they are.
        explained: how much of the squared relative errors that takes away, as a share of 1.
    """

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")

    name: str
    value: _Share
    alone: _Share
    explained: Annotated[float, Field(ge=0, le=1)]


def relative_errors(board: Board, parameters: Sequence[Parameter], observations: Sequence[Observation]) -> list[float]:
    """Modelled over measured less 1, of each observation."""
    return [sum(observed_ms(board, parameters, seen).values()) / seen.measured_ms - 1 for seen in observations]


def observed_ms(board: Board, parameters: Sequence[Parameter], seen: Observation) -> dict[str, float]:
    """The terms of what was observed, in milliseconds."""
    return summed_ms(term_ms(board, part.core_cycles, part.misses, parameters) for part in seen.parts)


def term_errors(board: Board, parameters: Sequence[Parameter], observations: Sequence[Observation]) -> tuple[TermError, ...]:
    """Every term that the observations have some of, the one that explains most of their errors first."""
    missing = [-error for error in relative_errors(board, parameters, observations)]
    squares = sum(error * error for error in missing)
    found = []
    for name, value in ((CORE, 1.0), *((p.name, p.value) for p in parameters)):
        amounts = [_amount_ms(board, parameters, name, seen) / seen.measured_ms for seen in observations]
        weight = sum(amount * amount for amount in amounts)
        if not weight:
            continue
        alone = max(0.0, value + sum(error * amount for error, amount in zip(missing, amounts, strict=True)) / weight)
        left = sum((error - (alone - value) * amount) ** 2 for error, amount in zip(missing, amounts, strict=True))
        found.append(TermError(name, value, alone, max(0.0, 1 - left / squares) if squares else 0.0))
    return tuple(sorted(found, key=lambda term: -term.explained))


def erring(terms: Sequence[TermError], errors: Sequence[float]) -> TermError | None:
    """The term that explains most of these errors; `None` where they are small, or none of the terms explains them."""
    if not terms or sum(error * error for error in errors) < len(errors) * _LEAST_ERROR**2:
        return None
    return terms[0] if terms[0].explained >= _EXPLAINS else None


def _amount_ms(board: Board, parameters: Sequence[Parameter], name: str, seen: Observation) -> float:
    """Milliseconds of a run if the term were 1; where memory works beside the core, of what its traffic shows with these parameters."""
    if name == CORE:
        return seen.core_cycles / board.clock_hz * 1e3
    value = next(p.value for p in parameters if p.name == name)
    if value and overlaps(board):
        return observed_ms(board, parameters, seen)[name] / value
    return terms_of(board)[name].amount_ms(board, seen.misses)
