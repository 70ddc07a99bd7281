"""The block profile of one run: what the plugin writes, and the basic blocks behind it.

QEMU's translation blocks are not the program's: one starts wherever control happened to arrive, so the first trip around a loop is often
part of a longer block, and pages end blocks too. `basic_blocks` cuts them at every place where any of them starts or ends, adds the
counts of equal pieces, and joins neighbours that always ran together. What is left of a loop is its body, counted once per trip.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

INSTRUCTION_BYTES = 4


@dataclass(frozen=True)
class Block:
    """Straight-line code and how often it ran.

    Attributes:
        address: of its first instruction in the program's memory.
        count: how many times it was executed.
        code: its machine code, four bytes an instruction.
    """

    address: int
    count: int
    code: bytes

    @property
    def end(self) -> int:
        """The address behind its last instruction."""
        return self.address + len(self.code)


def parse_blocks(text: str | list[Any]) -> list[Block]:
    """The plugin's JSON array of `[address, count, code in hexadecimal]`, as text or already parsed.

    Raises:
        ValueError: it is something else.
    """
    rows = json.loads(text) if isinstance(text, str) else text
    try:
        return [Block(int(address), int(count), bytes.fromhex(code)) for address, count, code in rows]
    except (TypeError, ValueError) as error:
        raise ValueError(f"no block profile: {error}") from error


def basic_blocks(blocks: Iterable[Block]) -> list[Block]:
    """Translation blocks cut at each other's ends, summed, and joined where one always falls through into the next; by address."""
    blocks = list(blocks)
    cuts = sorted({place for block in blocks for place in (block.address, block.end)})
    counts: defaultdict[tuple[int, bytes], int] = defaultdict(int)
    for block in blocks:
        begin = block.address
        index = bisect_right(cuts, begin)
        while begin < block.end:
            end = cuts[index]  # the block's own end is one, so there always is a next
            counts[begin, block.code[begin - block.address : end - block.address]] += block.count
            begin, index = end, index + 1
    return _joined([Block(address, counts[address, code], code) for address, code in sorted(counts)])


def _joined(blocks: list[Block]) -> list[Block]:
    joined: list[Block] = []
    for block in blocks:
        last = joined[-1] if joined else None
        if last is not None and last.end == block.address and last.count == block.count and not _leaves(last.code):
            joined[-1] = Block(last.address, last.count, last.code + block.code)
        else:
            joined.append(block)
    return joined


def _leaves(code: bytes) -> bool:
    """Whether control never falls through the last instruction (b, bl, br, blr, ret, svc; Arm ARM, C4.1.66)."""
    word = int.from_bytes(code[-INSTRUCTION_BYTES:], "little")
    return word & 0x7C000000 == 0x14000000 or word & 0xFE000000 == 0xD6000000 or word & 0xFF000000 == 0xD4000000
