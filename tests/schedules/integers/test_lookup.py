"""Integer kernels that look up their results in a table compute what `kernels.integer_reference` does, bit for bit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from integer_kernels import assembly_on, check, window

from tvmmobile.devices.registry import find_device
from tvmmobile.graph.integers import LOOKUP
from tvmmobile.graph.layers import Conv2d, Dense, IntegerFacts
from tvmmobile.graph.tasks import Task
from tvmmobile.running.bench import started_agents
from tvmmobile.running.measure import Agents
from tvmmobile.schedules import templates_for

pytestmark = pytest.mark.virtual

_LONG = pytest.mark.long
#: With the templates that take them: sums that are converted or not, channels that fill no vector, residuals, addends.
CASES = (
    (Conv2d(5, 3, 16, 37), "dot_product"),
    pytest.param(Conv2d(2, 3, 264, 20, residual=True), "dot_product", marks=_LONG),
    (Conv2d(2, 3, 264, 20, residual=True), "long_product"),
    pytest.param(Dense(264, 19, integers=IntegerFacts(addend=True)), "long_product", marks=_LONG),
    (Conv2d(7, 6, 16, 16, (3, 3), (1, 1), (1, 1, 1, 1), 16, integers=IntegerFacts(wide=True)), "long_depthwise"),
    (Conv2d(7, 6, 24, 24, (3, 4), (2, 2), (1, 2, 1, 2), 24, residual=True), "dot_depthwise"),
    (Conv2d(6, 17, 3, 12, (3, 3), (2, 2), (0, 0, 1, 1), in_layout="NCHW", reads="float32"), "dot_image"),
    pytest.param(Conv2d(6, 17, 3, 12, (3, 3), (2, 2), (0, 0, 1, 1), in_layout="NCHW", reads="float32"), "long_image", marks=_LONG),
    pytest.param(Conv2d(3, 5, 16, 24), "pair_product", marks=_LONG),
)


@pytest.fixture(scope="module")
def boards() -> Iterator[dict[str, Agents]]:
    """Cores with SDOT, without it, and with SMMLA."""
    names = {"dot": "pi5-virtual", "long": "pi4-virtual", "pair": "cobalt100-virtual"}
    with ExitStack() as started:
        yield {kind: started.enter_context(started_agents(find_device(name))) for kind, name in names.items()}


@pytest.mark.parametrize(("layer", "template"), CASES, ids=lambda case: case if isinstance(case, str) else case.name)
def test_values(layer: Conv2d | Dense, template: str, boards: dict[str, Agents], tmp_path: Path) -> None:
    check(boards[template.split("_")[0]], replace(layer, clamp=LOOKUP), template, tmp_path, threads=1 + layer.output_shape[-1] % 2)


@pytest.mark.parametrize("kind", ["dot", "long", "pair"])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=_LONG) for seed in range(1, 30))])
def test_values_of_windows(kind: str, seed: int, boards: dict[str, Agents], tmp_path: Path) -> None:
    layer = replace(window(random.Random(seed)), clamp=LOOKUP).with_facts(bounded=False)
    check(boards[kind], layer, f"{kind}_window", tmp_path, seed)


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
    """A tile of 64 results takes four look-ups for each 16, all with the same registers."""
    lines = assembly_on(Conv2d(14, 14, 64, 64, clamp=LOOKUP), "cortex-a76", "dot_product", rows=4, columns=16).splitlines()
    tables = [line.split("{")[1].split("}")[0] for line in lines if line.startswith("\ttbl\t")]
    assert tables == [" v16.16b, v17.16b, v18.16b, v19.16b "] * 16
