"""Integer kernels under QEMU, against their exact reference."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
from assembly import assembly_of

from tvmmobile.graph.integers import (
    LARGEST_UNSATURATED,
    MULTIPLIER_DENOMINATOR,
    IntegerParameters,
    short_multipliers,
)
from tvmmobile.graph.layers import Array, Conv2d, IntegerFacts, Layer, LayerParameters
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.codegen import compile_kernel
from tvmmobile.kernels.function import kernel_function, packed_constants
from tvmmobile.kernels.reference import expected_output, make_inputs, make_parameters
from tvmmobile.running.measure import ONCE, Agents
from tvmmobile.schedules import KnobSchedule, template_named, templates_for

#: Of LLVM's passes: tests ask here what kernels compute, not how fast. Products and sums still become one instruction, as they do not at 0.
LEVEL = 1


def space_of(task: Task, name: str) -> list[KnobSchedule]:
    """Return the members of the space of the template of that name, which takes the task."""
    (template,) = (one for one in templates_for(task) if one.name == name)
    space = template.space(task)
    assert space is not None
    return list(space)


def assembly_on(layer: Layer, mcpu: str, name: str, **knobs: int) -> str:
    """Return the assembly of a template that takes an integer layer on a core, of which this is the name."""
    task = Task((layer,), "int8", machine=machine_of(mcpu))
    (template,) = (one for one in templates_for(task) if one.name == name)
    space = template.space(task)
    assert space is not None
    return assembly_of(task, {**space.default.values, **knobs}, template, mcpu)


def window(rng: random.Random) -> Conv2d:
    """A convolution with windows of more channels than an image's, or of narrower rows: any stride, dilation and padding; narrow, wide or
    converted sums, a residual, a curve, bounds or none.
    """
    kernel, stride = rng.choice(((3, 3), (3, 3), (1, 4), (5, 2), (4, 7))), (rng.randint(1, 3), rng.randint(1, 3))
    height, width, channels = rng.randint(1, 9), rng.randint(1, 11), rng.choice((1, 5, 6, 8, 16, 24, 40, 72))
    dilation = (rng.choice((1, 1, 2)), rng.choice((1, 1, 3)))
    edges = [rng.randint(0, 2) for _ in range(4)]
    for axis, side in enumerate((height, width)):  # so that there is an output
        edges[axis] += max((kernel[axis] - 1) * dilation[axis] + 1 - side - edges[axis] - edges[axis + 2], 0)
    wide = channels * kernel[0] * kernel[1] <= 256 and rng.random() < 0.3
    clamp = rng.choice(((None, None), (None, None), "hswish"))
    residual, facts = rng.random() < 0.3, IntegerFacts(bounded=rng.random() < 0.5, wide=wide)
    steps = {"residual": residual, "integers": facts, "clamp": clamp, "dilation": dilation}
    return Conv2d(height, width, channels, rng.choice((3, 8, 20, 37)), kernel, stride, (edges[0], edges[1], edges[2], edges[3]), **steps)


def in_groups(rng: random.Random) -> Conv2d:
    """Return a `window` of two to five groups, with few channels or many in each."""
    groups, layer = rng.randint(2, 5), window(rng)
    depth, channels = rng.choice((4, 5, 6, 8, 16, 24)), rng.choice((4, 8, 12, 16, 20, 48))
    facts = replace(layer.integers, wide=layer.integers.wide and depth * layer.kernel[0] * layer.kernel[1] <= 256)
    return replace(layer, in_channels=groups * depth, out_channels=groups * channels, groups=groups, integers=facts)


def run(
    agents: Agents, task: Task, schedule: KnobSchedule, given: tuple[IntegerParameters, ...], inputs: list[Array], folder: Path
) -> tuple[Array, Array]:
    """Return the output of a schedule's kernel on a board, and the reference's."""
    assert template_named(schedule.template, schedule.version) is not None
    for layer, parameters in zip(task.region, given, strict=True):
        assert layer.is_wide(parameters) <= layer.integers.wide
    return output_on(agents, task, schedule, given, inputs, folder), expected_output(task, inputs, given)


def output_on(
    agents: Agents, task: Task, schedule: KnobSchedule, given: tuple[LayerParameters, ...], inputs: list[Array], folder: Path
) -> Array:
    """Return the output of a schedule's kernel on a board."""
    folder.mkdir(exist_ok=True)
    library = folder / "kernel.so"
    compile_kernel(kernel_function(task, schedule, None), {**agents.profile.target, "opt-level": LEVEL}, library)
    arrays = [*inputs, *packed_constants(task, schedule, given), np.full(task.region[-1].output_shape, 85, task.storage[1].numpy)]
    return agents.measure_kernel(library, task.symbol, arrays, 60.0, replace(ONCE, threads=task.threads)).outputs[0]


