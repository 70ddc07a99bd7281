"""Integer kernels that look up their results in a table compute what `kernels.integers` does, bit for bit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from integer_kernels import assembly_on, check, window

from tvmmobile.devices.registry import find_device
from tvmmobile.graph.integers import LOOKUP, with_facts
from tvmmobile.graph.layers import Conv2d, Dense, IntegerFacts
from tvmmobile.graph.tasks import Task
from tvmmobile.running.bench import started_agents
from tvmmobile.running.measure import Agents
from tvmmobile.schedules import templates_for

pytestmark = pytest.mark.virtual

#: By the templates that take them, behind `dot_` or `long_`: sums that are converted or not, channels that fill no vector, a residual.
LAYERS = (
    (Conv2d(5, 3, 16, 37), "product"),
    (Conv2d(2, 3, 264, 20, residual=True), "product"),
    (Dense(264, 19, integers=IntegerFacts(addend=True)), "product"),
    (Conv2d(7, 6, 16, 16, (3, 3), (1, 1), (1, 1, 1, 1), 16, integers=IntegerFacts(wide=True)), "depthwise"),
    (Conv2d(7, 6, 24, 24, (3, 4), (2, 2), (1, 2, 1, 2), 24, residual=True), "depthwise"),
    (Conv2d(6, 17, 3, 12, (3, 3), (2, 2), (0, 0, 1, 1), in_layout="NCHW", reads="float32"), "image"),
    (Conv2d(6, 7, 16, 20, (3, 3), (1, 1), (1, 1, 1, 1)), "window"),
)


@pytest.fixture(scope="module")
def boards() -> Iterator[dict[str, Agents]]:
    """Cores with SDOT, without it, and with SMMLA."""
    names = {"dot": "pi5-virtual", "long": "pi4-virtual", "pair": "cobalt100-virtual"}
    with ExitStack() as started:
        yield {kind: started.enter_context(started_agents(find_device(name))) for kind, name in names.items()}


@pytest.mark.parametrize(("layer", "template"), LAYERS, ids=lambda case: case if isinstance(case, str) else case.name)
def test_values(layer: Conv2d | Dense, template: str, boards: dict[str, Agents], tmp_path: Path) -> None:
    for number, kind in enumerate(("dot", "long")):
        check(boards[kind], replace(layer, clamp=LOOKUP), f"{kind}_{template}", tmp_path / kind, threads=1 + number)


@pytest.mark.parametrize("seed", [*range(2), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 40))])
def test_values_of_windows(seed: int, boards: dict[str, Agents], tmp_path: Path) -> None:
    layer = with_facts(replace(window(random.Random(seed)), clamp=LOOKUP), bounded=False)
    for kind, agents in boards.items():
        check(agents, layer, f"{kind}_window", tmp_path / kind, seed)


def test_values_of_a_fused_pair(boards: dict[str, Agents], tmp_path: Path) -> None:
    """Each layer has its own table."""
    first = Conv2d(9, 8, 16, 16, (3, 3), (1, 1), (1, 1, 1, 1), 16, clamp=LOOKUP)
    check(boards["long"], (first, Conv2d(9, 8, 16, 24, clamp=LOOKUP)), "long_separable", tmp_path, seed=1)


def test_whose_results_are_looked_up(boards: dict[str, Agents]) -> None:
    """Results in float32 have no table, and layers in float32 do not know one."""
    machine = boards["dot"].profile.machine
    assert templates_for(Task((Conv2d(2, 3, 16, 12, clamp=LOOKUP, writes="float32"),), "int8", machine=machine)) == []
    assert templates_for(Task((Conv2d(2, 3, 16, 12, clamp=LOOKUP),), machine=machine)) == []


def test_assembly() -> None:
    """Sixteen results take four look-ups, and four times as many load the table once."""
    lines = assembly_on(Conv2d(14, 14, 64, 64, clamp=LOOKUP), "cortex-a76", "dot_product", rows=4, columns=16)
    found = [line.split("\t")[1] for line in lines.splitlines() if line.startswith(("\ttbl\t", "\tldp\tq16", "\tldp\tq18"))]
    assert (found.count("tbl"), found.count("ldp")) == (16, 8)
