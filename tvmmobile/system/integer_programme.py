"""Solves integer programmes that are given row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Chosen variables are 1, but for the solver's tolerance.
_HALF = 0.5


@dataclass(frozen=True)
class Constraint:
    """A constraint: a weighted sum of variables lies between two bounds."""

    shares: Mapping[int, float]
    low: float
    high: float


@dataclass(frozen=True)
class Solution:
    """The best values found in time.

    Attributes:
        chosen: true for each of the whole variables that is 1.
        bound: no solution costs less.
    """

    chosen: list[bool]
    bound: float


def minimised(
    costs: Sequence[float], whole: int, most: float | Sequence[float], rows: Sequence[Constraint], time_limit_s: float, gap: float
) -> Solution | None:
    """Return the cheapest variables from 0 to `most` that satisfy all rows; `None` if none were found in time.

    Args:
        costs: cost of each variable.
        whole: number of variables, the first ones, that are 0 or 1.
        most: the largest value of each, or of all.
        time_limit_s, gap: bounds at which to stop: a time, or a share of the least cost.
    """
    import numpy as np
    from scipy.optimize import Bounds, LinearConstraint, milp  # takes half a second
    from scipy.sparse import csr_array

    entries = [(number, variable, share) for number, row in enumerate(rows) for variable, share in row.shares.items()]
    places, columns, values = zip(*entries, strict=True)
    matrix: Any = csr_array((values, (places, columns)), shape=(len(rows), len(costs)))
    found = milp(
        costs,
        integrality=(np.arange(len(costs)) < whole).astype(int),
        bounds=Bounds(0, most),
        constraints=LinearConstraint(matrix, [row.low for row in rows], [row.high for row in rows]),
        options={"time_limit": time_limit_s, "mip_rel_gap": gap},
    )
    return None if found.x is None else Solution([share > _HALF for share in found.x[:whole]], float(found.mip_dual_bound))
