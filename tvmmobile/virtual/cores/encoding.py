"""Makes AArch64 machine code independent of its address, so that equal blocks share one cost."""

from __future__ import annotations

import struct

NOP = 0xD503201F

#: (mask, value, kept bits) of instructions with a PC-relative offset, which does not affect their cost.
#: Arm Architecture Reference Manual, C4.1: b/bl, b.cond, cbz/cbnz, tbz/tbnz, adr/adrp, ldr (literal).
_RELATIVE = (
    (0x7C000000, 0x14000000, 0xFC000000),
    (0xFF000010, 0x54000000, 0xFF00001F),
    (0x7E000000, 0x34000000, 0xFF00001F),
    (0x7E000000, 0x36000000, 0xFFF8001F),
    (0x1F000000, 0x10000000, 0x9F00001F),
    (0x3B000000, 0x18000000, 0xFF00001F),
)


def words_of(code: bytes) -> tuple[int, ...]:
    """Return the instruction words of `code` with all PC-relative offsets set to 0.

    Raises:
        ValueError: the length is not a multiple of four.
    """
    if len(code) % 4:
        raise ValueError("AArch64 code comes in whole words")
    return tuple(_without_distance(word) for word in struct.unpack(f"<{len(code) // 4}I", code))


def _without_distance(word: int) -> int:
    for mask, value, keep in _RELATIVE:
        if word & mask == value:
            return word & keep
    return word
