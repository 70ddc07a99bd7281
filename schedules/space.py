"""Knobs, schedules as frozen values, and the finite spaces of schedules that a search chooses from."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property


def round_up(value: int, step: int) -> int:
    """Return `value` rounded up to a multiple of `step`."""
    return -(-value // step) * step


def up_to(options: tuple[int, ...], limit: int, each: int = 1) -> tuple[int, ...]:
    """Return the options times `each` that do not exceed `limit`; only the first if all do."""
    return tuple(option * each for option in options if option * each <= limit) or (options[0] * each,)


def waste(extent: int, tile: int) -> float:
    """Return the share of the work of all tiles that lies beyond the extent: 0 if the tile divides it."""
    return (round_up(extent, tile) - extent) / round_up(extent, tile)


#: A value for each knob of a template, by name.
Knobs = Mapping[str, int]


@dataclass(frozen=True, order=True)
class KnobSchedule:
    """A schedule as *(template, version, knobs)*: a value that can be compared and printed, and builds the same kernel everywhere."""

    template: str
    version: int
    knobs: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        return f"{self.template}@{self.version}({', '.join(f'{name}={value}' for name, value in self.knobs)})"

    @property
    def values(self) -> dict[str, int]:
        """Knob values by name."""
        return dict(self.knobs)


def _steps_from(wanted: int | None, choices: tuple[int, ...]) -> dict[int, float]:
    """Map each value of a knob to its distance in steps from the value nearest to `wanted`, plus a little if it is not `wanted` itself."""
    if wanted is None:
        return dict.fromkeys(choices, 0.01)
    target = min(range(len(choices)), key=lambda i: abs(choices[i] - wanted))
    return {value: abs(i - target) + (0.01 if value != wanted else 0.0) for i, value in enumerate(choices)}


@dataclass(frozen=True)
class Space:
    """The schedules of one template for one task.

    Attributes:
        template, version: name and version of the template.
        options: values of each knob, in the knob's natural order.
        fits: returns whether a combination may be fast, e.g. whether its tile fits the registers. A search skips the others, although
            every combination is correct.
        usual: knob values that are good for most tasks; a search without records starts near them.
        optional: knobs that only some cores' spaces have, with their values; schedules are valid with and without them.
        elsewhere: additional values of knobs that only other cores' spaces have.
    """

    template: str
    version: int
    options: Mapping[str, tuple[int, ...]]
    fits: Callable[[Knobs], bool]
    usual: Knobs
    optional: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    elsewhere: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[KnobSchedule]:
        """Yield every combination that fits; all combinations if none does."""
        return iter(self._pruned or list(self.unpruned()))

    def __len__(self) -> int:
        return len(self._pruned) or sum(1 for _ in self.unpruned())

    def size(self, most: int) -> int:
        """Return the number of members, or `most` if there are more; much faster than `len` for thousands of members."""
        fitting = (knobs for knobs in self._combinations() if self.fits(knobs))
        return sum(1 for _ in itertools.islice(fitting, most)) or min(len(self), most)

    def __contains__(self, schedule: object) -> bool:
        if not isinstance(schedule, KnobSchedule) or (schedule.template, schedule.version) != (self.template, self.version):
            return False
        allowed, values = {**self.options, **self.optional}, schedule.values
        named = [[name for name in names if name not in self.optional] for names in (values, self.options)]
        return named[0] == named[1] and all(value in (*allowed[name], *self.elsewhere.get(name, ())) for name, value in values.items())

    @cached_property
    def _pruned(self) -> list[KnobSchedule]:
        return [self.schedule(knobs) for knobs in self._combinations() if self.fits(knobs)]

    def unpruned(self) -> Iterator[KnobSchedule]:
        """Yield every combination, whether it fits or not."""
        return map(self.schedule, self._combinations())

    def _combinations(self) -> Iterator[dict[str, int]]:
        for values in itertools.product(*self.options.values()):
            yield dict(zip(self.options, values, strict=True))

    def schedule(self, knobs: Knobs) -> KnobSchedule:
        """Return the schedule with these knob values."""
        return KnobSchedule(self.template, self.version, tuple((name, knobs[name]) for name in self.options))

    @property
    def default(self) -> KnobSchedule:
        """The member closest to the usual knob values."""
        member = self.nearest(self.schedule(self.usual))
        assert member is not None, f"the space of {self.template} is empty"
        return member

    def nearest(self, schedule: KnobSchedule) -> KnobSchedule | None:
        """Return the member with the fewest steps along the knobs' options from a schedule for another shape; `None` if its template or
        version differs.
        """
        if (schedule.template, schedule.version) != (self.template, self.version):
            return None
        steps = {name: _steps_from(schedule.values.get(name), choices) for name, choices in self.options.items()}
        return min(self, key=lambda member: sum(steps[name][value] for name, value in member.knobs), default=None)

    def completed(self, schedule: KnobSchedule) -> KnobSchedule:
        """Return the schedule, or the nearest member if it lacks an optional knob of this space."""
        return schedule if schedule.values.keys() >= self.options.keys() else self.nearest(schedule) or schedule

    def mutate(self, schedule: KnobSchedule, rng: random.Random) -> KnobSchedule:
        """Return the schedule with one random knob set to another value that fits; the schedule itself if there is none.

        The schedule must have all knobs of this space, see `completed`.
        """
        names = [name for name, choices in self.options.items() if len(choices) > 1]
        rng.shuffle(names)
        for name in names:
            moved = [{**schedule.values, name: value} for value in self.options[name] if value != schedule.values[name]]
            allowed = [self.schedule(knobs) for knobs in moved if not self._pruned or self.fits(knobs)]
            if allowed:
                return rng.choice(allowed)
        return schedule
