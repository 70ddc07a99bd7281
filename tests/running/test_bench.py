"""Tests of the parts that measuring needs, with a device and workers that only say what they were asked for."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tvmmobile.devices.protocol import EMULATED, MEASURED, DeviceProfile, Endpoint
from tvmmobile.devices.registry import find_device
from tvmmobile.running import measure
from tvmmobile.running.bench import started_agents, started_bench
from tvmmobile.running.measure import Agents, Timing

MODELLED = find_device("pi4-virtual").profile


class Recorded:
    """A device that notes what becomes of it, and workers in one."""

    boards, count, run = None, 3, None

    def __init__(self, profile: DeviceProfile = MODELLED) -> None:
        self.profile = profile
        self.events: list[Any] = []

    @contextmanager
    def started(self, agents: int = 1, timed: bool = True) -> Iterator[Endpoint]:
        """See `Device.started`."""
        self.events.append(("started", agents, timed))
        yield Endpoint("127.0.0.1", 7, "key")
        self.events.append("ended")

    @contextmanager
    def watched(self) -> Iterator[Any]:
        """See `Device.watched`."""
        self.events.append("watched")
        yield "the watch"
        self.events.append("left alone")


def test_a_bench_has_an_agent_for_each_worker_and_is_watched() -> None:
    device: Any = Recorded()
    with started_bench(device, device, 30, 5) as bench:
        assert (bench.agents, bench.watch, bench.repeat, bench.warmup) == (
            Agents(MODELLED, Endpoint("127.0.0.1", 7, "key")),
            "the watch",
            30,
            5,
        )
        assert bench.profile is MODELLED and bench.workers is device
    assert device.events == [("started", 3, True), "watched", "left alone", "ended"]


def test_nobody_watches_where_nothing_is_timed() -> None:
    device: Any = Recorded()
    with started_bench(device, device, timed=False) as bench:
        assert bench.watch is None
    assert device.events == [("started", 3, False), "ended"]


def test_agents_travel_without_the_rest() -> None:
    device: Any = Recorded()
    with started_agents(device) as agents:
        assert pickle.loads(pickle.dumps(agents)) == agents
    assert device.events == [("started", 1, True), "ended"]


def test_a_model_needs_one_run() -> None:
    agents = Agents(MODELLED, Endpoint("127.0.0.1", 7, "key"))
    assert agents.network_timing(4, repeat=30, warmup=5) == Timing(warmup=1, threads=4)
    assert agents.kernel_timing(2) == Timing(flush_bytes=4 << 20, produce=(0,), threads=2)


@pytest.mark.parametrize("origin", [MEASURED, EMULATED])
def test_a_clock_is_read_until_it_is_steady(origin: Any) -> None:
    agents = Agents(replace(MODELLED, origin=origin), Endpoint("127.0.0.1", 7, "key"))
    network, kernel = agents.network_timing(4, repeat=30, warmup=5), agents.kernel_timing(1)
    assert (network.warmup, network.repeat, network.threads, network.settle) == (5, 30, 4, 0.02)
    assert network.warm_s == kernel.warm_s == 0.1
    assert (network.min_total_ms, network.max_total_ms, network.flush_bytes) == (500, 20_000, 0)
    assert (kernel.warmup, kernel.repeat, kernel.settle, kernel.min_total_ms, kernel.max_total_ms) == (1, 10, 0.05, 20, 3000)
    assert (kernel.flush_bytes, kernel.produce) == (4 << 20, (0,))


def test_kernels_are_timed_in_no_more_runs_than_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that takes 0.25 s has 80 samples in 20 s; a thousand further runs would outlast the session."""
    given: list[Timing] = []

    @contextmanager
    def session(_agents: Agents, _timeout_s: float) -> Iterator[Any]:
        yield SimpleNamespace(get_function=lambda _name: lambda: 0)

    def time_evaluator(_session: Any, _module: Any, _function: str, timing: Timing, _mode: str, *, calls: bool = False) -> Any:
        given.append(timing)
        row = [0.25e9] * timing.repeat
        return lambda *_: json.dumps(
            {"calls": [["kernel"]], "samples_ns": [[0.25e9]] * timing.repeat} if calls else {"samples_ns": row}
        ).encode()

    network = SimpleNamespace(module=None, function="run", arguments=(), threads=1, observable=True)
    network.set_inputs, network.outputs = (lambda _: None), (lambda: ())
    monkeypatch.setattr(Agents, "session", session)
    monkeypatch.setattr(measure, "calling", lambda *_: None)
    monkeypatch.setattr(measure, "_network", lambda *_: network)
    monkeypatch.setattr(measure, "time_evaluator", time_evaluator)
    agents = Agents(replace(MODELLED, origin=MEASURED), Endpoint("127.0.0.1", 7, "key"))
    run = agents.measure_network(Path("library.so"), (), 60, replace(agents.network_timing(1, repeat=1000, warmup=5), warm_s=0.0))
    assert len(run.latency.samples_ns) == given[-1].repeat == 80
    assert [call.seconds for call in run.calls] == [0.25]


def test_weights_are_cold_behind_a_third_level_too() -> None:
    """A flush of four times the Cortex-A76's second level would leave the third one as it was."""
    machine = replace(MODELLED.machine, l2_bytes=512 << 10, l3_bytes=2 << 20)
    agents = Agents(replace(MODELLED, machine=machine, origin=MEASURED), Endpoint("127.0.0.1", 7, "key"))
    assert agents.kernel_timing(1).flush_bytes == 8 << 20
