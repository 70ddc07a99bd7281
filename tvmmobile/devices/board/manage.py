"""Registers boards and phones under a name, and takes them away again."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tvmmobile.devices.agent.build import build_bundle
from tvmmobile.devices.board.connect import CONNECT_TIMEOUT_S, connected, described
from tvmmobile.devices.board.install import check_runs, home_directory, install_agent, remove_folder
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
from tvmmobile.devices.local.machine import local_address
from tvmmobile.devices.ssh.keys import host_key_of
from tvmmobile.system.errors import DeviceUnavailable, UserError

OnProgress = Callable[[str], None]


@dataclass(frozen=True)
class AddedDevice:
    """A board that was registered.

    Attributes:
        board: the board's address, folders and hardware.
        file: path of the device's file, which has all boards of that name.
    """

    board: RegisteredBoard
    file: Path


def add_device(
    name: str,
    *,
    ssh: str | None = None,
    adb: str | None = None,
    local: bool = False,
    port: int | None = None,
    fingerprint: str | None = None,
    directory: str | None = None,
    runner: str = "",
    root: str = "/",
    clock_ghz: float | None = None,
    join: bool = False,
    confirm_host_key: Callable[[str, str], bool] = lambda _destination, _fingerprint: False,
    on_progress: OnProgress = lambda _sentence: None,
) -> AddedDevice:
    """Probe a board, install the agent there, and store its address.

    Args:
        name: the device's name, such as `pi4`.
        ssh: `[USER@]HOST` of a board; or else `adb`, or `local`.
        adb: serial number of a phone, or its `HOST:PORT`.
        local: this machine is the board.
        port: the SSH server's port.
        fingerprint: fingerprint of the host key that is expected, `SHA256:…`.
        directory: the agent's directory on the board.
        runner: words before the agent's command, such as an emulator.
        root: root of the tree on the board whose proc and sys describe it.
        clock_ghz: the highest clock, where the board does not tell.
        join: another board of a name that is there: they share the work.
        confirm_host_key: called with the destination and fingerprint of an unknown host key; returns whether the key is the board's.
            Without it, give `fingerprint`.
        on_progress: called with a sentence before each step that takes long.

    Raises:
        UserError: an argument is wrong, or the board is not like the others of its name.
        DeviceUnavailable: the board cannot be reached, or its host key is not to be trusted.
    """
    check_name(name)
    if (ssh is not None) + (adb is not None) + local != 1:
        raise UserError("give one of --ssh, --adb and --local.", "For example: tvmmobile device add pi4 --ssh pi@raspberrypi.local")
    known = load_device(name)
    if known is not None and not join:
        raise UserError(f"{name} is already registered.", f"tvmmobile device remove {name}, or add --join for another board of that name.")
    if known is None and join:
        raise UserError(f"{name} is not registered yet.", "Leave out --join.")
    words = tuple(shlex.split(runner))
    if local:
        address: Address = local_address(root, emulated=bool(words))
    else:
        address = AdbAddress(serial=str(adb)) if ssh is None else _ssh_address(ssh, port, fingerprint, confirm_host_key)
    board = _board(address, directory, words, root, clock_ghz, on_progress)
    if known is not None and not (_alike(known.boards[0].facts.cores, board.facts.cores) and known.boards[0].runner == board.runner):
        raise UserError(f"this board's cores differ from those of {name}.", "Boards of one name must be alike; give this one another name.")
    return AddedDevice(board, save_device(DeviceFile(name=name, boards=(*(known.boards if known else ()), board))))


def _alike(known: Sequence[LinuxCore], cores: Sequence[LinuxCore]) -> bool:
    """Return whether boards have the same cores; records of boards added earlier may lack the instructions."""

    def like(core: LinuxCore, other: LinuxCore) -> LinuxCore:
        return core if other.has is not None else core.model_copy(update={"has": None})

    return len(known) == len(cores) and all(like(one, other) == like(other, one) for one, other in zip(known, cores, strict=True))


def remove_device(name: str, keep_files: bool = False, on_progress: OnProgress = lambda _sentence: None) -> None:
    """Remove the agent from a device's boards, and forget them.

    Args:
        keep_files: leave the agent on the boards, which then need not answer.
        on_progress: called with a sentence for each board.

    Raises:
        UserError: there is no such device.
        DeviceUnavailable: a board cannot be reached.
    """
    found = registered(name)
    for board in found.boards if not keep_files else ():
        with connected(board.address) as remote:
            remove_folder(remote, board.directory)
        on_progress(f"Removed {board.directory} from {described(board.address)}.")
    forget_device(name)


def registered(name: str) -> DeviceFile:
    """Return the boards of a device; raise `UserError` where it is not registered."""
    found = load_device(name)
    if found is None:
        known = ", ".join(registered_names()) or "none"
        raise UserError(f"{name} is not registered.", f"Registered: {known}. Add it: tvmmobile device add {name} --ssh USER@HOST")
    return found


def _ssh_address(destination: str, port: int | None, fingerprint: str | None, confirm_host_key: Callable[[str, str], bool]) -> SshAddress:
    """Return the address, once the user has accepted its host key."""
    key = host_key_of(destination, port, CONNECT_TIMEOUT_S)
    if fingerprint is not None and fingerprint != key.fingerprint:
        raise DeviceUnavailable(
            f"{destination} has the host key {key.fingerprint}, not {fingerprint}.",
            "Check it on the board: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
        )
    if key.known == "changed":
        raise DeviceUnavailable(
            f"the host key of {destination} is not the one in your known_hosts; it is now {key.fingerprint}.",
            "If the board was set up anew, remove the old key: ssh-keygen -R HOST",
        )
    if key.known == "unknown" and fingerprint is None and not confirm_host_key(destination, key.fingerprint):
        raise DeviceUnavailable(
            f"the host key of {destination} is not known and was not confirmed: {key.fingerprint}.",
            f"If it is the board's, give --fingerprint {key.fingerprint}",
        )
    return SshAddress(destination=destination, port=port, host_key=key.text)


def _board(
    address: Address, directory: str | None, runner: tuple[str, ...], root: str, clock_ghz: float | None, on_progress: OnProgress
) -> RegisteredBoard:
    """Probe the board and install the agent there."""
    if directory is not None and not directory.startswith("/"):
        raise UserError(f"--directory {directory} is not absolute.", "Give a path that begins with a slash.")
    bundle = build_bundle(on_progress)
    with connected(address) as remote:
        here = address if isinstance(address, LocalAddress) else None
        # This process runs here, so the architecture is known; the kernel below an emulator of programs has another one.
        facts = probe(remote, root, bool(runner), "aarch64" if here and here.emulator else "")
        if clock_ghz is not None:
            cores = tuple(core if core.max_hz else core.model_copy(update={"max_hz": clock_ghz * 1e9}) for core in facts.cores)
            facts = facts.model_copy(update={"cores": cores})
        if here is None and not facts.emulator and not all(core.max_hz for core in facts.cores):
            raise UserError("the board does not report its maximum clock.", "Give it: --clock 1.8")
        directory = directory or home_directory(remote)
        check_runs(remote, install_agent(remote, directory, bundle, on_progress), runner)
    added = datetime.now(UTC).isoformat(timespec="seconds")
    return RegisteredBoard(address=address, directory=directory, runner=runner, root=root, facts=facts, added=added)
