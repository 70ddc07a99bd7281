"""Tells an emulated machine from hardware by its kernel's own description, and how much longer work may take on it."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

#: Files that describe a machine, relative to its root: vendor, product, model and cores, in the order of `emulator_described`.
DESCRIBING = ("sys/class/dmi/id/sys_vendor", "sys/class/dmi/id/product_name", "proc/device-tree/model", "proc/cpuinfo")
#: If this machine itself is emulated, everything takes up to this many times as long.
EMULATED_SLOWDOWN = 20.0
#: QEMU's machine `virt` and similar ones; without their SMBIOS tables, KVM cannot be distinguished from emulation.
_VIRT = "linux,dummy-virt"
#: The numbers in MIDR_EL1 of QEMU's core `max`; some hypervisors hide the core's own implementer and part behind 0 and 0.
_MAX = ("CPU implementer\t: 0x00", "CPU part\t: 0x051")
#: Apple's cores, which QEMU does not model: under HVF they run the programs of QEMU's machines themselves.
_APPLE = "CPU implementer\t: 0x61"


def emulator_described(vendor: str, product: str, model: str, cpuinfo: str) -> str:
    """Return the emulator that these files of a machine reveal; "" for hardware, even under a hypervisor.

    QEMU names the product of its machines "KVM Virtual Machine" where KVM runs their programs on the cores themselves.
    """
    if product.startswith("KVM") or _APPLE in cpuinfo:
        return ""
    if vendor == "QEMU" or product.startswith("QEMU") or "QEMU" in model or model == _VIRT or all(line in cpuinfo for line in _MAX):
        return "QEMU"
    return ""


def emulator_of(root: Path) -> str:
    """Return the emulator of the machine that `proc` and `sys` in `root` describe; "" for hardware, even under a hypervisor."""
    return emulator_described(*(content_of(root / name) for name in DESCRIBING))


@functools.cache
def slowdown(root: Path = Path("/")) -> float:
    """Return the factor of time limits here: above 1 on an AArch64 machine that is emulated, as `proc` and `sys` in `root` describe it."""
    return EMULATED_SLOWDOWN if platform.machine() == "aarch64" and emulator_of(root) else 1.0


def content_of(path: Path) -> str:
    """Return the text of a file that describes a machine; "" if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").replace("\0", "").strip()
    except OSError:
        return ""
