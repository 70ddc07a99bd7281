"""Checks whether a record's figures are plausible: their types and ranges, and limits that no core can beat."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvmmobile.devices.protocol import DeviceProfile
from tvmmobile.graph.cores import llvm_name
from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.machine import ANY, Machine, is_known
from tvmmobile.graph.precision import is_precision
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.serial import Schedule
from tvmmobile.schedules import KnobSchedule, template_named

#: Shortest and longest plausible latency in microseconds: a nanosecond, and 17 minutes, many times a trial's deadline.
LEAST_US, MOST_US = 1e-3, 1e9
_MOST_CYCLES = 10**15
#: Most multiply-adds of a kernel; the largest published network has some 10**10.
_MOST_MACS = 10**18
#: Tolerance for rounding in logs: latencies and terms are rounded to 1e-4 us, samples to 1e-3 us, cycles to integers.
_ROUNDING_US = 2e-3
#: Factor on the cycles of several threads: they include work after the last one that the kernel waits for.
_AFTER_THE_END = 1.1


@dataclass(frozen=True)
class RecordFigures:
    """Numbers of a record; see `records.Record`."""

    latency_us: float | None
    cycles: int | None
    samples_us: tuple[float, ...]
    terms_us: tuple[tuple[str, float], ...]


def read_figures(value: Mapping[str, Any]) -> RecordFigures:
    """Return the figures of a log line.

    Raises:
        KeyError: if the latency is missing.
        ValueError: if a figure is not a number, is out of range, or contradicts another one.
    """
    latency, cycles, samples, terms = value["latency_us"], value.get("cycles"), value.get("samples_us", ()), value.get("terms_us", {})
    if latency is not None:
        latency = _microseconds("latency_us", latency, LEAST_US)
    if cycles is not None and not (type(cycles) is int and 0 < cycles <= _MOST_CYCLES):
        raise ValueError(f"cycles is {_shown(cycles)}, not a positive whole number")
    if not isinstance(samples, list | tuple) or not isinstance(terms, dict):
        raise ValueError("samples_us is not a list, or terms_us is not an object")
    times = tuple(_microseconds("samples_us", sample, 0.0) for sample in samples)
    parts = tuple((name, _microseconds(f"terms_us.{name}", term, 0.0)) for name, term in terms.items())
    _check_sums(latency, times, parts)
    return RecordFigures(latency, cycles, times, parts)


def _check_sums(latency_us: float | None, samples_us: tuple[float, ...], terms_us: tuple[tuple[str, float], ...]) -> None:
    """Raise `ValueError` if a latency does not follow from its samples or terms."""
    if latency_us is None:
        return
    if samples_us and not min(samples_us) - _ROUNDING_US <= latency_us <= max(samples_us) + _ROUNDING_US:
        raise ValueError(f"latency_us is {latency_us:g}, and its samples are from {min(samples_us):g} to {max(samples_us):g}")
    total = math.fsum(term for _, term in terms_us)
    if terms_us and abs(total - latency_us) > _ROUNDING_US:
        raise ValueError(f"latency_us is {latency_us:g}, and its terms add up to {total:g}")


def check_task(task: Task) -> None:
    """Raise `ValueError`, `TypeError` or `ArithmeticError` for an impossible kernel: one without threads, or with impossible fields."""
    if task.threads < 1:
        raise ValueError(f"{task.threads} threads")
    extents = (extent for layer in task.region for extent in (*layer.input_shape, *layer.output_shape))
    if min(extents, default=0) < 0 or not 0 <= task.least_macs <= task.macs <= _MOST_MACS:
        raise ValueError("its layers have extents that no network's have")
    if not all(_has_windows(layer) for layer in task.region if isinstance(layer, Conv2d) and layer.windows):
        raise ValueError("its layers have windows that no convolution's have")


def _has_windows(layer: Conv2d) -> bool:
    """Return whether a layer's windows divide its channels equally and lie within its kernel."""
    rows, columns = layer.kernel
    inside = (0 <= top < bottom <= rows and 0 <= left < right <= columns for top, bottom, left, right in layer.windows)
    return layer.groups == 1 and layer.out_channels % len(layer.windows) == 0 and all(inside)


def _microseconds(name: str, value: Any, least: float) -> float:
    if type(value) not in (int, float) or not least <= value <= MOST_US:
        raise ValueError(f"{name} is {_shown(value)}, not a number of microseconds from {least:g} to {MOST_US:g}")
    return float(value)


def _shown(value: Any) -> str:
    return "a huge number" if type(value) is int and abs(value) > _MOST_CYCLES else short(ascii(value))


