"""Kernels in bfloat16 under QEMU, against float32: results are rounded once, whatever the shape and the knobs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from assembly import assembly_of, innermost_loops
from integer_kernels import output_on
from template_regions import PADDED, REGIONS, RELU6

from tvmmobile.devices.registry import find_device
from tvmmobile.graph.layers import Conv2d, Dense, Layer, Product, Recurrent, Softmax
from tvmmobile.graph.layers.kind import ConvertingLayer
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.precision import BFLOAT16, FLOAT16
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.reference import expected_output, make_inputs, make_parameters, relative_error
from tvmmobile.running.bench import started_agents
from tvmmobile.running.measure import Agents
from tvmmobile.schedules import TEMPLATES, template_for, templates_for

CORE = "neoverse-n2"
#: Of sums and of exponential functions in float32, as shares of the largest result.
SUMS = 1e-4
#: Templates that round in between, or have fewer digits than float32 in what they compute with.
SEVERAL_ROUNDINGS = ("separable", "chain", "resize", "pool", "mean_pool")
#: Those with precisions of their own, or for others.
OTHERS = (
    *("attention", "strassen", "winograd", "recurrent", "softmax", "batched_product", "digits"),
    *("sparse", "sparse_clusters", "sparse_separable"),
)
TAKING, QUICK = [template.name for template in TEMPLATES if template.name not in OTHERS], ("separable", "depthwise")


@pytest.fixture(scope="module")
def board() -> Iterator[Agents]:
    with started_agents(find_device("cobalt100-virtual")) as found:
        yield found


def _check(agents: Agents, region: tuple[Layer, ...], name: str, folder: Path, choice: int, threads: int = 1, **knobs: int) -> None:
    task = Task(region, BFLOAT16.name, threads, machine_of(CORE))
    template = next(template for template in TEMPLATES if template.name == name)
    space = template.space(task)
    assert space is not None
    schedule = random.Random(choice).choice([one for one in space.unpruned() if knobs.items() <= one.values.items()])
    inputs = make_inputs(task)
    parameters = tuple(replace(given, weight=given.weight.astype(BFLOAT16.numpy).astype(np.float32)) for given in make_parameters(task))
    actual = output_on(agents, task, schedule, parameters, inputs, folder).astype(np.float32)
    expected = expected_output(task, inputs, parameters)
    if name in SEVERAL_ROUNDINGS or getattr(region[0], "scaled", False):
        assert relative_error(actual, expected) <= BFLOAT16.tolerance / 2, f"{task.name} {schedule}"
        return
    off = np.abs(actual - expected) - (BFLOAT16.half_step * np.abs(expected) + SUMS * np.abs(expected).max())
    assert off.max() <= 0, f"{task.name} {schedule}: {off.max()}"


def _layer(rng: random.Random) -> tuple[str, Layer]:
    """Return a layer of any shape that multiplies, with input channels that divide by four or do not."""
    depth, channels = rng.choice((3, 4, 8, 12, 20, 30, 64, 136)), rng.choice((1, 5, 8, 20, 33, 64))
    height, width = rng.randint(3, 9), rng.randint(3, 9)
    stride, residual = rng.choice((1, 2)), rng.random() < 0.3
    kind = rng.choice(("pointwise", "pointwise", "conv", "conv", "dense"))
    if kind == "dense":
        return kind, Dense(depth * rng.choice((1, 4)), channels)
    if kind == "pointwise":
        scaled = not residual and rng.random() < 0.3
        return kind, Conv2d(height, width, depth, channels, stride=(stride,) * 2, clamp=RELU6, residual=residual, scaled=scaled)
    groups = 2 if depth % 2 == channels % 2 == 0 and rng.random() < 0.3 else 1
    return kind, Conv2d(height, width, depth, channels, (3, 3), (stride,) * 2, PADDED, groups, "hswish", residual=residual)


@pytest.mark.virtual
@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(4, 60))])
def test_products(seed: int, board: Agents, tmp_path: Path) -> None:
    name, layer = _layer(random.Random(seed))
    _check(board, (layer,), name, tmp_path, seed)


@pytest.mark.virtual
@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.long) for name in TAKING])
def test_every_template(name: str, board: Agents, tmp_path: Path) -> None:
    for number, region in enumerate(REGIONS[name]):
        if (name, number) != ("chain", 0):  # channels that do not fill vectors
            _check(board, region, name, tmp_path, number)


@pytest.mark.virtual
@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(3, 40))])
def test_pixels_that_are_joined_once_for_all_channels(seed: int, board: Agents, tmp_path: Path) -> None:
    rng = random.Random(seed)
    depth, channels = rng.choice((4, 12, 20, 32, 64, 136)), rng.choice((5, 20, 33, 64))
    block = f"NCHW{depth // 2}c" if depth % 8 == 0 and rng.random() < 0.5 else "NHWC"
    layer = Conv2d(rng.randint(1, 9), rng.randint(1, 9), depth, channels, clamp=RELU6, residual=rng.random() < 0.3, in_layout=block)
    _check(board, (layer,), "pointwise", tmp_path, seed, threads=rng.choice((1, 1, 3)), joined=1)


@pytest.mark.virtual
@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name == "pointwise" else pytest.mark.long) for name in TAKING])
def test_several_threads(name: str, board: Agents, tmp_path: Path) -> None:
    _check(board, REGIONS[name][-1:][0], name, tmp_path, 1, threads=3)


@pytest.mark.virtual
@pytest.mark.parametrize("stored", [("", ""), ("float32", ""), ("", "float32")])
@pytest.mark.parametrize(
    "layer",
    [
        Product((2,), 7, 64, 21, (False, True)),
        Recurrent("lstm", 4, 3, 9, "both", initial=True, memory=True),
        Recurrent("gru_reset_first", 5, 2, 8, "reverse"),
        Softmax((3, 5), 21),
        Softmax((4,), 13, (6,), logarithm=True),
    ],
    ids=lambda layer: f"{layer.kind}{'' if layer.kind != 'recurrent' else '_' + layer.cell}",
)
def test_layers_of_a_template_each(layer: ConvertingLayer, stored: tuple[str, str], board: Agents, tmp_path: Path) -> None:
    """A template without register tiles or with rows of its own has bfloat16 on either side or on one."""
    layer = replace(layer, reads=stored[0], writes=stored[1])
    for threads in (1, 2):
        task = Task((layer,), BFLOAT16.name, threads, machine_of(CORE))
        template = templates_for(task)[0]
        space = template.space(task)
        assert space is not None and template.name in OTHERS
        inputs, parameters = make_inputs(task), make_parameters(task)
        folder = tmp_path / str(threads)
        actual = output_on(board, task, space.default, parameters, inputs, folder).astype(np.float32)
        assert relative_error(actual, expected_output(task, inputs, parameters)) <= task.tolerance, f"{task.name} {space.default}"


@pytest.mark.virtual
def test_half_precision_between_layers_in_bfloat16(board: Agents, tmp_path: Path) -> None:
    layer = Conv2d(8, 9, 20, 20, (3, 3), (2, 2), PADDED, 20, "hswish", reads=BFLOAT16.name, writes=BFLOAT16.name)
    task = Task((layer,), FLOAT16.name, machine=machine_of(CORE))
    template = templates_for(task)[0]
    space = template.space(task)
    assert space is not None and template.name == "depthwise"
    inputs, parameters = make_inputs(task), make_parameters(task)
    actual = output_on(board, task, space.default, parameters, inputs, tmp_path)
    assert actual.dtype == BFLOAT16.numpy and relative_error(actual, expected_output(task, inputs, parameters)) <= task.tolerance


@pytest.mark.parametrize("joined", [0, 1])
def test_pairs_in_the_loop(joined: int) -> None:
    """An instruction multiplies 16 numbers by as many; pixels are joined once for all channels of a tile, or before, and nothing leaves the
    registers.
    """
    task = Task((Conv2d(14, 14, 512, 512, clamp=RELU6),), BFLOAT16.name, machine=machine_of(CORE))
    template = templates_for(task)[0]
    space = template.space(task)
    assert space is not None
    knobs = {**space.default.values, "joined": joined}
    text = assembly_of(task, knobs, template, CORE)
    loop = next(loop for loop in innermost_loops(text) if any(instruction.startswith("bfmmla") for instruction in loop.instructions))
    joining = [instruction for instruction in loop.instructions if instruction.startswith(("zip1", "zip2", "mov\tv"))]
    products = sum(instruction.startswith("bfmmla") for instruction in loop.instructions)
    assert products == knobs["rows"] * knobs["columns"] // 2 and len(joining) == (0 if joined else knobs["rows"])
    assert not loop.stack_accesses and "bfcvtn" in text


def test_cores_without_it_and_sums_that_need_more_digits() -> None:
    layer = Conv2d(14, 14, 128, 128, (3, 3), padding=PADDED)
    assert template_for(Task((layer,), BFLOAT16.name, machine=machine_of("cortex-a76"))) is None
    found = {template.name for template in templates_for(Task((layer,), BFLOAT16.name, machine=machine_of(CORE)))}
    assert found == {"conv"}
