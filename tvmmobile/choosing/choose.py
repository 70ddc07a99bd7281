"""Chooses the best network within a budget: the most accurate that is fast enough, or the fastest that is accurate enough."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from tvmmobile.accuracy.measured import read_accuracies
from tvmmobile.choosing.answer import NetworkChoice, PricedCandidate
from tvmmobile.choosing.budget import Budget
from tvmmobile.choosing.candidates import Candidate, candidates_of
from tvmmobile.choosing.options import ChooseArguments, ChooseOptions
from tvmmobile.choosing.pricing import PlannedLatency, Prices, tasks_of_all
from tvmmobile.choosing.report.files import write_choice
from tvmmobile.devices.protocol import Device, DeviceProfile
from tvmmobile.graph.precision import FLOAT16, FLOAT32, INT8
from tvmmobile.pipeline.cluster.start import started_workers
from tvmmobile.pipeline.job import VariantJob
from tvmmobile.pipeline.known_tasks import keep_tasks, read_tasks
from tvmmobile.pipeline.listener import QUIET, Listener
from tvmmobile.pipeline.load import variants
from tvmmobile.pipeline.options.call import with_options
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.request import Models, devices_of, jobs_of, models_of
from tvmmobile.pipeline.stages.jobs import build_timeout_s, succeeded
from tvmmobile.results.report.measured import MeasuredAccuracy
from tvmmobile.results.report.view import pareto_front
from tvmmobile.running.library import without_threads
from tvmmobile.system.errors import UserError, some_of
from tvmmobile.system.files import check_writable
from tvmmobile.system.scratch import scratch_folder
from tvmmobile.system.workers import worker_count
from tvmmobile.tuning.logs.directories import log_dirs
from tvmmobile.tuning.regions import VariantTasks

#: Families that are compared by default.
FAMILIES = ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small")
#: Number of lower accuracies whose candidates are priced in addition to the best one within a latency.
_NEIGHBOURS = 2


@with_options(ChooseOptions)
def choose(
    models: Models | None = None,
    devices: str | Device | Sequence[str | Device] = "pi4",
    *,
    listener: Listener = QUIET,
    **options: Unpack[ChooseArguments],
) -> NetworkChoice:
    """Choose the best network within a budget, from latencies in the tuning logs and known accuracies; nothing runs on a device.

    Args:
        models: one network or several, or a function that loads them once everything else has been checked; default: the published
            variants of MobileNet v1, v2 and v3.
        devices: one, or several of which the slowest counts; default: the virtual Raspberry Pi 4, unless a board is registered as `pi4`.
        options: see `ChooseOptions`, which `help` lists.
        listener: is told of progress.

    Returns:
        The best network, with all others that no network beats in both latency and accuracy, and those whose latency is unknown.

    Raises:
        UserError: an argument is wrong, no accuracy is known, or the folder cannot be written.
    """
    wanted = ChooseOptions.of(options)
    if wanted.out is not None:
        check_writable(wanted.out, "--out")
    budget = Budget.of(wanted.under, wanted.at_least, wanted.memory, wanted.size)
    profiles = tuple(device.profile for device in devices_of(devices))
    libraries = _libraries(wanted, profiles)
    measured = {path: read_accuracies(path) for path in wanted.accuracy}
    networks = models_of(models if models is not None else [model for family in FAMILIES for model in variants(family)])
    candidates, unknown = candidates_of(networks, libraries, [accuracy for accuracies in measured.values() for accuracy in accuracies])
    _check_used(measured, candidates)
    if not candidates:
        raise UserError(
            f"no accuracy is known for {unknown[0]}" + (f" and {len(unknown) - 1} others." if len(unknown) > 1 else "."),
            "Measure it: tvmmobile evaluate LIBRARY FOLDER --out DIR, then give --accuracy DIR/evaluation.json.",
        )
    priced, skipped = _Search(budget, profiles, wanted.logs, listener, wanted.out is not None).run(candidates)
    choice = _choice(budget, profiles, priced, skipped, unknown)
    if wanted.out is not None:
        write_choice(choice, wanted.out)
    return choice


def _check_used(measured: Mapping[Path, Sequence[MeasuredAccuracy]], candidates: Sequence[Candidate]) -> None:
    """Raise `UserError` for a file without accuracies of libraries that are compared."""
    compared = {candidate.library for candidate in candidates}
    for path, accuracies in measured.items():
        if not compared.intersection(without_threads(accuracy.library) for accuracy in accuracies):
            others = f": it is of {some_of([accuracy.library for accuracy in accuracies])}" if accuracies else ""
            raise UserError(
                f"{path} has no accuracy of a network to choose from{others}.",
                "Name its network with --model and its precision with --dtype, or leave --accuracy out.",
            )


def _libraries(wanted: ChooseOptions, profiles: Sequence[DeviceProfile]) -> list[LibraryOptions]:
    """Return the options of the libraries to compare.

    Raises:
        UserError: a device does not support one of them, or none uses the calibration data.
    """
    halves = all(FLOAT16.requires in profile.machine.has for profile in profiles)
    names = wanted.dtypes or (FLOAT32.name, *[FLOAT16.name] * halves)
    if wanted.calibrate is not None and INT8.name not in names:
        raise UserError(f"--calibrate is for {INT8.name}, which is not compared.", f"Leave it out, or add --dtype {INT8.name}.")
    libraries = []
    for name, threads in itertools.product(dict.fromkeys(names), dict.fromkeys(wanted.threads)):
        scales = {"calibrate": wanted.calibrate} if name == INT8.name else {}
        options = LibraryOptions.of({"dtype": name, "threads": threads, "image": wanted.image, **scales})
        for profile in profiles:
            options.check(profile)
        libraries.append(options)
    return libraries


@dataclass(frozen=True)
class _Search:
    """Prices candidates, the most promising first, until no other can be better."""

    budget: Budget
    profiles: tuple[DeviceProfile, ...]
    logs: Path | None
    listener: Listener
    prices_all: bool

    def run(self, candidates: Sequence[Candidate]) -> tuple[list[PricedCandidate], int]:
        """Return the priced candidates, and the number of the others."""
        ordered = self._ordered(candidates)
        logs, out = log_dirs(self.logs), scratch_folder("choosing")
        jobs = [
            (job, candidate, profile.name)
            for candidate in ordered
            for profile in self.profiles
            for job in jobs_of(candidate.model, profile, candidate.options, out, logs, None)
        ]
        requested = {id(job): (candidate, device) for job, candidate, device in jobs}
        priced: list[PricedCandidate] = []
        latencies: dict[int, dict[str, PlannedLatency]] = {}
        prices = Prices()
        with started_workers(worker_count(len(jobs))) as workers, self.listener.stage("pricing", len(ordered)) as done:

            def price(job: VariantJob, tasks: VariantTasks) -> None:
                candidate, device = requested[id(job)]
                by_device = latencies.setdefault(id(candidate), {})
                by_device[device] = prices.latency(job, tasks)
                if len(by_device) == len(self.profiles):
                    priced.append(PricedCandidate(candidate, {profile.name: by_device[profile.name] for profile in self.profiles}))
                    done(candidate.model.spec.variant)

            def uncached() -> Iterator[tuple[VariantJob, ...]]:
                """Price libraries whose kernels are cached; yield the others, grouped by network, until the answer is settled."""
                for _, same_network in itertools.groupby(jobs, key=lambda entry: entry[0].model):
                    missing = []
                    for job, candidate, _ in same_network:
                        if self._is_settled(candidate, priced):
                            break
                        tasks = read_tasks(job)
                        if tasks is None:
                            missing.append(job)
                        else:
                            price(job, tasks)
                    if missing:
                        yield tuple(missing)

            for group, answer in workers.run(tasks_of_all, uncached(), build_timeout_s([job for job, _, _ in jobs])):
                for job, tasks in zip(group, succeeded(answer, f"planning {group[0].spec.variant}"), strict=True):
                    keep_tasks(job, tasks)
                    price(job, tasks)
        return priced, len(candidates) - len(priced)

    def _ordered(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the candidates that may be within the budget, the most promising first; all of them if `prices_all`."""
        if self.prices_all:
            return list(candidates)
        if math.isfinite(self.budget.most_us):
            possible = [candidate for candidate in candidates if self._least_us(candidate) <= self.budget.most_us]
            return sorted(possible, key=lambda candidate: (-candidate.accuracy.top1, self._least_us(candidate)))
        possible = [candidate for candidate in candidates if candidate.accuracy.top1 >= self.budget.least_top1]
        return sorted(possible, key=self._least_us)

    def _least_us(self, candidate: Candidate) -> float:
        return max(candidate.least_us(profile) for profile in self.profiles)

    def _is_settled(self, candidate: Candidate, priced: Sequence[PricedCandidate]) -> bool:
        """Return whether neither this candidate nor a later one can change the answer."""
        if self.prices_all:
            return False
        fitting = [option for option in priced if option.worst_us <= self.budget.most_us and option.fits(self.budget)]
        if not self.budget.is_bound or not any(option.is_known for option in fitting):
            return False
        if math.isfinite(self.budget.most_us):
            best = max(option.candidate.accuracy.top1 for option in fitting)
            lower = {option.candidate.accuracy.top1 for option in priced if option.candidate.accuracy.top1 < best}
            return len(lower | {candidate.accuracy.top1}) > _NEIGHBOURS and candidate.accuracy.top1 < best
        return self._least_us(candidate) > min(option.worst_us for option in fitting)


def _choice(
    budget: Budget, profiles: tuple[DeviceProfile, ...], priced: Sequence[PricedCandidate], skipped: int, unknown: Sequence[str]
) -> NetworkChoice:
    small = [option for option in priced if option.fits(budget)]
    known = [option for option in small if option.is_known]
    gains = [option.candidate.accuracy.top1 for option in known]
    front = tuple(known[place] for place in pareto_front([option.worst_us for option in known], gains))
    within = [option for option in front if option.worst_us <= budget.most_us and option.candidate.accuracy.top1 >= budget.least_top1]
    best = None if not (within and budget.is_bound) else within[-1] if math.isfinite(budget.most_us) else within[0]
    beaten = tuple(option for option in known if option not in front)
    untuned = tuple(option for option in small if not option.is_known)
    oversized = tuple(option for option in priced if option not in small)
    return NetworkChoice(budget, profiles, best, front, beaten, untuned, skipped, tuple(unknown), oversized)
