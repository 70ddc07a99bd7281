"""Chooses the schedules of several sets of kernels together: a slightly slower one may use weights that another set has packed."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tvmmobile.graph.layers import LayerParameters
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.function import packed_constants
from tvmmobile.kernels.serial import Schedule
from tvmmobile.pipeline.planning import PlannedVariant, parameters_of
from tvmmobile.system.integer_programme import Constraint, minimised
from tvmmobile.tuning.choice import Choice
from tvmmobile.tuning.plan import PlannedKernel, Price

#: The solver's time limit, and its largest distance from the smallest library.
_TIME_LIMIT_S, _GAP = 20.0, 0.002


@dataclass(frozen=True)
class ScheduleCandidate:
    """A schedule of one set's kernel.

    Attributes:
        choice: the schedule and its price.
        extra_us: microseconds by which all the set's kernels with this schedule are slower than with the fastest one.
        constants: the sizes in bytes of the constants they read, by digest.
    """

    choice: Choice
    extra_us: float
    constants: Mapping[bytes, int]


#: Schedules that one set may choose from, by kernel, the fastest first.
Candidates = Mapping[Task, Sequence[ScheduleCandidate]]


@dataclass(frozen=True)
class Shared:
    """The plans of a library's sets, with schedules that make its weights small.

    Attributes:
        entry: entry of the manifest, see `SharedWeightsEntry`; `None` if sharing was not requested.
    """

    plans: tuple[PlannedVariant, ...]
    entry: dict[str, Any] | None = None


def share_weights(plans: Sequence[PlannedVariant], percent: float) -> Shared:
    """Choose the schedules of a library's sets that minimise the size of its weights.

    Args:
        plans: plans of one network, one for each set.
        percent: percent by which each plan may become slower, by its records.
    """
    if len(plans) < 2 or not percent:
        return Shared(tuple(plans))
    fastest = [{task: [_candidate(plan, task, plan.choices[task])] for task in _tasks(plan)} for plan in plans]
    users = _users(fastest)
    sets = [
        {
            task: members
            if all(len(users[digest]) == len(plans) for digest in members[0].constants)
            else _candidates(plan, members[0], task)
            for task, members in first.items()
        }
        for plan, first in zip(plans, fastest, strict=True)
    ]
    totals = [math.fsum(step.price.latency_us or 0.0 for step in plan.steps) for plan in plans]
    chosen = smallest(sets, [percent / 100 * total for total in totals])
    slower = [math.fsum(each.extra_us for each in members.values()) for members in chosen]
    entry = {
        "limit_percent": percent,
        "bytes": _bytes_of(chosen),
        "fastest_bytes": _bytes_of([{task: members[0] for task, members in each.items()} for each in fastest]),
        "slower_percent": tuple(round(100 * extra / total, 2) if total else 0.0 for extra, total in zip(slower, totals, strict=True)),
    }
    return Shared(tuple(_with(plan, members) for plan, members in zip(plans, chosen, strict=True)), entry)


def smallest(sets: Sequence[Candidates], most_us: Sequence[float]) -> list[dict[Task, ScheduleCandidate]]:
    """Return each set's candidates that make all constants together smallest, with each set at most this much slower.

    Of libraries that are equally small, the fastest is taken. If the solver finds nothing in time, each set's fastest schedules are taken.
    """
    variables = [(place, task, each) for place, found in enumerate(sets) for task, members in found.items() for each in members]
    sizes = {digest: size for _, _, each in variables for digest, size in each.constants.items()}
    column = {digest: len(variables) + number for number, digest in enumerate(sizes)}
    rows: list[Constraint] = []
    kernels: dict[tuple[int, Task], dict[int, float]] = defaultdict(dict)
    extra: dict[int, dict[int, float]] = defaultdict(dict)
    for number, (place, task, each) in enumerate(variables):
        kernels[place, task][number] = 1.0
        extra[place][number] = each.extra_us
        rows += [Constraint({number: 1.0, column[digest]: -1.0}, -math.inf, 0.0) for digest in each.constants]
    rows += [Constraint(members, 1.0, 1.0) for members in kernels.values()]
    rows += [Constraint(members, -math.inf, most_us[place]) for place, members in extra.items()]
    total = max(1.0, math.fsum(sizes.values()))
    slowest = max(1.0, math.fsum(most_us))
    costs = [1e-4 * each.extra_us / slowest for _, _, each in variables] + [size / total for size in sizes.values()]
    found = minimised(costs, len(variables), 1.0, rows, _TIME_LIMIT_S, _GAP)
    if found is None:
        return [{task: members[0] for task, members in each.items()} for each in sets]
    chosen: list[dict[Task, ScheduleCandidate]] = [{} for _ in sets]
    for (place, task, each), used in zip(variables, found.chosen, strict=True):
        if used:
            chosen[place][task] = each
    return chosen


def _tasks(plan: PlannedVariant) -> Iterator[Task]:
    """Yield the tasks whose kernels read constants, each once."""
    nodes = plan.network.nodes
    yield from dict.fromkeys(step.task for step in plan.steps if nodes[step.first].function is None)


def _candidate(plan: PlannedVariant, task: Task, choice: Choice, fastest_us: float | None = None) -> ScheduleCandidate:
    steps = [step for step in plan.steps if step.task == task]
    slower = 0.0 if fastest_us is None or choice.price.latency_us is None else choice.price.latency_us - fastest_us
    constants: dict[bytes, int] = {}
    for step in steps:
        constants |= _constants(task, choice.schedule, parameters_of(plan.network, step))
    return ScheduleCandidate(choice, slower * len(steps), constants)


def _constants(task: Task, schedule: Schedule, parameters: tuple[LayerParameters, ...]) -> dict[bytes, int]:
    """Return the sizes of a kernel's constants in bytes, by digest."""
    arrays: list[Any] = packed_constants(task, schedule, parameters)
    return {hashlib.sha256(np.ascontiguousarray(array).tobytes()).digest(): array.nbytes for array in arrays}


