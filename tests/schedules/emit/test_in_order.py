"""The register tile's loop in an order of our own: it computes the product, reads nothing else, and costs what the cores' models say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from assembly import LANES, assembly_of, hottest_loop
from host_kernels import examples
from hypothesis import given
from hypothesis import strategies as st
from loop_interpreter import PLACES, LoopInterpreter

from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.layouts import blocked
from tvmmobile.graph.machine import BASELINE, machine_of
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import template_for, templates_for
from tvmmobile.schedules.emit.in_order_block import LEAST, InOrderBlock, Multiplication, VectorPlace, spread
from tvmmobile.schedules.emit.in_order_loop import InOrderLoop
from tvmmobile.schedules.emit.in_order_order import VECTOR_REGISTERS, TileShape
from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.cores.bounds import least_cycles
from tvmmobile.virtual.cores.corrected import CORES

RELU6 = (0.0, 6.0)
DEPTHWISE = Conv2d(14, 14, 512, 512, (3, 3), (1, 1), (1, 1, 1, 1), 512, RELU6, blocked(32), blocked(32))
IMAGE = Conv2d(224, 224, 3, 32, (3, 3), (2, 2), (1, 1, 1, 1), 1, RELU6, "NCHW")
DEPTHWISE_14 = Conv2d(14, 14, 64, 64, (3, 3), (1, 1), (1, 1, 1, 1), 64, RELU6)
POINTWISE = Conv2d(14, 14, 512, 512, clamp=RELU6)
KNOBS = {"rows": 7, "columns": 12, "k_block": 0, "m_block": 0, "n_block": 8, "outer": 1, "axis": 0, "inner": 1}
TILES = [(rows, vectors) for rows in range(1, 10) for vectors in range(1, 7) if TileShape(rows, vectors, True).fits]


@examples(32)
@given(
    st.sampled_from(TILES),
    st.booleans(),
    st.sampled_from((4, 8)),
    st.integers(2, 9),
    st.integers(0, 3),
    st.integers(0, 8),
    st.sampled_from((1, 2)),
    st.integers(0, 1),
    st.booleans(),
    st.integers(0, 99),
)
def test_loop(
    tile: tuple[int, int], beside: bool, lanes: int, passes: int, block: int, chain: int, step: int, gap: int, alike: bool, seed: int
) -> None:
    """Draw small integers, so that sums are exact. `block` is the number of passes per block, 0 for a single block; nothing outside A and W
    is read.
    """
    (rows, vectors), random, kind = tile, np.random.default_rng(seed), "f4" if lanes == LANES else "f2"
    passes = passes * max(block, 1)
    depth, blocks = passes * lanes, passes // block if block else 1
    size, pixels, pitch = depth // blocks, (rows - 1) * step + 1, lanes * (vectors + 2 * gap)
    a = random.integers(-2, 3, (blocks, pixels, size)).astype(kind)
    w = random.integers(-2, 3, (depth, pitch)).astype(kind)
    jump, each = (pixels * size - size + lanes) * a.itemsize, a.itemsize
    shape = TileShape(rows, vectors, beside, lanes, chained=lanes > LANES and chain > 0)
    chain = chain if shape.chained else 0
    loop = InOrderLoop(shape, passes, step * size * each, pitch * each, block and size // lanes, block and jump, alike, chain=chain)
    if not (shape.fits and loop.fits):
        assert shape.sums + rows >= VECTOR_REGISTERS or loop.last_passes == 1
        return
    start = random.integers(-9, 10, (rows * vectors, lanes)).astype(kind)
    machine = LoopInterpreter(a.ravel(), w.ravel()[: (depth - 1) * pitch + lanes * vectors])
    if alike:
        start[vectors:] = np.nan
    found = machine.run(loop, start)
    if alike:
        start = np.tile(start[:vectors], (rows, 1))
    used = a[:, ::step].transpose(1, 0, 2).reshape(rows, depth)
    expected = start.reshape(rows, -1) + used @ w[:, : lanes * vectors]
    assert np.array_equal(found.reshape(rows, -1), expected)
    assert machine.touched.sum() == used.size


@examples(16)
@given(st.integers(1, 16), st.integers(2, 14), st.integers(LEAST, 120), st.booleans(), st.booleans(), st.booleans(), st.integers(0, 999))
def test_block(accumulators: int, vectors: int, count: int, lanes: bool, beside: bool, half: bool, seed: int) -> None:
    """Random multiplications of vectors at odd places in two arrays; small integers, so that sums are exact."""
    random, kind, each = np.random.default_rng(seed), "f2" if half else "f4", 16 // (LANES * (1 + half))
    places = [VectorPlace(base, each * int(offset)) for base in (0, 1) for offset in random.choice(56, vectors, replace=False)]
    draw = [[int(number) for number in random.integers(0, most, count)] for most in (accumulators, vectors, vectors, LANES)]
    chosen = [Multiplication(n, places[x], places[vectors + y], lane if lanes else None) for n, x, y, lane in zip(*draw, strict=True)]
    assert sorted(map(repr, spread(chosen))) == sorted(map(repr, chosen))
    block = InOrderBlock(spread(chosen), accumulators, 2, beside, half)
    arrays = [random.integers(-4, 5, 64).astype(kind) for _ in range(2)]
    if not block.fits:
        assert accumulators + 2 * vectors > VECTOR_REGISTERS or (half and lanes)
        return
    start = random.integers(-9, 10, (accumulators, 16 // each)).astype(kind)
    lines = block.assembly()
    bases = {int(number) for line in lines if line.startswith("ldr") for number in re.findall(r"\[\$(\d+)", line)}
    first = max(int(number) for line in lines if line.startswith("ins") for number in re.findall(r", \$(\d+)$", line))
    assert min(bases) > first
    inputs = {base: PLACES[base - block.first_base] for base in bases}
    found = LoopInterpreter(*arrays).execute(lines, inputs, start)
    expected = start.copy()
    for one in chosen:
        x, y = (arrays[place.base][place.offset // each :][: 16 // each] for place in (one.x, one.y))
        expected[one.accumulator] += x * (y if one.lane is None else y[one.lane])
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("layer", "knobs", "cycles"),
    [
        (DEPTHWISE, {"rows": 3, "columns": 5, "channels": 0, "axis": 0}, 18.0),
        (DEPTHWISE, {"rows": 4, "columns": 4, "channels": 0, "axis": 0}, 18.2),
        (IMAGE, {"pixels": 4, "columns": 16, "loop": 0, "order": 1}, 43.0),
    ],
)
def test_cycles_without_a_loop(layer: Conv2d, knobs: Mapping[str, int], cycles: float) -> None:
    """Cycles per vector of output on a Cortex-A53, with bias, clamp and store: depthwise LLVM's order takes 24.8, for an image 92."""
    loop = hottest_loop(compiled(layer, {**knobs, "inner": 1}, "cortex-a53"))
    outputs = loop.multiply_adds / (9 if layer is DEPTHWISE else 27)
    assert outputs == knobs["rows"] * knobs["columns"] if layer is DEPTHWISE else knobs["pixels"] * knobs["columns"] // LANES
    assert CORES["cortex-a53"](loop.instructions) <= cycles * outputs


