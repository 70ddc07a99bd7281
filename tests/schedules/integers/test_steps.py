"""The loops of integer products in orders of our own: they compute them, read nothing else, and cost what the cores' models say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from assembly import assembly_of, innermost_loops
from host_kernels import examples
from hypothesis import given
from hypothesis import strategies as st
from steps_interpreter import StepsInterpreter

from tvmmobile.graph.layers import Array, Conv2d, Dense
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import Template, template_named
from tvmmobile.schedules.integers.image import LongImage
from tvmmobile.schedules.integers.long import LongProduct, pack_steps
from tvmmobile.schedules.integers.steps import StepsLoop
from tvmmobile.schedules.integers.window import LongWindow
from tvmmobile.virtual.cores.corrected import CORES

TILES = [(rows, width) for rows in range(1, 7) for width in (4, 8, 12, 16) if StepsLoop(rows, width, 32, 2, False, True).fits]


@examples(60)
@given(
    st.sampled_from(TILES),
    st.integers(0, 7),
    st.booleans(),
    st.integers(0, 2),
    st.sampled_from((20, 63, 127)),
    st.booleans(),
    st.integers(0, 99),
)
def test_steps(tile: tuple[int, int], steps: int, half: bool, gap: int, largest: int, in_order: bool, seed: int) -> None:
    """Weights of which steps fit in pairs, some of them, or none; half a step; pixels that do not follow each other."""
    (rows, width), random, depth = tile, np.random.default_rng(seed), 16 * steps + 8 * half
    if not depth:
        return
    weight = random.integers(-largest, largest + 1, (depth, width)).astype(np.int8)
    weight[:, :: max(random.integers(1, 5), 1)] //= 2
    a = random.integers(-128, 128, (rows, depth + 8 * gap)).astype(np.int8)
    packed, *tables = pack_steps(weight, depth, width)
    used = a.ravel()[: a.size - 8 * gap]
    loop = StepsLoop(rows, width, a.shape[1], steps, half > 0, in_order)
    found = StepsInterpreter(used, packed, np.concatenate([*tables, np.empty(0, np.int32)])).run(loop)
    assert np.array_equal(found, np.arange(width) + a[:, :depth].astype(int) @ weight.astype(int))


@pytest.mark.parametrize(
    ("mcpu", "rows", "columns", "single", "pair"),
    [
        ("cortex-a53", 4, 16, 295, 452),
        ("cortex-a53", 6, 8, 231, 356),
        ("cortex-a72", 4, 16, 152, 259),
        ("cortex-a72", 5, 12, 144, 245),
    ],
)
def test_cycles(mcpu: str, rows: int, columns: int, single: float, pair: float) -> None:
    """A pass takes these by the model of the core. On a Cortex-A53 products and sums alone take 16 cycles, or 24, for a pixel and four
    channels; a Cortex-A72 multiplies eight bytes a cycle.
    """
    knobs = {"rows": rows, "columns": columns, "m_block": 0, "n_block": 0, "outer": 1, "order": 0, "axis": 0}
    task = Task((Conv2d(14, 14, 512, 16 * columns),), "int8", machine=machine_of(mcpu))
    text = assembly_of(task, knobs, template_named("long_product", 1), mcpu)
    loops = [loop for loop in innermost_loops(text) if sum(line.startswith("sadalp") for line in loop.instructions) == rows * columns]
    assert len(loops) == 2 and not any(loop.stack_accesses for loop in loops)
    cycles = sorted(CORES[mcpu](loop.instructions) for loop in loops)
    assert cycles[0] <= single and cycles[-1] <= pair


def spread_weights(layer: Conv2d | Dense) -> tuple[Array, Array]:
    """Return a layer's weights, evenly spread and normally distributed."""
    random = np.random.default_rng(0)
    even = random.integers(-127, 128, layer.weight_shape).astype(np.int8)
    normal = np.clip(np.rint(random.normal(0, 30, layer.weight_shape)), -127, 127).astype(np.int8)
    return even, normal


def check_gains(template: Template, layer: Conv2d | Dense) -> None:
    """Evenly spread weights gain on cores without SDOT, others nowhere."""
    even, normal = spread_weights(layer)
    for mcpu, gains in (("cortex-a53", True), ("cortex-a72", True), ("cortex-a76", False)):
        task = Task((layer,), "int8", machine=machine_of(mcpu))
        assert template.gains_by_smaller_weights(task, even) == gains
        assert not template.gains_by_smaller_weights(task, normal) and not template.gains_by_smaller_weights(task, even // 2)


@pytest.mark.parametrize(
    "layer", [Conv2d(8, 8, 24, 64), Conv2d(8, 8, 32, 64), Conv2d(8, 8, 512, 32), Dense(320, 30)], ids=lambda layer: layer.name
)
def test_who_gains_by_seven_bits(layer: Conv2d | Dense) -> None:
    """Products of evenly spread weights on cores without SDOT; a normal distribution's fit in pairs as they are."""
    check_gains(LongProduct(), layer)
    narrow = Task((Conv2d(8, 8, 16, 64),), "int8", machine=machine_of("cortex-a72"))
    assert not LongProduct().gains_by_smaller_weights(narrow, spread_weights(layer)[0].ravel()[: 16 * 64])


def image_layer(kernel: int, channels: int = 3, **others: Any) -> Conv2d:
    """Return the first convolution of a network."""
    return Conv2d(32, 32, channels, 32, (kernel, kernel), (2, 2), (kernel // 2,) * 4, reads="float32", **others)


@pytest.mark.parametrize("layer", [image_layer(3), image_layer(3, in_layout="NCHW"), image_layer(5)], ids=lambda layer: layer.name)
def test_which_image_gains_by_seven_bits(layer: Conv2d) -> None:
    """One whose window takes two steps or more, on cores without SDOT."""
    check_gains(LongImage(), layer)


@pytest.mark.parametrize("layer", [image_layer(3, 1), Conv2d(32, 32, 16, 32, (3, 3), (1, 1), (1, 1, 1, 1))], ids=lambda layer: layer.name)
def test_images_of_one_step_and_other_windows_do_not(layer: Conv2d) -> None:
    """Nine bytes have no step to be paired with; a window of 16 channels is no image's."""
    even, _ = spread_weights(layer)
    assert not LongImage().gains_by_smaller_weights(Task((layer,), "int8", machine=machine_of("cortex-a72")), even)


def test_which_windows_gain_by_seven_bits() -> None:
    """Windows with evenly spread weights gain, on cores without SDOT; products and images belong to other templates."""
    layer = Conv2d(8, 8, 24, 32, (3, 3), (1, 1), (1, 1, 1, 1))
    check_gains(LongWindow(), layer)
    for other in (Conv2d(8, 8, 64, 32), image_layer(3)):
        assert not LongWindow().gains_by_smaller_weights(Task((other,), "int8", machine=machine_of("cortex-a72")), spread_weights(other)[0])