def check(agents: Agents, layers: Layer | tuple[Layer, ...], name: str, folder: Path, seed: int = 0, threads: int = 1) -> None:
    """A random member of the space of the template of that name computes what the reference does, bit for bit."""
    task = Task(layers if isinstance(layers, tuple) else (layers,), "int8", threads, agents.profile.machine)
    given = tuple(parameters for parameters in make_parameters(task) if isinstance(parameters, IntegerParameters))
    schedule = random.Random(f"{task.name} {seed}").choice(space_of(task, name))
    actual, expected = run(agents, task, schedule, given, make_inputs(task), folder)
    assert np.array_equal(actual, expected), f"{task.name} {schedule}: {(actual != expected).mean():.1%} differ"


def check_extremes(
    agents: Agents,
    layer: Layer,
    name: str,
    folder: Path,
    zero_in: int = -128,
    largest: int | Array = 127,
    schedule: KnobSchedule | None = None,
) -> None:
    """Weights at either end of a range in each channel, pixels of either end, so that sums are as large as they get, and multipliers
    from those whose products vanish to those whose products are infinite, or as large as they may be in a layer that is not wide.

    Args:
        largest: magnitudes of weights, the same for all or of their shape.
    """
    task = Task((layer,), "int8", 1, agents.profile.machine)
    (given,) = make_parameters(task)
    assert isinstance(given, IntegerParameters)
    channels = np.arange(len(given.bias))
    weight = (
        np.broadcast_to(np.where(channels % 2, largest, -largest).astype(np.int8), given.weight.shape)
        if given.weight.size
        else given.weight
    )
    factors = np.array([1.0, 1e5, 1e-9, -2e33, 2e33, -1.0], np.float32)[channels // 2 % 6]
    extreme = replace(given, weight=weight.copy(), bias=given.bias * 0, multiplier=given.multiplier * factors, low=-128, high=127)
    extreme = replace(extreme, zero_in=zero_in, zero_out=(-1 - zero_in) // 2 * 2)
    if not layer.converts_sums and not getattr(layer, "writes", ""):  # as large as results may be
        most = np.float32(LARGEST_UNSATURATED) / layer.largest_sums(extreme).astype(np.float32)
        multiplier = np.clip(extreme.multiplier, -most, most) * np.float32(1 - 1e-6)
        if layer.scales_at_once:
            multiplier = short_multipliers(np.trunc(multiplier * MULTIPLIER_DENOMINATOR) / MULTIPLIER_DENOMINATOR)
        extreme = replace(extreme, multiplier=multiplier)
    data = np.broadcast_to(np.array([-128, 127]).repeat(2)[np.arange(layer.input_shape[-2]) % 4, None], layer.input_shape)
    actual, expected = run(agents, task, schedule or space_of(task, name)[0], (extreme,), [data.astype(task.storage[0].numpy)], folder)
    assert np.array_equal(actual, expected)
    assert {-128, 127} <= set(np.unique(expected)) or task.storage[1].name == "float32"
