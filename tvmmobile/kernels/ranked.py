"""Compares outputs whose rows are ordered by score, such as a detector's best boxes, where rounding may swap near ties.

Half precision moves scores by more than neighbours differ, so that a right network returns the same boxes in another order, and
others at the end. Wheels contain this module, for Python from 3.9 and NumPy from 1.19 on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Values = npt.NDArray[Any]

#: Rows that are worth the name, and as many as are compared with all others.
LEAST, _MOST = 8, 4096


@dataclass(frozen=True, eq=False)
class Ranking:
    """Outputs with ordered rows.

    Attributes:
        members: places of the outputs whose dimensions begin with `shape`.
        shape: lists, then rows of each.
        scores: `[lists, rows]`, in no case ascending.
        place, column: the output that scores are in, and where in its rows.
    """

    members: tuple[int, ...]
    shape: tuple[int, ...]
    scores: Values
    place: int
    column: int

    @property
    def tied(self) -> int:
        """Most rows of a list that have the score of its last row."""
        return int((self.scores == self.scores[:, -1:]).sum(1).max())


def ranking_of(outputs: Sequence[Values]) -> Ranking | None:
    """Return the order of outputs' rows; None if a list has ascending scores, or equal ones in every column."""
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
    """Return the largest error of rows in any order: from each row to the most similar expected one, and the other way round.

    Numbers are compared column by column, by the column's largest magnitude; those of a column of classes have to be equal.
    A row may be any other one where its score is closer to the last one's than the row is to those expected: which rows come out there
    is up to rounding. Infinite where this leaves fewer than `LEAST` rows that are compared.
    """
    found, wanted = (_rows([each[number] for number in ranking.members], ranking.shape) for each in (outputs, expected))
    scores = _rows([outputs[ranking.place]], ranking.shape)[:, :, ranking.column]
    if not np.isfinite(found).all() or (np.diff(scores, axis=1) > 0).any():
        return float("inf")
    scale = np.abs(wanted).max((0, 1))
    scale = np.where(scale > 0, scale, 1.0)
    whole = (wanted == np.rint(wanted)).all((0, 1)) & (scale >= 1)
    lists = zip(found, wanted, scores, ranking.scores)  # noqa: B905 - Python 3.9 has no `strict`
    return max(_list_error(*each, scale, whole) for each in lists)


def _rows(outputs: Sequence[Values], shape: tuple[int, ...]) -> Values:
    """Return all numbers of rows, `[lists, rows, numbers]`."""
    lists = [output.reshape(-1, shape[-1], int(np.prod(output.shape[len(shape) :]))) for output in outputs]
    return np.concatenate(lists, 2).astype(np.float64)


def _list_error(found: Values, wanted: Values, scores: Values, expected: Values, scale: Values, whole: Values) -> float:
    unit = float(np.abs(expected).max()) or 1.0
    return max(
        _one_way(found, wanted, (scores - expected[-1]) / unit, scale, whole),
        _one_way(wanted, found, (expected - scores[-1]) / unit, scale, whole),
    )


def _one_way(rows: Values, others: Values, above_last: Values, scale: Values, whole: Values) -> float:
    """Return the largest error of rows: the distance from the most similar row or of the score from the last, whichever is less."""
    errors, distances = np.fromiter(_nearest(rows, others, scale, whole), np.float64, len(rows)), np.abs(above_last)
    return float(np.minimum(errors, distances).max()) if np.count_nonzero(errors <= distances) >= LEAST else float("inf")


def _nearest(rows: Values, others: Values, scale: Values, whole: Values) -> Iterator[float]:
    for row in rows:
        distance = np.abs(others - row)
        yield float(np.where(whole, np.where(distance > 0, np.inf, 0.0), distance / scale).max(1).min())
