"""Reads and writes calibrations: a core's memory stalls, fitted to measurements on boards with that core, and the fit's accuracy.

    time = core cycles / clock + the terms of `terms.py`, each with the core's parameter

The core term's factor is always 1. Cache latencies are in core cycles, memory times in line copies: the time in which one core copies a
line of large arrays, which is documented for each board. So one set of parameters applies to all boards with a core. For several threads,
there is one more parameter: memory's bandwidth for all cores together (timeline.py).

`scripts/calibrate` fits parameters (fitting.py) and writes `calibrated/CORE.json`; nothing here runs a program.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from tvmmobile.system.errors import UserError, shown
from tvmmobile.system.files import write_bytes
from tvmmobile.system.json_files import FileKind, read_json, validated
from tvmmobile.virtual.board import Board, OwnCalibration, board_names, load_board
from tvmmobile.virtual.calibration.terms import ON_BOUND, TERMS, Parameter, terms_of, terms_version
from tvmmobile.virtual.cores.core_model import MODEL_VERSION
from tvmmobile.virtual.cores.corrected import corrected_hash, corrected_version
from tvmmobile.virtual.profile import MissCounts
from tvmmobile.virtual.timeline import TIMELINE_VERSION

CALIBRATED = Path(__file__).parent / "calibrated"
PUBLISHED = CALIBRATED / "published.json"
_KIND = FileKind("a calibration", "Run: ./scripts/calibrate --networks DIR")
#: Strings are not accepted as numbers; `errors`, which are computed from the rest, are ignored.
_STRICT = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)
#: Measured latencies, to which errors are relative.
_Milliseconds = Annotated[float, Field(gt=0, le=1e9)]


@dataclass(frozen=True)
class Phase:
    """The sum of a run's phases in which memory was about equally busy, in corrected core cycles."""

    __pydantic_config__ = _STRICT

    core_cycles: int
    misses: MissCounts


@dataclass(frozen=True)
class Observation:
    """One network on one board with one thread: the measured latency, and the simulated counts.

    Attributes:
        network: its name in the published table.
        core_cycles: corrected core cycles.
        phases: parts of the run, whose cycles and misses add up to these; empty if phases do not matter for the core.
    """

    __pydantic_config__ = _STRICT

    board: str
    network: str
    measured_ms: _Milliseconds
    core_cycles: int
    misses: MissCounts
    phases: tuple[Phase, ...] = ()

    @property
    def parts(self) -> tuple[Phase, ...]:
        """Phases of the run, or the whole run as one."""
        return self.phases or (Phase(self.core_cycles, self.misses),)


@dataclass(frozen=True)
class HeldOutCheck:
    """A check of the fit on a network with several threads, or on a board whose measurements were not used in the fit.

    Attributes:
        network: its name in the published table.
        modelled_ms: modelled latency with the fit's parameters.
        left_out_ms: modelled latency with the bandwidth fitted to the other networks; `None` if no parameter was fitted to this one.
    """

    __pydantic_config__ = _STRICT

    board: str
    threads: int
    network: str
    measured_ms: _Milliseconds
    modelled_ms: float
    left_out_ms: float | None = None


@dataclass(frozen=True)
class FittedBoard:
    """A board to whose measurements a core's parameters were fitted.

    Attributes:
        digest: hash of the board's figures.
        core_model: hash of the core model, including llvm-mca's version.
        wheel: the program that was run.
    """

    name: str
    digest: str
    core_model: str
    wheel: str


