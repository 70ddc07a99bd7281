"""The AArch64 code of each template's inner loop: what the tile should cost is what it costs, and nothing is spilled."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import pytest
from assembly import LANES, assembly_of, hottest_loop, innermost_loops

from tvmmobile.graph.layers import Conv2d, Dense, Layer, Pool, Recurrent
from tvmmobile.graph.machine import BASELINE
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import template_for
from tvmmobile.schedules.emit.matmul import good_tile

RELU6 = (0.0, 6.0)
POINTWISE = Conv2d(14, 14, 512, 512, clamp=RELU6)
DEPTHWISE = Conv2d(14, 14, 512, 512, (3, 3), (1, 1), (1, 1, 1, 1), 512, RELU6)
STRIDED = Conv2d(28, 28, 256, 256, (3, 3), (2, 2), (1, 1, 1, 1), 256, RELU6)
IMAGE = Conv2d(224, 224, 3, 32, (3, 3), (2, 2), (1, 1, 1, 1), 1, RELU6, "NCHW")
CLASSIFIER = Dense(1024, 1000)


def test_the_reader_of_assembly() -> None:
    text = "\n".join(
        [
            ".LBB0_1:",
            "\tmov\tx1, #0",
            ".LBB0_2:                                // inner",
            "\tldr\tq1, [sp, #16]                   // 16-byte Folded Reload",
            "\tfmla\tv0.4s, v1.4s, v2.s[3]",
            "\tfmla\tv0.4s, v1.4s, v2.4s",
            "\tfmla\ts0, s1, v2.s[1]",
            "\tb.ne\t.LBB0_2",
            "\tcbnz\tx1, .LBB0_1",
        ]
    )
    (loop,) = innermost_loops(text)
    assert (loop.multiply_adds, loop.indexed, len(loop.stack_accesses), len(loop.instructions)) == (2, 1, 1, 5)


def check_member(layer: Layer, knobs: Mapping[str, int]) -> Task:
    """Return the task; `knobs` must be of its space."""
    task = Task((layer,))
    template = template_for(task)
    assert template is not None
    space = template.space(task)
    assert space is not None and space.schedule(knobs) in space, f"not in the space: {knobs}"
    return task


@pytest.mark.parametrize(
    ("rows", "columns", "k_block"),
    [(7, 8, 0), (7, 8, 128), (8, 8, 0), (4, 16, 0), (4, 16, 256), (5, 16, 0), (3, 24, 0), (6, 16, 64), (7, 8, 32)],
)
def test_pointwise(rows: int, columns: int, k_block: int) -> None:
    assert good_tile(BASELINE, LANES, rows, columns, POINTWISE.height * POINTWISE.width, POINTWISE.out_channels)
    knobs = {"rows": rows, "columns": columns, "k_block": k_block, "m_block": 0, "n_block": 8, "outer": 1, "axis": 0}
    loop = hottest_loop(assembly_of(check_member(POINTWISE, knobs), knobs))
    vectors = columns // LANES
    assert loop.multiply_adds == loop.indexed == rows * vectors * LANES
    assert loop.stack_accesses == []
    # Besides: a load of W per vector and K step, one of A per row and four K steps, addresses and the branch.
    loads = vectors * LANES + rows
    assert len(loop.instructions) - loop.multiply_adds <= loads + 8


@pytest.mark.parametrize(
    ("layer", "rows", "columns", "channels"),
    [(DEPTHWISE, 1, 6, 0), (DEPTHWISE, 2, 4, 16), (DEPTHWISE, 2, 5, 16), (DEPTHWISE, 4, 3, 0), (STRIDED, 1, 4, 32), (STRIDED, 1, 6, 16)],
)
def test_depthwise(layer: Conv2d, rows: int, columns: int, channels: int) -> None:
    knobs = {"rows": rows, "columns": columns, "channels": channels, "axis": 0}
    loop = hottest_loop(assembly_of(check_member(layer, knobs), knobs))
    outputs = rows * columns
    assert loop.multiply_adds == outputs * 9
    assert loop.stack_accesses == []
    # The window is loaded once for all outputs of the tile that it reaches.
    window = ((columns - 1) * layer.stride[1] + 3) * ((rows - 1) * layer.stride[0] + 3)
    loads = sum(2 if text.startswith("ldp") else 1 for text in loop.instructions if text.startswith(("ldr\tq", "ldp\tq", "ldur\tq")))
    assert loads <= window + 9 + outputs
    assert sum(text.startswith(("fmax", "fmin")) for text in loop.instructions) == 2 * outputs


@pytest.mark.parametrize(("pixels", "columns", "order"), [(4, 16, 0), (5, 16, 1), (8, 8, 1), (8, 12, 0), (3, 32, 0), (2, 24, 0)])
def test_image_conv(pixels: int, columns: int, order: int) -> None:
    knobs = {"pixels": pixels, "columns": columns, "loop": 1, "order": order}
    loop = hottest_loop(assembly_of(check_member(IMAGE, knobs), knobs))
    assert loop.multiply_adds == loop.indexed == pixels * columns // LANES * 9
    assert loop.stack_accesses == []
    assert len(loop.instructions) <= 1.4 * loop.multiply_adds


@pytest.mark.parametrize(("rows", "columns", "k_block", "n_block"), [(7, 8, 64, 8), (4, 16, 128, 4), (3, 24, 128, 2)])
def test_scaled_pointwise(rows: int, columns: int, k_block: int, n_block: int) -> None:
    """The multiplications of the product are those without a gate; the gate's are a loop of their own, one for each vector of weights."""
    layer = replace(POINTWISE, scaled=True)
    knobs = {"rows": rows, "columns": columns, "k_block": k_block, "m_block": 0, "n_block": n_block, "outer": 1, "axis": 0}
    text = assembly_of(check_member(layer, knobs), knobs)
    vectors = columns // LANES
    loop = hottest_loop(text)
    assert loop.multiply_adds == loop.indexed == rows * vectors * LANES and loop.stack_accesses == []
    scaling = [loop for loop in innermost_loops(text) if any(text.startswith("fmul\t") for text in loop.instructions)]
    assert scaling
    for loop in scaling:
        multiplied = [bool(re.search(r"\.s\[\d\]", text)) for text in loop.instructions if text.startswith("fmul")]
        assert all(multiplied) and len(multiplied) % LANES == 0
        assert loop.multiply_adds == 0 and loop.stack_accesses == []
        assert len(loop.instructions) <= 3.5 * len(multiplied)


