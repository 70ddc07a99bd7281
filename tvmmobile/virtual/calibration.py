"""What cache misses cost: three parameters a board, fitted to latencies that were measured on real boards, within documented bounds.

    time = core cycles / clock + loads that hit the second level × a + loads from memory × b + stores that miss the first level × c

The core term's factor is 1, always. The counts are those of the simulated caches (caches.h). Loads and stores that miss are told apart: a
Cortex-A72 prefetches for loads into both levels, for stores into the second one only (Technical Reference Manual, 100095, 6.4.9), and a
store that misses waits for its line where a prefetched load does not.

`scripts/calibrate` fits and writes `calibrated/BOARD.json`; nothing here runs a program.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tvmmobile.errors import UserError
from tvmmobile.files import write_bytes
from tvmmobile.virtual.board import Board, load_board
from tvmmobile.virtual.core_model import MODEL_VERSION
from tvmmobile.virtual.corrected import CORRECTED_VERSION, corrected_hash

CALIBRATED = Path(__file__).parent / "calibrated"
PUBLISHED = CALIBRATED / "published.json"
#: Boards that differ from a calibrated one in their clock alone: what the core and its caches take scales, what memory takes does not.
SAME_BUT_FOR_THE_CLOCK = {"pi4": ("pi4-1500",)}
#: Raise this with every change of the terms.
TERMS_VERSION = 1
#: As near to a bound, relative to the width between both, a parameter counts as lying on it.
ON_BOUND = 1e-3
_REMEDY = "Run: ./scripts/calibrate --networks DIR"


@dataclass(frozen=True)
class Misses:
    """First-level data cache misses of one run, each counted once.

    Attributes:
        load_l2_hits: loads whose line the second level had.
        load_l2_misses: loads whose line came from memory.
        stores: stores, wherever their line was.
    """

    load_l2_hits: int
    load_l2_misses: int
    stores: int


@dataclass(frozen=True)
class Parameter:
    """What one kind of miss costs.

    Attributes:
        name: the field of `Misses` that it multiplies.
        unit: `cycles` for what runs at the core's clock, `ns` for what does not.
        value: the cost of one miss.
        low: what it cannot be less than.
        high: what it cannot be more than.
        low_source: where `low` is from.
        high_source: where `high` is from.
        unbounded: its value in a fit without upper bounds.
        note: why it lies on a bound, if it does.
    """

    name: str
    unit: str
    value: float
    low: float
    high: float
    low_source: str
    high_source: str
    unbounded: float
    note: str = ""

    @property
    def on_bound(self) -> bool:
        """Whether the value lies on one of its bounds."""
        return min(self.value - self.low, self.high - self.value) <= ON_BOUND * (self.high - self.low)

    def cycles(self, clock_hz: float) -> float:
        """Cycles of one miss at that clock."""
        return self.value if self.unit == "cycles" else self.value * 1e-9 * clock_hz


@dataclass(frozen=True)
class Observation:
    """One network on one board: what was measured there and counted here.

    Attributes:
        network: its name in the published table.
        measured_ms: the published latency.
        core_cycles: corrected core cycles.
        misses: the simulated caches' counts.
    """

    network: str
    measured_ms: float
    core_cycles: int
    misses: Misses


@dataclass(frozen=True)
class Fit:
    """A board's calibration.

    Attributes:
        board: its name.
        digests: of the boards that it holds for, by name.
        versions: of the terms, the corrected core and the core model that it was fitted with.
        core_model: the hash of the core model, which llvm-mca's version is part of.
        wheel: the program that was run.
        parameters: one for each field of `Misses`.
        observations: what was fitted to.
        modelled_ms: of each observation.
        left_out_ms: of each observation, with parameters fitted to the others.
    """

    board: str
    digests: Mapping[str, str]
    versions: tuple[int, int, int]
    core_model: str
    wheel: str
    parameters: tuple[Parameter, ...]
    observations: tuple[Observation, ...]
    modelled_ms: tuple[float, ...]
    left_out_ms: tuple[float, ...]

    @property
    def errors(self) -> tuple[float, ...]:
        """Relative errors of the fit, modelled over measured less 1."""
        return tuple(ms / seen.measured_ms - 1 for ms, seen in zip(self.modelled_ms, self.observations, strict=True))

    @property
    def left_out_errors(self) -> tuple[float, ...]:
        """The same with each network left out of its own fit: what to expect of another program of this kind."""
        return tuple(ms / seen.measured_ms - 1 for ms, seen in zip(self.left_out_ms, self.observations, strict=True))

    @property
    def digest(self) -> str:
        """Identifies the parameters (16 hex digits)."""
        return hashlib.sha256(repr([(p.name, p.unit, p.value) for p in self.parameters]).encode()).hexdigest()[:16]


def mean_error(errors: Sequence[float]) -> float:
    """The mean of their absolute values."""
    return sum(map(abs, errors)) / len(errors)


def worst_error(errors: Sequence[float]) -> float:
    """The largest absolute value."""
    return max(map(abs, errors))


def term_ms(board: Board, core_cycles: float, misses: Misses, parameters: Sequence[Parameter]) -> dict[str, float]:
    """Each term of the modelled time in milliseconds, by its name: `core`, then the fields of `Misses`."""
    cycles = {"core": float(core_cycles)} | {p.name: getattr(misses, p.name) * p.cycles(board.clock_hz) for p in parameters}
    return {name: value / board.clock_hz * 1e3 for name, value in cycles.items()}


@functools.cache
def calibration_of(board: Board) -> Fit | None:
    """The committed calibration that holds for this board, None if there is none.

    One that was fitted with another version of the model, or to other figures of the board, does not hold.
    """
    for path in sorted(CALIBRATED.glob("*.json")):
        if path == PUBLISHED:
            continue
        fit = read_fit(path)
        if fit.digests.get(board.name) == board.digest and tuple(fit.versions) == _versions():
            return fit
    return None


def calibrated_boards() -> frozenset[str]:
    """The names of boards that there are measurements of in a committed calibration, also one that a changed model has outdated."""
    return frozenset(name for path in CALIBRATED.glob("*.json") if path != PUBLISHED for name in read_fit(path).digests)


def run_hash(board: Board) -> str:
    """Identifies what a modelled time of all terms rests on (16 hex digits).

    Raises:
        UserError: llvm-mca is not installed.
    """
    fit = calibration_of(board)
    return hashlib.sha256(f"{TERMS_VERSION}\0{corrected_hash(board)}\0{fit.digest if fit else ''}".encode()).hexdigest()[:16]


def published() -> dict[str, Any]:
    """The published latencies in milliseconds, by board, threads and network, with their source, and what is documented of each memory."""
    table: dict[str, Any] = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    return table


def fit_board(board: Board, observations: Sequence[Observation], wheel: str) -> Fit:
    """Fit a board's parameters, with relative errors weighing alike, and the same with each network left out.

    Raises:
        UserError: nothing bounds the cost of this board's misses, or there are fewer networks than parameters.
    """
    bounds = _bounds(board)
    if len(observations) <= len(bounds):
        raise UserError(f"{len(observations)} networks do not determine {len(bounds)} parameters.", "Give all published networks.")
    values = _solve(board, observations, bounds)
    unbounded = _solve(board, observations, [_Bound(b.name, b.unit, 0.0, float("inf"), "", "") for b in bounds])
    parameters = tuple(
        _noted(Parameter(b.name, b.unit, value, b.low, b.high, b.low_source, b.high_source, free))
        for b, value, free in zip(bounds, values, unbounded, strict=True)
    )
    left_out = []
    for index, seen in enumerate(observations):
        others = _solve(board, [*observations[:index], *observations[index + 1 :]], bounds)
        left_out.append(_total(board, seen, [_with_value(p, value) for p, value in zip(parameters, others, strict=True)]))
    names = (board.name, *SAME_BUT_FOR_THE_CLOCK.get(board.name, ()))
    return Fit(
        board=board.name,
        digests={name: load_board(name).digest if name != board.name else board.digest for name in names},
        versions=_versions(),
        core_model=corrected_hash(board),
        wheel=wheel,
        parameters=parameters,
        observations=tuple(observations),
        modelled_ms=tuple(_total(board, seen, parameters) for seen in observations),
        left_out_ms=tuple(left_out),
    )


def read_fit(path: Path) -> Fit:
    """Read what `write_fit` wrote.

    Raises:
        UserError: it is something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        found.pop("errors")
        observations = tuple(Observation(**(row | {"misses": Misses(**row["misses"])})) for row in found.pop("observations"))
        parameters = tuple(Parameter(**row) for row in found.pop("parameters"))
        found |= {name: tuple(found[name]) for name in ("versions", "modelled_ms", "left_out_ms")}
        return Fit(observations=observations, parameters=parameters, **found)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path.name} is no calibration: {error!r}.", _REMEDY) from error


