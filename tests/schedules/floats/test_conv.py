"""Convolutions that are no matrix product: which schedules a search tries, and the digits of long sums."""

from __future__ import annotations

from pathlib import Path

import pytest
from host_kernels import run_on_host

from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.precision import FLOAT16
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import template_for, template_named


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


@pytest.mark.parametrize("k_block", [0, 32, 64])
def test_long_sums_in_half_precision_are_added_up_in_chains(k_block: int, tmp_path: Path) -> None:
    """Also where a tap has no more terms than a chain, and partial sums wait in the output: one after another, errors are 1 % and more."""
    task = Task((Conv2d(7, 6, 256, 16, (3, 3), padding=(1, 1, 1, 1)),), FLOAT16.name, machine=machine_of("cortex-a76"))
    template = template_for(task)
    assert template is not None and template.name == "conv"
    space = template.space(task)
    assert space is not None
    schedule = space.schedule({**space.default.values, "k_block": k_block})
    assert run_on_host(task, schedule, tmp_path / "kernel.so") <= 3e-3
