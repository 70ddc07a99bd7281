"""The virtual board that a real one is compared with."""

from __future__ import annotations

from dataclasses import dataclass

from tvmmobile.devices.protocol import DeviceProfile
from tvmmobile.devices.virtual_board import VirtualDevice
from tvmmobile.results.validation import ValidatedModel
from tvmmobile.system.errors import UserError
from tvmmobile.tuning.search.twin import twin_board
from tvmmobile.virtual.board import VIRTUAL_SUFFIX, Board, load_board
from tvmmobile.virtual.calibration.fit import calibration_of, run_hash
from tvmmobile.virtual.calibration.terms import Parameter

_OWN_FILE = "own file"


@dataclass(frozen=True)
class ComparedModel:
    """A calibrated virtual board and how it is applied.

    Attributes:
        source: name of the board, or path of its file.
        board: board as the file has it.
        clocked: this board at the real board's clock.
        parameters: parameters of its core, or its own.
    """

    source: str
    board: Board
    clocked: Board
    parameters: tuple[Parameter, ...]

    @property
    def device(self) -> VirtualDevice:
        """Runs programs on it."""
        return VirtualDevice(self.board.name + VIRTUAL_SUFFIX, self.board, self.source)

    @property
    def description(self) -> ValidatedModel:
        """The model's description in a validation."""
        name = _OWN_FILE if self.source.endswith(".toml") else self.board.name
        return ValidatedModel(name, run_hash(self.board), {p.name: p.value for p in self.parameters})


def model_for(profile: DeviceProfile, chosen: str | None = None) -> ComparedModel:
    """Return the model of a real board: `chosen`, a name or a file, else its `twin_board`.

    Raises:
        UserError: there is no calibrated one with its core.
    """
    if chosen is not None:
        board = load_board(chosen.removesuffix(VIRTUAL_SUFFIX))
        if board.mcpu != profile.virtual_mcpu:
            raise UserError(f"{chosen} has {board.cpu}, and {profile.name} has {profile.cpu}.", "Give --board one with the same core.")
    else:
        likest = twin_board(profile)
        if likest is None:
            raise UserError(f"no model of {profile.cpu} is calibrated, so there is nothing to validate on {profile.name}.", _CALIBRATED)
        board = likest
    fit = calibration_of(board)
    if fit is None:
        raise UserError(f"the model of {board.cpu} is not calibrated, so there is nothing to validate.", _CALIBRATED)
    clocked = board.clocked_at(profile.clock_hz) if profile.clock_hz else board
    source = chosen if chosen and chosen.endswith(".toml") else board.name
    return ComparedModel(source, board, clocked, fit.parameters)


_CALIBRATED = "docs/virtual-boards.md says which cores are calibrated."
