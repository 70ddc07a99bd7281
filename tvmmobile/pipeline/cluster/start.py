"""Workers and a bench for a run, on this machine or on a Dask cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tvmmobile.devices.protocol import Device
from tvmmobile.running.bench import Bench, started_bench
from tvmmobile.system.workers import WorkerPool, Workers


@contextmanager
def started_workers(count: int, boards: int | None = None, dask: str | None = None) -> Iterator[WorkerPool]:
    """Yield workers while the context lasts.

    Args:
        count: number of processes, on this machine.
        boards: number of boards to measure on that only this machine reaches; `None` for none.
        dask: the address of a Dask scheduler, whose workers do the rest, if any.

    Raises:
        UserError, DeviceUnavailable: see `ClusterWorkers`.
    """
    if dask is None:
        with Workers(count) as workers:
            yield workers
        return
    from tvmmobile.pipeline.cluster.pool import ClusterWorkers, check_address

    check_address(dask)
    with ExitStack() as held:
        here = None if boards is None else held.enter_context(Workers(count))
        yield held.enter_context(ClusterWorkers(dask, here))


@contextmanager
def bench_of(device: Device, workers: WorkerPool, dask: str | None, repeat: int, warmup: int) -> Iterator[Bench]:
    """Yield the device's bench while the context lasts; a Dask cluster's virtual board is started there. Raises as `Device.started`."""
    if dask is not None and device.boards is None:
        from tvmmobile.pipeline.cluster.parcel import elsewhere

        yield Bench(elsewhere(device.profile), workers)
    else:
        with started_bench(device, workers, repeat, warmup) as bench:
            yield bench
