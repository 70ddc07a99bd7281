"""Assembles an AArch64 Python with third-party wheels, without root rights, that runs under QEMU as on the board.

    sysroot=$(./scripts/sysroot ncnn==1.0.20261020 numpy==2.4.0)
    ./scripts/tvmmobile virtual run --sysroot "$sysroot" -- python3 program.py

It is kept in the cache, one for each list of requirements; dependencies of the wheels are not followed. Give exact versions: what was
built once for a requirement is used again.
"""

from __future__ import annotations

import argparse
import compileall
import os
import shutil
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tvmmobile.system.entry_points import progress, reporting_errors
from tvmmobile.system.environment import cache_dir
from tvmmobile.system.errors import ExitCode, UserError
from tvmmobile.system.files import filling_cache, made_once
from tvmmobile.system.programs import run_tool
from tvmmobile.virtual.board import Board, load_board
from tvmmobile.virtual.debian_packages import DOWNLOAD_TIMEOUT_S, NO_MIRROR, apt_words, recipe_digest, unpack_archives

#: Debian's packages: Python, and the libraries that wheels expect.
PACKAGES = ("python3", "libstdc++6", "libgomp1")
#: pip takes these literally: it does not know that 2_28 includes the older ones.
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64", "any")
#: The folder for wheels, on the default path of Debian's Python.
SITE = "usr/local/lib/python{version}/dist-packages"
#: Linux's capacity of the fastest core.
MOST_CAPACITY = 1024


def python_sysroot(board: Board, requirements: Sequence[str] = (), say: Callable[[str], None] | None = None, release: str = "") -> Path:
    """Return a folder with an AArch64 Python and the wheels of `requirements`, built in the cache if it is not there yet.

    It has its own `proc/cpuinfo` and `sys/devices/system/cpu`, those of the board (`core_files`): libraries choose kernels, blocks and
    thread counts by them. QEMU runs `usr/bin/python3` in it with `-L` and this folder. Boards share what is unpacked, by hard links.

    Args:
        board: the board whose core programs find.
        requirements: the requirements as pip takes them, such as `ncnn==1.0.20261020`; dependencies are not followed. Pin versions: what is
            built for a requirement is kept.
        say: called with a sentence when there is something to wait for.
        release: Debian's release to take Python from (`bullseye` has 3.9, which older wheels were built for); this machine's own if empty.

    Raises:
        UserError: apt-get, dpkg-deb or pip is missing or fails.
    """
    say = say or (lambda _sentence: None)
    files = core_files(board)
    wheels = wheels_digest(requirements, release)
    folder = cache_dir() / f"sysroot-{board.name}-{recipe_digest([wheels, files])}"
    with filling_cache(), made_once(folder) as new:
        if new is not None:
            unpacked = _unpacked(cache_dir() / f"sysroot-{wheels}", requirements, say, release)
            shutil.copytree(unpacked, new, symlinks=True, copy_function=_link_or_copy, dirs_exist_ok=True)
            for name, text in files.items():
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                (new / name).write_text(text, encoding="ascii")
    return folder


def wheels_digest(requirements: Sequence[str], release: str = "") -> str:
    """Return a digest (16 hex digits) of the content that `python_sysroot` has for every board."""
    return recipe_digest([PACKAGES, PLATFORMS, sorted(requirements), 2, *([release] if release else [])])


def _unpacked(folder: Path, requirements: Sequence[str], say: Callable[[str], None], release: str) -> Path:
    """Return a sysroot without a board's files; build it if it is missing."""
    with made_once(folder) as new:
        if new is not None:
            say("Building an AArch64 Python in the cache (once, about a minute) …")
            _unpack_debian(new.parent, new, release)
            _unpack_wheels(new.parent, new, requirements)
    return folder


def _link_or_copy(source: str, goal: str) -> None:
    """Hard-link a file, or copy it where that is not possible."""
    try:
        os.link(source, goal)
    except OSError:
        shutil.copy2(source, goal)


def core_files(board: Board) -> dict[str, str]:
    """Return the files of /proc and /sys from which libraries choose kernels, blocks or thread counts, by path.

    ncnn and XNNPACK size their blocks by `cache`, ncnn reads `regs` and `topology`, MNN groups cores by `cpufreq`. A file missing here
    would be found on this machine, which has other cores; an empty one counts as missing. `cpu_capacity` is there where clocks differ.

    Raises:
        UserError: the core's ID register is not known.
    """
    everyone = f"{_list_of(range(board.cores))}\n"
    clocks_khz = [round(board.at_clock_of(number).clock_hz / 1000) for number in range(board.cores)]
    cpus = Path("sys/devices/system/cpu")
    files = {"proc/cpuinfo": cpuinfo(board)} | {f"{cpus}/{name}": everyone for name in ("possible", "present", "online")}
    for clock_khz in dict.fromkeys(clocks_khz):
        members = [number for number in range(board.cores) if clocks_khz[number] == clock_khz]
        policy = _clock_files(clock_khz) | dict.fromkeys(("affected_cpus", "related_cpus"), f"{' '.join(map(str, members))}\n")
        files |= {f"{cpus}/cpufreq/policy{members[0]}/{name}": text for name, text in policy.items()}
    files |= capacity_files(board)
    for number in range(board.cores):
        alone = f"{number}\n"
        clocks = _clock_files(clocks_khz[number])
        core = {"regs/identification/midr_el1": f"{board.midr:#018x}\n"} | {f"cpufreq/{name}": text for name, text in clocks.items()}
        core |= {f"topology/{name}": f"{1 << number:x}\n" for name in ("thread_siblings", "core_cpus")}
        core |= {f"topology/{name}": alone for name in ("thread_siblings_list", "core_cpus_list", "core_id")}
        core |= {f"topology/{name}": everyone for name in ("core_siblings_list", "package_cpus_list", "cluster_cpus_list")}
        core |= {"topology/physical_package_id": "0\n"}
        core |= {f"cache/{name}": text for name, text in _cache_files(board, number).items()}
        files |= {f"{cpus}/cpu{number}/{name}": text for name, text in core.items()}
    return files


