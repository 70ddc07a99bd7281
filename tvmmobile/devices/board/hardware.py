"""A registered device: one board or several alike, reached by SSH or adb, or this machine."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace

from tvmmobile.devices.agent.build import build_bundle
from tvmmobile.devices.agents.launch import hosted
from tvmmobile.devices.agents.proof import new_secret
from tvmmobile.devices.board.link import AgentPlan
from tvmmobile.devices.board.link_host import LinkConfig
from tvmmobile.devices.board.parts import CoreDesign, as_reported, fastest, part_of
from tvmmobile.devices.board.registered import DeviceFile, LocalAddress, RegisteredBoard
from tvmmobile.devices.board.watch import watching
from tvmmobile.devices.protocol import EMULATED, MEASURED, DeviceProfile, Endpoint, Watch
from tvmmobile.system.environment import user_name

#: Longest time for first contact, without the agent's installation.
CONTACT_S = 30.0
#: The file that keeps builders from disturbing measurements on this machine, in the agent's folder; see `Endpoint`.
QUIET = "measuring.lock"
#: LLVM's names of what `Machine.has` names.
_LLVM_FEATURES = {"half": "fullfp16", "dot": "dotprod", "matrix": "i8mm", "bfloat16": "bf16"}


class HardwareDevice:
    """Starts agents on one or several boards of one name.

    Args:
        file: the device's file, as it was registered.
        pin: hold the boards' clocks at their highest while agents run.
    """

    def __init__(self, file: DeviceFile, pin: bool = False) -> None:
        self.file, self.pin = file, pin

    @property
    def profile(self) -> DeviceProfile:
        """The profile of the first board; `kind` is `measured`, or `emulated` if the agent runs in an emulator."""
        return profile_of(self.file.name, self.file.boards[0])

    @property
    def boards(self) -> int:
        """The number of boards; each measures one candidate at a time."""
        return len(self.file.boards)

    @contextlib.contextmanager
    def started(self, agents: int = 1, timed: bool = True) -> Iterator[Endpoint]:
        """Run an agent on every board until the context ends or this process does.

        `agents` and `timed` make no difference: a board has one agent, which only reads the clock when asked to.

        Raises:
            DeviceUnavailable: no board is ready; the message says why the first is not.
            UserError: the agent cannot be built.
        """
        secret = new_secret()
        owner = f"{user_name() or os.getuid()}@{socket.gethostname()}"
        plan = AgentPlan(self.file.name, build_bundle(), secret, owner, secrets.token_hex(8), self.pin)
        config = LinkConfig(plan=plan, boards=self.file.boards, parent=os.getpid(), deadline_s=CONTACT_S)
        words = [sys.executable, "-P", "-m", "tvmmobile.devices.board.link_host"]
        remedy = f"Run: tvmmobile device check {self.file.name}"
        with hosted(words, config.model_dump_json() + "\n", config.deadline_s, self.file.name, remedy) as port:
            here = next((board.directory for board in self.file.boards if isinstance(board.address, LocalAddress)), None)
            yield Endpoint("127.0.0.1", port, self.file.name, secret, quiet=f"{here}/{QUIET}" if here else "")

    @contextlib.contextmanager
    def watched(self) -> Iterator[Watch | None]:
        """Watch over all boards, with connections of its own."""
        with watching(self.file.boards) as watch:
            yield watch


def fastest_cores(board: RegisteredBoard) -> tuple[CoreDesign, int, float]:
    """Return the board's fastest kind of core, their number, and their highest clock in Hz (0 if unknown)."""
    indices = fastest(board.facts.cores)
    best = board.facts.cores[indices[0]]
    return as_reported(part_of(best.implementer, best.part), best.has), len(indices), best.max_hz


def profile_of(name: str, board: RegisteredBoard) -> DeviceProfile:
    """Return the device profile of a registered board; instructions that Linux does not report there are not used."""
    part, count, clock_hz = fastest_cores(board)
    system = "gnu" if board.facts.api_level is None else "android"
    without = {"mattr": [f"-{_LLVM_FEATURES[name]}" for name in part.lacks]} if part.lacks else {}
    return DeviceProfile(
        name=name,
        board=board.facts.model or part.product or name,
        cpu=part.cpu,
        mcpu=part.mcpu,
        target={"kind": "llvm", "mtriple": f"aarch64-linux-{system}", "mcpu": part.mcpu, "num-cores": count, **without},
        clock_hz=clock_hz,
        cores=count,
        machine=replace(
            part.machine, l1d_bytes=board.facts.l1d_bytes or part.machine.l1d_bytes, l2_bytes=board.facts.l2_bytes or part.machine.l2_bytes
        ),
        origin=EMULATED if board.emulator else MEASURED,
        modelled_as=part.modelled_as,
    )
