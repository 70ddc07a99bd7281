"""The files by which Linux describes a Raspberry Pi 4, in a folder; the clocks of uptime and boot are this machine's own."""

from __future__ import annotations

from pathlib import Path

CORES = 4
MODEL = "Raspberry Pi 4 Model B Rev 1.4"
#: As /proc/cpuinfo has it for each core (Linux 6.6, bcm2711).
CORE = """processor\t: {index}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {part:#x}
CPU revision\t: 3

"""


def write_pi4_tree(root: Path, architecture: str = "aarch64", part: int = 0xD08) -> Path:
    """Make the tree and return its root."""
    cpu = root / "sys/devices/system/cpu"
    files = {
        "proc/cpuinfo": "".join(CORE.format(index=index, part=part) for index in range(CORES))
        + "Model\t\t: Raspberry Pi 4 Model B Rev 1.4\n",
        "proc/meminfo": "MemTotal:        3885396 kB\nMemFree:         3000000 kB\n",
        "proc/loadavg": "0.05 0.10 0.10 1/100 4242\n",
        "proc/device-tree/model": f"{MODEL}\0",
        "proc/sys/kernel/arch": f"{architecture}\n",
        "proc/sys/kernel/osrelease": "6.6.31+rpt-rpi-v8\n",
        "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n',
        "sys/class/thermal/thermal_zone0/temp": "45277\n",
    }
    for index in range(CORES):
        folder = f"sys/devices/system/cpu/cpu{index}/cpufreq"
        files |= {
            f"{folder}/cpuinfo_max_freq": "1800000\n",
            f"{folder}/scaling_cur_freq": "1800000\n",
            f"{folder}/scaling_governor": "ondemand\n",
        }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for index, (level, kind, size) in enumerate((("1", "Data", "32K"), ("1", "Instruction", "48K"), ("2", "Unified", "1024K"))):
        folder = cpu / f"cpu0/cache/index{index}"
        folder.mkdir(parents=True)
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(f"{text}\n")
    (root / "proc/sys/kernel/random").mkdir()
    (root / "proc/sys/kernel/random/boot_id").symlink_to("/proc/sys/kernel/random/boot_id")
    (root / "proc/uptime").symlink_to("/proc/uptime")
    (root / "tmp").mkdir()
    return root


def governors(root: Path) -> set[str]:
    """Return the governors of all cores, now."""
    return {path.read_text().strip() for path in root.glob("sys/devices/system/cpu/cpu*/cpufreq/scaling_governor")}
