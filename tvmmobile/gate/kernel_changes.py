"""Finds the kernels that differ between two libraries of a network, or take a different time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tvmmobile.results.file import KernelResult, VariantResult

#: A kernel with the same schedule counts as unchanged if its latencies differ by less than this share.
_SAME_KERNEL = 0.02
#: It also counts as unchanged below this share of the network's latency: other kernels change what it finds in the caches.
_SHOWS = 2e-3


@dataclass(frozen=True)
class KernelChange:
    """A kernel that differs between the libraries, or takes a different time.

    Attributes:
        name: name of the kernel's task.
        base_schedule, new_schedule: schedule in the old and in the new library; `None` if the library has no such kernel.
        base_us, new_us: total time over all layers that use the kernel, within a run of the network or else from the tuning record, in
            microseconds; `None` if neither is known.
        macs: multiply-adds per run.
        added_us: time that the kernel adds to the network, in microseconds; `None` if unknown.
    """

    name: str
    base_schedule: str | None
    new_schedule: str | None
    base_us: float | None
    new_us: float | None
    macs: int
    added_us: float | None


def changed_kernels(base: VariantResult, new: VariantResult) -> tuple[KernelChange, ...]:
    """Return kernels whose schedule or latency differs: those that cost most first, then the largest."""
    return kernel_changes(base.kernels, new.kernels, base.latency_us)


def kernel_changes(base: Sequence[KernelResult], new: Sequence[KernelResult], whole_us: float) -> tuple[KernelChange, ...]:
    """Return what differs between two libraries' kernels; `whole_us` is the older library's latency. Otherwise as `changed_kernels`."""
    timed = bool(base and new) and None not in [kernel.network_us for kernel in (*base, *new)]
    base_kernels, new_kernels = (_kernels(kernels, timed) for kernels in (base, new))
    found = []
    for name in dict.fromkeys((*new_kernels, *base_kernels)):
        old, now = base_kernels.get(name), new_kernels.get(name)
        if old is None or now is None or _differs(old, now, whole_us):
            old_us, new_us = (one.latency_us if one else None for one in (old, now))
            added_us = None if (old and old_us is None) or (now and new_us is None) else (new_us or 0.0) - (old_us or 0.0)
            old_schedule, new_schedule = (one.schedule if one else None for one in (old, now))
            macs = next(one.macs for one in (now, old) if one)
            found.append(KernelChange(name, old_schedule, new_schedule, old_us, new_us, macs, added_us))
    return tuple(sorted(found, key=lambda change: (-(change.added_us or 0.0), -change.macs)))


def _kernels(kernels: Sequence[KernelResult], timed: bool) -> dict[str, KernelResult]:
    """Return each kernel once, with the total latency of its runs in `latency_us`: that within the network if `timed`."""
    found: dict[str, KernelResult] = {}
    for kernel in kernels:
        before = found.get(kernel.name)
        time = kernel.network_us if timed else kernel.latency_us
        if before is not None:
            time = None if time is None or before.latency_us is None else time + before.latency_us
        found[kernel.name] = replace(kernel, latency_us=time)
    return found


def _differs(base: KernelResult, new: KernelResult, whole_us: float) -> bool:
    """Return whether a kernel differs, or its time changes enough to show in the network's."""
    if base.schedule != new.schedule:
        return True
    if base.latency_us is None or new.latency_us is None:
        return False  # the same schedule; only its record was added or removed
    change = abs(new.latency_us - base.latency_us)
    return change > _SAME_KERNEL * base.latency_us and change > _SHOWS * whole_us
