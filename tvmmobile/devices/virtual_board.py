"""A virtual board as a device: the same agent as on a real one, under QEMU, with its blocks counted and its caches simulated."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tvmmobile.devices.agent.build import agent_words, build_bundle
from tvmmobile.devices.agents.host import BUNDLE, HostConfig
from tvmmobile.devices.agents.launch import hosted
from tvmmobile.devices.agents.proof import new_secret
from tvmmobile.devices.protocol import DeviceProfile, Endpoint, Origin, Watch
from tvmmobile.graph.machine import machine_of
from tvmmobile.system.doctor import require
from tvmmobile.system.emulators import slowdown
from tvmmobile.system.files import write_text
from tvmmobile.system.scratch import scratch
from tvmmobile.virtual.board import Board
from tvmmobile.virtual.calibration.fit import run_hash
from tvmmobile.virtual.program import plain_qemu_words, qemu_words
from tvmmobile.virtual.sysroot import capacity_files

#: Time for all agents to register.
START_DEADLINE_S = 60.0
#: Time limit of a network whose every instruction is counted: VGG-16 takes minutes a run, and more on a busy machine.
_LONGEST_SESSION_S = 7200
#: Most times its limit that a session may last by the clock: it shares this machine's processors with whatever else runs.
STRETCH = 60
HOST_CODE = "import sys; sys.path.insert(0, sys.argv[1]); from tvmmobile.devices.agents.host import main; main()"
#: Symbols are bound when a library is loaded, so that no run's count holds the dynamic linker's work. The environment is the same
#: everywhere, and as long as when models were calibrated, because it is part of a process's memory, and thus of what is modelled.
_AGENT_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LD_BIND_NOW": "1", "TVMMOBILE_SAME_MEMORY": "0" * 32}
#: The last of the CPUs that C libraries take a board's cores for, where clocks differ: hardly a machine has them, so pinning does nothing.
_LAST_CPU = 62
PACKAGE_ROOT = Path(__file__).resolve().parents[2]


class VirtualDevice:
    """Starts agents under QEMU for a modelled board.

    Args:
        name: the device's name, such as `pi4-virtual`.
        board: its description.
        board_file: the board's file, if `load_board` does not find the board by its name.
    """

    def __init__(self, name: str, board: Board, board_file: str = "") -> None:
        self.board = board
        self._board_file = board_file or board.name
        self._name = name

    @property
    def profile(self) -> DeviceProfile:
        """The description of the board; its latencies are modelled."""
        board = self.board
        return DeviceProfile(
            name=self._name,
            board=board.board,
            cpu=board.cpu,
            mcpu=board.mcpu,
            target={"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": board.mcpu, "num-cores": board.cores} | _without_sve(board),
            clock_hz=board.clock_hz,
            cores=board.cores,
            machine=replace(
                machine_of(board.mcpu),
                fma_lanes_per_cycle=board.fma_lanes_per_cycle,
                l1d_bytes=board.caches.l1d_bytes,
                l1d_ways=board.caches.l1d_ways,
                l2_bytes=board.caches.l2_bytes,
                l3_bytes=board.caches.l3_bytes,
            ),
            origin=Origin("modelled", run_hash(board)),
            board_file=self._board_file,
            cpus=sum(1 << cpu for cpu in _cpus(board)),
        )

    @property
    def boards(self) -> None:
        """`None`: there are as many boards as agents are asked for."""
        return

    @contextlib.contextmanager
    def started(self, agents: int = 1, timed: bool = True) -> Iterator[Endpoint]:
        """Run a tracker and `agents` agents under QEMU, on 127.0.0.1, until the context ends or this process does.

        Unless `timed`, without the plugin: outputs are the same and come slightly sooner, but nothing can be modelled.

        Raises:
            DeviceUnavailable: the agents did not come up.
            UserError: QEMU, llvm-mca or a compiler is not installed.
        """
        if timed:
            require("llvm-mca")
        secret = new_secret()
        bundle = build_bundle()
        factor = slowdown()
        words = [sys.executable, "-S", "-E", "-c", HOST_CODE, str(PACKAGE_ROOT)]
        with scratch("board") as root:
            config = HostConfig(
                command=_qemu_command(self.board, timed, _write_system(self.board, root / "system")),
                bundle=str(bundle),
                environment=_AGENT_ENVIRONMENT,
                secret=secret,
                agents=agents,
                root=str(root),
                parent=os.getpid(),
                deadline_s=START_DEADLINE_S * factor,
            )
            with hosted(words, config.to_line(), config.deadline_s, "The virtual board did not start", "Run: tvmmobile doctor") as port:
                yield Endpoint("127.0.0.1", port, self.board.name, secret, STRETCH, slowdown=factor)

    @contextlib.contextmanager
    def watched(self) -> Iterator[Watch | None]:
        """Yield `None`: a model's state never changes."""
        yield None


def _without_sve(board: Board) -> dict[str, list[str]]:
    """Return the features that keep LLVM from SVE if QEMU runs the core without it."""
    return {"mattr": ["-sve"]} if "sve=off" in board.qemu_cpu else {}


def _cpus(board: Board) -> range:
    """Return the CPUs that stand for a board's cores in C libraries; none if all have one clock."""
    return range(_LAST_CPU + 1 - board.cores, _LAST_CPU + 1) if board.clocks_hz else range(0)


def _write_system(board: Board, folder: Path) -> list[str]:
    """Write the files that tell C libraries the speeds of `_cpus`; return QEMU's words for them."""
    if not board.clocks_hz:
        return []
    for name, text in capacity_files(board, _cpus(board).start).items():
        (folder / name).parent.mkdir(parents=True)
        write_text(folder / name, text)
    return ["-L", str(folder)]


def _qemu_command(board: Board, timed: bool, system: Sequence[str]) -> tuple[str, ...]:
    # In its work directory, by paths of one length: the lengths of others would move what is allocated after them, and so be modelled.
    agent = [*agent_words(f"/proc/self/cwd/{BUNDLE}"), "--tracker", "{tracker}", "--key", board.name, "--work-dir", "."]
    agent += ["--stretch", str(STRETCH)]
    if not timed:
        return (*plain_qemu_words(board), *system, *agent)
    return (*qemu_words(board, "{work}"), *system, *agent, "--session-timeout", str(_LONGEST_SESSION_S), "--profile-dir", "..")
