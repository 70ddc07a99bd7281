"""Compares outputs whose rows are ordered by score, such as a detector's best boxes, where rounding may swap near ties.

Half precision changes scores by more than the difference of neighbours, so that a correct network may return the same boxes in another
order, and other boxes at the end. Wheels contain this module, for Python from 3.9 and NumPy from 1.19 on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Values = npt.NDArray[Any]

#: Least and most rows of a list that counts as a ranking; each row is compared with all others.
LEAST, _MOST = 8, 4096


@dataclass(frozen=True, eq=False)
class Ranking:
    """The order of a network's outputs that hold lists of rows, ordered by score.

    Attributes:
        members: places of the outputs whose shape begins with `shape`.
        shape: extents of the lists, then the number of rows in each.
        scores: `[lists, rows]`, never ascending within a list.
        place: place of the output that contains the scores.
        column: column of the scores in this output's rows.
    """

    members: tuple[int, ...]
    shape: tuple[int, ...]
    scores: Values
    place: int
    column: int

    @property
    def tied(self) -> int:
        """The most rows in a list with the same score as its last row."""
        return int((self.scores == self.scores[:, -1:]).sum(1).max())


def ranking_of(outputs: Sequence[Values]) -> Ranking | None:
    """Find the column by which the outputs' rows are ordered; `None` if there is no column that never ascends and sometimes descends."""
    for place, output in enumerate(outputs):
        if output.dtype.kind != "f":
            continue
        for axis in range(output.ndim):
            rows = output.shape[axis]
            if not LEAST <= rows <= _MOST:
                continue
            columns = output.reshape(-1, rows, int(np.prod(output.shape[axis + 1 :])))
            ordered = (np.diff(columns, axis=1) <= 0).all((0, 1)) & (columns[:, 0] > columns[:, -1]).any(0)
            if ordered.any():
                shape, column = output.shape[: axis + 1], int(np.argmax(ordered))
                members = tuple(number for number, other in enumerate(outputs) if other.shape[: axis + 1] == shape)
                return Ranking(members, shape, columns[:, :, column], place, column)
    return None


def error_in_any_order(errors: Sequence[float], outputs: Sequence[Values], expected: Sequence[Values]) -> float:
    """Return the largest error of outputs, given each one's place by place, or a smaller one of their rows, see `rows_error`."""
    largest = max(errors, default=0.0)
    ranking = ranking_of(expected) if largest > 0 else None
    if ranking is None:
        return largest
    others = [error for number, error in enumerate(errors) if number not in ranking.members]
    return min(largest, max([rows_error(outputs, expected, ranking), *others]))


def rows_error(outputs: Sequence[Values], expected: Sequence[Values], ranking: Ranking) -> float:
    """Return the largest distance from a row to the most similar expected one, or from an expected row to the most similar one.

    Differences are relative to the largest magnitude of their column; columns of integers, such as classes, have to be equal. Rounding
    decides which of the rows with nearly the last score are in the list, so a row's error is at most the difference of its score from the
    last one's. The error is infinite if this replaces the distances of all but fewer than `LEAST` rows.
    """
    actual, wanted = (_rows([tensors[number] for number in ranking.members], ranking.shape) for tensors in (outputs, expected))
    scores = _rows([outputs[ranking.place]], ranking.shape)[:, :, ranking.column]
    if not np.isfinite(actual).all() or (np.diff(scores, axis=1) > 0).any():
        return float("inf")
    scale = np.abs(wanted).max((0, 1))
    scale = np.where(scale > 0, scale, 1.0)
    is_integer = (wanted == np.rint(wanted)).all((0, 1)) & (scale >= 1)
    lists = zip(actual, wanted, scores, ranking.scores)  # noqa: B905 - Python 3.9 has no `strict`
    return max(_list_error(*each, scale, is_integer) for each in lists)


def _rows(outputs: Sequence[Values], shape: tuple[int, ...]) -> Values:
    """Concatenate the columns of outputs: `[lists, rows, columns]`, float64."""
    lists = [output.reshape(-1, shape[-1], int(np.prod(output.shape[len(shape) :]))) for output in outputs]
    return np.concatenate(lists, 2).astype(np.float64)


def _list_error(actual: Values, wanted: Values, scores: Values, expected: Values, scale: Values, is_integer: Values) -> float:
    unit = float(np.abs(expected).max()) or 1.0
    return max(
        _one_way(actual, wanted, (scores - expected[-1]) / unit, scale, is_integer),
        _one_way(wanted, actual, (expected - scores[-1]) / unit, scale, is_integer),
    )


def _one_way(rows: Values, others: Values, above_last: Values, scale: Values, is_integer: Values) -> float:
    """Return the largest error of rows: the distance to the most similar other row or from the last score, whichever is less."""
    errors, margins = np.fromiter(_distances(rows, others, scale, is_integer), np.float64, len(rows)), np.abs(above_last)
    return float(np.minimum(errors, margins).max()) if np.count_nonzero(errors <= margins) >= LEAST else float("inf")


def _distances(rows: Values, others: Values, scale: Values, is_integer: Values) -> Iterator[float]:
    """Yield each row's distance to the most similar other row."""
    for row in rows:
        distance = np.abs(others - row)
        yield float(np.where(is_integer, np.where(distance > 0, np.inf, 0.0), distance / scale).max(1).min())
