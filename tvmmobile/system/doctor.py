"""Checks this machine for tvmmobile's requirements, and names the command that installs missing ones."""

from __future__ import annotations

import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from tvmmobile.system.emulators import slowdown
from tvmmobile.system.environment import PREBUILT, cache_dir
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import write_fault
from tvmmobile.system.programs import zig_program

_DISTRIBUTION = "tvmmobile"
CROSS_COMPILER, _AGENTS_COMPILER = "aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++"
#: On AArch64, Debian's own compiler has the cross compiler's names as well.
CROSS_PACKAGE = "g++" if platform.machine() == "aarch64" else "g++-aarch64-linux-gnu"
_QEMU = "qemu-aarch64"
_OLDER_SYSTEM = "docker run -it debian:12"
_FREE_DISK_GB = 2.0
_VERSION_TIMEOUT_S = 10


@dataclass(frozen=True)
class Tool:
    """A program of the system.

    Attributes:
        name: the tool's name in the code, and the key for `require`.
        programs: names to look for, best first.
        package: Debian's package of it.
        purpose: the part of tvmmobile that stops working without it.
        min_version: least major version; 0 if any will do.
        max_version: greatest major version that modelled boards can use; 0 if any will do.
        virtual: virtual boards alone need it.
    """

    name: str
    programs: tuple[str, ...]
    package: str
    purpose: str
    min_version: int = 0
    max_version: int = 0
    virtual: bool = False


def _of_llvm(name: str) -> tuple[str, ...]:
    """Return names of an LLVM tool, 16 first: timing models differ between versions, and virtual boards are calibrated with it."""
    return (f"{name}-16", name, *(f"{name}-{version}" for version in (17, 18, 19)))


TOOLS = (
    # From 9 on, plugins have another interface than ours; Debian 13's QEMU takes none at all.
    Tool(_QEMU, (_QEMU,), "qemu-user", "runs AArch64 code", 7, 8, virtual=True),
    Tool(_AGENTS_COMPILER, (_AGENTS_COMPILER,), CROSS_PACKAGE, "builds the agent", 10),
    Tool(CROSS_COMPILER, (CROSS_COMPILER,), CROSS_PACKAGE, "links compiled libraries", 10),
    Tool("llvm-mca", _of_llvm("llvm-mca"), "llvm-16", "models the cores' timing", 16, virtual=True),
    Tool("llvm-mc", _of_llvm("llvm-mc"), "llvm-16", "disassembles hot blocks", 16, virtual=True),
    Tool("cc", ("gcc", "cc", "clang"), "gcc libc6-dev", "builds the plugin for QEMU", virtual=True),
)


@dataclass(frozen=True)
class Finding:
    """A tool, package or resource: its version, path or size, or its fault; and its purpose."""

    name: str
    ok: bool
    found: str
    purpose: str
    virtual: bool = False


@dataclass(frozen=True)
class Diagnosis:
    """All findings, and the one command that fixes what a command can fix (empty if all is well)."""

    checks: tuple[Finding, ...]
    remedy: str

    @property
    def ok(self) -> bool:
        """True if nothing is missing."""
        return all(check.ok for check in self.checks)

    @property
    def real_boards(self) -> bool:
        """True if nothing is missing, except for virtual boards."""
        return all(check.ok or check.virtual for check in self.checks)


def require(name: str) -> Path:
    """Return the path of a program of `TOOLS`, e.g. `require("llvm-mca")`; raise `UserError`, with the remedy, without one."""
    tool = _tool(name)
    path, problem = _find(tool)
    if path is None:
        lacking = [each for each in TOOLS if each.virtual and _find(each)[0] is None] if tool.virtual else [tool]
        use = f"virtual boards need {', '.join(each.name for each in lacking)}" if tool.virtual else f"it {tool.purpose}"
        raise UserError(f"{tool.name} is {problem}; {use}.", f"Run: {install_command(lacking)}")
    return path


def qemu_with_plugins() -> Path:
    """Return QEMU's program for modelled boards; raise `UserError`, with the remedy, if it is missing or too new for our plugin."""
    path = require(_QEMU)
    if problem := _too_new(_tool(_QEMU), version_of(str(path))):
        raise UserError(f"{_QEMU} is {problem}.", f"Use Debian 12 or Ubuntu 24.04, if need be in a container: {_OLDER_SYSTEM}")
    return path


def _too_new(tool: Tool, version: str) -> str:
    """Return why modelled boards cannot use a version of a tool; "" if they can."""
    new = tool.max_version and version and int(version.split(".")[0]) > tool.max_version
    return f"version {version}, but modelled boards need {tool.min_version} or {tool.max_version}" if new else ""


