"""Convolutions that are no matrix product: which schedules a search tries."""

from __future__ import annotations

from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import template_named


def test_threads_read_an_image_once_that_no_cache_holds() -> None:
    """A Pi 5's four cores wait for memory otherwise; schedules of logs that read it for each panel stay what they are."""
    template = template_named("conv", 1)
    assert template is not None
    for side, threads, once in (320, 4, True), (320, 1, False), (80, 4, False):
        layer = Conv2d(side, side, 16, 32, kernel=(3, 3), stride=(2, 2), padding=(1, 1, 1, 1))
        space = template.space(Task((layer,), "float16", threads, machine=machine_of("cortex-a76")))
        assert space is not None
        again = [schedule for schedule in space if schedule.values["order"] or schedule.values["axis"]]
        assert bool(again) is not once and all(schedule in space for schedule in space.unpruned())
