"""Reads a core's timing model from the table `timing` in its `MCPU.toml`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from tvmmobile.virtual.board import CORES, core_file


class CoreTiming(BaseModel):
    """A core's timing model: its schedule, and the terms of its calibration.

    Attributes:
        schedule: `module:name` in this folder: an out-of-order core's `CoreTables`, or the function that returns an instruction's
            `IssueStep` on an in-order one; empty for llvm-mca's schedule.
        version: version of the schedule; 0 without one. Raise it with every change of its numbers; calibrations, records and results of
            other cores stay valid. Tests in tests/virtual pin some numbers with it.
        memory: kind of terms in `calibration/terms.py`. With `added`, memory stalls are added to the core's time; otherwise memory accesses
            overlap with computation, and lines are read at the bus's rate or at that of a copy.
        llvm_mca: core whose tables llvm-mca uses, if it does not know this one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schedule: str = ""
    version: int = 0
    memory: Literal["added", "bus_rate", "copy_rate"] = "added"
    llvm_mca: str = ""


@functools.cache
def timing_of(mcpu: str) -> CoreTiming:
    """Return a core's timing model; llvm-mca alone for a core without a file."""
    return CoreTiming.model_validate(core_file(mcpu).get("timing", {}))


def scheduled_cores() -> Mapping[str, CoreTiming]:
    """Return the timing models of cores with a schedule of their own, by LLVM's names."""
    names = sorted(path.stem for path in CORES.glob("*.toml"))
    return {name: timing for name in names if (timing := timing_of(name)).schedule}