def short(text: str) -> str:
    """Return text from a log as one printable line of at most 120 characters."""
    line = "".join(character for character in " ".join(text.split()) if character.isprintable())
    return line if len(line) <= 120 else line[:119] + "…"


@dataclass(frozen=True)
class RefusedLine:
    """A refused line of a log, and the reason."""

    path: Path
    number: int
    why: str


@dataclass(frozen=True)
class Limits:
    """Limits that no kernel on a device can beat.

    Attributes:
        clock_hz: clock of the cores.
        cores: number of cores.
        fma_lanes_per_cycle: float32 multiply-adds that a core can issue per cycle; 0 if the core is unknown.
        modelled: true if latencies are modelled, in which case each record has core cycles.
        machine: description of a core, for its rate in other precisions.
    """

    clock_hz: float
    cores: int
    fma_lanes_per_cycle: int
    modelled: bool
    machine: Machine = ANY

    @classmethod
    def of(cls, profile: DeviceProfile) -> Limits | None:
        """Return the limits of a device; `None` if its clock is unknown, or if it is emulated."""
        if profile.origin.kind == "emulated" or not profile.clock_hz:
            return None
        # A core unknown to LLVM has the name of an older one, and may be faster than that.
        known = profile.origin.modelled or is_known(llvm_name(profile.cpu))
        lanes = profile.machine.fma_lanes_per_cycle if known else 0
        return cls(profile.clock_hz, profile.cores, lanes, profile.origin.modelled, profile.machine)

    def contradiction(self, task: Task, schedule: Schedule, figures: RecordFigures) -> str:
        """Return why a kernel's figures are impossible: its core cycles take longer at the device's clock, or its schedule's multiply-adds
        take longer at the cores' peak. Return "" if the figures are possible.
        """
        latency_us, cycles = figures.latency_us, figures.cycles
        if latency_us is None:
            return ""
        if self.modelled and cycles is None:
            return "its latency is modelled, and it has no core cycles"
        threads = min(task.threads, self.cores)
        core_us = (cycles or 0) / self.clock_hz * 1e6
        least_us = core_us / (threads if threads == 1 else threads * _AFTER_THE_END)
        start = f"latency_us is {latency_us:g}, and its"
        if least_us > latency_us + _ROUNDING_US:
            return f"{start} core cycles alone take at least {least_us:.4g} at {self.clock_hz / 1e9:g} GHz"
        term_us = dict(figures.terms_us).get("core", core_us)
        if threads == 1 and abs(term_us - core_us) > _ROUNDING_US:
            return f"terms_us.core is {term_us:g}, and its core cycles take {core_us:.4g} at {self.clock_hz / 1e9:g} GHz"
        least_us = self._least_us(task, schedule, threads, latency_us + _ROUNDING_US)
        return (
            f"{start} multiply-adds take at least {least_us:.4g} at the peak of the cores" if least_us > latency_us + _ROUNDING_US else ""
        )

    def _least_us(self, task: Task, schedule: Schedule, threads: int, enough_us: float) -> float:
        """Return the least time in microseconds of the multiply-adds that the schedule executes, but at least `enough_us`.

        If the peak is unknown, return `enough_us`.
        """
        if not self.fma_lanes_per_cycle or not is_precision(task.dtype):
            return enough_us
        peak_per_us = self.clock_hz * 1e-6 * threads * self.fma_lanes_per_cycle * task.precision.rate_on(self.machine)
        # The template is looked up only for records that are fast enough for its algorithm to matter.
        return max(enough_us, _executed(task, schedule) / peak_per_us) if task.least_macs > enough_us * peak_per_us else enough_us


def _executed(task: Task, schedule: Schedule) -> float:
    """Return the fewest multiply-adds that a kernel with this schedule's template executes."""
    template = template_named(schedule.template, schedule.version) if isinstance(schedule, KnobSchedule) else None
    return task.least_macs if template is None else template.executed_macs(task)


def is_retired(schedule: Schedule) -> bool:
    """Return whether this version lacks a schedule's template."""
    return isinstance(schedule, KnobSchedule) and template_named(schedule.template, schedule.version) is None


def untakable(schedule: Schedule) -> str:
    """Return the reason to refuse a schedule that this version cannot build for its kernel; "" if this version only lacks its template."""
    if is_retired(schedule):
        return ""
    named = f"{schedule.template}@{schedule.version}" if isinstance(schedule, KnobSchedule) else "MetaSchedule"
    return f"{short(named)} does not take such a schedule for the kernel"
