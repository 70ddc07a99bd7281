"""Depthwise and 1×1 convolution of integers in one kernel: whose pairs it takes, and what it computes, bit for bit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from integer_kernels import check

from tvmmobile.devices.registry import find_device
from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.tasks import Task
from tvmmobile.running.bench import started_agents
from tvmmobile.running.measure import Agents
from tvmmobile.schedules import templates_for
from tvmmobile.schedules.fused.separable import LEAST_BYTES


@pytest.fixture(scope="module", params=["pi4-virtual", "pi3bplus-virtual"])
def board(request: pytest.FixtureRequest) -> Iterator[Agents]:
    """A core that issues out of order, and one in order."""
    with started_agents(find_device(request.param)) as found:
        yield found


def pair(height: int, width: int, inputs: int, outputs: int, stride: int = 1) -> tuple[Conv2d, Conv2d]:
    """Return a 3×3 depthwise convolution and the 1×1 convolution that reads it."""
    first = Conv2d(height, width, inputs, inputs, (3, 3), (stride, stride), (1, 1, 1, 1), inputs)
    return first, Conv2d(first.out_height, first.out_width, inputs, outputs)


@pytest.mark.parametrize("layers", [pair(112, 112, 32, 64), pair(112, 112, 64, 128, 2), pair(56, 56, 128, 128), pair(7, 7, 160, 40)])
@pytest.mark.parametrize("threads", [1, 4])
def test_spaces(layers: tuple[Conv2d, Conv2d], threads: int) -> None:
    """Strips stay in half of the cache; features are equally many."""
    task = Task(layers, "int8", threads, machine_of("cortex-a72"))
    (template,) = templates_for(task)
    space = template.space(task)
    assert template.name == "long_separable" and space is not None and space.default in list(space)
    lengths = set()
    for schedule in list(space)[::7]:
        knobs = schedule.values
        between = knobs["strip"] * -(-layers[1].width // knobs["parts"]) * layers[0].out_channels
        assert LEAST_BYTES <= between <= task.machine.l1d_bytes // 2 and knobs["dw_rows"] <= knobs["strip"]
        lengths.add(len(template.features(task, knobs)))
    assert len(lengths) == 1


def test_whose_pairs_it_leaves() -> None:
    """On cores with SDOT, with weights that no cache keeps, with a residual between both, and layers in the other order."""
    first, second = pair(14, 14, 64, 64)
    task = Task((first, second), "int8", machine=machine_of("cortex-a72"))
    large = pair(14, 14, 512, 512)
    others = [
        replace(task, machine=machine_of("cortex-a76")),
        replace(task, region=large),
        replace(task, region=(second, first)),
    ]
    others.append(replace(task, region=(replace(first, residual=True), second)))
    assert templates_for(task) and not any(map(templates_for, others))


ONE, TWO = pair(9, 13, 32, 20), pair(17, 15, 40, 24, 2)


@pytest.mark.virtual
@pytest.mark.parametrize(
    ("layers", "threads"),
    [
        ((ONE[0], replace(ONE[1], residual=True)), 1),
        ((TWO[0].with_facts(wide=True, bounded=True), replace(TWO[1], clamp="hswish")), 2),
    ],
    ids=["residual", "curve"],
)
def test_values(layers: tuple[Conv2d, Conv2d], threads: int, board: Agents, tmp_path: Path) -> None:
    check(board, layers, "long_separable", tmp_path, threads=threads)


@pytest.mark.long
@pytest.mark.virtual
def test_values_of_many_shapes(board: Agents, tmp_path: Path) -> None:
    for seed in range(20):
        rng = random.Random(seed)
        channels = 8 * rng.choice((4, 7, 20)), 4 * rng.randint(1, 12) + rng.choice((0, 0, 3))
        first, second = pair(rng.randint(8, 20), rng.randint(8, 20), *channels, rng.choice((1, 1, 2)))
        first = first.with_facts(wide=rng.random() < 0.2, bounded=rng.random() < 0.5)
        second = replace(second, residual=rng.random() < 0.3).with_facts(addend=rng.random() < 0.3, bounded=rng.random() < 0.5)
        check(board, (first, second), "long_separable", tmp_path, seed, 1 + seed % 3)
