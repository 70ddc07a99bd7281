"""Time limits of workers' jobs, and the error for a job that does not finish."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Sequence
from typing import Any

from tvmmobile.pipeline.checking import MOST_CHECK_S
from tvmmobile.pipeline.job import VariantJob
from tvmmobile.system.errors import ExitCode, UserError
from tvmmobile.system.workers import WorkerError

#: Time limits for importing and compiling a variant: VGG-16's weights take minutes on a busy machine. Quantising takes longer: the network
#: is computed on the host some 400 times to choose a method, and a few times for each calibration input, in time proportional to the
#: input's pixels.
_BUILD_TIMEOUT_S = 900.0
_QUANTISING_S_PER_PIXEL, _QUANTISING_RUNS, _RUNS_PER_INPUT = 5e-5, 400, 4
#: Called with the name of each finished item.
Progress = Callable[[str], None]


def build_timeout_s(jobs: Sequence[VariantJob]) -> float:
    """Return how many seconds a worker may take to import, quantise and compile any variant; raise `UserError` for unusable data."""
    most = 0.0
    for data in (job.calibration for job in jobs if job.calibration is not None):
        runs = _QUANTISING_RUNS + _RUNS_PER_INPUT * data.samples().count
        most = max(most, runs * math.prod(data.preprocessing.input_shape[2:]) * _QUANTISING_S_PER_PIXEL)
    return _BUILD_TIMEOUT_S + most + (MOST_CHECK_S if any(not job.unchecked for job in jobs) else 0.0)


def succeeded(result: Any, what: str) -> Any:
    """Return the result of a worker's job; raise a `UserError` that names its subject, `what`, if it did not finish."""
    if isinstance(result, WorkerError):
        if result.code == -signal.SIGKILL:
            why = "its process was killed, as happens where memory runs out"
            raise UserError(f"{what} failed: {why}.", "Free some memory, or take a smaller network or --resolution.")
        raise UserError(f"{what} failed: {result}.", "Set TVMMOBILE_DEBUG=1 and run it again.", ExitCode.INTERNAL)
    return result
