"""Distributes trials: every kernel gets a few, and the rest go to kernels that a network's best plan may use."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence

from tvmmobile.graph.tasks import Task
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.plan import detours
from tvmmobile.tuning.regions import VariantTasks
from tvmmobile.tuning.search.nearest import best_with_knobs
from tvmmobile.tuning.search.tuner import TrialAssignment

#: Number of first trials per kernel and template, which include the nearest tuned shape's schedules and the template's usual knobs. On a
#: Cortex-A53 and a Cortex-A76, MobileNet v1's diagonal comes as close to its final latencies (within 0.5 %) as with four first trials.
FIRST_TRIALS = 2
#: Later rounds as (trials, share): up to so many trials for kernels with which a network's best plan would be slower by at most this share
#: of the kernel's latency. Later trials gain less: the kernels of the final plan were within 0.03 % after twelve.
_LATER = ((4, 0.1), (12, 0.02), (24, 0.01), (sys.maxsize, 0.005))

#: Largest lag of a template's best behind another template's for the same kernel, as a share, with which it gets more trials. Of two
#: templates, the eventual winner was at most 1.4 % behind after two trials (101 kernels on Cortex-A53, A73 and A76).
MAY_CATCH_UP = 0.05

#: Largest detour by a similar core's records, as a share of a kernel's latency there, with which a kernel gets any of few trials. On a
#: Cortex-A76, all kernels of MobileNet v1 1.0-224's best plan are within 0.14 by a Cortex-A72's records, which exclude 16 of 66 kernels.
MAY_GAIN_ELSEWHERE = 0.2
#: Largest number of requested trials that counts as few.
FEW_TRIALS = 8


def worth_trying(
    variants: Sequence[VariantTasks], similar: Database | None, tasks: Mapping[Task, str | None], trials: int
) -> dict[Task, str | None]:
    """Return the `tasks` worth trying: if trials are few, those that are promising by a similar core's records (if any), else all."""
    return dict(tasks) if similar is None or trials > FEW_TRIALS else promising(variants, similar, tasks, MAY_GAIN_ELSEWHERE)


def later_rounds(first: int, trials: int) -> list[tuple[int, float]]:
    """Return the rounds after each kernel's `first` trials, up to `trials` in all, as (trials, share for `promising`)."""
    rounds: list[tuple[int, float]] = []
    for most, share in _LATER:
        if min(most, trials) > max([first, *(done for done, _ in rounds)]):
            rounds.append((min(most, trials), share))
    return rounds


def promising(
    variants: Sequence[VariantTasks], database: Database, tasks: Mapping[Task, str | None], may_gain: float
) -> dict[Task, str | None]:
    """Return the `tasks` that were never measured, that would enter a variant's best plan if they were faster by the share `may_gain`, or
    that no plan of measured tasks contains.
    """

    def latency_us(task: Task) -> float | None:
        best = database.best(task)
        return None if best is None else best.latency_us

    chosen = {task for task in tasks if latency_us(task) is None}
    for variant in variants:
        for region, detour_us in detours(variant.nodes, variant.regions, latency_us).items():
            if math.isinf(detour_us) or detour_us <= may_gain * (latency_us(region.task) or 0.0):
                chosen.add(region.task)
    return {task: source for task, source in tasks.items() if task in chosen}


def hopeless(assignment: TrialAssignment, database: Database) -> bool:
    """Return whether a tried template is so far behind another template for the same kernel that more trials would be wasted."""
    best, template = database.best(assignment.task), assignment.template
    if template is None or best is None or best.latency_us is None or not assignment.done:
        return False
    own_best = best_with_knobs(database, assignment.task, template)
    return own_best is None or own_best.latency_us is None or own_best.latency_us > (1 + MAY_CATCH_UP) * best.latency_us
