"""Prints a digest of the TIR of shipped kernels, so that two commits can be compared:

    ./scripts/kernel_digests >before; git switch my-branch; ./scripts/kernel_digests | diff before -

Of each kernel in the logs, its fastest schedule counts. A difference means that the record is of another kernel than the one now compiled:
raise the template's `version`, or keep the old kernel for the old values of knobs. A line's first word is the digest.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tvmmobile.devices.registry import find_device
from tvmmobile.kernels.function import kernel_function
from tvmmobile.kernels.serial import TraceSchedule
from tvmmobile.system.entry_points import reporting_errors
from tvmmobile.system.environment import SHIPPED_LOGS
from tvmmobile.system.errors import ExitCode, UserError
from tvmmobile.tuning.logs.inspection import files_of, inspect
from tvmmobile.tuning.records import Record


def digests(logs: Path, every: int) -> Iterator[str]:
    """Yield a line for every n-th kernel of the logs: digest, device, kernel and its fastest schedule.

    Traces of MetaSchedule are left out, since they are applied to a function that logs lack.
    """
    held = [(path.parent.name, line.held) for path in files_of([logs]) for line in inspect(path, None).lines if line.held]
    machines = {device: find_device(device).profile.machine for device, _ in held}
    for device, line in held[::every]:
        best = min(line.records, key=_latency, default=None)
        if best is None or best.latency_us is None or isinstance(best.schedule, TraceSchedule):
            continue
        script = kernel_function(replace(line.task, machine=machines[device]), best.schedule, None).script()
        knobs = ",".join(f"{name}={value}" for name, value in best.schedule.knobs)
        yield f"{hashlib.sha256(script.encode()).hexdigest()[:16]} {device} {line.task.name} {best.schedule.template} {knobs}"


def _latency(record: Record) -> float:
    return float("inf") if record.latency_us is None else record.latency_us


@reporting_errors
def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=7, metavar="N", help="one kernel in N (default: 7, about a minute)")
    parser.add_argument("--logs", type=Path, default=SHIPPED_LOGS, metavar="DIR", help="tuning logs (default: the shipped ones)")
    given = parser.parse_args()
    if given.every < 1:
        raise UserError(f"--every {given.every} is not positive.", "Give 1 for all kernels.")
    for line in digests(given.logs, given.every):
        print(line, flush=True)
    return ExitCode.DONE


if __name__ == "__main__":
    raise SystemExit(main())
