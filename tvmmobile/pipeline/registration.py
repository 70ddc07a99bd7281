"""Registers boards and phones under a name, and removes them again."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Unpack

from tvmmobile.devices.agent.build import build_bundle
from tvmmobile.devices.board.connect import CONNECT_TIMEOUT_S, connected, described
from tvmmobile.devices.board.health import read_health, with_clock
from tvmmobile.devices.board.install import check_runs, check_separators, home_directory, install_agent, remove_folder, removed_on_failure
from tvmmobile.devices.board.link import check_unused
from tvmmobile.devices.board.probe import probe
from tvmmobile.devices.board.registered import (
    AdbAddress,
    Address,
    DeviceFile,
    LinuxCore,
    LocalAddress,
    RegisteredBoard,
    SshAddress,
    check_name,
    forget_device,
    load_device,
    registered_names,
    save_device,
)
from tvmmobile.devices.board.remote import Remote
from tvmmobile.devices.local.machine import local_address
from tvmmobile.devices.ssh.keys import host_key_of
from tvmmobile.pipeline.options.call import with_options
from tvmmobile.pipeline.options.device import DeviceArguments, DeviceOptions
from tvmmobile.system.errors import DeviceUnavailable, UserError
from tvmmobile.tuning.logs.directories import own_logs
from tvmmobile.tuning.logs.files import log_paths
from tvmmobile.virtual.board import VIRTUAL_SUFFIX

OnProgress = Callable[[str], None]


@dataclass(frozen=True)
class AddedDevice:
    """A board that was registered.

    Attributes:
        board: the board's address, folders and hardware.
        file: path of the device's file, which has all boards of that name.
        earlier_logs: folder of your own tuning logs with records of a device of that name, made before it was registered; `None` without
            any. They count as this board's.
    """

    board: RegisteredBoard
    file: Path
    earlier_logs: Path | None = None


@with_options(DeviceOptions)
def add_device(
    name: str,
    *,
    confirm_host_key: Callable[[str, str], bool] = lambda _destination, _fingerprint: False,
    on_progress: OnProgress = lambda _sentence: None,
    **options: Unpack[DeviceArguments],
) -> AddedDevice:
    """Probe a board, install the agent there, and store its address.

    Args:
        name: the device's name, such as `pi4`.
        options: see `DeviceOptions`, which `help` lists: one of `ssh`, `adb` and `local`.
        confirm_host_key: called with the destination and fingerprint of an unknown host key; returns whether the key is the board's.
            Without it, give `fingerprint`.
        on_progress: called with a sentence before each step that takes long.

    Returns:
        The board as it was registered.

    Raises:
        UserError: an argument is wrong, or the board is not like the others of its name.
        DeviceUnavailable: the board cannot be reached, or its host key is not to be trusted.
    """
    check_name(name)
    chosen = DeviceOptions.of(options)
    if (chosen.ssh is not None) + (chosen.adb is not None) + chosen.local != 1:
        raise UserError("give one of --ssh, --adb and --local.", "For example: tvmmobile device add pi4 --ssh pi@raspberrypi.local")
    for flag, value in (("--port", chosen.port), ("--fingerprint", chosen.fingerprint)):
        if value is not None and chosen.ssh is None:
            raise UserError(f"{flag} is for boards that are reached over SSH.", f"Leave out {flag}, or give --ssh.")
    check_separators("--directory", chosen.directory)
    known = load_device(name)
    if known is not None and not chosen.join:
        raise UserError(f"{name} is already registered.", f"tvmmobile device remove {name}, or add --join for another board of that name.")
    if known is None and chosen.join:
        raise UserError(f"{name} is not registered yet.", "Leave out --join.")
    if chosen.local:
        address: Address = local_address(chosen.root, emulated=bool(chosen.runner))
    elif chosen.ssh is not None:
        address = _ssh_address(chosen.ssh, chosen, confirm_host_key)
    else:
        address = AdbAddress(serial=str(chosen.adb))
    others = known.boards if known else ()
    with _with_agent(name, address, chosen, others, on_progress) as board:
        file = save_device(DeviceFile(name=name, boards=(*others, board)))
    has_logs = known is None and any(path.stat().st_size for path in log_paths(own_logs(), name))
    return AddedDevice(board, file, own_logs() / name if has_logs else None)


@contextmanager
def _with_agent(
    name: str, address: Address, chosen: DeviceOptions, others: Sequence[RegisteredBoard], on_progress: OnProgress
) -> Iterator[RegisteredBoard]:
    """Yield a board on which the agent was installed and runs. If the context fails, the agent is removed again.

    Args:
        others: boards of that name.

    Raises:
        UserError: the board is not like the others.
    """
    bundle = build_bundle(on_progress)
    with connected(address) as remote:
        board = _probed(remote, address, chosen)
        if others and not (_alike(others[0].facts.cores, board.facts.cores) and others[0].runner == board.runner):
            raise UserError(
                f"this board's cores differ from those of {name}.", "Boards of one name must be alike; give this one another name."
            )
        with removed_on_failure(remote, board.directory):
            check_runs(remote, install_agent(remote, board.directory, bundle, on_progress), chosen.runner)
            yield board


def _alike(known: Sequence[LinuxCore], cores: Sequence[LinuxCore]) -> bool:
    """Return whether boards have the same cores; records of boards added earlier may lack the instructions."""

    def like(core: LinuxCore, other: LinuxCore) -> LinuxCore:
        return core if other.has is not None else core.model_copy(update={"has": None})

    return len(known) == len(cores) and all(like(one, other) == like(other, one) for one, other in zip(known, cores, strict=True))


def remove_device(name: str, keep_files: bool = False, on_progress: OnProgress = lambda _sentence: None) -> None:
    """Remove the agent from a device's boards, and forget them.

    Args:
        name: the device's name.
        keep_files: leave the agent on the boards, which then need not be reachable; the device's file may be damaged.
        on_progress: called with a sentence before each board is changed.

    Raises:
        UserError: there is no such device.
        DeviceUnavailable: a board cannot be reached, or a run uses it.
    """
    # With `keep_files` nothing depends on what the device's file says, and it may be damaged.
    boards = () if keep_files and name in registered_names() else registered(name).boards
    for board in boards:
        on_progress(f"Removing {board.directory} from {described(board.address)}")
        with connected(board.address) as remote:
            check_unused(board, remote)
            remove_folder(remote, board.directory)
    forget_device(name)


def registered(name: str) -> DeviceFile:
    """Return the boards of a device; raise `UserError` where it is not registered."""
    found = load_device(name)
    if found is None:
        if name.endswith(VIRTUAL_SUFFIX):
            raise UserError(
                f"{name} is a virtual board: there is nothing to register.", "It needs no check: tvmmobile tune and bench take it as it is."
            )
        known = ", ".join(registered_names()) or "none"
        raise UserError(f"{name} is not registered.", f"Registered: {known}. Add it: tvmmobile device add {name} --ssh USER@HOST")
    return found


def _ssh_address(destination: str, chosen: DeviceOptions, confirm_host_key: Callable[[str, str], bool]) -> SshAddress:
    """Return the address, once the user has accepted its host key."""
    fingerprint, key = chosen.fingerprint, host_key_of(destination, chosen.port, CONNECT_TIMEOUT_S)
    if fingerprint is not None and fingerprint != key.fingerprint:
        raise DeviceUnavailable(
            f"{destination} has the host key {key.fingerprint}, not {fingerprint}.",
            "Check it on the board: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
        )
    if key.known == "changed":
        raise DeviceUnavailable(
            f"the host key of {destination} is not the one in your known_hosts; it is now {key.fingerprint}.",
            f"If the board was set up anew, remove the old key: ssh-keygen -R {shlex.quote(key.name)}",
        )
    if key.known == "unknown" and fingerprint is None and not confirm_host_key(destination, key.fingerprint):
        raise DeviceUnavailable(
            f"the host key of {destination} is not known and was not confirmed: {key.fingerprint}.",
            f"If it is the board's, give --fingerprint {key.fingerprint}",
        )
    return SshAddress(destination=destination, port=chosen.port, host_key=key.text)


def _probed(remote: Remote, address: Address, chosen: DeviceOptions) -> RegisteredBoard:
    """Probe the board; nothing is stored on it."""
    here = address if isinstance(address, LocalAddress) else None
    # This process runs here, so the architecture is known; the kernel below an emulator of programs has another one.
    facts = probe(remote, chosen.root, bool(chosen.runner), "aarch64" if here and here.emulator else "")
    directory, added = chosen.directory or home_directory(remote), datetime.now(UTC).isoformat(timespec="seconds")
    board = RegisteredBoard(address=address, directory=directory, runner=chosen.runner, root=chosen.root, facts=facts, added=added)
    if chosen.clock_ghz is not None:
        board = with_clock(board, read_health(remote, board).caps_hz, chosen.clock_ghz * 1e9)
    if here is None and not facts.emulator and not all(core.max_hz for core in board.facts.cores):
        raise UserError("the board does not report its maximum clock.", "Give it: --clock 1.8")
    return board
