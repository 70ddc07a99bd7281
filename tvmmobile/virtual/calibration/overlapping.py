"""Fits parameters of cores that overlap computation with memory accesses: the longer of the two determines each phase's time.

Which phases are bound by memory depends on the parameters. For given phases the problem is linear; so a general solver finds the phases,
and a linear one the parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tvmmobile.virtual.board import Board
from tvmmobile.virtual.calibration.fit import Observation
from tvmmobile.virtual.calibration.terms import terms_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NOTHING = 1e-6  # the solver's tolerance for a value on its bound
_MOST_STEPS = 20


def rounded(value: float, digits: int = 6) -> float:
    """Round so that the result does not depend on the host's linear algebra library."""
    return float(f"{value:.{digits}g}") if abs(value) > _NOTHING else 0.0


def solve_beside(boards: Mapping[str, Board], observations: Sequence[Observation], most: Sequence[float], bounded: bool) -> list[float]:
    """Return the parameters with the least sum of squared relative errors, in the terms' order.

    Args:
        boards: boards with the same core, by name.
        observations: measurements with one thread.
        most: upper bound of each parameter.
        bounded: whether parameters have to be within their bounds.
    """
    import numpy as np
    from scipy.optimize import least_squares, lsq_linear

    runs = [_amounts(boards[seen.board], seen) for seen in observations]
    least = np.array([term.least for term in terms_of(next(iter(boards.values()))).values()])
    values = np.clip(np.ones(len(most)), least, most)
    free = np.array([any(run[:, 1 + place].any() for run in runs) for place in range(len(most))])
    values[~free] = least[~free]
    if bounded:
        free &= least < most
    limits = (least[free], np.array(most)[free]) if bounded else (-np.inf, np.inf)
    if not free.any():
        return [rounded(value) for value in values]

    def errors(free_values: NDArray[np.float64]) -> NDArray[np.float64]:
        values[free] = free_values
        return np.array([_linear(run, values) @ np.array([1.0, *values]) - 1 for run in runs])

    start = np.clip(values[free], *(np.nextafter(limits[0], 1), np.nextafter(limits[1], 0)) if bounded else limits)
    best = least_squares(errors, start, bounds=limits, xtol=1e-12, ftol=1e-12).x
    for _ in range(_MOST_STEPS):
        values[free] = best
        rows = np.array([_linear(run, values) for run in runs])
        fixed = rows[:, 0] + rows[:, 1:][:, ~free] @ values[~free]
        solution = lsq_linear(rows[:, 1:][:, free], 1 - fixed, bounds=limits).x
        if np.square(errors(solution)).sum() >= np.square(errors(best)).sum():
            break
        best = solution
    values[free] = best
    return [rounded(value) for value in values]


def _amounts(board: Board, seen: Observation) -> NDArray[np.float64]:
    """Return the core's time and the terms' amounts of each phase, relative to the run's measured time: `[phases, 1 + terms]`."""
    import numpy as np

    terms = terms_of(board).values()
    rows = [[part.core_cycles / board.clock_hz * 1e3, *(term.amount_ms(board, part.misses) for term in terms)] for part in seen.parts]
    return np.array(rows) / seen.measured_ms


def _linear(run: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sums of the core's time and of each term's amount over the phases that they bound: `[1 + terms]`."""
    import numpy as np

    core, memory = run[:, :2], run[:, 2:]
    computing = core @ np.array([1.0, values[0]]) >= memory @ values[1:]
    return np.concatenate([core[computing].sum(axis=0), memory[~computing].sum(axis=0)])