@dataclass(frozen=True)
class Fit:
    """A core's calibration.

    Attributes:
        core: its name, as `Board.mcpu`.
        boards: boards whose measurements were used.
        versions: versions of the terms, the timeline, the corrected core and the core model used in the fit.
        parameters: one parameter for each term.
        bandwidth: memory bandwidth for all cores together, relative to the reads and writes of one core's copy.
        observations: the measurements used in the fit; each tuple of times has one element for each of them.
        modelled_ms: modelled latency of each observation.
        left_out_ms: modelled latency of each observation, with parameters fitted to the other networks on all boards.
        board_left_out_ms: modelled latency of each observation, with parameters fitted to the other boards; empty with a single board.
        checks: modelled runs with several threads, and on boards that were not used in the fit.
    """

    __pydantic_config__ = _STRICT

    core: str
    boards: tuple[FittedBoard, ...]
    versions: tuple[int, ...]
    parameters: tuple[Parameter, ...]
    bandwidth: Parameter
    observations: tuple[Observation, ...]
    modelled_ms: tuple[float, ...]
    left_out_ms: tuple[float, ...]
    board_left_out_ms: tuple[float, ...]
    checks: tuple[HeldOutCheck, ...]

    @property
    def board_names(self) -> tuple[str, ...]:
        """The names of the boards whose measurements were used."""
        return tuple(fitted.name for fitted in self.boards)

    @property
    def errors(self) -> tuple[float, ...]:
        """Relative errors of the fit: modelled / measured - 1."""
        return self._relative(self.modelled_ms)

    @property
    def left_out_errors(self) -> tuple[float, ...]:
        """Errors of each network with parameters fitted to the others, as expected for other programs of this kind."""
        return self._relative(self.left_out_ms)

    @property
    def board_left_out_errors(self) -> tuple[float, ...]:
        """Errors of each board with parameters fitted to the others, as expected for another board with this core; empty for one board."""
        return self._relative(self.board_left_out_ms) if self.board_left_out_ms else ()

    def _relative(self, times_ms: Sequence[float]) -> tuple[float, ...]:
        return tuple(ms / seen.measured_ms - 1 for ms, seen in zip(times_ms, self.observations, strict=True))

    def of_board(self, errors: Sequence[float], board: str, integers: bool | None = None) -> tuple[float, ...]:
        """Select the errors of one board.

        Args:
            errors: one error for each observation.
            board: name of the board.
            integers: true for networks in 8-bit integers only, false for the others only; `None` for all.
        """
        return tuple(
            error
            for error, seen in zip(errors, self.observations, strict=True)
            if seen.board == board and integers in (None, in_integers(seen.network))
        )

    def check_errors(self) -> dict[str, tuple[float, ...]]:
        """Return the errors of the checks, by board and threads (`pi4, 4 threads`), and those with the network left out of the fit."""
        groups: dict[str, tuple[float, ...]] = {}
        for row in self.checks:
            name = f"{row.board}, {row.threads} thread{'s' if row.threads > 1 else ''}"
            groups[name] = (*groups.get(name, ()), row.modelled_ms / row.measured_ms - 1)
            if row.left_out_ms is not None:
                groups[f"{name}, left out"] = (*groups.get(f"{name}, left out", ()), row.left_out_ms / row.measured_ms - 1)
        return groups

    def all_errors(self) -> dict[str, tuple[float, ...]]:
        """Return all errors by kind, in the order in which they are reported."""
        found = {"fit": self.errors, "network left out": self.left_out_errors, "board left out": self.board_left_out_errors}
        for board in self.board_names:
            for kind, integers in (("floats", False), ("integers", True)):
                found[f"{board}, {kind}, network left out"] = self.of_board(self.left_out_errors, board, integers)
            if self.board_left_out_ms:
                found[f"{board}, board left out"] = self.of_board(self.board_left_out_errors, board)
        return {name: errors for name, errors in (found | self.check_errors()).items() if errors}

    @property
    def digest(self) -> str:
        """Hash of the parameters (16 hex digits)."""
        return hashlib.sha256(repr([(p.name, p.value) for p in (*self.parameters, self.bandwidth)]).encode()).hexdigest()[:16]


def in_integers(network: str) -> bool:
    """Return whether a published network computes in 8-bit integers, by its name."""
    return network.endswith("_int8")


def mean_error(errors: Sequence[float]) -> float:
    """Return the mean absolute error."""
    return sum(map(abs, errors)) / len(errors)


def worst_error(errors: Sequence[float]) -> float:
    """Return the largest absolute error."""
    return max(map(abs, errors))


@functools.cache
def calibration_of(board: Board) -> Fit | None:
    """Return the calibration in the board's own file, or otherwise the committed one of its core; `None` if there is none.

    A committed calibration is ignored if the model's version or the figures of a measured board have changed since the fit.

    Raises:
        UserError: the calibration in the board's file is not valid for the board.
    """
    if board.calibration is not None:
        return _own_fit(board, board.calibration, calibration_of(board.model_copy(update={"calibration": None, "name": ""})))
    path = CALIBRATED / f"{board.mcpu}.json"
    if not path.is_file():
        return None
    fit = read_fit(path)
    measured = [(fitted, board if board.name == fitted.name else load_board(fitted.name)) for fitted in fit.boards]
    return fit if fit.versions == versions(board.mcpu) and all(fitted.digest == now.digest for fitted, now in measured) else None