def _candidates(plan: PlannedVariant, fastest: ScheduleCandidate, task: Task) -> list[ScheduleCandidate]:
    """Return a kernel's recorded schedules, only the fastest of those with the same constants."""
    least = fastest.choice.price.latency_us
    if least is None:
        return [fastest]
    found = {frozenset(fastest.constants): fastest}
    records = plan.basis.records(task)
    for record in sorted((each for each in records if each.latency_us is not None), key=lambda each: each.latency_us or 0.0):
        price = Price(record.latency_us, f"one of {len(records)} records, whose weights other sets use")
        each = _candidate(plan, task, Choice(record.schedule, price), least)
        found.setdefault(frozenset(each.constants), each)
    return list(found.values())


def _bytes_of(chosen: Sequence[Mapping[Task, ScheduleCandidate]]) -> int:
    """Return the size of all constants, equal ones once."""
    return sum({digest: size for found in chosen for each in found.values() for digest, size in each.constants.items()}.values())


def _users(sets: Sequence[Candidates]) -> dict[bytes, set[int]]:
    """Map each constant's digest to the sets that read it."""
    users: dict[bytes, set[int]] = defaultdict(set)
    for place, found in enumerate(sets):
        for members in found.values():
            for digest in members[0].constants:
                users[digest].add(place)
    return users


def _with(plan: PlannedVariant, chosen: Mapping[Task, ScheduleCandidate]) -> PlannedVariant:
    """Return a plan with other choices."""
    choices = {**plan.choices, **{task: each.choice for task, each in chosen.items()}}

    def priced(step: PlannedKernel) -> PlannedKernel:
        return replace(step, price=choices[step.task].price)

    return replace(plan, steps=tuple(map(priced, plan.steps)), choices=choices)
