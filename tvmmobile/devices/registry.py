"""The devices by the names that users give them."""

from __future__ import annotations

from pathlib import Path

from tvmmobile.devices.board.registered import load_device, registered_names
from tvmmobile.devices.protocol import Device
from tvmmobile.devices.virtual_board import VirtualDevice
from tvmmobile.system.errors import DeviceUnavailable, UserError
from tvmmobile.virtual.board import VIRTUAL_SUFFIX, is_board, load_board
from tvmmobile.virtual.calibration.fit import calibrated_boards, calibration_of


def device_names() -> list[str]:
    """Return the names of all devices: those registered, and every virtual board's two."""
    return [*registered_names(), *(name for board in sorted(calibrated_boards()) for name in (board, board + VIRTUAL_SUFFIX))]


def find_device(name: str, require_hardware: bool = False, pin: bool = False) -> Device:
    """Return the device called `name`: the registered board, else the virtual one of that board; `NAME-virtual` is always virtual.

    Args:
        name: the device's name, such as `pi4` or `pi4-virtual`, or the path of a virtual board's file, `*.toml`.
        require_hardware: refuse a virtual board.
        pin: hold a real board's clocks at their highest; a virtual board's never change.

    Raises:
        UserError: there is no such device; the message lists those there are. Or the file does not describe a board.
        DeviceUnavailable: hardware is required and no board of that name is registered, or the virtual board's core is not calibrated.
    """
    registered = load_device(name)
    if registered is not None:
        from tvmmobile.devices.board.hardware import HardwareDevice

        return HardwareDevice(registered, pin)
    board_name = name.removesuffix(VIRTUAL_SUFFIX)
    if not board_name.endswith(".toml") and not is_board(board_name):
        raise UserError(f"there is no device {name!r}.", f"Known devices: {', '.join(device_names())}")
    board = load_board(board_name)
    if require_hardware:
        raise DeviceUnavailable(
            f"no board is registered as {name!r}, and --require-hardware excludes the virtual one.",
            f"Run: tvmmobile device add {board_name} --ssh USER@HOST; or leave out --require-hardware to use the virtual board (modelled).",
        )
    if calibration_of(board) is None:
        raise DeviceUnavailable(
            f"the model of {board.name} is not calibrated for its core, so it cannot tune or time.",
            f"Model programs on it: tvmmobile virtual run --board {board_name} -- PROGRAM",
        )
    return VirtualDevice(board.name + VIRTUAL_SUFFIX, board, str(Path(board_name).resolve()) if board_name.endswith(".toml") else "")
