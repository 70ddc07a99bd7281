"""ELF files and memory maps that are damaged, or made to mislead."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tvmmobile.system.errors import UserError
from tvmmobile.virtual.elf import NotElf, parse_maps, place_of, read_elf
from tvmmobile.virtual.program import read_profile

HUGE = (1 << 64) - 1


def _header(segments_at: int = 64, segments: int = 0, sections_at: int = 0, sections: int = 0) -> bytes:
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    return ident + struct.pack("<HHIQQQIHHHHHH", 3, 183, 1, 0, segments_at, sections_at, 0, 64, 56, segments, 64, sections, 0)


@pytest.mark.parametrize(
    "content",
    [
        _header(segments_at=HUGE, segments=1),
        _header(sections_at=HUGE, sections=1),
        _header(segments=2),
        _header(sections_at=64, sections=9),
        _header(segments=1) + struct.pack("<IIQQQQQQ", 3, 4, 120, 0, 0, 1, 1, 1) + b"\xff",
        _header(sections_at=64, sections=1) + struct.pack("<IIQQQQIIQQ", 0, 2, 0, 0, 0, 24, 9, 0, 8, 24),
    ],
    ids=["segments", "sections", "short", "many", "interpreter", "names"],
)
def test_tables_beyond_the_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "program").write_bytes(content)
    with pytest.raises(NotElf, match="is a damaged ELF file"):
        read_elf(tmp_path / "program")


def test_a_device_is_not_read_to_its_end() -> None:
    with pytest.raises(NotElf, match="is not a regular file"):
        read_elf(Path("/dev/zero"))


def test_a_profile_that_was_cut_off(tmp_path: Path) -> None:
    (tmp_path / "7.profile").write_text('{"problem": "", "regions"')
    with pytest.raises(UserError, match=r"a\.out left no profile: "):
        read_profile(tmp_path, 7, "a.out")


@pytest.mark.parametrize("name", ["/dev/zero", "/nowhere/at/all", "/a\0b"])
def test_an_address_in_what_is_no_file(name: str) -> None:
    mappings = parse_maps(f"1000-2000 r-xp 00000000 08:01 12 {name}\n")
    assert place_of(0x1010, mappings) == f"{Path(name).name}+0x10"


def test_functions_that_say_no_size_reach_to_the_next(tmp_path: Path) -> None:
    """Handwritten assembly often has such functions; a symbol that says its size keeps it."""
    names = b"\0sized\0assembly\0next\0"
    functions = [(1, 0x1000, 0x10), (7, 0x1020, 0), (16, 0x1080, 0)]
    table = b"".join(struct.pack("<IBBHQQ", name, 2, 0, 1, address, size) for name, address, size in functions)
    sections_at, table_at = 120, 120 + 2 * 64
    content = _header(segments=1, sections_at=sections_at, sections=2) + struct.pack("<IIQQQQQQ", 1, 5, 0, 0x1000, 0, 0x100, 0x100, 1)
    content += struct.pack("<IIQQQQIIQQ", 0, 2, 0, 0, table_at, len(table), 1, 0, 8, 24)
    content += struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, table_at + len(table), len(names), 0, 0, 1, 0)
    (tmp_path / "library").write_bytes(content + table + names)
    elf = read_elf(tmp_path / "library")
    assert [elf.place(offset) for offset in (0x8, 0x10, 0x24, 0x7C, 0x80)] == ["sized+0x8", "", "assembly+0x4", "assembly+0x5c", ""]