def capacity_files(board: Board, first: int = 0) -> dict[str, str]:
    """Return `cpu_capacity` of each core by path, numbered from `first`: 1024 for the fastest; nothing where all have one clock."""
    capacities = [int(MOST_CAPACITY * clock_hz / board.clock_hz) for clock_hz in board.clocks_hz]
    return {f"sys/devices/system/cpu/cpu{first + number}/cpu_capacity": f"{one}\n" for number, one in enumerate(capacities)}


def _clock_files(clock_khz: int) -> dict[str, str]:
    return dict.fromkeys(("cpuinfo_max_freq", "cpuinfo_min_freq"), f"{clock_khz}\n")


def _cache_files(board: Board, number: int) -> dict[str, str]:
    """Return one core's caches as Linux numbers them. Boards' files do not give the size of the instruction cache."""
    caches, everyone = board.caches, range(board.cores)
    l2_cores = (number,) if caches.l2_private else everyone
    levels: list[tuple[int, str, int, int, Sequence[int]]] = [
        (1, "Data", caches.l1d_bytes, caches.l1d_ways, (number,)),
        (1, "Instruction", 0, 0, (number,)),
        (2, "Unified", caches.l2_bytes, caches.l2_ways, l2_cores),
        (3, "Unified", caches.l3_bytes, caches.l3_ways, everyone if caches.has_l3 else ()),
    ]
    files: dict[str, str] = {}
    for index, (level, kind, size, ways, cores) in enumerate(levels):
        known = {"size": f"{size // 1024}K", "ways_of_associativity": f"{ways}", "coherency_line_size": f"{caches.line_bytes}"}
        shared = f"{sum(1 << core for core in cores):x}"
        named = {"level": f"{level}", "type": kind, "shared_cpu_map": shared, "shared_cpu_list": _list_of(cores)}
        contents = (known if size else dict.fromkeys(known, "")) | (named if cores else dict.fromkeys(named, ""))
        files |= {f"index{index}/{name}": f"{text}\n" if text else "" for name, text in contents.items()}
    return files


def _list_of(cores: Sequence[int]) -> str:
    """Return neighbouring cores in Linux's notation: `0-3`."""
    return "-".join(map(str, dict.fromkeys((cores[0], cores[-1])))) if cores else ""


def cpuinfo(board: Board) -> str:
    """Return the board's /proc/cpuinfo, as far as libraries read it.

    Raises:
        UserError: the core's ID register is not known.
    """
    if not board.midr:
        raise UserError(f"{board.name} has no midr, which tells programs their core.", "Set midr in its file (docs/virtual-boards.md).")
    fields = f"CPU variant\t: {board.midr >> 20 & 0xF:#x}\nCPU part\t: {board.midr >> 4 & 0xFFF:#x}\nCPU revision\t: {board.midr & 0xF}\n\n"
    core = f"BogoMIPS\t: 108.00\nFeatures\t: {board.features}\nCPU implementer\t: {board.midr >> 24:#x}\nCPU architecture: 8\n{fields}"
    return "".join(f"processor\t: {number}\n{core}" for number in range(board.cores))


def _unpack_debian(scratch: Path, root: Path, release: str) -> None:
    """Unpack Debian's Python with its dependencies."""
    packages = [*apt_words(scratch, release), "install", "--download-only", "--no-install-recommends", *PACKAGES]
    run_tool(packages, "Downloading Python for AArch64", NO_MIRROR, DOWNLOAD_TIMEOUT_S)
    unpack_archives(scratch / "cache/archives", root)


def _unpack_wheels(scratch: Path, root: Path, requirements: Sequence[str]) -> None:
    version = _python_version(root)
    site = root / SITE.format(version=version)
    site.mkdir(parents=True, exist_ok=True)
    if requirements:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
        command += ["--python-version", version, "--dest", str(scratch / "wheels")]
        command += [word for platform in PLATFORMS for word in ("--platform", platform)]
        what = f"Downloading {', '.join(requirements)} for AArch64"
        run_tool([*command, *requirements], what, "Check that these packages have AArch64 wheels, and their versions.", DOWNLOAD_TIMEOUT_S)
        for wheel in sorted((scratch / "wheels").glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        # Byte code is the same on all machines of one Python version; under QEMU and a cache simulation, compiling takes long.
        compileall.compile_dir(site, quiet=2, workers=1)


def _python_version(root: Path) -> str:
    found = [path.name.removeprefix("python") for path in (root / "usr/bin").glob("python3.*")]
    versions = [version for version in found if version.replace(".", "").isdigit()]
    if len(versions) != 1:
        raise UserError(f"Debian's packages hold {len(versions)} Pythons; one was expected.", "Run it again.")
    return versions[0]


@reporting_errors
def main() -> int:
    """Build a sysroot and print its folder; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("requirements", nargs="*", metavar="REQUIREMENT", help="wheels, as pip takes them")
    parser.add_argument("--board", default="pi4", metavar="NAME", help="whose core programs shall find (default: pi4)")
    arguments = parser.parse_args()
    print(python_sysroot(load_board(arguments.board), arguments.requirements, progress))
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
