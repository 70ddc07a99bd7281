"""One point of a validation: a library built once, then timed on any device's agents."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tvmmobile.devices.protocol import DeviceProfile
from tvmmobile.graph.layers import Layer
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.codegen import compile_kernel
from tvmmobile.kernels.function import kernel_function, packed_constants
from tvmmobile.kernels.reference import expected_output, make_inputs, make_parameters, network_error, relative_error
from tvmmobile.pipeline.agreement import session_timeout_s
from tvmmobile.running.library import Library
from tvmmobile.running.measure import Agents, Latency
from tvmmobile.schedules import KnobSchedule, template_for
from tvmmobile.system.errors import Disagreement

#: Time limit of one kernel on the device: an emulator takes a second or two, on a busy machine much longer.
_KERNEL_S = 120.0
#: Samples of a network, and runs before them.
_REPEAT, _WARMUP = 15, 3
#: Least duration of a kernel's sample, so that the call and the clock do not matter.
_SAMPLE_MS = 1


@dataclass(frozen=True)
class KernelSource:
    """A kernel with its template's default schedule, and the path of its library."""

    name: str
    task: Task
    schedule: KnobSchedule
    path: Path


@dataclass(frozen=True)
class TimingJob:
    """A library and the agents that time it."""

    name: str
    built: KernelSource | Library
    agents: Agents

    @property
    def timeout_s(self) -> float:
        """Time limit of the session on the device."""
        return _KERNEL_S if isinstance(self.built, KernelSource) else session_timeout_s(self.built)


def kernel_source(name: str, layer: Layer, profile: DeviceProfile, folder: Path) -> KernelSource:
    """Return a kernel of the suite for a device's core."""
    task = Task((layer,), machine=profile.machine)
    template = template_for(task)
    assert template is not None, f"no template takes {name}"
    space = template.space(task)
    assert space is not None
    return KernelSource(name, task, space.default, folder / f"{task.symbol}.so")


def build_kernel(source: KernelSource, target: dict[str, object]) -> None:
    """Write a kernel's library for TVM's target."""
    compile_kernel(kernel_function(source.task, source.schedule, None), target, source.path)


def time_point(job: TimingJob) -> Latency:
    """Run a point on a device, compare its output, and time it.

    Raises:
        MeasureError: it could not be run.
        Disagreement: its output is wrong.
    """
    built = job.built
    latency, error, most = _time_kernel(job, built) if isinstance(built, KernelSource) else _time_network(job, built)
    if not error <= most:
        raise Disagreement(
            f"{job.name} computes wrong values on {job.agents.profile.name}: error {error:.2g} of the output's largest magnitude.",
            "The board's processor may not be what it reports; see: tvmmobile device list",
        )
    return latency


def _time_kernel(job: TimingJob, source: KernelSource) -> tuple[Latency, float, float]:
    task = source.task
    data, parameters = make_inputs(task), make_parameters(task)
    expected = expected_output(task, data, parameters)
    blank = np.full(expected.shape, np.nan, task.precision.numpy)
    arrays = [*data, *packed_constants(task, source.schedule, parameters), blank]
    # Weights are warm, unlike in a search: the data streamed to evict them would be written back while the kernel runs.
    timing = replace(job.agents.kernel_timing(task.threads), warmup=1, min_time_ms=_SAMPLE_MS, flush_bytes=0, produce=())
    run = job.agents.measure_kernel(source.path, task.symbol, arrays, job.timeout_s, timing)
    return run.latency, relative_error(run.outputs[0], expected), task.tolerance


def _time_network(job: TimingJob, library: Library) -> tuple[Latency, float, float]:
    inputs, expected = library.reference()
    timing = job.agents.network_timing(library.threads, _REPEAT, _WARMUP)
    run = job.agents.measure_network(library.path, inputs, job.timeout_s, timing)
    return run.latency, network_error(run.outputs, expected), library.tolerance
