"""Fits a model's parameters to measurements on one board, and writes them to a board's file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tvmmobile.devices.protocol import DeviceProfile
from tvmmobile.pipeline.validation.model import ComparedModel
from tvmmobile.results.validation import Validation
from tvmmobile.system.errors import UserError
from tvmmobile.virtual.board import Board, OwnCalibration
from tvmmobile.virtual.calibration.fit import fitted_with, mean_error, worst_error
from tvmmobile.virtual.calibration.fitting import fit_terms
from tvmmobile.virtual.calibration.residuals import relative_errors
from tvmmobile.virtual.calibration.terms import TERMS, Parameter
from tvmmobile.virtual.own_board import check_own_board, write_own_board

#: Points for each parameter, at least.
FEWEST_EACH = 2
_OPTION = "--refit"


@dataclass(frozen=True)
class FittedParameter:
    """One parameter before and after.

    Attributes:
        before: value in the model that was compared.
        fitted: parameter with its new value.
        low, high: the least and the most of the values fitted with one point left out.
    """

    before: float
    fitted: Parameter
    low: float
    high: float


@dataclass(frozen=True)
class Refit:
    """A model fitted to a board.

    Attributes:
        board: board as its file has it.
        path: path of the file.
        parameters: parameters, one for each term.
        before, after: relative errors of the points with the old and the new parameters.
        left_out: error of each point, with parameters fitted to the others.
    """

    board: Board
    path: Path
    parameters: tuple[FittedParameter, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    left_out: tuple[float, ...]


def check_refit(path: Path, profile: DeviceProfile) -> None:
    """Raise `UserError` if a fit to this device is meaningless or cannot be written."""
    if profile.origin.kind != "measured":
        raise UserError(
            f"{profile.name} runs programs in an emulator, whose times say nothing about the board.",
            f"Leave out {_OPTION}, or add a board.",
        )
    check_own_board(path, _OPTION)


def determines(validation: Validation) -> bool:
    """Return whether a validation has enough valid points to fit the parameters to."""
    return len(validation.valid()) >= FEWEST_EACH * len(TERMS)


def refit_board(validation: Validation, model: ComparedModel, path: Path) -> Refit:
    """Fit the terms' parameters to a validation's points, within the bounds of the board's figures, and write the board's file.

    Raises:
        UserError: there are too few points that count.
    """
    board = model.clocked
    seen = [point.observed_on(board.name) for point in validation.valid()]
    if not determines(validation):
        raise UserError(
            f"{len(seen)} valid points do not determine {len(TERMS)} parameters: {FEWEST_EACH * len(TERMS)} are needed.",
            "Run the same command again: it measures missing and invalid points.",
            again=True,
        )
    parameters, others = fit_terms(board, seen)
    left_out = tuple(relative_errors(board, fitted, [point])[0] for fitted, point in zip(others, seen, strict=True))
    own = OwnCalibration(
        fitted_with=fitted_with(board),
        points=len(seen),
        mean_error=round(mean_error(left_out), 4),
        worst_error=round(worst_error(left_out), 4),
        parameters=tuple(sorted((p.name, p.value) for p in parameters)),
    )
    written = write_own_board(board.model_copy(update={"calibration": own}), path, _remarks(validation))
    before = {p.name: p.value for p in model.parameters}
    values = [[fit[place].value for fit in others] for place in range(len(parameters))]
    return Refit(
        board=written,
        path=path,
        parameters=tuple(FittedParameter(before[p.name], p, min(v), max(v)) for p, v in zip(parameters, values, strict=True)),
        before=tuple(relative_errors(board, model.parameters, seen)),
        after=tuple(relative_errors(board, parameters, seen)),
        left_out=left_out,
    )


def _remarks(validation: Validation) -> list[str]:
    """Return the file's comments: the sources of its figures."""
    measured, model = validation.measured, validation.model
    system = ", ".join(filter(None, (measured.system, f"Linux {measured.kernel}", validation.date)))
    return [
        f"The figures of {model.board}, with [calibration] fitted by tvmmobile device validate {_OPTION}",
        f"to {measured.board}, {measured.cpu} at {measured.clock_hz / 1e9:g} GHz, {system}.",
        "A calibration holds for the figures and the timing model that it was fitted with; other boards are not touched by it.",
    ]
