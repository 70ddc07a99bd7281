"""Reads the figures of virtual boards from `boards/*.toml` or a user's own file.

A board's file contains what differs between boards: clock, cache sizes, memory. Figures that all boards with the same `mcpu` share are in
`cores/MCPU.toml`, if this file exists; the board's own file takes precedence. A board with several kinds of cores has a table
`[clusters.NAME]` for each of them, which is merged into the rest of the file: each kind is a board of its own, `FILE-NAME`, and the file's
name alone means the first.
"""

from __future__ import annotations

import functools
import hashlib
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from tvmmobile.system.errors import UserError, one_line, shown, some_of
from tvmmobile.system.json_files import place

BOARDS = Path(__file__).parent / "boards"
CORES = Path(__file__).parent / "cores"
#: `pi4-virtual` is the virtual board even when a real one is registered as `pi4`.
VIRTUAL_SUFFIX = "-virtual"
_REPAIR = "docs/virtual-boards.md says what a board's file holds; tvmmobile/virtual/boards has examples."
#: Most problems of a file that an error lists.
_MOST_COMPLAINTS = 30
#: Most threads of a C library.
_MOST_CLOCKS = 32
#: Lines have at least the 16 bytes of the longest access, so that it touches at most two of them.
_LEAST_LINE_BYTES = 16

#: Bounds of plausible figures; others are mistakes, such as a clock in MHz, a size in KiB, or hundreds of ports.
_Count = Annotated[int, Field(gt=0, le=1024)]
_Bytes = Annotated[int, Field(gt=0, le=1 << 30)]
_Ports = Annotated[int, Field(gt=0, le=16)]
_Clock = Annotated[float, Field(ge=1e8, le=1e10)]
_Rate = Annotated[float, Field(ge=1e8, le=1e12)]
_Cycles = Annotated[float, Field(gt=0, le=1000)]
_Latency = Annotated[float, Field(ge=1, le=1000)]
_Name = Annotated[str, Field(min_length=1)]
_Share = Annotated[float, Field(ge=0, le=1000)]
_Error = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Caches(_Strict):
    """Data caches; sizes in bytes, the last level shared by all cores.

    Attributes:
        l2_private: each core has its own second level; without a third one it is shared.
        l3_bytes: 0 where there is no third level.
        l2_cycles: extra cycles of an access that hits the second level rather than the first, when nothing hides them.
        l3_cycles: the same of the third level.
    """

    line_bytes: _Bytes
    l1d_bytes: _Bytes
    l1d_ways: _Count
    l2_bytes: _Bytes
    l2_ways: _Count
    l2_cycles: _Cycles
    l2_private: bool = False
    l3_bytes: _Bytes | Literal[0] = 0
    l3_ways: _Count | Literal[0] = 0
    l3_cycles: _Cycles | Literal[0] = 0

    @model_validator(mode="after")
    def _sets_are_a_power_of_two(self) -> Caches:
        # Bits of the address select the set of a line.
        if self.line_bytes < _LEAST_LINE_BYTES or self.line_bytes & (self.line_bytes - 1):
            raise ValueError(f"line_bytes = {self.line_bytes} is not a power of two of at least {_LEAST_LINE_BYTES}")
        levels = [("l1d", self.l1d_bytes, self.l1d_ways), ("l2", self.l2_bytes, self.l2_ways)]
        if self.has_l3:
            levels.append(("l3", self.l3_bytes, self.l3_ways))
        for name, size, ways in levels:
            sets, rest = divmod(size, self.line_bytes * max(ways, 1))
            if rest or not sets or sets & (sets - 1):
                raise ValueError(f"{name}_bytes = {size} do not give a power of two of sets with {ways} lines of {self.line_bytes} bytes")
        return self

    @model_validator(mode="after")
    def _third_level_is_whole(self) -> Caches:
        if len({bool(self.l3_bytes), bool(self.l3_ways), bool(self.l3_cycles), self.l2_private}) > 1:
            raise ValueError("a third level needs l3_bytes, l3_ways and l3_cycles, and a second level that is private")
        return self

    @property
    def has_l3(self) -> bool:
        """True if there is a third level."""
        return self.l3_bytes > 0


class Memory(_Strict):
    """Main memory as one core sees it.

    Attributes:
        peak_bytes_per_s: peak rate of the bus.
        copy_bytes_per_s: rate at which one core copies arrays much larger than the caches, each byte counted once.
        latency_ns: extra time of an access to memory over one that hits the first level, when nothing hides it.
    """

    peak_bytes_per_s: _Rate
    copy_bytes_per_s: _Rate
    latency_ns: _Latency

    @model_validator(mode="after")
    def _copies_within_the_peak(self) -> Memory:
        if 2 * self.copy_bytes_per_s > self.peak_bytes_per_s:
            raise ValueError(f"copy_bytes_per_s = {self.copy_bytes_per_s:g} is more than half of peak_bytes_per_s")
        return self