@pytest.mark.parametrize(("layout", "vectors", "pixels"), [("NHWC", 6, 4), ("NHWC", 24, 1), ("NCHW32c", 4, 6), ("NCHW32c", 8, 3)])
def test_pool(layout: str, vectors: int, pixels: int) -> None:
    """A load and an addition for every vector, and next to nothing besides."""
    knobs = {"vectors": vectors, "pixels": pixels}
    loop = hottest_loop(assembly_of(check_member(Pool(28, 28, 480, layout), knobs), knobs), "fadd")
    assert sum(text.startswith("fadd") for text in loop.instructions) == vectors * pixels
    assert loop.stack_accesses == []
    loads = sum(2 if text.startswith("ldp") else 1 for text in loop.instructions if text.startswith(("ldr\tq", "ldp\tq", "ldur\tq")))
    assert loads == vectors * pixels
    assert len(loop.instructions) <= 2 * vectors * pixels + 2 * pixels + 4


@pytest.mark.parametrize(("columns", "unroll"), [(16, 4), (20, 8), (40, 4), (40, 16), (64, 4), (80, 4), (96, 8)])
def test_dense(columns: int, unroll: int) -> None:
    knobs = {"columns": columns, "unroll": unroll}
    loop = hottest_loop(assembly_of(check_member(CLASSIFIER, knobs), knobs))
    assert loop.multiply_adds == loop.indexed == columns // LANES * unroll
    assert loop.stack_accesses == []


@pytest.mark.parametrize(("cell", "rows", "columns", "unroll", "most"), [("lstm", 1, 64, 8, 176), ("gru", 4, 16, 4, 112)])
def test_recurrent(cell: str, rows: int, columns: int, unroll: int, most: int) -> None:
    """The product of the states, and the gates of a vector of units, which five sigmoids or three take."""
    knobs = {"rows": rows, "columns": columns, "unroll": unroll, "vectors": 1}
    layer = Recurrent(cell, 32, rows, 128)
    loops = innermost_loops(assembly_of(check_member(layer, knobs), knobs))
    product = max(loops, key=lambda loop: loop.indexed)
    assert product.multiply_adds == product.indexed == rows * columns // LANES * unroll
    assert product.stack_accesses == [] and len(product.instructions) <= 2 * product.multiply_adds
    [gates] = [loop for loop in loops if loop.multiply_adds and not loop.indexed]
    assert gates.stack_accesses == [] and len(gates.instructions) <= most


@pytest.mark.parametrize("layer", [POINTWISE, DEPTHWISE, STRIDED, IMAGE, CLASSIFIER])
def test_first_guesses_hardly_spill(layer: Layer) -> None:
    """`choice.choose` compiles an untuned network with these schedules where nothing alike was tuned, and searches begin with them."""
    task = Task((layer,))
    template = template_for(task)
    assert template is not None
    space = template.space(task)
    assert space is not None
    knobs = space.default.values
    text = assembly_of(task, knobs)
    if layer is not IMAGE:
        loop = hottest_loop(text)
        assert len(loop.stack_accesses) <= 0.03 * loop.multiply_adds  # one value saved and restored goes unnoticed between the FMLA
        return
    # Found by its count: border tiles, of which a row has one, have more multiply-adds where LLVM unrolled their loop.
    count = knobs["pixels"] * knobs["columns"] // LANES * 9
    inner = [loop for loop in innermost_loops(text) if loop.multiply_adds == count]
    assert inner and all(loop.stack_accesses == [] for loop in inner)


def test_library_code_has_no_heap_allocation_for_tiles() -> None:
    """Local buffers must stay in registers (see `Kernel.accumulators`)."""
    for layer, knobs in (
        (POINTWISE, {"rows": 7, "columns": 8, "k_block": 0, "m_block": 0, "n_block": 0, "outer": 1, "axis": 0}),
        (DEPTHWISE, {"rows": 1, "columns": 6, "channels": 0, "axis": 0}),
        (IMAGE, {"pixels": 4, "columns": 16, "loop": 1, "order": 0}),
        (CLASSIFIER, {"columns": 40, "unroll": 4}),
    ):
        assert "TVMBackendAllocWorkspace" not in assembly_of(Task((layer,)), knobs)