@pytest.mark.parametrize("tile", [(7, 3), (8, 2), (7, 2), (6, 3), (5, 4), (4, 4), (6, 4), (6, 2)])
def test_what_a_pass_is_thought_to_cost(tile: tuple[int, int]) -> None:
    """`TileShape.cycles`, by which the search prefers tiles, is within 8 % of what the cores' models say of the loop."""
    for mcpu, beside in (("cortex-a53", False), ("cortex-a55", True)):
        lines = InOrderLoop(TileShape(*tile, beside), 8, 256, 16 * tile[1]).assembly()
        text = "\n".join(lines[lines.index("1:") + 1 : lines.index("b.ne 1b") + 1])
        text = re.sub(r"\$\{(\d+)(:d)?\}", lambda match: f"{'d' if match[2] else 'v'}{match[1]}", text)
        cycles = cycles_of([re.sub(r"\$(\d+)", r"x\1", line).replace(" ", "\t", 1) for line in text.splitlines()], mcpu)
        assert abs(TileShape(*tile, beside).cycles / cycles - 1) < 0.08, (mcpu, cycles)


def test_what_it_refuses() -> None:
    """Rows that loads do not reach, that do not begin at 8 bytes, and a single pass are left to LLVM."""
    good = InOrderLoop(TileShape(7, 3, False), 8, 4096, 48)
    assert good.fits
    for changed in ({"row_bytes": 8192}, {"row_bytes": 4092}, {"passes": 1}, {"step_bytes": 1024}, {"step_bytes": 52}):
        assert not replace(good, **changed).fits, changed


