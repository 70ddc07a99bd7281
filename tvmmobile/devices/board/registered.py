"""Registered boards: one file per device name in the user's data folder, with its boards' addresses and properties."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tvmmobile.system.environment import user_data_dir
from tvmmobile.system.errors import UserError, shown
from tvmmobile.system.files import whole_files, write_text
from tvmmobile.system.json_files import place

#: A higher clock is implausible and counts as unknown.
MOST_HZ = 1e12
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SshAddress(_Strict):
    """Address of a board behind an SSH server.

    Attributes:
        destination: `[user@]host` as the user gave it; `~/.ssh/config` is read again for every connection.
        port: the server's port as the user gave it; `None` for the one in `~/.ssh/config`, else 22.
        host_key: the key that the user accepted, `<type> <base64>`; any other key is refused.
    """

    kind: Literal["ssh"] = "ssh"
    destination: str
    port: int | None = None
    host_key: str


class AdbAddress(_Strict):
    """Address of a phone or tablet behind adb.

    Attributes:
        serial: serial number as `adb devices` prints it; HOST:PORT for one on the network, which is connected to when needed.
    """

    kind: Literal["adb"] = "adb"
    serial: str


class LocalAddress(_Strict):
    """Address of the machine that tvmmobile itself runs on.

    Attributes:
        machine: distinguishes it from other machines that share this user's files; "" without an ID.
        emulator: name of the emulator that runs the machine; "" for hardware, also behind a hypervisor.
    """

    kind: Literal["local"] = "local"
    machine: str
    emulator: str = ""


Address = SshAddress | AdbAddress | LocalAddress


class LinuxCore(_Strict):
    """A core as Linux describes it.

    Attributes:
        implementer, part: MIDR fields, such as 0x41 and 0xd08.
        max_hz: highest clock; 0 if not reported, which is allowed only for this machine and emulated ones.
        has: its instructions beyond Armv8.0, among those that `Machine.has` names; `None` if unknown.
    """

    implementer: int
    part: int
    max_hz: Annotated[float, Field(ge=0, le=MOST_HZ)]
    has: tuple[str, ...] | None = None


class Facts(_Strict):
    """Facts about a board when it was added.

    Attributes:
        architecture: `uname -m`.
        model: the product's name; "" where it is not known.
        cores: the cores that were online, in the order of their numbers.
        numbers: Linux's numbers of the cores; empty if they are 0, 1, 2 and so on.
        memory_bytes: size of the RAM.
        system: the operating system's name and version.
        kernel: `uname -r`.
        libc: the C library, such as `glibc 2.36` or `bionic`; "" where it is not known.
        l1d_bytes, l2_bytes: data cache of one core, and the second level; 0 if not reported.
        governor: cpufreq governor of the first core; "" without one.
        temperature_c: the hottest sensor; `None` without a sensor.
        api_level: Android's; `None` elsewhere.
        emulator: name of the emulator that runs the whole board; "" for hardware, also behind a hypervisor.
    """

    architecture: str
    model: str
    cores: tuple[LinuxCore, ...] = Field(min_length=1)
    memory_bytes: int
    system: str
    kernel: str
    libc: str
    l1d_bytes: int = 0
    l2_bytes: int = 0
    governor: str = ""
    temperature_c: float | None = None
    api_level: int | None = None
    emulator: str = ""
    numbers: tuple[int, ...] = ()

    @property
    def core_numbers(self) -> tuple[int, ...]:
        """Linux's number of each core."""
        return self.numbers or tuple(range(len(self.cores)))


class RegisteredBoard(_Strict):
    """A registered board: how to reach it and how it is used.

    Attributes:
        directory: absolute path of a directory of the user on the board; everything in it is ours and is removed with the board.
        runner: words before the agent's command, such as an emulator's; such a board's timings are labelled emulated.
        root: the tree whose `proc` and `sys` describe the board.
    """

    address: Annotated[Address, Field(discriminator="kind")]
    directory: str
    runner: tuple[str, ...] = ()
    root: str = "/"
    facts: Facts
    added: str

    @property
    def emulator(self) -> str:
        """Name of the board's or its programs' emulator; "" for hardware."""
        here = self.address.emulator if isinstance(self.address, LocalAddress) else ""
        return self.runner[0] if self.runner else here or self.facts.emulator


class DeviceFile(_Strict):
    """All boards of one name; they are alike and share the work."""

    version: Literal[1] = 1
    name: str
    boards: tuple[RegisteredBoard, ...] = Field(min_length=1)


def devices_dir() -> Path:
    """Return the folder of device files."""
    return user_data_dir() / "devices"


def registered_names() -> list[str]:
    """Return the names of the registered devices, sorted."""
    return [path.stem for path in whole_files(devices_dir(), "*.json")]


def check_name(name: str) -> None:
    """Raise `UserError` for a name no device can have."""
    if not _NAME.fullmatch(name) or name.endswith(("-virtual", ".toml", ".json")):
        raise UserError(
            f"{name!r} cannot be a device's name.", "Use letters, digits, dots, hyphens and underscores, such as pi4; -virtual is taken."
        )


def load_device(name: str) -> DeviceFile | None:
    """Return the registered device of that name, if there is one; raise `UserError` if its file is damaged or of another version."""
    path = devices_dir() / f"{name}.json"
    if not _NAME.fullmatch(name) or not path.is_file():
        return None
    try:
        device = DeviceFile.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        problem = error.errors()[0] if isinstance(error, ValidationError) else None
        fault = f"{place(problem['loc'])}: {problem['msg']}" if problem else str(error)
        raise UserError(
            f"{path} does not describe a device: {fault}.", f"Run: tvmmobile device remove {name} --keep-files (and add it again)."
        ) from error
    if device.name != name:
        raise UserError(f"{path} describes {shown(device.name)}.", "Give the file the device's name.")
    return device


def save_device(device: DeviceFile) -> Path:
    """Write a device's file; return its path. Raises `OSError` if it cannot be written."""
    path = devices_dir() / f"{device.name}.json"
    write_text(path, device.model_dump_json(indent=1) + "\n")
    return path


def forget_device(name: str) -> None:
    """Remove a device's file, if it is there."""
    (devices_dir() / f"{name}.json").unlink(missing_ok=True)
