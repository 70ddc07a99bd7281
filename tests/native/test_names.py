"""Names of networks, tensors and kernels become C literals, whatever characters they have."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest

from tvmmobile.native.text import c_string

#: Beyond 16 bits, in two bytes, between C and its escapes, and those that end text or lines.
NAMES = (
    "input",
    "\U0001f600 out",
    "é1",
    "\x85f",
    "??/ ??=",
    'say "x"\\n',
    "one\ntwo\r",
    "\x011",
    "%s */ //",
    "\\",
    "",
    "a" * 200,
    "😀" * 200,
)


@pytest.mark.parametrize("standard", ["c11", "gnu17"])
def test_any_name_is_a_literal_of_its_bytes(standard: str, tmp_path: Path) -> None:
    words = [*NAMES, "a\0b"]
    source, library = tmp_path / "names.c", tmp_path / "names.so"
    lines = [f"const char *const names[] = {{{', '.join(map(c_string, words))}}};"]
    lines += [f"const unsigned sizes[] = {{{', '.join(f'sizeof({c_string(word)})' for word in words)}}};"]
    source.write_text("\n".join(lines), encoding="ascii")
    subprocess.run(["gcc", f"-std={standard}", "-Wall", "-Werror", "-shared", "-fPIC", source, "-o", library], check=True)
    loaded = ctypes.CDLL(str(library))
    names, sizes = (ctypes.c_void_p * len(words)).in_dll(loaded, "names"), (ctypes.c_uint * len(words)).in_dll(loaded, "sizes")
    assert [ctypes.string_at(name, size) for name, size in zip(names, sizes, strict=True)] == [word.encode() + b"\0" for word in words]
