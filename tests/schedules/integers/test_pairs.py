"""Products of pairs of pixels with `SMMLA`: no board has a core with it, so QEMU's most capable one computes their values."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from assembly import hottest_loop
from integer_kernels import assembly_on, check, check_extremes

from tvmmobile.devices.protocol import DeviceProfile
from tvmmobile.devices.virtual_board import VirtualDevice
from tvmmobile.graph.layers import Conv2d, Dense, IntegerFacts
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.tasks import Task
from tvmmobile.running.bench import started_agents
from tvmmobile.running.measure import Agents
from tvmmobile.schedules import templates_for
from tvmmobile.virtual.board import load_board

CORE = "cortex-a715"


class Newer(VirtualDevice):
    """A board whose core is newer than its model of time, which is not what is asked for here."""

    @property
    def profile(self) -> DeviceProfile:
        """See `VirtualDevice.profile`."""
        profile = super().profile
        return replace(profile, target={**profile.target, "mcpu": CORE}, machine=machine_of(CORE))


@pytest.fixture(scope="module")
def newer() -> Iterator[Agents]:
    board = load_board("pi5").model_copy(update={"qemu_cpu": "max"})
    with started_agents(Newer("newer-virtual", board)) as found:
        yield found


def convolution(rng: random.Random) -> Conv2d:
    """Of odd and even numbers of pixels and groups of input channels, and channels that do not fill vectors."""
    depth, channels = 8 * rng.choice((1, 2, 3, 5, 12, 40)), rng.choice((3, 8, 12, 20, 37, 64))
    wide, stride = depth <= 256 and rng.random() < 0.3, rng.choice((1, 1, 2))
    return Conv2d(
        rng.randint(1, 9),
        rng.randint(1, 9),
        depth,
        channels,
        stride=(stride, stride),
        integers=IntegerFacts(wide=wide, bounded=rng.random() < 0.5),
    )


@pytest.mark.virtual
@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(3, 30))])
def test_values(seed: int, newer: Agents, tmp_path: Path) -> None:
    check(newer, convolution(random.Random(seed)), "pair_product", tmp_path, seed, 1 + seed % 3)


@pytest.mark.virtual
@pytest.mark.parametrize(
    "layer", [Conv2d(3, 5, 16, 24, residual=True, integers=IntegerFacts(addend=True)), Conv2d(2, 3, 264, 37, clamp="hswish")], ids=str
)
def test_steps_and_addends(layer: Conv2d, newer: Agents, tmp_path: Path) -> None:
    check(newer, layer, "pair_product", tmp_path)


@pytest.mark.virtual
def test_extremes(newer: Agents, tmp_path: Path) -> None:
    """256 of the largest products are just below 2^22, where sums begin at the bits of a float."""
    check_extremes(newer, Conv2d(2, 3, 256, 12), "pair_product", tmp_path)


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (4, 16), (6, 8)])
def test_assembly(rows: int, columns: int) -> None:
    """For 16 input channels a load of each pixel and of each pair of channels twice, two permutations a pair of pixels, no spills."""
    loop = hottest_loop(assembly_on(Conv2d(14, 14, 512, 512), CORE, "pair_product", rows=rows, columns=columns), "smmla")
    products = sum(text.startswith("smmla\t") for text in loop.instructions)
    assert products == rows * columns // 2 and loop.stack_accesses == []
    assert len(loop.instructions) - products <= 2 * rows + columns + 6


def test_who_takes_what() -> None:
    """SDOT remains to be tried beside it, and has classifiers and channels that come in fours."""
    layers = (Conv2d(4, 4, 16, 8), Conv2d(4, 4, 12, 8), Dense(64, 10))
    takers = [[one.name for one in templates_for(Task((layer,), "int8", machine=machine_of(CORE)))] for layer in layers]
    assert takers == [["pair_product", "dot_product"], ["dot_product"], ["dot_product"]]
