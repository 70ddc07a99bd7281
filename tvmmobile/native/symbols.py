"""Reads object files' code, and makes their symbols local so that several libraries link into one program.

The latter is what `objcopy --keep-global-symbols` does. System V ABI, object files: local symbols come first in the table, and relocations
and groups name symbols by their place in it.
"""

from __future__ import annotations

import struct
from collections.abc import Collection

#: The layout of 64-bit little-endian files, without the identification.
HEADER = struct.Struct("<16xHHIQQQIHHHHHH")
SECTION = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQ")  # offset and kind; in entries of 24 bytes, an addend follows
_SYMBOLS, _RELOCATIONS, _GROUP, _MANY_SECTIONS = 2, (4, 9), 17, 18
_UNDEFINED = 0
_EXECUTABLE = 4
_VISIBILITY = 3
_OBJECT = b"\x7fELF\x02\x01"  # 64 bits, little-endian
Symbol = tuple[int, int, int, int, int, int]


#: Fields of a section: its type, flags, place, bytes, the section it belongs to, a number whose meaning depends on its type, and bytes an
#: entry.
_TYPE, _FLAGS, _OFFSET, _SIZE, _LINK, _INFO, _ENTRY = 1, 2, 4, 5, 6, 7, 9


def code_of(content: bytes) -> bytes:
    """Return the instructions of an object file; raise `ValueError` for any other file."""
    _, sections = _sections(content)
    return b"".join(content[section[_OFFSET] : section[_OFFSET] + section[_SIZE]] for section in sections if section[_FLAGS] & _EXECUTABLE)


def localised(content: bytes, keep: Collection[str]) -> bytes:
    """Make the defined symbols of an object file local, except those in `keep`; raise `ValueError` for any other file."""
    begin, sections = _sections(content)
    tables = [index for index, section in enumerate(sections) if section[_TYPE] == _SYMBOLS]
    if len(tables) != 1 or any(section[_TYPE] == _MANY_SECTIONS for section in sections):
        raise ValueError("not an object file with one symbol table and fewer than 65,280 sections")
    result, table = bytearray(content), sections[tables[0]]
    names = sections[table[_LINK]][_OFFSET]
    symbols = [_seen(symbol, content, names, keep) for symbol in SYMBOL.iter_unpack(content[table[_OFFSET] :][: table[_SIZE]])]
    order = sorted(range(len(symbols)), key=lambda index: _is_global(symbols[index]))
    place = {old: new for new, old in enumerate(order)}
    for new, old in enumerate(order):
        SYMBOL.pack_into(result, table[_OFFSET] + new * SYMBOL.size, *symbols[old])
    table[_INFO] = sum(not _is_global(symbol) for symbol in symbols)
    for section in sections:
        if section[_LINK] == tables[0] and section[_TYPE] in _RELOCATIONS:
            for at in range(section[_OFFSET], section[_OFFSET] + section[_SIZE], section[_ENTRY]):
                where, what = _RELOCATION.unpack_from(content, at)
                _RELOCATION.pack_into(result, at, where, place[what >> 32] << 32 | what & 0xFFFFFFFF)
        elif section[_LINK] == tables[0] and section[_TYPE] == _GROUP:
            section[_INFO] = place[section[_INFO]]
    for index, section in enumerate(sections):
        SECTION.pack_into(result, begin + index * SECTION.size, *section)
    return bytes(result)


def _sections(content: bytes) -> tuple[int, list[list[int]]]:
    """Return the section table's position and entries."""
    if content[: len(_OBJECT)] != _OBJECT:
        raise ValueError("not a 64-bit little-endian ELF file")
    _, _, _, _, _, begin, _, _, _, _, _, count, _ = HEADER.unpack_from(content)
    return begin, [list(SECTION.unpack_from(content, begin + index * SECTION.size)) for index in range(count)]


def _is_global(symbol: Symbol) -> bool:
    return symbol[1] >> 4 != 0


def _seen(symbol: Symbol, content: bytes, names: int, keep: Collection[str]) -> Symbol:
    """Make a symbol visible or local."""
    name, info, other, section, value, size = symbol
    start = names + name
    text = content[start : content.index(0, start)].decode()
    if section == _UNDEFINED or not _is_global(symbol) or text in keep:
        return symbol
    return name, info & 0xF, other & ~_VISIBILITY, section, value, size
