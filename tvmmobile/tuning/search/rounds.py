"""Spends trials where a plan may use them: every kernel gets a few, the rest goes to kernels that a network may still use."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence

from tvmmobile.graph.tasks import Task
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.plan import detours
from tvmmobile.tuning.regions import VariantTasks
from tvmmobile.tuning.search.nearest import best_with_knobs
from tvmmobile.tuning.search.tuner import TrialBudget

#: Trials that every kernel gets for each template. The nearest tuned shape's schedules and the template's usual knobs are among them. On
#: a Cortex-A53 and a Cortex-A76, MobileNet v1's diagonal comes as close to its final latencies (within 0.5 %) as after four trials each.
FIRST_TRIALS = 2
#: (trials, share): up to this many trials for a kernel with which a network's best plan would be slower by at most this share of the
#: kernel's latency. With every trial there is less to gain: the kernels of the final plan were within 0.03 % after twelve.
_LATER = ((4, 0.1), (12, 0.02), (24, 0.01), (sys.maxsize, 0.005))

#: How far a template's best may be behind another's for the same kernel, as a share, to get more trials. Where two templates took a
#: kernel, the one that won in the end was no more than 1.4 % behind after two trials (101 kernels on Cortex-A53, A73 and A76).
MAY_CATCH_UP = 0.05

#: What a kernel may gain on another core, as a share of its latency there, beyond which no few trials are spent on it. On a Cortex-A76 all
#: kernels of MobileNet v1 1.0-224's best plan lie within 0.14 by a Cortex-A72's records, which leave out 16 of 66.
MAY_GAIN_ELSEWHERE = 0.2
#: Largest number of requested trials for which that holds.
FEW_TRIALS = 8


def worth_trying(
    variants: Sequence[VariantTasks], similar: Database | None, tasks: Mapping[Task, str | None], trials: int
) -> dict[Task, str | None]:
    """Return the `tasks` worth a few trials: all, or those that remain promising by a similar core's records, if there are any."""
    return dict(tasks) if similar is None or trials > FEW_TRIALS else promising(variants, similar, tasks, MAY_GAIN_ELSEWHERE)


def later_rounds(first: int, trials: int) -> list[tuple[int, float]]:
    """Return the rounds after each kernel's first trials, up to the requested `trials`: number of trials, and `promising`'s share."""
    found: list[tuple[int, float]] = []
    for most, share in _LATER:
        if min(most, trials) > max([first, *(done for done, _ in found)]):
            found.append((min(most, trials), share))
    return found


def promising(
    variants: Sequence[VariantTasks], database: Database, tasks: Mapping[Task, str | None], may_gain: float
) -> dict[Task, str | None]:
    """Return the `tasks` that were never measured, that would enter a variant's best plan if they were faster by this share, or that no
    plan of measured tasks contains.
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


def hopeless(assignment: TrialBudget, database: Database) -> bool:
    """Return whether a tried template is so far behind another one for the same kernel that more trials would be wasted."""
    best, template = database.best(assignment.task), assignment.template
    if template is None or best is None or best.latency_us is None or not assignment.done:
        return False
    mine = best_with_knobs(database, assignment.task, template)
    return mine is None or mine.latency_us is None or mine.latency_us > (1 + MAY_CATCH_UP) * best.latency_us
