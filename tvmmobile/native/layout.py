"""Memory layout of a library: constants in read-only data, tensors and kernels' memory in one workspace."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import numpy as np

from tvmmobile.native.memory import LiveBlock, aligned, lower_bound, pack
from tvmmobile.native.parts import CutKernel
from tvmmobile.native.program import Program
from tvmmobile.schedules.emit.expansion import Expansion

#: The largest page of phones' systems, in bytes.
PAGE = 1 << 14


@dataclass(frozen=True)
class Expanded:
    """Offsets of a constant that `init` expands, in bytes: of the result in the memory that it maps, and of the source in `weights`."""

    expansion: Expansion
    place: int
    stored: int
    scales: int | None


@dataclass(frozen=True)
class Layout:
    """Offsets of a library's memory, in bytes.

    Attributes:
        constants: offset of each constant in `weights`, except those in `expanded`.
        tensors: offset in the workspace of each tensor between kernels, except those placed in another tensor.
        states: offset of each tensor that is kept between calls, in a memory of `state_bytes`.
        scratch: offset in the workspace of each call's memory: first the part that threads share, then one part per thread.
        weights: all constants; equal ones are stored once.
        workspace_bytes: size of the whole workspace.
        least_bytes: the largest sum of memory that lives at the same time: no workspace can be smaller.
        expanded: constants that `init` makes.
        expanded_bytes: size of the memory that it maps for them.
    """

    constants: Mapping[int, int]
    tensors: Mapping[int, int]
    states: tuple[int, ...]
    state_bytes: int
    scratch: tuple[int, ...]
    weights: bytes
    workspace_bytes: int
    least_bytes: int
    expanded: Mapping[int, Expanded] = field(default_factory=dict)
    expanded_bytes: int = 0


def make_layout(program: Program, kernels: Mapping[str, CutKernel], threads: int) -> Layout:
    """Return the layout of a program whose kernels are run by up to `threads` threads; inputs and outputs are the caller's."""
    offsets, weights = _weights(program)
    constants, expanded, expanded_bytes = _constants(program, offsets)
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for time, call in enumerate(program.calls):
        first.setdefault(program.place_of(call.result)[0], time)
        used = {program.place_of(value)[0] for value in (*call.arguments, call.result)}
        last |= dict.fromkeys(used & first.keys(), time)
    states, state_bytes = _in_sequence(program.values[value].bytes for value, _ in program.states)
    elsewhere = {*program.outputs, *(following for _, following in program.states)}
    tensors = [value for value in first if value not in elsewhere]
    blocks = [LiveBlock(program.values[value].bytes, first[value], last[value]) for value in tensors]
    for time, call in enumerate(program.calls):
        kernel = kernels[call.symbol]
        blocks.append(LiveBlock(kernel.shared_bytes + threads * kernel.own_bytes, time, time))
    packing = pack(blocks)
    places, scratch = dict(zip(tensors, packing.offsets, strict=False)), packing.offsets[len(tensors) :]
    sizes = packing.bytes, lower_bound(blocks)
    return Layout(constants, places, states, state_bytes, scratch, weights, *sizes, expanded, expanded_bytes)


def _in_sequence(sizes: Iterable[int]) -> tuple[tuple[int, ...], int]:
    """Return the offsets of tensors that follow each other, each aligned to a cache line, and the size of all."""
    ends = list(accumulate(map(aligned, sizes), initial=0))
    return tuple(ends[:-1]), ends[-1]


#: A number of a constant, and one of the arrays that the file holds for it.
_Piece = tuple[int, int]


def _weights(program: Program) -> tuple[dict[_Piece, int], bytes]:
    """Return what the file holds of the constants in sequence, each piece aligned to a cache line, and their offsets."""
    offsets: dict[_Piece, int] = {}
    known: dict[bytes, int] = {}
    pieces = bytearray()
    for piece, content in _contents(program):
        digest = hashlib.sha256(content).digest()
        if digest not in known:
            pieces += bytes(aligned(len(pieces)) - len(pieces))
            known[digest] = len(pieces)
            pieces += content
        offsets[piece] = known[digest]
    return offsets, bytes(pieces)


def _contents(program: Program) -> Iterator[tuple[_Piece, bytes]]:
    """Yield what the file holds of the constants, piece by piece."""
    for number, value in enumerate(program.values):
        if value.data is None:
            continue
        held = (value.data,) if value.expansion is None else (value.expansion.stored, value.expansion.scales)
        for place, array in enumerate(held):
            if array is not None:
                yield (number, place), np.ascontiguousarray(array).tobytes()


def _constants(program: Program, offsets: Mapping[_Piece, int]) -> tuple[dict[int, int], dict[int, Expanded], int]:
    """Return where constants lie whose pieces have these offsets: those in the file, those that `init` makes, and the size of these."""
    constants, expanded, size = dict[int, int](), dict[int, Expanded](), 0
    known: dict[int, Expanded] = {}
    for number, value in enumerate(program.values):
        if value.expansion is not None:
            found = known.get(id(value.expansion))
            if found is None:
                found = known[id(value.expansion)] = Expanded(value.expansion, size, offsets[number, 0], offsets.get((number, 1)))
                size += aligned(value.bytes)
            expanded[number] = found
        elif value.data is not None:
            constants[number] = offsets[number, 0]
    return constants, expanded, size


def shared_weights(programs: Sequence[Program], layouts: Sequence[Layout]) -> tuple[list[Layout], bytes]:
    """Merge the constants of several layouts, storing equal ones once; return the layouts with their new offsets, and the merged constants.
    Constants used by the same layouts are adjacent, and start at a page if they fill one, so that the layout in use touches few pages of
    the others.
    """
    if len(layouts) == 1:
        return list(layouts), layouts[0].weights
    users: dict[bytes, list[int]] = {}
    contents: dict[bytes, bytes] = {}
    digests: list[dict[_Piece, bytes]] = []
    for place, program in enumerate(programs):
        digests.append({})
        for piece, content in _contents(program):
            digest = digests[-1][piece] = hashlib.sha256(content).digest()
            contents[digest] = content
            users.setdefault(digest, [])
            if place not in users[digest]:
                users[digest].append(place)
    offsets: dict[bytes, int] = {}
    memory = bytearray()
    for group in sorted({tuple(group) for group in users.values()}, key=lambda group: (-len(group), group)):
        members = [digest for digest, found in users.items() if tuple(found) == group]
        if sum(len(contents[digest]) for digest in members) >= PAGE:
            memory += bytes(-len(memory) % PAGE)
        for digest in members:
            memory += bytes(aligned(len(memory)) - len(memory))
            offsets[digest] = len(memory)
            memory += contents[digest]
    placed = []
    for program, layout, found in zip(programs, layouts, digests, strict=True):
        constants, expanded, _ = _constants(program, {piece: offsets[digest] for piece, digest in found.items()})
        placed.append(replace(layout, constants=constants, expanded=expanded))
    return placed, bytes(memory)
