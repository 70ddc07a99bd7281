"""The files by which Linux describes an Android phone, in a folder; the clocks of uptime and boot are this machine's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

#: As /proc/cpuinfo has it for each core (Linux 5.10, Android common kernel).
CORE = """processor\t: {index}
BogoMIPS\t: 49.15
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: {part:#x}
CPU revision\t: 0

"""
A55, A78 = 0xD05, 0xD41


@dataclass(frozen=True)
class PhoneCore:
    """One core: its MIDR's part number and its highest clock in kHz."""

    part: int
    max_khz: int


LITTLE, BIG = PhoneCore(A55, 1_800_000), PhoneCore(A78, 2_400_000)
EIGHT = (LITTLE,) * 4 + (BIG,) * 4


def write_phone_tree(root: Path, cores: Sequence[PhoneCore] = EIGHT) -> Path:
    """Add the files to a phone's folder: no os-release, no device tree, no caches, and no `kernel/arch`, which kernels before 6.1 lack."""
    files = {
        "proc/cpuinfo": "".join(CORE.format(index=index, part=core.part) for index, core in enumerate(cores)),
        "proc/meminfo": "MemTotal:        7813300 kB\nMemFree:          412000 kB\n",
        "proc/loadavg": "0.21 0.30 0.30 1/4100 21042\n",
        "proc/sys/kernel/osrelease": "5.10.157-android13-4-00003-g0a1b2c3d4e5f\n",
        "sys/class/thermal/thermal_zone0/temp": "33500\n",
        "sys/class/thermal/thermal_zone1/temp": "-274000\n",  # a sensor that is switched off
    }
    for index, core in enumerate(cores):
        folder = f"sys/devices/system/cpu/cpu{index}/cpufreq"
        files |= {
            f"{folder}/cpuinfo_max_freq": f"{core.max_khz}\n",
            f"{folder}/scaling_cur_freq": f"{core.max_khz}\n",
            f"{folder}/scaling_max_freq": f"{core.max_khz}\n",
            f"{folder}/scaling_governor": "schedutil\n",
        }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "proc/sys/kernel/random").mkdir()
    (root / "proc/sys/kernel/random/boot_id").symlink_to("/proc/sys/kernel/random/boot_id")
    (root / "proc/uptime").symlink_to("/proc/uptime")
    return root
