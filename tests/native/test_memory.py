"""Blocks that live at the same time never overlap, and the whole is close to the lower bound."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from time import process_time

from host_kernels import examples
from hypothesis import given
from hypothesis import strategies as st

from tvmmobile.native.memory import ALIGNMENT, LiveBlock, Packing, aligned, lower_bound, pack

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


def _plainly_packed(blocks: list[LiveBlock]) -> Packing:
    """Pack blocks as `pack` promises to, and compare every block with all placed ones."""

    def placed(order: list[int]) -> Packing:
        offsets: dict[int, int] = {}
        for number in order:
            block, place = blocks[number], 0
            alive = [other for other in offsets if blocks[other].first <= block.last and block.first <= blocks[other].last]
            for begin, end in sorted((offsets[other], offsets[other] + aligned(blocks[other].bytes)) for other in alive):
                if begin - place >= aligned(block.bytes):
                    break
                place = max(place, end)
            offsets[number] = place
        ends = [offsets[number] + aligned(block.bytes) for number, block in enumerate(blocks)]
        return Packing(tuple(offsets[number] for number in range(len(blocks))), max(ends, default=0))

    def order_by(key: Callable[[LiveBlock], tuple[int, ...]]) -> list[int]:
        return sorted(range(len(blocks)), key=lambda number: key(blocks[number]))

    orders = [
        order_by(lambda block: (-block.bytes, block.first)),
        order_by(lambda block: (-block.bytes * (block.last - block.first + 1),)),
        order_by(lambda block: (block.first - block.last, -block.bytes)),
        order_by(lambda _: ()),
    ]
    order, best = min(((order, placed(order)) for order in orders), key=lambda pair: pair[1].bytes)
    least, generator = lower_bound([replace(block, bytes=aligned(block.bytes)) for block in blocks]), random.Random(0)
    for _ in range(300 if len(blocks) > 1 else 0):
        if best.bytes <= least:
            break
        other = list(order)
        for _ in range(generator.randint(1, 3)):
            i, j = generator.sample(range(len(blocks)), 2)
            other.insert(j, other.pop(i))
        if (found := placed(other)).bytes <= best.bytes:
            order, best = other, found
    return best


@examples(40)
@given(blocks=st.lists(BLOCKS, max_size=25))
def test_packings_are_those_of_a_plain_search(blocks: list[LiveBlock]) -> None:
    """Offsets are part of a library's code: a faster search may not change them."""
    assert pack(blocks) == _plainly_packed(blocks)


def test_a_thousand_calls_are_packed_in_seconds() -> None:
    generator = random.Random(1)
    blocks = [LiveBlock(generator.randint(1, 10**5), time, time + generator.choice((1, 1, 2, 5, 40))) for time in range(1000)]
    started = process_time()
    assert pack(blocks).bytes > lower_bound(blocks)  # all orders are tried
    assert process_time() - started < 10
