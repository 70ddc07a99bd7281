"""Checks whether a registered device works: the link, the board's state, and a small library on its agent."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tvmmobile.devices.board.connect import connected, described
from tvmmobile.devices.board.cores import core_notes
from tvmmobile.devices.board.hardware import HardwareDevice
from tvmmobile.devices.board.health import disturbances, read_health
from tvmmobile.devices.board.registered import RegisteredBoard
from tvmmobile.devices.board.remote import Remote
from tvmmobile.pipeline.registration import registered
from tvmmobile.running.bench import started_agents
from tvmmobile.running.measure import Agents
from tvmmobile.system.errors import DeviceUnavailable
from tvmmobile.system.scratch import scratch

_ROUND_TRIPS = 5
_UPLOAD_BYTES = 8 << 20
_RUN_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class BoardReport:
    """One board's report: its address, a command's median round trip, clock, temperature and governor, and possible disturbances."""

    place: str
    round_trip_ms: float
    state: str
    disturbances: tuple[str, ...]


@dataclass(frozen=True)
class DeviceReport:
    """The reports of a device's boards, the speed of an upload to its agent, and the test library's latency, modelled or measured."""

    boards: tuple[BoardReport, ...]
    megabytes_per_s: float
    latency: str


def _ask(remote: Remote, board: RegisteredBoard) -> BoardReport:
    """Ask one board."""
    times = []
    for _ in range(_ROUND_TRIPS):
        begin = time.monotonic()
        remote.run(["true"])
        times.append(time.monotonic() - begin)
    health = read_health(remote, board)
    clock = f"{max(health.clocks_hz, default=0) / 1e9:g} GHz now" if any(health.clocks_hz) else "clock not told"
    temperature = "temperature not told" if health.temperature_c is None else f"{health.temperature_c:.0f} °C"
    state = f"{clock}, {temperature}, governor {health.governor or 'not told'}"
    return BoardReport(
        described(board.address), statistics.median(times) * 1e3, state, (*disturbances(health, board), *core_notes(remote, board))
    )


def check_device(name: str, on_report: Callable[[BoardReport], None] = lambda _report: None) -> DeviceReport:
    """Ask every board of a device, then upload an array and run a pointwise convolution compiled for it.

    Args:
        name: name of the device.
        on_report: called with each board's report as soon as it arrives.

    Returns:
        All boards' reports, with the speed of the upload and the latency of the convolution.

    Raises:
        UserError: there is no such device.
        DeviceUnavailable: its agent does not start or compute the right values.
    """
    from tvmmobile.devices.agents.rpc import LinkError, open_session
    from tvmmobile.graph.precision import FLOAT32

    file, boards = registered(name), []
    for board in file.boards:
        with connected(board.address) as remote:
            boards.append(_ask(remote, board))
        on_report(boards[-1])
    device = HardwareDevice(file)
    with started_agents(device) as agents, scratch("check") as folder:
        try:
            with open_session(agents.endpoint, _RUN_TIMEOUT_S) as session:
                begin = time.monotonic()
                session.put(np.ones(_UPLOAD_BYTES // 4, np.float32))
                rate = _UPLOAD_BYTES / 1e6 / (time.monotonic() - begin)
        except (LinkError, OSError) as problem:
            raise DeviceUnavailable(
                f"the agent of {file.name} does not serve: {problem}.", "Run the same command again.", again=True
            ) from problem
        error, latency_us = _run_library(agents, Path(folder))
    if not error <= FLOAT32.tolerance:
        raise DeviceUnavailable(
            f"the test library computes wrong values on {file.name}: error {error:.2g} of the largest output.",
            "The board's processor may not be what it reports; see: tvmmobile device list",
        )
    return DeviceReport(tuple(boards), rate, f"{latency_us:.1f} us {device.profile.origin.kind}")


def _run_library(agents: Agents, folder: Path) -> tuple[float, float]:
    """Return error and latency in microseconds of one kernel's usual schedule."""
    from tvmmobile.graph.layers import Conv2d
    from tvmmobile.graph.tasks import Task
    from tvmmobile.kernels.codegen import compile_kernel
    from tvmmobile.kernels.function import kernel_function
    from tvmmobile.kernels.reference import expected_output, make_inputs, make_parameters, relative_error
    from tvmmobile.running.measure import MeasureError, Timing
    from tvmmobile.schedules import template_for

    task = Task((Conv2d(14, 14, 64, 64, clamp=(0.0, 6.0)),))
    template = template_for(task)
    assert template is not None
    space = template.space(task)
    assert space is not None
    library = folder / "selftest.so"
    compile_kernel(kernel_function(task, space.default, None), agents.profile.target, library)
    data, parameters = make_inputs(task), make_parameters(task)
    expected = expected_output(task, data, parameters)
    arrays = [*data, *template.pack(task, space.default.values, parameters), np.full(expected.shape, np.nan, task.precision.numpy)]
    try:
        run = agents.measure_kernel(library, task.symbol, arrays, _RUN_TIMEOUT_S, Timing(warmup=3, repeat=5))
    except MeasureError as error:
        raise DeviceUnavailable(
            f"a test library does not run on {agents.profile.name}: {error.reason}.",
            "Install a 64-bit system, if it has another.",
        ) from error
    return relative_error(run.outputs[0], expected), run.latency.seconds * 1e6
