"""Outputs whose rows are in order of a score: what nearly ties may be swapped, all else is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tvmmobile.kernels.ranked import ranking_of
from tvmmobile.kernels.reference import network_error

ROWS = 40


def detections(scores: NDArray[np.float64], seed: int = 0) -> NDArray[np.float64]:
    """Return the best boxes of a list: four coordinates, score, class."""
    random = np.random.default_rng(seed)
    rows = np.concatenate([random.normal(0, 300, (len(scores), 4)), scores[:, None], random.integers(0, 80, (len(scores), 1))], 1)
    return rows[np.argsort(-scores, kind="stable")][None, :ROWS]


def apart(rows: NDArray[np.float64]) -> list[NDArray[Any]]:
    """Boxes, scores and classes as outputs of their own."""
    return [rows[..., :4], rows[..., 4], rows[..., 5].astype(np.int64)]


@pytest.fixture
def scores() -> NDArray[np.float64]:
    return np.random.default_rng(1).random(4 * ROWS)


@pytest.mark.parametrize("noise", [1e-3, 1e-2])
def test_rows_that_nearly_tie_may_be_swapped(scores: NDArray[np.float64], noise: float) -> None:
    expected = detections(scores)
    moved = detections(scores + np.random.default_rng(2).uniform(-noise, noise, scores.shape))
    assert np.abs(moved - expected).max() > 100, "rows have other places"
    assert network_error([moved], [expected]) <= 3 * noise
    assert network_error(apart(moved), apart(expected)) <= 3 * noise


@pytest.mark.parametrize(("column", "value"), [(0, 250.0), (4, -0.2), (5, 1.0)])
@pytest.mark.parametrize("row", [0, 20])
def test_a_wrong_value_in_a_row_is_found(scores: NDArray[np.float64], row: int, column: int, value: float) -> None:
    expected = detections(scores)
    swapped = expected[:, [1, 0, *range(2, ROWS)]]
    swapped[..., 4] = expected[..., 4]
    assert network_error([swapped], [expected]) < 0.02
    swapped[0, row, column] += value
    assert network_error([swapped], [expected]) > (0.05 if row else 0.15)


def test_rows_without_a_clear_score_may_be_others(scores: NDArray[np.float64]) -> None:
    expected = detections(np.sort(scores)[::-1] * 1e-3 + 0.5)
    other = detections(np.sort(scores)[::-1] * 1e-3 + 0.5, seed=3)
    exchanged = expected.copy()
    exchanged[0, ROWS // 2 :] = other[0, ROWS // 2 :]
    assert network_error([exchanged], [expected]) < 1e-2
    assert network_error([other], [expected]) > 0.5


def test_rows_out_of_order_are_wrong(scores: NDArray[np.float64]) -> None:
    expected = detections(scores)
    assert network_error([expected[:, ::-1]], [expected]) > 0.3


def test_ties_are_counted(scores: NDArray[np.float64]) -> None:
    ranking = ranking_of([detections(np.minimum(scores, 0.9))])
    assert ranking is not None and ranking.column == 4 and ranking.tied == 1
    saturated = ranking_of([detections(np.concatenate([[2.0], np.ones(4 * ROWS)]))])
    assert saturated is not None and saturated.tied == ROWS - 1
    assert ranking_of([np.random.default_rng(0).random((1, ROWS, 6))]) is None
    assert ranking_of([np.zeros((1, ROWS, 6))]) is None
