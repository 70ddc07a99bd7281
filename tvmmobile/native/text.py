"""Text in generated C."""

from __future__ import annotations

import string

#: Characters that mean themselves in every C literal.
_PLAIN = frozenset(string.ascii_letters + string.digits + "_ ./:,;+-*()[]")


def c_string(text: str) -> str:
    """Write text as a C literal: its bytes in UTF-8, in octal wherever C could read something else, such as a trigraph.

    Octal escapes have at most three digits; a hexadecimal one would take in digits behind it.
    """
    return '"' + "".join(chr(byte) if chr(byte) in _PLAIN else f"\\{byte:03o}" for byte in text.encode()) + '"'
