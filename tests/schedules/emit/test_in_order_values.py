"""Kernels for cores that issue in order, under QEMU: every schedule computes what PyTorch computes, whatever the shape and the knobs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from integer_kernels import output_on

from tvmmobile.devices.registry import find_device
from tvmmobile.graph.layers import Conv2d, Layer, Recurrent
from tvmmobile.graph.layers.recurrent import BOTH, GATES
from tvmmobile.graph.layouts import blocked
from tvmmobile.graph.precision import FLOAT16
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.reference import make_inputs, make_parameters
from tvmmobile.running.bench import started_agents
from tvmmobile.running.measure import Agents
from tvmmobile.schedules import templates_for
from tvmmobile.tuning.search.trial import TrialJob, run_trial

pytestmark = pytest.mark.virtual
RELU6 = (0.0, 6.0)


@pytest.fixture(scope="module")
def rk3566() -> Iterator[Agents]:
    """Yield agents of a board whose core issues in order and has half precision."""
    with started_agents(find_device("rk3566-virtual")) as found:
        yield found


@pytest.fixture(scope="module")
def agents() -> Iterator[Agents]:
    """Yield agents of a board whose core issues in order."""
    with started_agents(find_device("pi3bplus-virtual")) as found:
        yield found


def region(kind: str, rng: random.Random) -> tuple[Layer, ...]:
    """Layers of a kind, of odd sizes, channels together or in blocks."""
    height, width, stride = rng.randint(3, 13), rng.randint(3, 13), rng.choice((1, 1, 2))
    depth, channels = rng.choice((8, 32, 34, 64, 96)), rng.choice((8, 32, 36, 64))
    layouts = [blocked(32) if count % 32 == 0 and rng.random() < 0.5 else "NHWC" for count in (depth, channels)]
    if kind == "pointwise":
        return (Conv2d(height, width, depth, channels, stride=(stride, stride), clamp=RELU6, in_layout=layouts[0], out_layout=layouts[1]),)
    if kind == "image":
        return (Conv2d(2 * height + 8, 2 * width + 8, 3, channels, (3, 3), (2, 2), (1, 1, 1, 1), 1, RELU6, "NCHW"),)
    if kind == "chain":
        first = Conv2d(2 * height + 8, 2 * width + 8, 3, rng.choice((8, 32)), (3, 3), (2, 2), (1, 1, 1, 1), 1, RELU6, "NCHW")
        rows, columns, count = first.out_height, first.out_width, first.out_channels
        second = Conv2d(rows, columns, count, count, (3, 3), (1, 1), (1, 1, 1, 1), count, RELU6)
        return first, second, *([Conv2d(rows, columns, count, channels, clamp=RELU6)] if rng.random() < 0.5 else [])
    if kind in ("conv", "winograd"):
        stride = 1 if kind == "winograd" else stride
        return (Conv2d(height, width, depth, channels, (3, 3), (stride, stride), (1, 1, 1, 1), clamp=RELU6),)
    if kind == "recurrent":
        return (Recurrent(rng.choice(list(GATES)), rng.randint(1, 4), rng.choice((1, 2, 6)), rng.randint(9, 40), BOTH),)
    if kind == "strassen":
        return (Conv2d(height, width, 128, 128, clamp=RELU6, in_layout=rng.choice(("NHWC", blocked(32)))),)
    kernel = rng.choice((3, 5))
    padding = (kernel // 2,) * 4
    first = Conv2d(height, width, depth, depth, (kernel, kernel), (stride, stride), padding, depth, RELU6, layouts[0])
    if kind == "depthwise":
        return (first,)
    return (first, Conv2d(first.out_height, first.out_width, depth, channels, clamp=RELU6, out_layout=layouts[1]))


def check(kind: str, seed: int, agents: Agents, dtype: str = "float32") -> None:
    """Random members of the spaces of all templates that take a random region, for either kind of core in order."""
    rng = random.Random(f"{kind} {seed}")
    task = Task(region(kind, rng), dtype, rng.choice((1, 1, 2)), agents.profile.machine)
    for template in templates_for(task):
        space = template.space(task)
        assert space is not None
        chosen = rng.choice(list(space)).values
        if "inner" not in chosen:
            continue
        schedule = space.schedule({**chosen, "inner": rng.choice((1, 2))})
        outcome = run_trial(TrialJob(task, schedule, None, agents, 60.0))
        assert outcome.error is None, f"{task.name} {schedule}: {outcome.error}"


KINDS = ("pointwise", "depthwise", "image", "chain", "conv", "winograd", "strassen", "separable", "recurrent")


@pytest.mark.parametrize("kind", KINDS[:4])
def test_values(kind: str, agents: Agents) -> None:
    check(kind, 0, agents)


@pytest.mark.parametrize("kind", ["pointwise", "depthwise"])
def test_values_in_half_precision(kind: str, rk3566: Agents) -> None:
    check(kind, 0, rk3566, FLOAT16.name)


@pytest.mark.parametrize("depth", [128, 200, 264, 520])
def test_chains_of_sums(depth: int, rk3566: Agents) -> None:
    """Two whole chains, chains that are not whole, channels that do not fill the last pass, and a last chain of one pass, for LLVM."""
    layer = Conv2d(5, 5, depth, 24, clamp=RELU6, in_layout=blocked(32) if depth % 32 == 0 else "NHWC")
    task = Task((layer,), FLOAT16.name, machine=rk3566.profile.machine)
    [template] = templates_for(task)
    space = template.space(task)
    assert space is not None
    for rows, columns in ((9, 8), (8, 16)):
        knobs = {**space.default.values, "rows": rows, "columns": columns, "k_block": 0}
        outcome = run_trial(TrialJob(task, space.schedule(knobs), None, rk3566, 60.0))
        assert outcome.error is None, f"{knobs}: {outcome.error}"


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_values_of_many_shapes_in_half_precision(kind: str, rk3566: Agents) -> None:
    for seed in range(1, 25):
        check(kind, seed, rk3566, FLOAT16.name)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_values_of_many_shapes(kind: str, agents: Agents) -> None:
    for seed in range(1, 25):
        check(kind, seed, agents)


def test_sums_of_an_image_are_added_in_one_order(agents: Agents, tmp_path: Path) -> None:
    """Whatever the schedule, so that what an int8 network stores behind them does not depend on it."""
    one = Task((Conv2d(20, 24, 3, 16, (3, 3), (2, 2), (1, 1, 1, 1), 1, in_layout="NCHW"),), machine=agents.profile.machine)
    parameters, inputs, outputs = make_parameters(one), make_inputs(one), set()
    for threads in (1, 2):
        task = replace(one, threads=threads)
        [template] = templates_for(task)
        space = template.space(task)
        assert space is not None
        schedules = random.Random(threads).sample(list(space), 4)
        outputs |= {output_on(agents, task, schedule, parameters, inputs, tmp_path).tobytes() for schedule in schedules}
    assert len(outputs) == 1
