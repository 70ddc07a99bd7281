"""Checks of every template's space."""

from __future__ import annotations

import json
import random

import numpy as np

from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.serial import schedule_from_json, schedule_to_json, task_from_json, task_to_json
from tvmmobile.schedules import KnobSchedule, Space, Template


def check_members(template: Template, task: Task, space: Space) -> list[KnobSchedule]:
    """Return the schedules of a task's space: all different, with equally many finite features, and unchanged by being written and read."""
    members = list(space)
    assert len(members) == len(set(members)) and space.default in set(members)
    features = [template.features(task, schedule.values) for schedule in members]
    assert len({len(values) for values in features}) == 1 and np.isfinite(features).all()
    assert all(space.mutate(schedule, random.Random(1)) in set(members) for schedule in members[:5])
    assert all(schedule_from_json(json.loads(json.dumps(schedule_to_json(schedule)))) == schedule for schedule in members[:5])
    assert task_from_json(task_to_json(task)) == task
    return members
