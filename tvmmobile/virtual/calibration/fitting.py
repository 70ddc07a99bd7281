"""Fits a core's parameters to latencies measured on boards with this core, by least squares of relative errors.

The terms of one thread are fitted first, within bounds from the boards' documented figures: by linear least squares if the terms add up,
and by overlapping.py if memory accesses overlap with computation. Then the memory bandwidth of several threads is fitted. Both fits are
repeated without each network, which estimates the error for other networks, and that of the terms without each board, which estimates the
error for other boards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tvmmobile.system.errors import UserError
from tvmmobile.virtual.board import Board
from tvmmobile.virtual.calibration.fit import Fit, FittedBoard, HeldOutCheck, Observation, versions
from tvmmobile.virtual.calibration.overlapping import rounded, solve_beside
from tvmmobile.virtual.calibration.residuals import observed_ms
from tvmmobile.virtual.calibration.terms import TERMS, Parameter, overlaps, terms_of
from tvmmobile.virtual.cores.corrected import corrected_hash

#: Bounds of the memory bandwidth of several cores, relative to that of one core's copy; competing cores get less.
_LEAST_BANDWIDTH, _MOST_BANDWIDTH = 0.5, 1.0
#: The typical value of out-of-order cores, for cores without measurements of several threads.
_USUAL_BANDWIDTH = 0.65


@dataclass(frozen=True)
class SeveralThreads:
    """A measurement of a network with several threads.

    Attributes:
        board: name of the board on which it was measured.
        network: its name in the published table.
        threads: number of threads.
        measured_ms: the published latency.
        modelled_ms: returns the modelled latency for a bandwidth (`Fit.bandwidth`).
    """

    board: str
    network: str
    threads: int
    measured_ms: float
    modelled_ms: Callable[[float], float]


def fit_core(
    boards: Mapping[str, tuple[Board, str]],
    observations: Sequence[Observation],
    several_with: Callable[[Sequence[Parameter]], Sequence[SeveralThreads]],
) -> Fit:
    """Fit all parameters of a core.

    Args:
        boards: measured boards, all with this core, and the wheel that was run on each, by name.
        observations: measurements with one thread.
        several_with: returns the measurements with several threads, modelled with the given parameters; none if there are no such figures.

    Raises:
        UserError: there are not more networks than parameters.
    """
    networks = sorted({seen.network for seen in observations})
    if len(networks) <= len(TERMS):
        raise UserError(f"{len(networks)} networks do not determine {len(TERMS)} parameters.", "Give all published networks.")
    known = {name: board for name, (board, _) in boards.items()}
    core = next(iter(known.values())).mcpu
    parameters = _fitted_terms(known, observations)
    several = several_with(parameters)
    bandwidth = _fitted_bandwidth(several)
    by_board = _left_out(known, observations, parameters, lambda seen: seen.board) if len(known) > 1 else ()
    return Fit(
        core=core,
        boards=tuple(FittedBoard(name, board.digest, corrected_hash(board), wheel) for name, (board, wheel) in boards.items()),
        versions=versions(core),
        parameters=parameters,
        bandwidth=bandwidth,
        observations=tuple(observations),
        modelled_ms=tuple(_total(known, seen, parameters) for seen in observations),
        left_out_ms=_left_out(known, observations, parameters, lambda seen: seen.network),
        board_left_out_ms=by_board,
        checks=_checks(several, bandwidth),
    )


def _left_out(
    boards: Mapping[str, Board], observations: Sequence[Observation], parameters: Sequence[Parameter], kind: Callable[[Observation], str]
) -> tuple[float, ...]:
    """Return each observation's modelled time, with parameters fitted to the observations of other kinds."""
    without = {
        name: [
            replace(p, value=value)
            for p, value in zip(
                parameters, _solve(boards, [seen for seen in observations if kind(seen) != name], bounded=True), strict=True
            )
        ]
        for name in sorted(set(map(kind, observations)))
    }
    return tuple(_total(boards, seen, without[kind(seen)]) for seen in observations)


