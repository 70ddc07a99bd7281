"""What a virtual board is made of, read from `boards/*.toml`."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tvmmobile.errors import UserError

BOARDS = Path(__file__).parent / "boards"
#: `pi4-virtual` is the virtual board even when a real one is registered as `pi4`.
VIRTUAL_SUFFIX = "-virtual"
#: One access, of at most 16 bytes, touches at most two lines.
_LEAST_LINE_BYTES = 16

#: Figures no board has are mistakes in its file: a clock in MHz, a size in KiB, ports by the hundred.
_Count = Annotated[int, Field(gt=0, le=1024)]
_Bytes = Annotated[int, Field(gt=0, le=1 << 30)]
_Ports = Annotated[int, Field(gt=0, le=16)]
_Clock = Annotated[float, Field(ge=1e8, le=1e10)]
_Name = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Caches(_Strict):
    """Data caches; sizes in bytes, the second level shared by all cores."""

    line_bytes: _Bytes
    l1d_bytes: _Bytes
    l1d_ways: _Count
    l2_bytes: _Bytes
    l2_ways: _Count

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

    dispatch_width: _Ports
    load_ports: _Ports
    store_ports: _Ports
    vector_ports: _Ports
    branch_ports: _Ports


class Board(_Strict):
    """A board that can be modelled; `clock_hz` in Hz, `digest` identifies the file it was read from."""

    name: _Name
    board: _Name
    cpu: _Name
    mcpu: _Name
    qemu_cpu: _Name
    cores: _Count
    clock_hz: _Clock
    fma_lanes_per_cycle: _Count
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
    return read_board(BOARDS / f"{name}.toml")


def read_board(path: Path) -> Board:
    """Read a board's file, which is called as the board is.

    Raises:
        UserError: it is no TOML, or a figure is missing or absurd; the message names the file and each such field.
    """
    try:
        board = Board.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path.name} is no TOML file: {error}.", "Repair the file, or install tvmmobile again.") from error
    except ValidationError as error:
        found = "; ".join(_complaint(list(problem["loc"]), problem["msg"], problem["input"]) for problem in error.errors())
        raise UserError(f"{path.name} does not describe a board: {found}.", "Repair the file, or install tvmmobile again.") from error
    if board.name != path.stem:
        raise UserError(f"{path.name} does not describe a board: name is {board.name!r}.", f"Call it {path.stem!r}, as the file is called.")
    return board


def _complaint(place: list[int | str], message: str, value: object) -> str:
    field = ".".join(str(part) for part in place) or "the file"
    sentence = message.removeprefix("Value error, ")
    return f"{field}: {sentence[0].lower()}{sentence[1:]}" + (f" (it is {value!r})" if isinstance(value, int | float | str) else "")
