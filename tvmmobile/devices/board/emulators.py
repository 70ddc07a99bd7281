"""Tells an emulated machine from hardware by its kernel's own description."""

from __future__ import annotations

#: Files that describe a machine, relative to its root: vendor, product, model and cores, in the order of `emulator_described`.
DESCRIBING = ("sys/class/dmi/id/sys_vendor", "sys/class/dmi/id/product_name", "proc/device-tree/model", "proc/cpuinfo")
#: QEMU's machine `virt` and its likes; where their SMBIOS tables are not there, nothing tells KVM from emulation.
_VIRT = "linux,dummy-virt"
#: The number in MIDR_EL1 that Arm reserves for software, and QEMU gives its core `max`.
_SOFTWARE = "CPU implementer\t: 0x00"


def emulator_described(vendor: str, product: str, model: str, cpuinfo: str) -> str:
    """Return the emulator that these files of a machine reveal; "" for hardware, also with a hypervisor.

    QEMU names the product of its machines "KVM Virtual Machine" where KVM runs their programs on the cores themselves.
    """
    if product.startswith("KVM"):
        return ""
    if vendor == "QEMU" or product.startswith("QEMU") or "QEMU" in model or model == _VIRT or _SOFTWARE in cpuinfo:
        return "QEMU"
    return ""