def installed(name: str) -> bool:
    """Return whether `require(name)` finds it."""
    return _find(_tool(name))[0] is not None


def install_command(tools: Sequence[Tool]) -> str:
    """Return the command that installs the packages of `tools` on Debian and its kin."""
    packages = dict.fromkeys(package for tool in tools for package in tool.package.split())
    return f"apt-get install -y {' '.join(packages)}"


def diagnose() -> Diagnosis:
    """Return what tvmmobile needs on this machine and what is missing. Changes nothing."""
    tools = [(tool, _check_tool(tool)) for tool in TOOLS]
    requirements = _requirements()
    packages = [(requirement, _check_package(requirement)) for requirement in requirements]
    cache, disk = _check_cache(), _check_disk()
    fixes = []
    wanting = [tool for tool, check in tools if not check.ok]
    if lacking := [tool for tool in wanting if _find(tool)[0] is None]:
        fixes.append(install_command(lacking))
    if wrong := [requirement for requirement, check in packages if not check.ok]:
        fixes.append(shlex.join([sys.executable, "-m", "pip", "install", *wrong]))
    if not requirements:
        packages.append(("", Finding(_DISTRIBUTION, False, "not installed", "names the Python packages")))
        fixes.append(shlex.join([sys.executable, "-m", "pip", "install", "--no-deps", "-e", str(Path(__file__).parents[2])]))
    if not cache.ok:
        fixes.append('export TVMMOBILE_CACHE="$(mktemp -d /var/tmp/tvmmobile-XXXXXX)"')
    if not disk.ok:
        fixes.append(f"df -h {shlex.quote(str(_existing(cache_dir())))}")
    if len(lacking) < len(wanting):  # QEMU is there, but too new
        fixes.append(_OLDER_SYSTEM)
    checks = (*(check for _, check in tools), *(check for _, check in packages), cache, disk)
    return Diagnosis(checks, " && ".join(fixes))


def _tool(name: str) -> Tool:
    return next(tool for tool in TOOLS if tool.name == name)


def _find(tool: Tool) -> tuple[Path | None, str]:
    """Return the first program that is new enough and its version, or None and the fault."""
    problem = "missing"
    for program in tool.programs:
        if path := shutil.which(program):
            version = version_of(path)
            if not tool.min_version or (version and int(version.split(".")[0]) >= tool.min_version):
                return Path(path), version
            problem = f"version {version or '?'}, but {tool.min_version} or newer is needed"
    return None, problem


@cache
def version_of(path: str) -> str:
    """Return the first dotted number that `--version` prints, or an empty string."""
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=_VERSION_TIMEOUT_S * slowdown(), stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    match = re.search(r"\d+\.\d+(\.\d+)*", re.sub(r"\([^)]*\)", "", done.stdout))
    return match.group() if match else ""


def _check_tool(tool: Tool) -> Finding:
    """Look for a tool, or a substitute: a wheel brings the agent, and the package ziglang a linker."""
    path, version = _find(tool)
    if path is None and tool.name == CROSS_COMPILER and zig_program():
        return Finding("ziglang", True, "in its place", tool.purpose)
    if tool.name == _AGENTS_COMPILER and PREBUILT.is_dir():
        return Finding("device agent", True, "ready built", "runs on boards")
    problem = _too_new(tool, version) if path else ""
    return Finding(tool.name, path is not None and not problem, problem or version, tool.purpose, tool.virtual)


def _requirements() -> list[str]:
    """Return the requirements of the installed distribution, without its extras; empty if it is not installed."""
    try:
        lines = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    return [line for line in lines if "extra ==" not in line]


def _check_package(requirement: str) -> Finding:
    from packaging.requirements import Requirement

    wanted = Requirement(requirement)
    try:
        version = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return Finding(wanted.name, False, "missing", f"Python package {wanted.specifier}")
    good = wanted.specifier.contains(version, prereleases=True)
    return Finding(
        wanted.name, good, version if good else f"version {version}, but {wanted.specifier} is needed", f"Python package {wanted.specifier}"
    )


def _check_cache() -> Finding:
    fault = write_fault(cache_dir())
    return Finding("cache", not fault, fault or "can be written", "the folder of helpers")


def _check_disk() -> Finding:
    place = _existing(cache_dir())
    free_gb = shutil.disk_usage(place).free / 1e9
    good = free_gb >= _FREE_DISK_GB
    found = f"{free_gb:.1f} GB free" if good else f"only {free_gb:.1f} GB free"
    return Finding("disk", good, found, f"{_FREE_DISK_GB:.0f} GB for libraries and helpers")


def _existing(path: Path) -> Path:
    """Return the nearest folder above `path` that exists."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())
