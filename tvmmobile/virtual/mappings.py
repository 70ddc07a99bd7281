"""Which file an address of a finished program belonged to, from its /proc/self/maps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tvmmobile.virtual.elf import NotElf, read_elf

_LINE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ \d+ +(/.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Mapping:
    """A piece of a file in a program's memory: addresses `begin` to `end`, from `offset` of the file on."""

    begin: int
    end: int
    offset: int
    path: Path


def parse_maps(text: str, base: int = 0) -> tuple[Mapping, ...]:
    """The files in the text of a /proc/PID/maps.

    Args:
        text: the file's content; see proc(5).
        base: what is subtracted from its addresses, QEMU's distance between its own and the program's.
    """
    rows = ((int(begin, 16) - base, int(end, 16) - base, int(offset, 16), path) for begin, end, offset, path in _LINE.findall(text))
    return tuple(Mapping(begin, end, offset, Path(path)) for begin, end, offset, path in rows)


def place_of(address: int, mappings: Sequence[Mapping]) -> str:
    """`library.so+0x1234 (function+0x10)`: file, offset in it and function where known, else `address 0x…`."""
    for mapping in mappings:
        if mapping.begin <= address < mapping.end:
            offset = mapping.offset + address - mapping.begin
            try:
                function = read_elf(mapping.path).place(offset)
            except (NotElf, OSError):
                function = ""
            return f"{mapping.path.name}+{offset:#x}" + (f" ({function})" if function else "")
    return f"address {address:#x}"
