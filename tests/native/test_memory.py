"""Blocks that live at the same time never overlap, and the whole is close to the lower bound."""

from __future__ import annotations

from host_kernels import examples
from hypothesis import given
from hypothesis import strategies as st

from tvmmobile.native.memory import ALIGNMENT, LiveBlock, aligned, lower_bound, pack

BLOCKS = st.builds(
    lambda size, first, length: LiveBlock(size, first, first + length), st.integers(0, 5000), st.integers(0, 12), st.integers(0, 4)
)


@examples(60)
@given(blocks=st.lists(BLOCKS, max_size=14))
def test_blocks_that_live_at_the_same_time_lie_apart(blocks: list[LiveBlock]) -> None:
    packing = pack(blocks)
    assert packing.bytes >= lower_bound(blocks)
    places = [(offset, offset + block.bytes, block) for offset, block in zip(packing.offsets, blocks, strict=True)]
    assert all(begin % ALIGNMENT == 0 and end <= packing.bytes for begin, end, _ in places)
    for number, (begin, end, block) in enumerate(places):
        for other_begin, other_end, other in places[:number]:
            assert block.last < other.first or other.last < block.first or end <= other_begin or other_end <= begin or begin == end


def test_a_chain_takes_its_bound() -> None:
    """Tensors of a network without branches: each lives until the next is there."""
    blocks = [LiveBlock(size, time, time + 1) for time, size in enumerate((802816, 401408, 802816, 200704, 401408, 50176))]
    assert pack(blocks).bytes == lower_bound(blocks) == 802816 + 401408


def test_an_order_is_searched_where_the_largest_first_is_not_the_best() -> None:
    """Largest first puts both 3s at the bottom, so that the 2 between them finds no room below 5."""
    blocks = [LiveBlock(64 * size, *span) for size, *span in ((3, 0, 1), (2, 1, 3), (3, 3, 4), (2, 0, 0), (2, 4, 4), (1, 2, 3), (3, 2, 2))]
    assert pack(blocks).bytes == lower_bound(blocks)


def test_the_bound_of_nothing_is_nothing() -> None:
    assert pack([]).bytes == lower_bound([]) == 0 and aligned(1) == aligned(64) == 64