@pytest.mark.parametrize(
    ("mcpu", "rows", "vectors", "share"),
    [
        ("cortex-a53", 9, 2, 0.795),
        ("cortex-a53", 7, 3, 0.785),
        ("cortex-a53", 8, 2, 0.785),
        ("cortex-a53", 7, 2, 0.77),
        ("cortex-a53", 6, 3, 0.78),
        ("cortex-a53", 5, 4, 0.765),
        ("cortex-a55", 9, 2, 0.945),
        ("cortex-a55", 7, 3, 0.93),
        ("cortex-a55", 8, 2, 0.94),
        ("cortex-a55", 7, 2, 0.93),
        ("cortex-a55", 6, 4, 0.92),
    ],
)
def test_cycles(mcpu: str, rows: int, vectors: int, share: float) -> None:
    """Nothing is spilled, every FMLA takes its operand from a lane, and the core's model predicts this share of its peak."""
    machine = machine_of(mcpu)
    knobs = {**KNOBS, "rows": rows, "columns": LANES * vectors, "inner": 2 if machine.inserts_beside else 1}
    loop = hottest_loop(compiled(POINTWISE, knobs, mcpu))
    assert loop.multiply_adds == loop.indexed == rows * vectors * LANES
    assert loop.stack_accesses == []
    assert loop.multiply_adds / cycles_of(loop.instructions, mcpu) >= share


@pytest.mark.parametrize(("rows", "vectors", "k_block", "share"), [(9, 1, 0, 0.945), (8, 1, 0, 0.94), (8, 2, 64, 0.94), (7, 3, 32, 0.93)])
def test_cycles_in_half_precision(rows: int, vectors: int, k_block: int, share: float) -> None:
    """As above on a Cortex-A55; with one vector per row, the sums of a chain and of all chains stay in registers."""
    task = Task((POINTWISE,), "float16", machine=machine_of("cortex-a55"))
    loop = hottest_loop(
        assembly_of(task, {**KNOBS, "rows": rows, "columns": 8 * vectors, "k_block": k_block, "inner": 2}, mcpu="cortex-a55")
    )
    products = [text for text in loop.instructions if re.match(r"fmla\s+v\d+\.8h, v\d+\.8h, v\d+\.h\[", text)]
    assert len(products) == rows * vectors * 8
    assert loop.stack_accesses == []
    assert len(products) / cycles_of(loop.instructions, "cortex-a55") >= share


def cycles_of(instructions: Sequence[str], mcpu: str) -> float:
    """Return a loop's cycles by the core's schedule, but at least as many as its ports take."""
    core = load_board({"cortex-a53": "pi3bplus", "cortex-a55": "rk3566"}[mcpu]).core
    return max(CORES[mcpu](instructions), least_cycles(instructions, core))


def compiled(layer: Conv2d, knobs: Mapping[str, int], mcpu: str) -> str:
    """Return the assembly of a schedule of the core's space."""
    task = Task((layer,), machine=machine_of(mcpu))
    template = template_for(task)
    assert template is not None
    space = template.space(task)
    assert space is not None and space.schedule(knobs) in space
    return assembly_of(task, knobs, mcpu=mcpu)


def test_the_core_chooses() -> None:
    """Only cores in order have the knob; what others' logs hold is theirs as well, and what theirs hold can be read without the core."""
    spaces = {}
    for mcpu in ("cortex-a53", "cortex-a55", "cortex-a72"):
        task = Task((POINTWISE,), machine=machine_of(mcpu))
        template = template_for(task)
        assert template is not None
        space = template.space(task)
        assert space is not None
        spaces[mcpu] = space
    assert [space.options.get("inner") for space in spaces.values()] == [(1,), (2,), None]
    old = spaces["cortex-a72"].default
    new = spaces["cortex-a53"].default
    assert "inner" not in old.values and new.values["inner"] == 1
    for space in spaces.values():
        assert old in space and new in space
        assert space.schedule({**new.values}) in space
    nearest = spaces["cortex-a53"].nearest(old)
    assert nearest is not None and nearest.values["inner"] == 1


def test_tall_tiles() -> None:
    """Only cores in order have tiles of 8 and 9 pixels of two vectors everywhere, but every core reads records that do."""
    for mcpu in ("cortex-a53", "cortex-a72"):
        task = Task((DEPTHWISE_14, Conv2d(14, 14, 64, 128, clamp=RELU6)), machine=machine_of(mcpu))
        for template in templates_for(task):
            space = template.space(task)
            assert space is not None
            assert (9 in space.options["rows"]) == (mcpu == "cortex-a53")
            assert space.schedule({**space.default.values, "rows": 9}) in space
            assert space.schedule({**space.default.values, "rows": 10}) not in space


def test_blocked_channels_stay_in_the_loop() -> None:
    """A tile whose input lies in blocks is one loop over all of them."""
    layer = replace(POINTWISE, in_layout=blocked(32), out_layout=blocked(32))
    text = compiled(layer, {**KNOBS, "columns": 8}, "cortex-a53")
    assert hottest_loop(text).multiply_adds == 7 * 2 * LANES
    assert "csel" in " ".join(hottest_loop(text).instructions)


def test_other_cores_see_no_assembly() -> None:
    knobs = {name: value for name, value in KNOBS.items() if name != "inner"}
    task = Task((POINTWISE,), machine=BASELINE)
    assert "APP" not in assembly_of(task, knobs)
