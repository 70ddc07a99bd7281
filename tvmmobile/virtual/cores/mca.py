"""Runs llvm-mc to disassemble machine code, and llvm-mca to get the cycles of straight-line code."""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Sequence

from tvmmobile.system.doctor import installed, require
from tvmmobile.system.emulators import slowdown
from tvmmobile.system.errors import UserError
from tvmmobile.system.programs import run_tool
from tvmmobile.virtual.cores.core_timing import timing_of

PACKAGE = "llvm-16"
#: The version with which the shipped logs were modelled.
SHIPPED_VERSION = "Debian LLVM version 16.0.6"
ITERATIONS = 50
TIMEOUT_S = 120.0
_FLAGS = ("--mtriple=aarch64-linux-gnu", f"--iterations={ITERATIONS}", "--resource-pressure=0", "--instruction-info=0")
_TOTAL = re.compile(r"^\[\d+\] Code Region - b(\d+)\n|^Total Cycles:\s+(\d+)", re.MULTILINE)
_PRESSURE = re.compile(r"^ *(?:- )?(Resource Pressure|Register Dependencies|Memory Dependencies) +\[ ([\d.]+)% \]", re.MULTILINE)
_PRESSURES = {"Resource Pressure": "resources", "Register Dependencies": "registers", "Memory Dependencies": "memory"}


@functools.cache
def mca_version() -> str:
    """Return the version of the installed llvm-mca, which is part of a timing model's identity.

    If none is installed, it is the version of the shipped logs, so that they can be read; nothing can be modelled without llvm-mca.
    """
    if not installed("llvm-mca"):
        return SHIPPED_VERSION
    text = run_tool([str(require("llvm-mca")), "--version"], "llvm-mca", f"Run: apt-get install -y {PACKAGE}", TIMEOUT_S)
    return next((line.strip() for line in text.splitlines() if "version" in line), text.strip())


def disassemble(words: Sequence[int]) -> list[str]:
    """Disassemble each instruction word as `name<TAB>operands`; "" if it is invalid."""
    if not words:
        return []
    # llvm-mc prints a line for each valid word only; invalid words are recognised by their warnings
    # (`<stdin>:LINE:…: warning: invalid instruction encoding`).
    source = "".join(" ".join(f"0x{byte:02x}" for byte in word.to_bytes(4, "little")) + "\n" for word in words)
    done = _run("llvm-mc", ["--disassemble", "--triple=aarch64-linux-gnu", "--mattr=+all"], source)
    bad = {int(line) - 1 for line in re.findall(r"^<stdin>:(\d+):\d+: warning: invalid", done.stderr, re.MULTILINE)}
    texts = iter([line.strip() for line in done.stdout.splitlines() if line.startswith("\t") and not line.startswith("\t.")])
    decoded = ["" if index in bad else next(texts, "") for index in range(len(words))]
    if next(texts, None) is not None:
        raise UserError("llvm-mc printed more instructions than it was given.", f"Run: apt-get install -y {PACKAGE}")
    return decoded


def cycles_of(blocks: Sequence[Sequence[str]], mcpu: str) -> list[float | None]:
    """Return the cycles per execution of each block in a loop, given as text from `disassemble`; `None` if llvm-mca rejects it."""
    if not blocks:
        return []
    regions = [f"# LLVM-MCA-BEGIN b{i}\n" + "\n".join(block) + f"\n# LLVM-MCA-END b{i}\n" for i, block in enumerate(blocks)]
    done = _run("llvm-mca", [f"--mcpu={timing_of(mcpu).llvm_mca or mcpu}", *_FLAGS], "".join(regions))
    if done.returncode == 0:
        cycles, region = {}, ""
        for name, total in _TOTAL.findall(done.stdout):
            region = name or region
            if total:
                cycles[region] = int(total) / ITERATIONS
        return [cycles.get(str(index)) for index in range(len(blocks))]
    if len(blocks) == 1:
        return [None]
    middle = len(blocks) // 2  # one rejected instruction fails the whole call: bisect
    return cycles_of(blocks[:middle], mcpu) + cycles_of(blocks[middle:], mcpu)


def pressures_of(block: Sequence[str], mcpu: str) -> dict[str, float]:
    """Return what a block waits for, in percent of its cycles: `resources`, `registers`, `memory`; empty if llvm-mca rejects it."""
    done = _run("llvm-mca", [f"--mcpu={timing_of(mcpu).llvm_mca or mcpu}", "--bottleneck-analysis", *_FLAGS], "\n".join(block) + "\n")
    return {_PRESSURES[name]: float(share) for name, share in _PRESSURE.findall(done.stdout)}


def _run(tool: str, flags: list[str], source: str) -> subprocess.CompletedProcess[str]:
    command, timeout_s = [str(require(tool)), *flags], TIMEOUT_S * slowdown()
    try:
        return subprocess.run(command, input=source, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(f"{command[0]} did not end within {timeout_s:g} s.", f"Run: apt-get install -y --reinstall {PACKAGE}") from None