def fitted_with(board: Board) -> str:
    """Return a hash (16 hex digits) of the versions and figures on which a calibration in a board's file depends."""
    return hashlib.sha256(f"{versions(board.mcpu)}\0{board.model_dump_json(exclude={'name'})}".encode()).hexdigest()[:16]


def _own_fit(board: Board, own: OwnCalibration, core: Fit | None) -> Fit:
    """Return the core's calibration with the parameters of the board's own file.

    Raises:
        UserError: the board's calibration is outdated, has other parameters than the core's, or exceeds a bound.
    """
    values, problem = dict(own.parameters), ""
    if own.fitted_with != fitted_with(board):
        problem = "the board's figures or the timing model changed since it was fitted"
    elif core is None:
        problem = f"there is none of {board.cpu} that it could replace"
    elif values.keys() != TERMS.keys():
        problem = f"it has parameters {shown(', '.join(values))}, not {', '.join(TERMS)}"
    else:
        most = {name: term.most(board) for name, term in terms_of(board).items()}
        beyond = [name for name, value in values.items() if value > most[name] * (1 + ON_BOUND)]
        problem = f"{beyond[0]} = {values[beyond[0]]:g} is more than {most[beyond[0]]:.4g}" if beyond else ""
    if problem or core is None:
        raise UserError(
            f"the calibration of {board.name} is not valid: {problem}.",
            "Fit it again: tvmmobile device validate NAME --refit FILE.toml; or take the table [calibration] out of the board's file.",
        )
    parameters = tuple(replace(p, value=values[p.name], note="") for p in core.parameters)
    return replace(core, parameters=parameters)


def memory_bytes_per_s(board: Board, threads: int) -> float:
    """Return the memory bandwidth of that many threads together, reads and writes, in bytes per second."""
    fit = calibration_of(board)
    return 2 * board.memory.copy_bytes_per_s * (fit.bandwidth.value if fit and threads > 1 else 1.0)


def calibrated_boards() -> frozenset[str]:
    """Return the names of boards whose core has a committed calibration, even one outdated by a changed model."""
    cores = {path.stem for path in CALIBRATED.glob("*.json") if path != PUBLISHED}
    return frozenset(name for name in board_names() if load_board(name).mcpu in cores)


def run_hash(board: Board, threads: int = 1) -> str:
    """Return a hash (16 hex digits) of everything that a modelled time of this many threads depends on.

    A device's profile, and so its tuning records, have the hash of one thread.
    """
    fit = calibration_of(board)
    clocks = f"\0{board.clocks_hz}" if board.clocks_hz and threads > 1 else ""
    text = f"{versions(board.mcpu)}\0{corrected_hash(board)}\0{fit.digest if fit else ''}{clocks}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def versions(mcpu: str) -> tuple[int, ...]:
    """Return the versions of the model's parts on which a core's calibration depends; fits with other versions are invalid."""
    return terms_version(mcpu), TIMELINE_VERSION, corrected_version(mcpu), MODEL_VERSION


def published() -> dict[str, Any]:
    """Return the table of published latencies in milliseconds, by board, threads and network, with their sources."""
    table: dict[str, Any] = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    return table


def run_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Return a published row's latencies of the networks to run: those in its `run`, or all."""
    return {name: ms for name, ms in row["min_ms"].items() if name in row.get("run", row["min_ms"])}


def read_fit(path: Path) -> Fit:
    """Read a calibration that `write_fit` wrote.

    Raises:
        UserError: the file is not a calibration.
    """
    text, _ = read_json(path, _KIND)
    fit = validated(path, _KIND, text, Fit)
    times = [fit.modelled_ms, fit.left_out_ms, *([fit.board_left_out_ms] if fit.board_left_out_ms else [])]
    if any(len(modelled) != len(fit.observations) for modelled in times):
        raise _KIND.refusal(path, "modelled_ms, left_out_ms and board_left_out_ms do not have a value for each of the observations")
    if any(seen.board not in fit.board_names for seen in fit.observations):
        raise _KIND.refusal(path, "observations are of a board that is not among its boards")
    return fit


def write_fit(fit: Fit, path: Path) -> None:
    """Write a calibration as JSON, with its errors for readers."""
    errors = {
        name: {"mean": round(mean_error(values), 4), "worst": round(worst_error(values), 4)} for name, values in fit.all_errors().items()
    }
    write_bytes(path, (json.dumps({"errors": errors} | asdict(fit), indent=1) + "\n").encode())
