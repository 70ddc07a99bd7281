"""Demands of Android's loader on a library, after bionic's linker (linker_phdr.cpp, linker.cpp, linker_relocate.cpp of March 2025).

For apps of target SDK 26 and later: what older ones are warned of is an error here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

AARCH64, SHARED = 183, 3
LOAD, DYNAMIC = 1, 2
EXECUTABLE_AND_WRITABLE = 3
STRING_TABLE, DYNAMIC_SECTION = 3, 6
MOST_SEGMENTS = 65536 // 56
#: Tags of the dynamic section.
PLT_BYTES, HASH, STRINGS, SYMBOLS, RELA, RELA_BYTES, SYMBOL_BYTES, SONAME, REL = 2, 4, 5, 6, 7, 8, 11, 14, 17
PLT_KIND, TEXT_RELOCATIONS, PLT, FLAGS, GNU_HASH, FLAGS_1 = 20, 22, 23, 30, 0x6FFFFEF5, 0x6FFFFFFB
TEXT_FLAG = 4
#: NOW, GLOBAL, NODELETE, ORIGIN, PIE: others are warned of.
KNOWN_FLAGS_1 = 0x1 | 0x2 | 0x8 | 0x80 | 0x08000000
#: ABS64, GLOB_DAT, JUMP_SLOT, RELATIVE. The loader takes those of thread-local storage as well; these libraries have none.
RELOCATIONS = {257, 1025, 1026, 1027}

Numbers = tuple[int, ...]


def refusals(data: bytes, page_bytes: int = 16384) -> list[str]:
    """Why Android's loader would not load a library with pages of that size; empty if it would."""
    machine = struct.unpack_from("<HHI", data, 16)
    segments_at, sections_at = struct.unpack_from("<QQ", data, 32)
    segment_count, section_bytes, section_count, names = struct.unpack_from("<HHHH", data, 56)
    if data[:6] != b"\x7fELF\2\1" or machine != (SHARED, AARCH64, 1):
        return ["it is not a 64-bit little-endian library for AArch64"]
    if not 0 < segment_count <= MOST_SEGMENTS:
        return ["invalid e_phnum"]
    if not (sections_at and section_count and names) or section_bytes != 64:
        return ["no section headers"]
    segments: list[Numbers] = [struct.unpack_from("<IIQQQQQQ", data, segments_at + 56 * i) for i in range(segment_count)]
    sections: list[Numbers] = [struct.unpack_from("<IIQQQQIIQQ", data, sections_at + 64 * i) for i in range(section_count)]
    dynamic = [(offset, size) for kind, _, offset, _, _, size, _, _ in segments if kind == DYNAMIC]
    named = [(section[4], section[5]) for section in sections if section[1] == DYNAMIC_SECTION and sections[section[6]][1] == STRING_TABLE]
    if not dynamic or dynamic != named:
        return ["the .dynamic section is not that of the program headers"]
    begin, size = dynamic[0]
    entries = list(struct.iter_unpack("<QQ", data[begin : begin + size]))
    loads = [segment for segment in segments if segment[0] == LOAD]
    return [*_of_segments(loads, len(data), page_bytes), *_of_entries(entries), *_of_relocations(data, loads, dict(entries))]


def _of_segments(loads: list[Numbers], file_bytes: int, page_bytes: int) -> Iterator[str]:
    if not loads:
        yield "no loadable segments"
    for _, flags, offset, address, _, size, _, alignment in loads:
        if alignment & (alignment - 1) or alignment < page_bytes or (address - offset) % page_bytes:
            yield f"a segment aligned to {alignment}, pages of {page_bytes}"
        if offset + size > file_bytes:
            yield "a segment past the end of the file"
        if size and flags & EXECUTABLE_AND_WRITABLE == EXECUTABLE_AND_WRITABLE:
            yield "a segment both writable and executable"


def _of_entries(entries: list[Numbers]) -> Iterator[str]:
    values = dict(entries)
    wanted = {"DT_HASH or DT_GNU_HASH": (HASH, GNU_HASH), "DT_STRTAB": (STRINGS,), "DT_SYMTAB": (SYMBOLS,), "DT_SONAME": (SONAME,)}
    yield from (f"no {name}" for name, tags in wanted.items() if not any(values.get(tag) for tag in tags))
    if TEXT_RELOCATIONS in values or values.get(FLAGS, 0) & TEXT_FLAG:
        yield "text relocations"
    if REL in values or values.get(PLT_KIND, RELA) != RELA or values.get(SYMBOL_BYTES) != 24:
        yield "tables of another architecture"
    if values.get(FLAGS_1, 0) & ~KNOWN_FLAGS_1:
        yield "unsupported flags DT_FLAGS_1"


def _of_relocations(data: bytes, loads: list[Numbers], values: dict[int, int]) -> Iterator[str]:
    for table, size in ((RELA, RELA_BYTES), (PLT, PLT_BYTES)):
        for _, _, offset, address, _, held, _, _ in loads:
            if table in values and 0 <= (place := values[table] - address) < held:
                rows = data[offset + place : offset + place + values[size]]
                kinds = {information & 0xFFFFFFFF for _, information, _ in struct.iter_unpack("<QQq", rows)}
                yield from (f"unknown relocation {kind}" for kind in kinds - RELOCATIONS)
