"""The loops of integer products in orders of our own: they compute them, read nothing else, and cost what the cores' models say."""

from __future__ import annotations

import numpy as np
import pytest
from assembly import assembly_of, innermost_loops
from host_kernels import examples
from hypothesis import given
from hypothesis import strategies as st
from steps_interpreter import StepsInterpreter

from tvmmobile.graph.layers import Conv2d, Dense
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import template_named
from tvmmobile.schedules.integer_long import gains_by_seven_bits
from tvmmobile.schedules.integer_steps import MANY, StepsLoop
from tvmmobile.virtual.cores.corrected import CORES

TILES = [(rows, width) for rows in range(1, 7) for width in (4, 8, 12, 16) if StepsLoop(rows, width, 16, 1, False, True).fits]


@examples(40)
@given(st.sampled_from(TILES), st.integers(1, 7), st.integers(0, 2), st.booleans(), st.integers(0, 99))
def test_steps_in_turn(tile: tuple[int, int], steps: int, gap: int, in_order: bool, seed: int) -> None:
    """Any bytes; pixels that do not follow each other."""
    (rows, width), random = tile, np.random.default_rng(seed)
    a = random.integers(-128, 128, (rows, 16 * steps + 8 * gap)).astype(np.int8)
    w = random.integers(-127, 128, (steps, width, 16)).astype(np.int8)
    used = a.ravel()[: a.size - 8 * gap]
    found = StepsInterpreter(used, w, np.empty(0, np.int32)).run(StepsLoop(rows, width, a.shape[1], steps, False, in_order))
    assert np.array_equal(found.sum(-1), a[:, : 16 * steps].astype(int) @ w.transpose(0, 2, 1).reshape(-1, width))


@examples(40)
@given(st.sampled_from(TILES), st.integers(0, 4), st.integers(0, 3), st.booleans(), st.integers(0, 99))
def test_steps_in_a_tables_order(tile: tuple[int, int], pairs: int, singles: int, in_order: bool, seed: int) -> None:
    """Pairs whose sums of 16 bits are as large as they get, and single steps."""
    (rows, width), random, steps = tile, np.random.default_rng(seed), 2 * pairs + singles
    gap = 8 * (seed % 2)
    loop = StepsLoop(rows, width, 16 * steps + gap, steps, True, in_order)
    if not loop.fits or steps < 2 or (steps >= MANY and pairs == 1):
        return
    order = random.permutation(steps)
    w = random.integers(-127, 128, (steps, width, 16)).astype(np.int8)
    w[: 2 * pairs] //= 2
    pixels = random.integers(-128, 128, (rows, 16 * steps + gap)).astype(np.int8)
    a = pixels[:, : 16 * steps].reshape(rows, steps, 16)
    table = np.array([pairs, singles, *(16 * order)], np.int32)
    found = StepsInterpreter(pixels.ravel()[: pixels.size - gap], w, table).run(loop)
    expected = np.einsum("rsk,swk->rw", a[:, order].astype(int), w.astype(int))
    assert np.array_equal(found.sum(-1), expected)


@pytest.mark.parametrize(
    ("mcpu", "rows", "single", "pair"),
    [
        ("cortex-a53", 3, 57, 87),
        ("cortex-a53", 4, 73, 113),
        ("cortex-a53", 5, 90, 139),
        ("cortex-a72", 4, 39.4, 66.5),
        ("cortex-a72", 5, 48, 82),
    ],
)
def test_cycles(mcpu: str, rows: int, single: float, pair: float) -> None:
    """Of a pass, by the model of the core. On a Cortex-A53 products and sums alone take four cycles, or six, for each pixel and channel; a
    Cortex-A72 multiplies eight bytes a cycle.
    """
    knobs = {"rows": rows, "columns": 4, "m_block": 0, "n_block": 0, "outer": 1, "order": 0, "axis": 0}
    text = assembly_of(Task((Conv2d(14, 14, 512, 512),), "int8", machine=machine_of(mcpu)), knobs, template_named("long_product", 1), mcpu)
    loops = [loop for loop in innermost_loops(text) if sum(line.startswith("sadalp") for line in loop.instructions) == rows * 4]
    assert len(loops) >= 2 and not any(loop.stack_accesses for loop in loops)
    cycles = sorted(CORES[mcpu](loop.instructions) for loop in loops)
    assert cycles[0] <= single and cycles[-1] <= pair


@pytest.mark.parametrize("layer", [Conv2d(8, 8, 32, 64), Conv2d(8, 8, 512, 32), Dense(320, 30)], ids=lambda layer: layer.name)
def test_who_gains_by_seven_bits(layer: Conv2d | Dense) -> None:
    """Products of evenly spread weights on cores without SDOT; a normal distribution's fit in pairs as they are."""
    random = np.random.default_rng(0)
    even = random.integers(-127, 128, layer.weight_shape).astype(np.int8)
    normal = np.clip(np.rint(random.normal(0, 30, layer.weight_shape)), -127, 127).astype(np.int8)
    for mcpu, gains in (("cortex-a53", True), ("cortex-a72", layer.weight_shape[-2] > 32), ("cortex-a76", False)):
        task = Task((layer,), "int8", machine=machine_of(mcpu))
        assert gains_by_seven_bits(task, even) == gains
        assert not gains_by_seven_bits(task, normal) and not gains_by_seven_bits(task, even // 2)
    narrow = Task((Conv2d(8, 8, 24, 64),), "int8", machine=machine_of("cortex-a72"))
    assert not gains_by_seven_bits(narrow, even.ravel()[: 24 * 64])