class CorePorts(_Strict):
    """Operations that one core can start per cycle, for a lower bound of a block's cost.

    Attributes:
        vector_bits: width of each of `vector_ports` for arithmetic: a 128-bit operation takes two of 64 bits.
    """

    dispatch_width: _Ports
    load_ports: _Ports
    store_ports: _Ports
    vector_ports: _Ports
    vector_bits: Literal[64, 128] = 64
    branch_ports: _Ports


def _items(table: object) -> object:
    return tuple(sorted(table.items())) if isinstance(table, dict) else table


def _tuple(array: object) -> object:
    return tuple(array) if isinstance(array, list) else array


class OwnCalibration(_Strict):
    """The cost of waiting on this board, in place of its core's calibration; `calibration_of` checks it.

    Attributes:
        fitted_with: identifies the board's figures and the version of the timing model that the parameters were fitted with.
        points: number of kernels and networks that were measured for it.
        mean_error, worst_error: relative, of each of them with parameters fitted to the others.
        parameters: (name, share) of each term; a table in the file.
    """

    fitted_with: _Name
    points: _Count
    mean_error: _Error
    worst_error: _Error
    parameters: Annotated[tuple[tuple[str, _Share], ...], BeforeValidator(_items)]


class Board(_Strict):
    """A board that can be modelled, or its cores of one kind; `clock_hz` in Hz.

    Attributes:
        midr: the core's main ID register, by which libraries choose kernels; 0 if it is not known. Like `features`, it is not part of
            what `digest` identifies: no modelled time follows from it.
        features: features of the core, as /proc/cpuinfo lists them.
        clocks_hz: each core's clock, fastest first, where they differ; `clock_hz` is the first one. Only times of several threads follow
            from it, so it is part of their `run_hash` alone.
        assumed: figures that nobody published, and their assumed values; empty if there are none.
        calibration: calibration of this board itself; `None` for its core's. `digest` is of the figures alone, `run_hash` of both.
    """

    name: _Name
    board: _Name
    cpu: _Name
    mcpu: _Name
    qemu_cpu: _Name
    cores: _Count
    clock_hz: _Clock
    fma_lanes_per_cycle: _Count
    caches: Caches
    memory: Memory
    core: CorePorts
    midr: Annotated[int, Field(ge=0, lt=1 << 32)] = Field(default=0, exclude=True)
    features: str = Field(default="fp asimd", exclude=True)
    clocks_hz: Annotated[tuple[_Clock, ...], BeforeValidator(_tuple)] = Field(default=(), exclude=True, max_length=_MOST_CLOCKS)
    assumed: str = Field(default="", exclude=True)
    calibration: OwnCalibration | None = Field(default=None, exclude=True)

    @model_validator(mode="after")
    def _clocks_are_the_cores(self) -> Board:
        if not self.clocks_hz:
            return self
        if len(self.clocks_hz) != self.cores:
            raise ValueError(f"clocks_hz has {len(self.clocks_hz)} clocks for {self.cores} cores")
        if self.clocks_hz[0] != self.clock_hz or list(self.clocks_hz) != sorted(self.clocks_hz, reverse=True):
            raise ValueError(f"clocks_hz does not begin with clock_hz = {self.clock_hz:g}, the fastest, and fall from there")
        return self

    def at_clock_of(self, core: int) -> Board:
        """Return the board with this core's clock for all cores; numbers beyond the last core mean the last."""
        if not self.clocks_hz:
            return self
        return self.model_copy(update={"clock_hz": self.clocks_hz[min(core, self.cores - 1)], "clocks_hz": ()})

    def clocked_at(self, clock_hz: float) -> Board:
        """Return the board with another clock; the ratios of its cores' clocks stay the same."""
        clocks_hz = tuple(other_hz * (clock_hz / self.clock_hz) for other_hz in self.clocks_hz[1:])
        return self.model_copy(update={"clock_hz": clock_hz, "clocks_hz": (clock_hz, *clocks_hz) if self.clocks_hz else ()})

    @property
    def line_copy_ns(self) -> float:
        """Time in which one core copies a cache line of large arrays, in ns."""
        return self.caches.line_bytes / self.memory.copy_bytes_per_s * 1e9

    @property
    def digest(self) -> str:
        """SHA-256 of the figures, independent of comments and layout of the file."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def board_names() -> list[str]:
    """Return the names of the boards that can be modelled, sorted."""
    return sorted(_places())


def is_board(name: str) -> bool:
    """Return whether a built-in board has this name, perhaps without its kind of core."""
    return name in _places() or (BOARDS / f"{name}.toml").is_file()


def load_board(name: str) -> Board:
    """Return the description of a virtual board.

    Args:
        name: name of a built-in board, or path of a board's file (`./myboard.toml`); with several kinds of cores, it means the first kind.

    Raises:
        UserError: there is no such board, or a figure in its file is missing or implausible.
    """
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise UserError(f"there is no board file {name}.", f"Name a file, or one of the boards {', '.join(board_names())}.")
        return read_board(Path(name))
    if not is_board(name):
        known = ", ".join(board_names())
        raise UserError(f"there is no virtual board {name!r}.", f"Known boards: {known}; or give the path of a board's file, *.toml.")
    return read_board(*_places().get(name, (BOARDS / f"{name}.toml", "")))


def device_among(name: str, known: Collection[str]) -> str:
    """Return which of the devices `known` is meant by `name`: the one of that name, else its virtual board, else the name itself."""
    if name in known:
        return name
    try:
        virtual = load_board(name).name + VIRTUAL_SUFFIX
    except UserError:
        return name
    return virtual if virtual in known else name


def read_board(path: Path, cluster: str = "") -> Board:
    """Read a board's file, whose name has to be that of the board.

    Args:
        path: the file.
        cluster: the kind of cores to read, if the board has several; the first one if empty.

    Raises:
        UserError: the file is not TOML, or figures are missing or implausible; the message names the file and these figures.
    """
    values = _toml(path)
    clusters = values.pop("clusters", {})
    if clusters:
        if not isinstance(clusters, dict) or not all(isinstance(table, dict) for table in clusters.values()):
            raise UserError(
                f"{path.name} does not describe a board: clusters is not a set of tables.",
                "Write a table [clusters.NAME] for each kind of core.",
            )
        cluster = cluster or next(iter(clusters))
        values = _merged(values, clusters[cluster])
    if isinstance(mcpu := values.get("mcpu"), str):
        values = _merged(core_values(mcpu), values)
    try:
        board = Board.model_validate(values)
    except ValidationError as error:
        found = [_complaint(list(problem["loc"]), problem["msg"], problem["input"]) for problem in error.errors()]
        raise UserError(f"{path.name} does not describe a board: {some_of(found, _MOST_COMPLAINTS, '; ')}.", _REPAIR) from error
    if board.name != path.stem:
        raise UserError(
            f"{path.name} does not describe a board: name is {shown(board.name)}.", f"Set name to {path.stem!r}, like the file."
        )
    return board.model_copy(update={"name": f"{path.stem}-{cluster}"}) if cluster else board


@functools.cache
def core_file(mcpu: str) -> dict[str, Any]:
    """Return the content of a core's file; empty if there is none."""
    known = {path.stem: path for path in CORES.glob("*.toml")}
    return _toml(known[mcpu]) if mcpu in known else {}


