"""Products of pairs of pixels with `SMMLA`, laid out or as they are stored."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from assembly import hottest_loop
from integer_kernels import assembly_on, check, check_extremes, in_groups, window

from tvmmobile.devices.registry import find_device
from tvmmobile.graph.layers import Conv2d, Dense, IntegerFacts
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.tasks import Task
from tvmmobile.running.bench import started_agents
from tvmmobile.running.measure import Agents
from tvmmobile.schedules import templates_for

CORE = "neoverse-n2"


@pytest.fixture(scope="module")
def newer() -> Iterator[Agents]:
    with started_agents(find_device("cobalt100-virtual")) as found:
        yield found


def convolution(rng: random.Random) -> Conv2d:
    """Draw odd and even numbers of pixels and groups of input channels, and channels that do not fill vectors."""
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


def taker(rng: random.Random) -> tuple[Conv2d, str]:
    """Return a layer, and a template that takes it."""
    return rng.choice(
        (
            (convolution(rng), "pair_product"),
            (convolution(rng), "pair_window"),
            (window(rng), "pair_window"),
            (in_groups(rng), "pair_window"),
        )
    )


@pytest.mark.virtual
@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(6, 80))])
def test_values(seed: int, newer: Agents, tmp_path: Path) -> None:
    check(newer, *taker(random.Random(seed)), tmp_path, seed, 1 + seed % 3)


@pytest.mark.virtual
@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (Conv2d(3, 5, 16, 24, residual=True, integers=IntegerFacts(addend=True)), "pair_product"),
        (Conv2d(2, 3, 264, 37, clamp="hswish"), "pair_product"),
        (Conv2d(4, 5, 24, 44, integers=IntegerFacts(addend=True, bounded=True)), "pair_product"),
        (Conv2d(5, 7, 300, 19, integers=IntegerFacts(bounded=True)), "pair_window"),
        (Conv2d(4, 7, 12, 20, stride=(2, 1), writes="float32"), "pair_window"),
        (Conv2d(3, 5, 37, 28, padding=(1, 0, 2, 1), integers=IntegerFacts(wide=True)), "pair_window"),
    ],
    ids=lambda case: case if isinstance(case, str) else case.name,
)
def test_steps_and_addends(layer: Conv2d, name: str, newer: Agents, tmp_path: Path) -> None:
    """Also 1×1 convolutions whose input channels do not divide by 8, or that reach into padding."""
    check(newer, layer, name, tmp_path)


@pytest.mark.virtual
@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (Conv2d(5, 7, 16, 16, (3, 3), (1, 1), (1, 1, 1, 1), 16), "dot_depthwise"),
        (Conv2d(6, 18, 3, 12, (3, 3), (2, 2), (1, 1, 1, 1), in_layout="NCHW", reads="uint8"), "dot_image"),
        (Dense(64, 20, integers=IntegerFacts(addend=True)), "dot_product"),
    ],
    ids=lambda case: case if isinstance(case, str) else case.name,
)
def test_constants_that_are_loaded_again(layer: Conv2d | Dense, name: str, newer: Agents, tmp_path: Path) -> None:
    """On this core in templates with SDOT, too."""
    check(newer, layer, name, tmp_path)


@pytest.mark.virtual
@pytest.mark.parametrize("name", ["pair_product", "pair_window"])
def test_extremes(name: str, newer: Agents, tmp_path: Path) -> None:
    """256 of the largest products are just below 2^22, where sums begin at the bits of a float."""
    check_extremes(newer, Conv2d(2, 3, 256, 12), name, tmp_path)


@pytest.mark.parametrize(("rows", "columns"), [(4, 16), (4, 24), (6, 16)])
def test_assembly(rows: int, columns: int) -> None:
    """For 16 input channels a load of each pixel and of each pair of channels twice, two permutations a pair of pixels, no spills."""
    loop = hottest_loop(assembly_on(Conv2d(14, 14, 512, 512), CORE, "pair_product", rows=rows, columns=columns), "smmla")
    products = sum(text.startswith("smmla\t") for text in loop.instructions)
    assert products == rows * columns // 2 and loop.stack_accesses == []
    assert len(loop.instructions) - products <= 2 * rows + columns + 6


def test_assembly_of_pixels_that_are_laid_out() -> None:
    """The loop only loads and multiplies, and start values are loaded for each pair of pixels rather than copied."""
    knobs = {"rows": 4, "columns": 16}
    loop = hottest_loop(assembly_on(Conv2d(14, 14, 512, 512), CORE, "pair_window", **knobs), "smmla")
    others = [line for line in loop.instructions if not line.startswith(("smmla\t", "ld"))]
    assert len(others) <= 4 and not [line for line in others if re.search(r"\bv\d", line)] and loop.stack_accesses == []
    whole = hottest_loop(assembly_on(Conv2d(14, 14, 32, 64), CORE, "pair_window", **knobs), "smmla").instructions
    assert sum(line.startswith("smmla\t") for line in whole) == 64 and not [line for line in whole if line.startswith("mov\tv")]


def test_who_takes_what() -> None:
    """SDOT remains to be tried beside it, and has classifiers."""
    layers = (Conv2d(4, 4, 16, 8), Conv2d(4, 4, 12, 8), Conv2d(4, 4, 9, 8), Conv2d(8, 8, 16, 8, (3, 3)), Dense(64, 10))
    takers = [[one.name for one in templates_for(Task((layer,), "int8", machine=machine_of(CORE)))] for layer in layers]
    assert takers == [
        ["pair_window", "pair_product", "dot_product"],
        ["pair_window", "dot_product"],
        ["pair_window", "dot_window"],
        ["pair_window", "dot_window"],
        ["dot_product"],
    ]
    older = [Task((layer,), "int8", machine=machine_of("cortex-a76")) for layer in layers]
    assert not {one.name for task in older for one in templates_for(task)} & {"pair_window", "pair_product"}
