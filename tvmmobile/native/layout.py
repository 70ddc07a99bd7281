"""Memory layout of a library: constants in read-only data, tensors and kernels' memory in one workspace."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from tvmmobile.native.memory import LiveBlock, aligned, lower_bound, pack
from tvmmobile.native.parts import CutKernel
from tvmmobile.native.program import Program

#: The largest page of phones' systems, in bytes.
PAGE = 1 << 14


@dataclass(frozen=True)
class Layout:
    """Offsets of a library's memory, in bytes.

    Attributes:
        constants: offset of each constant in `weights`.
        tensors: offset of each tensor between kernels in the workspace, but those placed in another one.
        states: offset of each tensor that is kept between calls, in a memory of `state_bytes`.
        scratch: offset of each call's memory there: what threads share, then a piece for each.
        weights: all constants; equal ones are there once.
        workspace_bytes: size of the whole workspace.
        least_bytes: the largest sum of memory that lives at the same time: no workspace can be smaller.
    """

    constants: Mapping[int, int]
    tensors: Mapping[int, int]
    states: tuple[int, ...]
    state_bytes: int
    scratch: tuple[int, ...]
    weights: bytes
    workspace_bytes: int
    least_bytes: int


def make_layout(program: Program, kernels: Mapping[str, CutKernel], threads: int) -> Layout:
    """Return the layout of a program whose kernels are run by up to `threads` threads; inputs and outputs are the caller's."""
    constants, weights = _weights(program)
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
    return Layout(constants, places, states, state_bytes, scratch, weights, packing.bytes, lower_bound(blocks))


def _in_sequence(sizes: Iterable[int]) -> tuple[tuple[int, ...], int]:
    """Return the offsets of tensors that follow each other, each aligned to a cache line, and the size of all."""
    ends = list(accumulate(map(aligned, sizes), initial=0))
    return tuple(ends[:-1]), ends[-1]


def _weights(program: Program) -> tuple[dict[int, int], bytes]:
    """Return the constants in sequence, each aligned to a cache line, and their offsets."""
    offsets: dict[int, int] = {}
    known: dict[bytes, int] = {}
    pieces = bytearray()
    for number, content in _contents(program):
        digest = hashlib.sha256(content).digest()
        if digest not in known:
            pieces += bytes(aligned(len(pieces)) - len(pieces))
            known[digest] = len(pieces)
            pieces += content
        offsets[number] = known[digest]
    return offsets, bytes(pieces)


def _contents(program: Program) -> Iterator[tuple[int, bytes]]:
    """Yield the constants' numbers and bytes."""
    for number, value in enumerate(program.values):
        if value.data is not None:
            yield number, np.ascontiguousarray(value.data).tobytes()


def shared_weights(programs: Sequence[Program], layouts: Sequence[Layout]) -> tuple[list[Layout], bytes]:
    """Put the constants of several layouts into one memory, equal ones once; return the layouts with their places there, and the memory.

    Those that the same layouts use lie together, from a page on if they fill one, so that a layout in use touches few of the others' pages.
    """
    if len(layouts) == 1:
        return list(layouts), layouts[0].weights
    users: dict[bytes, list[int]] = {}
    contents: dict[bytes, bytes] = {}
    digests: list[dict[int, bytes]] = []
    for place, program in enumerate(programs):
        digests.append({})
        for number, content in _contents(program):
            digest = digests[-1][number] = hashlib.sha256(content).digest()
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
    placed = [{number: offsets[digest] for number, digest in each.items()} for each in digests]
    return [replace(layout, constants=constants) for layout, constants in zip(layouts, placed, strict=True)], bytes(memory)
