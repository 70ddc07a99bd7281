"""Tests of the first choices for several threads, which share what memory delivers."""

from __future__ import annotations

from dataclasses import replace

from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.floats.conv import Conv
from tvmmobile.schedules.floats.pointwise import Pointwise
from tvmmobile.schedules.floats.winograd import Winograd
from tvmmobile.schedules.floats.winograd_nest import IN_TURN
from tvmmobile.schedules.integers.window import DotWindow, LongWindow


def _task(side: int, channels: int, threads: int) -> Task:
    layer = Conv2d(side, side, channels, channels, (3, 3), (1, 1), (1, 1, 1, 1))
    return Task((layer,), threads=threads, machine=machine_of("cortex-a72"))


def test_weights_that_all_threads_wait_for_are_not_made_larger() -> None:
    """Transformed weights of ResNet-18's last layers took a Pi 4's four threads 12.3 ms; a direct convolution takes 4.1."""
    assert Winograd().promises(_task(7, 512, 1)) and not Winograd().promises(_task(7, 512, 4))
    assert Winograd().promises(_task(28, 128, 4))  # few weights


def test_threads_transform_inputs_together_where_each_would_read_all_weights() -> None:
    """14×14, 256 → 256: 2.7 ms on a Pi 4 (modelled); 5.0 with blocks of tiles for each thread, 5.4 where each transformed all inputs."""
    usual = {side: Winograd().space(_task(side, channels, 4)).usual["axis"] for side, channels in ((14, 256), (28, 128), (56, 64))}  # type: ignore[union-attr]
    assert usual == {14: IN_TURN, 28: IN_TURN, 56: 0}


def test_threads_read_weights_of_their_own_where_that_shares_the_work_as_well() -> None:
    usual = {(side, threads): Conv().space(_task(side, 256, threads)).usual["axis"] for side in (7, 14, 56) for threads in (1, 4)}  # type: ignore[union-attr]
    assert usual == {(side, threads): int(threads == 4) for side in (7, 14, 56) for threads in (1, 4)}


def test_threads_share_panels_where_few_tiles_do_not_divide_among_them() -> None:
    """On a Pi 4 (modelled), the first takes 4.3 ms by tiles and 2.6 by panels, the second 1.0 and 0.3: with a stride, a line is a tile."""
    layers = {
        "few pixels": (Conv2d(7, 7, 512, 2048, (1, 1)), 1),
        "stride": (Conv2d(14, 14, 256, 512, (1, 1), (2, 2)), 1),
        "few panels": (Conv2d(28, 28, 512, 128, (1, 1)), 0),
        "many pixels": (Conv2d(28, 28, 128, 512, (1, 1)), 0),
        "as even, more channels": (Conv2d(14, 14, 1024, 256, (1, 1)), 1),
    }
    usual = {name: Pointwise().space(Task((layer,), threads=4)).usual["axis"] for name, (layer, _) in layers.items()}  # type: ignore[union-attr]
    assert usual == {name: axis for name, (_, axis) in layers.items()}


def test_threads_with_caches_of_their_own_read_integer_weights_of_their_own() -> None:
    """7×7, 512 → 512: 541 µs on a Pi 5 (modelled), 612 where each thread read all weights; on a Pi 4, with one L2, 3954 and 2800."""
    usual = {
        (mcpu, channels): template.space(replace(_task(14, channels, 4), dtype="int8", machine=machine_of(mcpu))).usual["axis"]  # type: ignore[union-attr]
        for mcpu, template in (("cortex-a76", DotWindow()), ("cortex-a72", LongWindow()))
        for channels in (64, 512)
    }
    assert usual == {(mcpu, channels): int((mcpu, channels) == ("cortex-a76", 512)) for mcpu, channels in usual}
