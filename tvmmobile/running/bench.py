"""Prepares a started device for measurements."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from tvmmobile.devices.protocol import Device, DeviceProfile, Watch
from tvmmobile.running.measure import Agents
from tvmmobile.system.workers import WorkerPool


@dataclass(frozen=True)
class Bench:
    """A started device, the processes that build for it and measure on it, and the watch over its boards.

    Attributes:
        agents: the device itself; the only part of a bench that a job sends to another process.
        watch: watch over a real board; `None` where its state is always the same.
        repeat, warmup: timed runs of a network on a real board, and runs before them; a modelled board uses neither.
    """

    agents: Agents
    workers: WorkerPool
    watch: Watch | None = None
    repeat: int = 1
    warmup: int = 1

    @property
    def profile(self) -> DeviceProfile:
        """The device's profile."""
        return self.agents.profile


@contextmanager
def started_agents(device: Device, count: int = 1, timed: bool = True) -> Iterator[Agents]:
    """Start a device's agents while the context lasts; see `Device.started`."""
    with device.started(count, timed) as endpoint:
        yield Agents(device.profile, endpoint)


@contextmanager
def started_bench(device: Device, workers: WorkerPool, repeat: int = 1, warmup: int = 1, timed: bool = True) -> Iterator[Bench]:
    """Start a bench of `device` while the context lasts, with an agent for each worker if their number can be chosen.

    Unless `timed`, the boards are not watched, and a virtual one does not count instructions. Raises as `Device.started`.
    """
    with started_agents(device, workers.count, timed) as agents, device.watched() if timed else nullcontext() as watch:
        yield Bench(agents, workers, watch, repeat, warmup)
