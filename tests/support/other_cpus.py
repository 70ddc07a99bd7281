"""C libraries under QEMU as one CPU or another."""

from __future__ import annotations

from tvmmobile.running import emulation
from tvmmobile.running.library import Library
from tvmmobile.running.measure import MeasureError
from tvmmobile.system.doctor import require

#: QEMU's: three of Armv8.0, one of Armv8.2, and one with every instruction that it knows.
CPUS = ("cortex-a53", "cortex-a57", "cortex-a72", "cortex-a76", "max")
OLD, NEW = CPUS[:3], CPUS[3:]


def outcomes(library: Library) -> dict[str, str]:
    """Return the outcome of a library's check on each CPU: "" if it agrees with its reference."""
    return {cpu: _outcome(library, cpu) for cpu in CPUS}


def _outcome(library: Library, cpu: str) -> str:
    try:
        error = emulation._check(library, (str(require("qemu-aarch64")), "-cpu", cpu), 60)
    except MeasureError as failure:
        return failure.reason
    return "" if error <= library.tolerance else f"error {error}"


def expected_outcomes(*lacking: str) -> dict[str, str]:
    """Return the outcomes of a library whose `init` refuses these CPUs."""
    return {cpu: "the CPU lacks instructions that it uses" if cpu in lacking else "" for cpu in CPUS}
