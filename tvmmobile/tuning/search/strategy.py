"""Strategies that choose the next schedules to try from a space."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod

from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import KnobSchedule, Space
from tvmmobile.tuning.records import Record
from tvmmobile.tuning.search.cost_model import CostModel
from tvmmobile.tuning.trials import Trials


class Strategy(ABC):
    """Chooses the schedules to try next for one task: first `seeds`, in order, then others. `rng` is the only source of randomness."""

    def __init__(self, task: Task, space: Space, seeds: list[KnobSchedule], rng: random.Random) -> None:
        self.task, self.space, self.rng = task, space, rng
        self._members = list(space)
        self._queue = [schedule for schedule in dict.fromkeys(seeds) if schedule in space]
        self.tried: dict[KnobSchedule, float] = {}

    def propose(self, count: int) -> list[KnobSchedule]:
        """Return at most `count` untried schedules; fewer only if the space is exhausted."""
        chosen: list[KnobSchedule] = []
        while self._queue and len(chosen) < count:
            schedule = self._queue.pop(0)
            if schedule not in self.tried and schedule not in chosen:
                chosen.append(schedule)
        if len(chosen) < count:
            chosen += self._choose(count - len(chosen), set(chosen))
        self.tried.update(dict.fromkeys(chosen, float("inf")))  # until their outcome is observed
        return chosen

    def observe(self, records: list[Record]) -> None:
        """Learn from records of proposals or of an earlier run; records of other templates are ignored."""
        for record in records:
            if isinstance(record.schedule, KnobSchedule) and record.schedule in self.space:
                self.tried[record.schedule] = float("inf") if record.latency_us is None else record.latency_us

    def leave_out(self, trials: Trials) -> None:
        """Treat schedules whose records a compacted log has dropped as tried."""
        if trials.dropped:
            members = (schedule for schedule in (*self._members, *self._queue) if schedule not in self.tried)
            self.tried.update({schedule: float("inf") for schedule in members if trials.has(schedule)})

    def _random(self, count: int, excluded: set[KnobSchedule]) -> list[KnobSchedule]:
        fresh = [schedule for schedule in self._members if schedule not in self.tried and schedule not in excluded]
        return self.rng.sample(fresh, min(count, len(fresh)))

    def _best(self, count: int) -> list[KnobSchedule]:
        return sorted(self.tried, key=lambda schedule: (self.tried[schedule], schedule))[:count]

    @abstractmethod
    def _choose(self, count: int, excluded: set[KnobSchedule]) -> list[KnobSchedule]:
        """Return `count` untried schedules that are not in `excluded`, or all if there are fewer."""


class RandomSampling(Strategy):
    """Proposes untried schedules, all with the same probability."""

    def _choose(self, count: int, excluded: set[KnobSchedule]) -> list[KnobSchedule]:
        return self._random(count, excluded)


class HillClimbing(Strategy):
    """Proposes neighbours of the best schedules so far, with one knob changed; random ones if none is left, and in the first batch."""

    def _choose(self, count: int, excluded: set[KnobSchedule]) -> list[KnobSchedule]:
        chosen: list[KnobSchedule] = []
        seen = set(excluded)
        for parent in self._best(2):
            for _ in range(8 * count):
                if len(chosen) == count:
                    return chosen
                child = self.space.mutate(self.space.completed(parent), self.rng)
                if child not in self.tried and child not in seen:
                    chosen.append(child)
                    seen.add(child)
        return chosen + self._random(count - len(chosen), seen)


class GuidedEvolution(Strategy):
    """Proposes mutations and crossovers of the best schedules and random ones, ranked by a cost model that the caller trains, plus a few
    unranked random ones.
    """

    #: Candidates ranked per proposal, number of best schedules used as parents, and share of proposals that are unranked.
    POOL, PARENTS, BLIND = 256, 8, 0.125

    def __init__(self, task: Task, space: Space, seeds: list[KnobSchedule], rng: random.Random, model: CostModel) -> None:
        super().__init__(task, space, seeds, rng)
        self.model = model

    def _choose(self, count: int, excluded: set[KnobSchedule]) -> list[KnobSchedule]:
        if not self.model.trained:
            return self._random(count, excluded)
        pool = self._pool(excluded)
        if not pool:
            return []
        scores = self.model.predict(self.task, pool)
        ranked = [schedule for _, schedule in sorted(zip(scores, pool, strict=True), key=lambda pair: (pair[0], pair[1]))]
        blind = sum(self.rng.random() < self.BLIND for _ in range(count))
        chosen = ranked[: count - blind]
        return chosen + self._random(count - len(chosen), excluded | set(chosen))

    def _pool(self, excluded: set[KnobSchedule]) -> list[KnobSchedule]:
        parents = [self.space.completed(schedule) for schedule in self._best(self.PARENTS) if self.tried[schedule] < float("inf")]
        pool = dict.fromkeys(self._random(self.POOL // 2, excluded))
        for _ in range(self.POOL // 2 if parents else 0):
            parent = self.rng.choice(parents)
            child = self.space.mutate(parent, self.rng) if self.rng.random() < 0.7 else self._cross(parent, self.rng.choice(parents))
            if child not in self.tried and child not in excluded:
                pool[child] = None
        return list(pool)

    def _cross(self, mother: KnobSchedule, father: KnobSchedule) -> KnobSchedule:
        knobs = {name: self.rng.choice((value, father.values[name])) for name, value in mother.knobs}
        child = self.space.schedule(knobs)
        return child if self.space.fits(knobs) else mother