def _checks(several: Sequence[SeveralThreads], bandwidth: Parameter) -> tuple[HeldOutCheck, ...]:
    networks = {run.network for run in several}
    others = {name: _least_squares_bandwidth([run for run in several if run.network != name]) for name in sorted(networks)}
    return tuple(
        HeldOutCheck(run.board, run.threads, run.network, run.measured_ms, *(round(run.modelled_ms(share), 4) for share in shares))
        for run in several
        for shares in [(bandwidth.value, others[run.network])]
    )


def _fitted_terms(boards: Mapping[str, Board], observations: Sequence[Observation]) -> tuple[Parameter, ...]:
    values, free = (_solve(boards, observations, bounded) for bounded in (True, False))
    terms = terms_of(next(iter(boards.values())))
    return tuple(
        _noted(Parameter(name, term.what, value, term.least, most, term.least_source, term.most_source, unbounded))
        for (name, term), most, value, unbounded in zip(terms.items(), _most(boards), values, free, strict=True)
    )


def _most(boards: Mapping[str, Board]) -> list[float]:
    """Return the upper bound of each parameter: the lowest of all boards."""
    return [rounded(min(terms_of(board)[name].most(board) for board in boards.values())) for name in TERMS]


def _solve(boards: Mapping[str, Board], observations: Sequence[Observation], bounded: bool) -> list[float]:
    import numpy as np
    from scipy.optimize import lsq_linear

    any_board = next(iter(boards.values()))  # all have the same core
    terms = terms_of(any_board)
    if overlaps(any_board):
        return solve_beside(boards, observations, _most(boards), bounded)
    amounts = np.array([[term.amount_ms(boards[seen.board], seen.misses) for term in terms.values()] for seen in observations])
    measured = np.array([seen.measured_ms for seen in observations])
    core_ms = np.array([seen.core_cycles / boards[seen.board].clock_hz * 1e3 for seen in observations])
    rows, wanted = amounts / measured[:, None], (measured - core_ms) / measured
    used = amounts.any(axis=0)  # the parameter of a kind of miss that never occurs stays 0
    limits = (np.zeros(used.sum()), np.array(_most(boards))[used]) if bounded else (-np.inf, np.inf)
    solution = lsq_linear(rows[:, used], wanted, bounds=limits)
    values = np.zeros(len(TERMS))
    values[used] = solution.x
    return [rounded(value) for value in values]


def _fitted_bandwidth(several: Sequence[SeveralThreads]) -> Parameter:
    value = _least_squares_bandwidth(several) if several else _USUAL_BANDWIDTH
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

    return rounded(float(minimize_scalar(squares, bounds=(_LEAST_BANDWIDTH, _MOST_BANDWIDTH), method="bounded").x), digits=4)


def fit_terms(board: Board, observations: Sequence[Observation]) -> tuple[tuple[Parameter, ...], list[tuple[Parameter, ...]]]:
    """Fit the terms' parameters for one board alone; also return, for each observation, the parameters fitted to all others."""
    boards, left_out = {board.name: board}, []
    parameters = _fitted_terms(boards, observations)
    for index in range(len(observations)):
        others = _solve(boards, [*observations[:index], *observations[index + 1 :]], bounded=True)
        left_out.append(tuple(replace(p, value=value) for p, value in zip(parameters, others, strict=True)))
    return parameters, left_out


def _total(boards: Mapping[str, Board], seen: Observation, parameters: Sequence[Parameter]) -> float:
    return round(sum(observed_ms(boards[seen.board], parameters, seen).values()), 4)


def _noted(parameter: Parameter) -> Parameter:
    if not parameter.on_bound:
        return parameter
    bound = "upper" if parameter.high - parameter.value < parameter.value - parameter.low else "lower"
    limit = parameter.high if bound == "upper" else parameter.low
    away = f"without bounds the fit would take {parameter.unbounded:.4g}, {abs(parameter.unbounded - limit):.2g} beyond"
    return replace(parameter, note=f"on its {bound} bound: {away}")
