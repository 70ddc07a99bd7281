"""The description of a device (`DeviceProfile`), the way to its agents (`Endpoint`), and the interface of all devices (`Device`)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from tvmmobile.graph.machine import Machine

Kind = Literal["modelled", "measured", "emulated"]


@dataclass(frozen=True)
class Origin:
    """Origin of latencies.

    Attributes:
        kind: a timing model, the board's clock, or the clock of a machine that emulates the board.
        model: the timing model's hash; `None` where there is none.
    """

    kind: Kind
    model: str | None = None

    @property
    def modelled(self) -> bool:
        """True if latencies come from a model, not from a clock."""
        return self.kind == "modelled"

    @property
    def written(self) -> str | None:
        """Form in files that name a timing model: its hash, `emulated`, or `None` for measured latencies."""
        return self.kind if self.kind == "emulated" else self.model


MEASURED, EMULATED = Origin("measured"), Origin("emulated")


@dataclass(frozen=True)
class DeviceProfile:
    """Everything that the rest of the program needs to know about a board.

    Attributes:
        name: the board's name, such as `pi4`, or `pi4-virtual` for the virtual board.
        board: the product, such as `Raspberry Pi 4 Model B`.
        cpu: the core's name for people, such as `Cortex-A72`.
        mcpu: the core's name for LLVM, such as `cortex-a72`.
        target: TVM's target, a dict such as `{"kind": "llvm", "mtriple": …, "mcpu": …, "num-cores": 4}`.
        clock_hz: the clock that latencies refer to.
        cores: number of cores.
        machine: traits of a core that matter to a kernel.
        origin: origin of its latencies.
        board_file: the virtual board's name, or the path of its file, for `load_board`; empty for a real board.
        cpus: option `cpus` of C libraries with several threads; 0 to leave their placement to the system.
        modelled_as: the core that stands for a real board's on virtual boards, as their `mcpu`; empty for a virtual board.
    """

    name: str
    board: str
    cpu: str
    mcpu: str
    target: dict[str, Any] = field(hash=False)
    clock_hz: float
    cores: int
    machine: Machine
    origin: Origin
    board_file: str = ""
    cpus: int = 0
    modelled_as: str = ""

    @property
    def virtual_mcpu(self) -> str:
        """Return the `mcpu` of virtual boards with this core; a real board's own `mcpu` is that of an older core if LLVM 16 does not know
        its core.
        """
        return self.modelled_as or self.mcpu

    def has_core(self, mcpu: str) -> bool:
        """Return whether an LLVM name, of a real or a virtual board's core, means this core."""
        return mcpu in (self.mcpu, self.virtual_mcpu)


@dataclass(frozen=True)
class Endpoint:
    """Address of the tracker of a device's agents; it can be sent to another process on this machine.

    Attributes:
        host: the tracker's address.
        port: the tracker's port.
        key: agents register under it.
        secret: the run's secret; tracker, agents and clients prove to each other that they know it, and never send it: 64 hexadecimal
            digits, or "" where there are no agents. It is not shown when printed.
        quiet: a file that builders lock shared and measurements lock exclusively; "" if builders do not disturb the device.
        stretch: factor by which a session may exceed its limit by the clock, since the limit counts only the session's own work: see
            agent/limit.h.
        slowdown: factor of all limits, above 1 where agents run on a machine that is emulated itself.
    """

    host: str
    port: int
    key: str
    secret: str = field(default="", repr=False)
    stretch: float = 1.0
    quiet: str = ""
    slowdown: float = 1.0

    def limit_s(self, limit_s: float) -> float:
        """Return the limit that an agent is given for a session that may take `limit_s` on a usual machine."""
        return limit_s * self.slowdown

    def longest_s(self, limit_s: float) -> float:
        """Return how long such a session may last by the clock."""
        return self.limit_s(limit_s) * self.stretch


class Watch(Protocol):
    """Looks after a board's state while it is measured; see `devices/board/watch.py`."""

    def wait_until_cool(self) -> Any:
        """Return the boards' state once they are cool."""

    def read(self) -> Any:
        """Return the boards' state."""

    def spoiled(self, before: Any, after: Any) -> str:
        """Return why measurements between two states do not count; "" if they do."""


class Device(Protocol):
    """Starts agents on a board, real or virtual."""

    @property
    def profile(self) -> DeviceProfile:
        """The description of the board."""

    @property
    def boards(self) -> int | None:
        """Number of boards that measure at the same time; `None` if it is the number of agents asked for."""

    def started(self, agents: int = 1, timed: bool = True) -> AbstractContextManager[Endpoint]:
        """Run `agents` agents and a tracker while the context lasts; nothing is left behind after it.

        Args:
            agents: number of agents, where that can be chosen.
            timed: true if latencies are wanted; without them, a virtual board does not count instructions.

        Raises:
            DeviceUnavailable: the agents did not come up.
            UserError: a program that is needed is not installed.
        """

    def watched(self) -> AbstractContextManager[Watch | None]:
        """Watch over the board while the context lasts; yield `None` for a board whose state is always the same."""


class NotStored(OSError):
    """Raised when the device cannot store a file.

    It has no `errno`, which would be one of this machine's.

    Attributes:
        name: name of the file.
        size: the file's size in bytes.
        number: number of the error on the device; 0 if an agent of an older version does not report it.
    """

    def __init__(self, name: str, size: int, number: int = 0) -> None:
        super().__init__(f"the device cannot store {name} ({size} bytes)")
        self.name, self.size, self.number = name, size, number

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.name, self.size, self.number)  # it may travel between worker processes