def core_values(mcpu: str) -> dict[str, Any]:
    """Return the figures that all boards with this core share; empty if there is no file."""
    return {key: value for key, value in core_file(mcpu).items() if key != "timing"}


@functools.cache
def _places() -> dict[str, tuple[Path, str]]:
    """Return the file of each board by name, and the kind of cores in the file that it means; "" if there is only one kind."""
    places: dict[str, tuple[Path, str]] = {}
    for path in BOARDS.glob("*.toml"):
        clusters = _toml(path).get("clusters", {})
        places |= {f"{path.stem}-{cluster}": (path, cluster) for cluster in clusters} or {path.stem: (path, "")}
    return places


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.", _REPAIR) from error
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, a number with thousands of digits, or nested too deeply
        raise UserError(f"{path.name} is not a TOML file: {one_line(error)}.", _REPAIR) from error


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Update `base` with `over`, merging tables recursively."""
    both = {key: _merged(base[key], value) for key, value in over.items() if isinstance(value, dict) and isinstance(base.get(key), dict)}
    return base | over | both


def _complaint(parts: list[int | str], message: str, value: object) -> str:
    field = place(parts) if parts else "the file"
    sentence = message.removeprefix("Value error, ")
    return f"{field}: {sentence[0].lower()}{sentence[1:]}" + (f" (it is {shown(value)})" if isinstance(value, int | float | str) else "")
