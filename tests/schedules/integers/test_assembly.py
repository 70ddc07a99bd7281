"""The AArch64 code of integer kernels' inner loops: the multiplications of the tile, what they read, and no spills."""

from __future__ import annotations

import re

import pytest
from assembly import Loop, hottest_loop, innermost_loops
from integer_kernels import assembly_on

from tvmmobile.graph.layers import Conv2d, Dense, Layer

POINTWISE = Conv2d(14, 14, 512, 512)
DEPTHWISE = Conv2d(14, 14, 512, 512, (3, 3), (1, 1), (1, 1, 1, 1), 512)
_BY_LANE = re.compile(r"sdot\tv\d+\.4s, v\d+\.16b, v\d+\.4b\[\d\]")


@pytest.mark.parametrize(
    ("layer", "rows", "columns", "depth"),
    [(POINTWISE, 8, 8, 16), (POINTWISE, 4, 16, 16), (POINTWISE, 6, 12, 16), (Dense(1024, 1000, writes="float32"), 1, 16, 32)],
)
def test_dot_product(layer: Layer, rows: int, columns: int, depth: int) -> None:
    """All multiplications take four bytes of a lane; besides, a load of every vector, addresses and the branch."""
    loop = hottest_loop(assembly_on(layer, "cortex-a76", "dot_product", rows=rows, columns=columns), "sdot")
    products = [text for text in loop.instructions if text.startswith("sdot")]
    assert len(products) == rows * columns * depth // 16 == sum(bool(_BY_LANE.match(text)) for text in products)
    assert loop.stack_accesses == []
    assert len(loop.instructions) - len(products) <= columns * depth // 16 + rows * depth // 16 + 6


@pytest.mark.parametrize("rows", [4, 8])
def test_dot_product_in_order(rows: int) -> None:
    """A loop over 16 bytes of K with nothing that cannot issue beside a product: no load of 16 bytes, and at most one more a product."""
    loop = hottest_loop(assembly_on(POINTWISE, "cortex-a55", "dot_product", rows=rows, columns=8), "sdot")
    products = [text for text in loop.instructions if text.startswith("sdot")]
    assert len(products) == rows * 8 == sum(bool(_BY_LANE.match(text)) for text in products)
    assert loop.stack_accesses == [] and not [text for text in loop.instructions if re.match(r"ld(p|ur|r)?\tq", text)]
    assert len(loop.instructions) - len(products) <= 2 * rows + 3 * 8 + 5


@pytest.mark.parametrize("mcpu", ["cortex-a76", "cortex-a78", "neoverse-n2"])
def test_constants_are_reloaded(mcpu: str) -> None:
    """Vectors that an instruction overwrites are loaded each time: a copy would take the place of a product."""
    loop = hottest_loop(assembly_on(Conv2d(112, 112, 32, 64), mcpu, "dot_product", rows=3, columns=16), "sdot")
    assert _count(loop, "sdot") == 96 and _count(loop, "fmla") == 12
    assert sum(text.startswith("mov\tv") for text in loop.instructions) <= 2
    loop = hottest_loop(assembly_on(DEPTHWISE, mcpu, "dot_depthwise", rows=2, columns=3), "sdot")
    assert sum(text.startswith("mov\tv") for text in loop.instructions) <= 2


@pytest.mark.parametrize(
    ("layer", "rows", "columns"), [(POINTWISE, 4, 16), (POINTWISE, 5, 12), (POINTWISE, 6, 8), (Dense(1024, 1000, writes="float32"), 1, 16)]
)
def test_long_product(layer: Layer, rows: int, columns: int) -> None:
    """For 16 bytes of a pixel and a channel, SMULL of the low and SMLAL2 of the high ones, and SADALP, which in the loop of pairs is there
    once for 32 bytes; vectors are loaded once, and a pixel's is turned three times.
    """
    text, tile = assembly_on(layer, "cortex-a72", "long_product", rows=rows, columns=columns), rows * columns
    loops = [loop for loop in innermost_loops(text) if _count(loop, "sadalp") == tile]
    kinds = set()
    for loop in loops:
        kinds.add(products := (_count(loop, "smull") + _count(loop, "smlal") + _count(loop, "smlal2")) // tile)
        assert loop.stack_accesses == []
        assert len(loop.instructions) <= (products + 1) * tile + products // 2 * (4 * rows + columns) + 9
    assert kinds == {2, 4}


def _count(loop: Loop, name: str) -> int:
    return sum(text.startswith(f"{name}\t") for text in loop.instructions)


@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (2, 3), (2, 4), (1, 4)])
def test_dot_depthwise(rows: int, columns: int) -> None:
    """For eight channels of a column of the window four permutations, and for an output six products; no number on its own."""
    loop = hottest_loop(assembly_on(DEPTHWISE, "cortex-a76", "dot_depthwise", rows=rows, columns=columns), "sdot")
    assert sum(text.startswith("sdot") for text in loop.instructions) == rows * columns * 6
    permutations = sum(text.startswith(("zip", "trn", "ext", "tbl", "ins")) for text in loop.instructions)
    assert permutations <= (columns + 2) * 4 + rows * columns // 2  # and every other output is stored from a high half
    # Weights that several columns of the window read may be there.
    assert len(loop.stack_accesses) <= (2 if rows * columns == 6 else 8) * (rows * columns > 4)
    assert not [text for text in loop.instructions if text.startswith(("umov", "smov", "ldrb", "ldrsb", "strb"))]


@pytest.mark.parametrize(("rows", "columns"), [(1, 4), (2, 3)])
def test_long_depthwise(rows: int, columns: int) -> None:
    """Nine products of eight channels for an output, added in threes or in pairs of 16 bits: three or five wide additions for each sum.
    Both ways share the end of a tile; where the window reaches into the padding, there are fewer.
    """
    found, outputs = set(), rows * columns
    for loop in innermost_loops(assembly_on(DEPTHWISE, "cortex-a72", "long_depthwise", rows=rows, columns=columns)):
        assert loop.stack_accesses == []
        products = _count(loop, "smull") + _count(loop, "smlal")
        if products == 9 * outputs:
            found.add(_count(loop, "saddw") / outputs)
            assert abs(_count(loop, "saddw") - _count(loop, "saddw2")) <= 1
    assert found == {3, 5}
