"""What a virtual board is made of, read from `boards/*.toml`."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt, ValidationError, model_validator

from tvmmobile.errors import UserError

BOARDS = Path(__file__).parent / "boards"
#: `pi4-virtual` is the virtual board even when a real one is registered as `pi4`.
VIRTUAL_SUFFIX = "-virtual"
#: One access, of at most 16 bytes, touches at most two lines.
_LEAST_LINE_BYTES = 16


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Caches(_Strict):
    """Data caches; sizes in bytes, the second level shared by all cores."""

    line_bytes: PositiveInt
    l1d_bytes: PositiveInt
    l1d_ways: PositiveInt
    l2_bytes: PositiveInt
    l2_ways: PositiveInt

    @model_validator(mode="after")
    def _sets_are_a_power_of_two(self) -> Caches:
        # An address's bits choose the line's set.
        for name, size, ways in (("l1d", self.l1d_bytes, self.l1d_ways), ("l2", self.l2_bytes, self.l2_ways)):
            sets, rest = divmod(size, self.line_bytes * ways)
            if rest or not sets or sets & (sets - 1):
                raise ValueError(f"{name}_bytes = {size} are no power of two of sets with {ways} lines of {self.line_bytes} bytes")
        if self.line_bytes < _LEAST_LINE_BYTES or self.line_bytes & (self.line_bytes - 1):
            raise ValueError(f"line_bytes = {self.line_bytes} is no power of two of at least {_LEAST_LINE_BYTES}")
        return self


class Core(_Strict):
    """What one core can start per cycle, as far as it bounds a block's cost from below."""

    dispatch_width: PositiveInt
    load_ports: PositiveInt
    store_ports: PositiveInt
    vector_ports: PositiveInt
    branch_ports: PositiveInt


class Board(_Strict):
    """A board that can be modelled; `clock_hz` in Hz, `digest` identifies the file it was read from."""

    name: str
    board: str
    cpu: str
    mcpu: str
    qemu_cpu: str
    cores: PositiveInt
    clock_hz: PositiveFloat
    fma_lanes_per_cycle: PositiveInt
    caches: Caches
    core: Core

    @property
    def digest(self) -> str:
        """SHA-256 over the values (comments and layout of the file do not count)."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def board_names() -> list[str]:
    """The names of the boards that can be modelled, sorted."""
    return sorted(path.stem for path in BOARDS.glob("*.toml"))


def load_board(name: str) -> Board:
    """Read one board.

    Raises:
        UserError: there is no such board, or its file does not hold what a board needs.
    """
    if name not in board_names():
        raise UserError(f"There is no virtual board {name!r}.", f"Known boards: {', '.join(board_names())}")
    path = BOARDS / f"{name}.toml"
    try:
        return Board.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise UserError(f"{path.name} does not describe a board: {error}", "Install tvmmobile again, or repair the file.") from error
