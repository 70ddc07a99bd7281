"""Reads ELF files: the machine, the dynamic loader, and the functions at addresses.

Also finds the file that was mapped at an address in a finished program, from its /proc/self/maps.
Tool Interface Standard, ELF 1.2, with the 64-bit layout of the System V ABI.
"""

from __future__ import annotations

import functools
import re
import struct
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tvmmobile.native.symbols import HEADER, SECTION, SYMBOL

#: EM_AARCH64 (ELF for the Arm 64-bit Architecture, Arm IHI 0056).
AARCH64 = 183
_MACHINES = {3: "x86", 40: "32-bit ARM", 62: "x86-64", AARCH64: "AArch64", 243: "RISC-V"}
_IDENT = b"\x7fELF"
_SEGMENT = struct.Struct("<IIQQQQQQ")
_LOAD, _INTERPRETER = 1, 3
_SYMBOLS, _DYNAMIC_SYMBOLS = 2, 11
_FUNCTIONS = {2, 10}  # STT_FUNC, STT_GNU_IFUNC
_KINDS = {2, 3}  # executable, position-independent
_MAPPED = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ \d+ +(/.*)$", re.MULTILINE)


class NotElf(ValueError):
    """The file is not a 64-bit little-endian ELF file."""


@dataclass(frozen=True)
class Elf:
    """An ELF file's header and function symbols.

    Attributes:
        machine: name of the architecture, such as `AArch64`, or its number.
        runs: true for a program or shared library, false for an object file or core dump.
        interpreter: path of the dynamic loader; empty for a static program.
        segments: mapped parts of the file, as (offset in the file, bytes, address).
        symbols: functions as (address, bytes, name), sorted by address.
    """

    machine: str
    runs: bool
    interpreter: str
    segments: tuple[tuple[int, int, int], ...]
    symbols: tuple[tuple[int, int, str], ...]

    def place(self, offset: int) -> str:
        """Return the function at an offset of the file, such as `name+0x10`; empty if unknown."""
        address = next((address + offset - begin for begin, size, address in self.segments if begin <= offset < begin + size), None)
        if address is None:
            return ""
        index = bisect_right(self.symbols, address, key=lambda symbol: symbol[0]) - 1
        if index < 0:
            return ""
        begin, size, name = self.symbols[index]
        return f"{name}+{address - begin:#x}" if address < begin + size else ""


@functools.lru_cache(maxsize=64)
def read_elf(path: Path) -> Elf:
    """Read a file's ELF header, segments and function symbols.

    Raises:
        NotElf: the file is not an ELF file, or damaged.
        OSError: the file cannot be read.
    """
    if path.exists() and not path.is_file():
        raise NotElf(f"{path} is not a regular file")  # a device may be endless
    data = path.read_bytes()
    if data[:4] != _IDENT or len(data) < 64:
        raise NotElf(f"{path} is not an ELF file")
    if data[4:6] != b"\x02\x01":
        machine = int.from_bytes(data[18:20], "little")
        return Elf(_MACHINES.get(machine, "another architecture"), False, "", (), ())
    try:
        return _parse(data)
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        raise NotElf(f"{path} is a damaged ELF file") from error


def _parse(data: bytes) -> Elf:
    kind, machine, _, _, segments_at, sections_at, _, _, segment_bytes, segment_count, section_bytes, section_count, _ = HEADER.unpack_from(
        data
    )
    interpreter, loads = "", []
    for i in range(segment_count):
        what, _, offset, address, _, size, _, _ = _SEGMENT.unpack_from(data, segments_at + i * segment_bytes)
        if what == _LOAD:
            loads.append((offset, size, address))
        elif what == _INTERPRETER:
            interpreter = data[offset : offset + size].rstrip(b"\0").decode()
    sections = [SECTION.unpack_from(data, sections_at + i * section_bytes) for i in range(section_count)] if sections_at else []
    symbols = {symbol for section in sections if section[1] in (_SYMBOLS, _DYNAMIC_SYMBOLS) for symbol in _symbols(data, section, sections)}
    name = _MACHINES.get(machine, f"machine {machine}")
    return Elf(name, kind in _KINDS, interpreter, tuple(loads), _with_sizes(sorted(symbols)))


def _with_sizes(symbols: list[tuple[int, int, str]]) -> tuple[tuple[int, int, str], ...]:
    """Extend functions without a size, as in handwritten assembly, to the next function."""
    begins = sorted({address for address, _, _ in symbols})
    after = dict(pairwise(begins))
    return tuple((address, size or after.get(address, address) - address, name) for address, size, name in symbols)


def _symbols(data: bytes, section: tuple[int, ...], sections: list[tuple[int, ...]]) -> list[tuple[int, int, str]]:
    names = sections[section[6]][4]
    symbols = []
    for entry in SYMBOL.iter_unpack(data[section[4] : section[4] + section[5]]):
        name_at, info, _, home, address, size = entry
        if info & 15 in _FUNCTIONS and home:
            begin = names + name_at
            symbols.append((address, size, data[begin : data.index(b"\0", begin)].decode()))
    return symbols


@dataclass(frozen=True)
class Mapping:
    """A mapped part of a file in a program's memory: addresses from `begin` to before `end`, from `offset` in the file."""

    begin: int
    end: int
    offset: int
    path: Path


def parse_maps(text: str, base: int = 0) -> tuple[Mapping, ...]:
    """Parse the mapped files in /proc/PID/maps.

    Args:
        text: the content of the file; see proc(5).
        base: number to subtract from addresses: the place of the program's address 0 in QEMU's memory.
    """
    rows = ((int(begin, 16) - base, int(end, 16) - base, int(offset, 16), path) for begin, end, offset, path in _MAPPED.findall(text))
    return tuple(Mapping(begin, end, offset, Path(path)) for begin, end, offset, path in rows)


def place_of(address: int, mappings: Sequence[Mapping]) -> str:
    """Describe an address by file, offset and function, if known: `library.so+0x1234 (function+0x10)`; otherwise `address 0x…`."""
    for mapping in mappings:
        if mapping.begin <= address < mapping.end:
            offset = mapping.offset + address - mapping.begin
            try:
                function = read_elf(mapping.path).place(offset)
            except (ValueError, OSError):  # not ELF, missing, or not a file name
                function = ""
            return f"{mapping.path.name}+{offset:#x}" + (f" ({function})" if function else "")
    return f"address {address:#x}"