def write_fit(fit: Fit, path: Path) -> None:
    """Write a calibration as JSON, its errors on top of what `read_fit` needs."""
    errors = {
        name: {"mean": round(mean_error(values), 4), "worst": round(worst_error(values), 4)}
        for name, values in (("fit", fit.errors), ("leave_one_out", fit.left_out_errors))
    }
    write_bytes(path, (json.dumps({"errors": errors} | asdict(fit), indent=1) + "\n").encode())


@dataclass(frozen=True)
class _Bound:
    name: str
    unit: str
    low: float
    high: float
    low_source: str
    high_source: str


def _versions() -> tuple[int, int, int]:
    return TERMS_VERSION, CORRECTED_VERSION, MODEL_VERSION


def _bounds(board: Board) -> list[_Bound]:
    memory = published()["boards"].get(board.name, {}).get("memory")
    if memory is None:
        raise UserError(f"Nothing documented bounds what a miss costs on {board.name}.", f"Add its memory's figures to {PUBLISHED.name}.")
    line = board.caches.line_bytes
    peak_ns, copy_ns = (_rounded(line / memory[name] * 1e9) for name in ("peak_bytes_per_s", "copy_bytes_per_s"))
    peak = f"a line at the memory's peak rate: {memory['peak_source']}"
    copy = f"a line read and written back in a copy of large arrays, everything included: {memory['copy_source']}"
    copy_cycles = _rounded(copy_ns * 1e-9 * board.clock_hz)
    return [
        _Bound("load_l2_hits", "cycles", 0.0, copy_cycles, "prefetched in time", f"no more than from memory, {copy}"),
        _Bound("load_l2_misses", "ns", peak_ns, copy_ns, peak, copy),
        _Bound("stores", "ns", 0.0, copy_ns, "taken by the store buffer", copy),
    ]


