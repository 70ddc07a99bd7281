"""Fits a core's parameters to latencies that were measured on a board, each network's relative error weighing alike.

First the terms of one thread, by linear least squares within the bounds that the board's documented figures give; then, with these, what
memory delivers to several threads. Both are also fitted with each network left out, which tells what to expect of another one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tvmmobile.system.errors import UserError
from tvmmobile.virtual.board import Board
from tvmmobile.virtual.calibration.fit import Check, Fit, Observation, versions
from tvmmobile.virtual.calibration.terms import TERMS, Parameter, term_ms
from tvmmobile.virtual.cores.corrected import corrected_hash

#: Memory delivers to several cores what one of them moves in a copy, or less where they are in each other's way.
_NOTHING = 1e-6  # a solver's way to say that a value lies on its bound
_LEAST_BANDWIDTH, _MOST_BANDWIDTH = 0.5, 1.0


@dataclass(frozen=True)
class SeveralThreads:
    """One network in several threads.

    Attributes:
        network: its name in the published table.
        threads: how many.
        measured_ms: the published latency.
        modelled_ms: the modelled one, by how much memory delivers to all cores together (a share, as in `Fit.bandwidth`).
    """

    network: str
    threads: int
    measured_ms: float
    modelled_ms: Callable[[float], float]


def fit_board(
    board: Board, observations: Sequence[Observation], several_with: Callable[[Sequence[Parameter]], Sequence[SeveralThreads]], wheel: str
) -> Fit:
    """Fit all parameters of a board's core.

    Args:
        board: what was measured.
        observations: of one thread.
        several_with: gives the networks in several threads with the parameters that those lead to.
        wheel: the program that was run.

    Raises:
        UserError: there are no more networks than parameters.
    """
    if len(observations) <= len(TERMS):
        raise UserError(f"{len(observations)} networks do not determine {len(TERMS)} parameters.", "Give all published networks.")
    parameters = _fitted_terms(board, observations)
    several = several_with(parameters)
    left_out = []
    for index, seen in enumerate(observations):
        others = _solve(board, [*observations[:index], *observations[index + 1 :]], bounded=True)
        left_out.append(_total(board, seen, [replace(p, value=value) for p, value in zip(parameters, others, strict=True)]))
    bandwidth = _fitted_bandwidth(several)
    checks = []
    for index, run in enumerate(several):
        other = _least_squares_bandwidth([*several[:index], *several[index + 1 :]])
        times = (round(run.modelled_ms(share), 4) for share in (bandwidth.value, other))
        checks.append(Check(board.name, run.threads, run.network, run.measured_ms, *times))
    return Fit(
        core=board.mcpu,
        board=board.name,
        board_digest=board.digest,
        versions=versions(),
        core_model=corrected_hash(board),
        wheel=wheel,
        parameters=parameters,
        bandwidth=bandwidth,
        observations=tuple(observations),
        modelled_ms=tuple(_total(board, seen, parameters) for seen in observations),
        left_out_ms=tuple(left_out),
        checks=tuple(checks),
    )


def _fitted_terms(board: Board, observations: Sequence[Observation]) -> tuple[Parameter, ...]:
    values, free = (_solve(board, observations, bounded) for bounded in (True, False))
    return tuple(
        _noted(Parameter(name, term.what, value, 0.0, _rounded(term.most(board)), "fetched ahead in time", term.most_source, unbounded))
        for (name, term), value, unbounded in zip(TERMS.items(), values, free, strict=True)
    )


def _solve(board: Board, observations: Sequence[Observation], bounded: bool) -> list[float]:
    import numpy as np
    from scipy.optimize import lsq_linear

    amounts = np.array([[term.amount_ms(board, seen.misses) for term in TERMS.values()] for seen in observations])
    measured = np.array([seen.measured_ms for seen in observations])
    core_ms = np.array([seen.core_cycles / board.clock_hz * 1e3 for seen in observations])
    most = np.array([_rounded(term.most(board)) for term in TERMS.values()])
    used = amounts.any(axis=0)  # a board without a kind of miss has no parameter for it
    limits = (np.zeros(used.sum()), most[used]) if bounded else (-np.inf, np.inf)
    found = lsq_linear(amounts[:, used] / measured[:, None], (measured - core_ms) / measured, bounds=limits)
    values = np.zeros(len(TERMS))
    values[used] = found.x
    return [_rounded(value) for value in values]


def _fitted_bandwidth(several: Sequence[SeveralThreads]) -> Parameter:
    value = _least_squares_bandwidth(several)
    return _noted(
        Parameter(
            "bandwidth",
            "what one core reads and writes in a copy (copy_bytes_per_s), of what memory delivers to all cores together",
            value,
            _LEAST_BANDWIDTH,
            _MOST_BANDWIDTH,
            "half, as if reading and writing could not overlap at all",
            "no more than one core gets alone",
            value,
        )
    )


def _least_squares_bandwidth(several: Sequence[SeveralThreads]) -> float:
    from scipy.optimize import minimize_scalar

    def squares(share: float) -> float:
        return sum((run.modelled_ms(share) / run.measured_ms - 1) ** 2 for run in several)

    return _rounded(float(minimize_scalar(squares, bounds=(_LEAST_BANDWIDTH, _MOST_BANDWIDTH), method="bounded").x), digits=4)


def fit_terms(board: Board, observations: Sequence[Observation]) -> tuple[tuple[Parameter, ...], list[tuple[Parameter, ...]]]:
    """The terms' parameters for one board alone; and for each observation those fitted to all others, within the same bounds."""
    parameters, left_out = _fitted_terms(board, observations), []
    for index in range(len(observations)):
        others = _solve(board, [*observations[:index], *observations[index + 1 :]], bounded=True)
        left_out.append(tuple(replace(p, value=value) for p, value in zip(parameters, others, strict=True)))
    return parameters, left_out


def _rounded(value: float, digits: int = 6) -> float:
    """So that it does not differ from one machine's linear algebra to another's."""
    return float(f"{value:.{digits}g}") if abs(value) > _NOTHING else 0.0


def _total(board: Board, seen: Observation, parameters: Sequence[Parameter]) -> float:
    return round(sum(term_ms(board, seen.core_cycles, seen.misses, parameters).values()), 4)


def _noted(parameter: Parameter) -> Parameter:
    if not parameter.on_bound:
        return parameter
    bound = "upper" if parameter.high - parameter.value < parameter.value - parameter.low else "lower"
    limit = parameter.high if bound == "upper" else parameter.low
    away = f"without bounds the fit would take {parameter.unbounded:.4g}, {abs(parameter.unbounded - limit):.2g} beyond"
    return replace(parameter, note=f"on its {bound} bound: {away}")
