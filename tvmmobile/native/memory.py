"""Places tensors in the workspace, so that those alive at the same time do not overlap and the workspace stays small."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

#: Every block begins at a multiple of a cache line, as kernels are compiled for.
ALIGNMENT = 64
#: Orders tried if none of the obvious ones reaches the lower bound.
_ATTEMPTS = 300


@dataclass(frozen=True)
class LiveBlock:
    """Memory that is needed from call number `first` to `last`, both included."""

    bytes: int
    first: int
    last: int


@dataclass(frozen=True)
class Packing:
    """An offset for every block, in order, and the total size in bytes."""

    offsets: tuple[int, ...]
    bytes: int


def aligned(size: int) -> int:
    """Round a size up to a whole number of cache lines."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def lower_bound(blocks: Sequence[LiveBlock]) -> int:
    """Return the largest sum of blocks that live at the same time; no packing is smaller."""
    times = {block.first for block in blocks}
    return max((sum(block.bytes for block in blocks if block.first <= time <= block.last) for time in times), default=0)


def pack(blocks: Sequence[LiveBlock]) -> Packing:
    """Pack blocks as tightly as found, by placing them one by one at the lowest free offset, in several orders.

    Largest first is nearly always the best order. Where it misses the bound, orders that differ from the best so far by a few exchanges are
    tried; equal blocks give equal packings.
    """
    least = lower_bound([LiveBlock(aligned(block.bytes), block.first, block.last) for block in blocks])
    numbers, sizes = range(len(blocks)), [aligned(block.bytes) for block in blocks]
    neighbours = [[i for i in numbers if blocks[i].first <= block.last and block.first <= blocks[i].last] for block in blocks]
    orders = [
        sorted(numbers, key=lambda i: (-blocks[i].bytes, blocks[i].first)),
        sorted(numbers, key=lambda i: (-blocks[i].bytes * (blocks[i].last - blocks[i].first + 1), i)),
        sorted(numbers, key=lambda i: (blocks[i].first - blocks[i].last, -blocks[i].bytes)),
        list(numbers),
    ]
    order, best = min(((order, _placed(sizes, neighbours, order)) for order in orders), key=lambda pair: pair[1].bytes)
    generator = random.Random(0)
    for _ in range(_ATTEMPTS if len(blocks) > 1 else 0):
        if best.bytes <= least:
            break
        other = list(order)
        for _ in range(generator.randint(1, 3)):
            i, j = generator.sample(numbers, 2)
            other.insert(j, other.pop(i))
        found = _placed(sizes, neighbours, other)
        if found.bytes <= best.bytes:
            order, best = other, found
    return best


def _placed(sizes: Sequence[int], neighbours: Sequence[Sequence[int]], order: Sequence[int]) -> Packing:
    """Place blocks in this order; `neighbours` lists, for each one, those that live when it does."""
    ends: dict[int, int] = {}
    for number in order:
        size, place = sizes[number], 0
        for begin, end in sorted((ends[other] - sizes[other], ends[other]) for other in neighbours[number] if other in ends):
            if begin - place >= size:
                break
            place = max(place, end)
        ends[number] = place + size
    return Packing(tuple(ends[number] - size for number, size in enumerate(sizes)), max(ends.values(), default=0))
