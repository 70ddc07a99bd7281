"""Parses the plugin's block profile of a run, and derives basic blocks from it.

QEMU's translation blocks are not the program's basic blocks: one starts wherever control arrives, so that a loop's first iteration is often
part of a longer block, and page boundaries end blocks, too. `basic_blocks` splits them at every address where one of them starts or ends,
adds the counts of equal pieces, and merges neighbours that always run together. A loop thus becomes its body, counted once per iteration.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from tvmmobile.system.errors import one_line

INSTRUCTION_BYTES = 4


@dataclass(frozen=True)
class Block:
    """Straight-line code and its execution count.

    Attributes:
        address: address of the first instruction in the program's memory.
        count: number of executions.
        code: machine code, with four bytes for each instruction.
    """

    address: int
    count: int
    code: bytes

    @property
    def end(self) -> int:
        """The address after the last instruction."""
        return self.address + len(self.code)


@dataclass(frozen=True)
class Segment:
    """The work of one thread between two synchronisation points.

    Attributes:
        region: number of its region, from 1; 0 for a program without regions.
        thread: the thread's number.
        after: number of another thread's segment, from 1, that must have begun before this one can begin; 0 for none.
        misses: cache misses of the segment.
        counts: execution count of each block, by its index in `Profile.blocks`.
    """

    region: int
    thread: int
    after: int
    misses: MissCounts
    counts: Mapping[int, int]


@dataclass(frozen=True)
class MissCounts:
    """First-level misses by the level that held the line, each counted once, and memory traffic.

    Attributes:
        l2: misses of the second level.
        loads_from_l2: loads whose line was in the second level, or in another core's first level.
        loads_from_l3: loads whose line was in the third level, or in another core's caches.
        loads_from_memory: loads whose line was in no cache.
        stores: stores, wherever their line was.
        fills: lines read from memory.
        write_backs: lines written to memory.
    """

    l2: int = 0
    loads_from_l2: int = 0
    loads_from_l3: int = 0
    loads_from_memory: int = 0
    stores: int = 0
    fills: int = 0
    write_backs: int = 0

    @property
    def l1d(self) -> int:
        """Misses of the first-level data cache, by loads and stores."""
        return self.loads_from_l2 + self.loads_from_l3 + self.loads_from_memory + self.stores

    def dram_bytes(self, line_bytes: int) -> int:
        """Return the bytes read from memory and written back to it."""
        return (self.fills + self.write_backs) * line_bytes

    def __add__(self, other: MissCounts) -> MissCounts:
        return MissCounts(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


@dataclass(frozen=True)
class Profile:
    """The plugin's output for one process.

    Attributes:
        problem: reason why the regions cannot be modelled, in a few words; empty if they can.
        regions: number of marked regions.
        thread: number of the thread that opened them, or of the program's first thread.
        guest_base: address in QEMU's memory of the program's address 0.
        segments: segments in topological order of their dependencies.
        blocks: (address, code) of each block.
    """

    problem: str
    regions: int
    thread: int
    guest_base: int
    segments: tuple[Segment, ...]
    blocks: tuple[tuple[int, bytes], ...]

    def of_thread(self, thread: int) -> Profile:
        """Return the profile with only one thread's segments, which then wait for no others."""
        return replace(self, segments=tuple(replace(s, after=0) for s in self.segments if s.thread == thread))

    def executed(self) -> list[Block]:
        """Return the blocks with their counts over all segments, in the order of `blocks`."""
        totals = [0] * len(self.blocks)
        for segment in self.segments:
            for index, count in segment.counts.items():
                totals[index] += count
        return [Block(address, count, code) for (address, code), count in zip(self.blocks, totals, strict=True)]

    def misses(self) -> MissCounts:
        """Return the sum of all segments' misses."""
        return sum((segment.misses for segment in self.segments), MissCounts())


def parse_profile(text: str | bytes) -> Profile:
    """Parse the plugin's output, which program.c documents.

    Raises:
        ValueError: the text is not a profile.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no profile: {one_line(error)}") from error
    return profile_of(value)


def profile_of(value: Any) -> Profile:
    """Make a profile from the plugin's output, parsed as JSON.

    Raises:
        ValueError: the value is not a profile.
    """
    try:
        index = {name: place for place, name in enumerate(value["blocks"])}
        segments = [
            Segment(region, thread, after, MissCounts(*misses), _counts(entries, index))
            for region, thread, after, misses, entries in value["segments"]
        ]
        blocks = [(address, bytes.fromhex(code)) for address, code in value["blocks"].values()]
        profile = Profile(value["problem"], value["regions"], value["thread"], value["guest_base"], tuple(segments), tuple(blocks))
        _check_numbers(profile)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"no profile: {error!r}") from error
    return profile


def _check_numbers(profile: Profile) -> None:
    """Raise `TypeError` for a value of a wrong type, which would otherwise fail only in later arithmetic."""
    numbers = [profile.regions, profile.thread, profile.guest_base, *(address for address, _ in profile.blocks)]
    for segment in profile.segments:
        numbers += [segment.region, segment.thread, segment.after, *vars(segment.misses).values(), *segment.counts.values()]
    if not isinstance(profile.problem, str) or not all(type(number) is int for number in numbers):
        raise TypeError("a field has the wrong type")


def _counts(entries: list[int], index: Mapping[str, int]) -> dict[int, int]:
    totals: defaultdict[int, int] = defaultdict(int)
    for block, count in zip(entries[::2], entries[1::2], strict=True):
        totals[index[str(block)]] += count
    return dict(totals)


def basic_blocks(blocks: Iterable[Block]) -> list[Block]:
    """Split translation blocks at each other's ends, add up equal pieces, and merge those that always run together; sorted by address."""
    return basic_blocks_of(list(blocks))[0]


def basic_blocks_of(blocks: Sequence[Block]) -> tuple[list[Block], list[list[tuple[int, float]]]]:
    """Return `basic_blocks`, and for each translation block (index of a basic block, share of it that the translation block covers)."""
    cuts = sorted({place for block in blocks for place in (block.address, block.end)})
    counts: defaultdict[tuple[int, bytes], int] = defaultdict(int)
    pieces = [list(_pieces(block, cuts)) for block in blocks]
    for block, members in zip(blocks, pieces, strict=True):
        for piece in members:
            counts[piece] += block.count
    joined: list[Block] = []
    place: dict[tuple[int, bytes], int] = {}
    for address, code in sorted(counts):
        count, last = counts[address, code], joined[-1] if joined else None
        if last is not None and last.end == address and last.count == count and not _leaves(last.code):
            joined[-1] = Block(last.address, count, last.code + code)
        else:
            joined.append(Block(address, count, code))
        place[address, code] = len(joined) - 1
    shares = [[(place[piece], len(piece[1]) / len(joined[place[piece]].code)) for piece in members] for members in pieces]
    return joined, shares


def _pieces(block: Block, cuts: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    begin = block.address
    index = bisect_right(cuts, begin)
    while begin < block.end:
        end = cuts[index]  # the block's own end is one, so there is always a next
        yield begin, block.code[begin - block.address : end - block.address]
        begin, index = end, index + 1


def _leaves(code: bytes) -> bool:
    """Return whether control never falls through the last instruction (b, bl, br, blr, ret, svc; Arm ARM, C4.1.66)."""
    word = int.from_bytes(code[-INSTRUCTION_BYTES:], "little")
    return word & 0x7C000000 == 0x14000000 or word & 0xFE000000 == 0xD6000000 or word & 0xFF000000 == 0xD4000000
