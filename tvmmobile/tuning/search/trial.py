"""Runs one trial in a worker process: builds the candidate on the host, runs it on the device, and compares it with PyTorch."""

from __future__ import annotations

import functools
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tvmmobile.graph.expressions import shape_of
from tvmmobile.graph.layers import Array, LayerParameters, Opaque
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.codegen import compile_kernel
from tvmmobile.kernels.function import kernel_function, packed_constants
from tvmmobile.kernels.reference import expected_output, make_inputs, make_parameters, relative_error
from tvmmobile.kernels.serial import Schedule
from tvmmobile.kernels.simulation import run_unscheduled
from tvmmobile.running.measure import Agents, MeasureError
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import check_space, locked
from tvmmobile.system.workers import processor_limit


@dataclass(frozen=True)
class TrialJob:
    """The input of one trial in a worker.

    Attributes:
        source: TIR function of an opaque task as JSON text, else `None`.
        timeout_s: time limit for running on the device, in seconds.
        build_s: limit of the build's processor time, in seconds.
    """

    task: Task
    schedule: Schedule
    source: str | None
    agents: Agents
    timeout_s: float = 20.0
    build_s: float = 90.0


@dataclass(frozen=True)
class Outcome:
    """The outcome of a trial.

    Attributes:
        latency_us: latency in microseconds; `None` if the candidate failed.
        error: reason for the failure, in one line.
        outage: true if the device could not be reached, so that nothing is known about the schedule.
        final: true if the device will not come back in this run.
        terms_us: terms of a modelled latency in microseconds, by name.
    """

    latency_us: float | None
    cycles: int | None = None
    samples_us: tuple[float, ...] = ()
    error: str | None = None
    outage: bool = False
    final: bool = False
    terms_us: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Built:
    """A built candidate, perhaps from another machine; `result` is the library's content, or the outcome of a failed build."""

    job: TrialJob
    result: bytes | Outcome = field(repr=False)


def run_trial(job: TrialJob) -> Outcome:
    """Build, run and check one candidate; a failure of the candidate is an outcome, not an exception.

    If the device is this machine, nothing is built while something is measured.
    """
    quiet = job.agents.endpoint.quiet
    with locked(Path(quiet), shared=True) if quiet else nullcontext():
        built = build_trial(job)
    with locked(Path(quiet)) if quiet else nullcontext():
        return measure_trial(Built(job, built))


def build_trial(job: TrialJob) -> bytes | Outcome:
    """Do the first half of `run_trial`: return the library's content, or the outcome of a failed build."""
    with tempfile.TemporaryDirectory(prefix="tvmmobile-trial-") as folder:
        library = Path(folder) / "kernel.so"
        try:
            with processor_limit(job.build_s):
                compile_kernel(kernel_function(job.task, job.schedule, _load_function(job.source)), job.agents.profile.target, library)
        except (OSError, UserError):  # a fault of this machine, not of the candidate
            raise
        except Exception as error:  # the compiler rejected the candidate; the error is the reason
            check_space(Path(folder))
            return Outcome(None, error=f"does not build: {_first_line(error)}")
        return library.read_bytes()


def measure_trial(built: Built) -> Outcome:
    """Do the second half of `run_trial`: run and check a built candidate."""
    if isinstance(built.result, Outcome):
        return built.result
    with tempfile.TemporaryDirectory(prefix="tvmmobile-trial-") as folder:
        library = Path(folder) / "kernel.so"
        library.write_bytes(built.result)
        return _measure(built.job, library)


def _measure(job: TrialJob, library: Path) -> Outcome:
    data, parameters, expected = _workload(job.task, job.source)
    # An opaque kernel's output may have any dtype; for others, the expected output may be wider than the kernel's.
    dtype = expected.dtype if isinstance(job.task.region[0], Opaque) else job.task.storage[1].numpy
    blank = np.full(expected.shape, 0 if dtype.kind in "biu" else np.nan, dtype)
    arrays = [*data, *packed_constants(job.task, job.schedule, parameters), blank]
    timing = job.agents.kernel_timing(job.task.threads)
    try:
        run = job.agents.measure_kernel(library, job.task.symbol, arrays, job.timeout_s, timing)
    except MeasureError as error:
        return Outcome(None, error=error.reason, outage=error.kind in ("link", "host"), final=error.kind == "host")
    difference = relative_error(run.outputs[0], expected)
    if not difference <= job.task.tolerance:
        return Outcome(None, error=f"wrong values: error {difference:.2g} of the output's largest magnitude")
    samples = tuple(round(sample / 1000, 3) for sample in run.latency.samples_ns)
    terms = tuple((name, round(ms * 1e3, 4)) for name, ms in run.latency.term_ms.items())
    return Outcome(round(run.latency.seconds * 1e6, 4), run.latency.cycles, samples, terms_us=terms)


@functools.lru_cache(maxsize=4)
def _workload(task: Task, source: str | None) -> tuple[list[Array], tuple[LayerParameters, ...], Array]:
    """Return inputs, constants and the expected output; the same for all candidates of a task."""
    if isinstance(task.region[0], Opaque):
        function = _load_function(source)
        data = _opaque_inputs(task, function)
        expected = run_unscheduled(function, data)
        if expected.dtype.kind == "f" and not np.isfinite(expected).all():  # e.g. logarithms of negative numbers
            data = [(np.abs(array) + 0.1).astype(array.dtype) if array.dtype.kind == "f" else array for array in data]
            expected = run_unscheduled(function, data)
        return data, (), expected
    inputs, parameters = make_inputs(task), make_parameters(task)
    return inputs, parameters, expected_output(task, inputs, parameters)


def _opaque_inputs(task: Task, function: Any) -> list[Array]:
    """Return random float inputs, and zeros for integer inputs, which may be indices into a tensor."""
    generator = np.random.default_rng(len(task.name))
    inputs = []
    for parameter in list(function.params)[:-1]:
        shape, dtype = tuple(shape_of(parameter)), str(parameter.ty.dtype)
        inputs.append(generator.normal(1.0, 1.5, shape).astype(dtype) if "float" in dtype else np.zeros(shape, dtype))
    return inputs


@functools.lru_cache(maxsize=8)
def _load_function(source: str | None) -> Any:
    if source is None:
        return None
    import tvm

    return tvm.ir.load_json(source)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