def _solve(board: Board, observations: Sequence[Observation], bounds: Sequence[_Bound]) -> list[float]:
    import numpy as np
    from scipy.optimize import lsq_linear

    per_unit = {"cycles": 1e3 / board.clock_hz, "ns": 1e-6}
    counts = np.array([[getattr(seen.misses, b.name) * per_unit[b.unit] for b in bounds] for seen in observations])
    measured = np.array([seen.measured_ms for seen in observations])
    core_ms = np.array([seen.core_cycles / board.clock_hz * 1e3 for seen in observations])
    limits = ([b.low for b in bounds], [b.high for b in bounds])
    found = lsq_linear(counts / measured[:, None], (measured - core_ms) / measured, bounds=limits)
    return [_rounded(value) for value in found.x]


def _rounded(value: float) -> float:
    """To six digits: more would differ from one machine's linear algebra to another's."""
    return float(f"{value:.6g}")


def _total(board: Board, seen: Observation, parameters: Sequence[Parameter]) -> float:
    return round(sum(term_ms(board, seen.core_cycles, seen.misses, parameters).values()), 4)


def _with_value(parameter: Parameter, value: float) -> Parameter:
    return Parameter(**(asdict(parameter) | {"value": value}))


def _noted(parameter: Parameter) -> Parameter:
    if not parameter.on_bound:
        return parameter
    bound = "upper" if parameter.high - parameter.value < parameter.value - parameter.low else "lower"
    limit = parameter.high if bound == "upper" else parameter.low
    away = f"without it the fit would take {parameter.unbounded:.4g} {parameter.unit}, {abs(parameter.unbounded - limit):.2g} beyond"
    return Parameter(**(asdict(parameter) | {"note": f"on its {bound} bound: {away}"}))
