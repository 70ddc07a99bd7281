"""Symbols of an object file are hidden as objcopy does it, and what refers to them still finds them."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest

from tvmmobile.native.symbols import localised

SOURCES = {
    "first": "int helper(int); extern int shared[]; int first(int i) { return helper(i) + shared[1]; }",
    "second": "int shared[] = {3, 4}; __attribute__((noinline)) int helper(int i) { return i + 10; } int (*pointer)(int) = helper;"
    "extern int missing(void) __attribute__((weak)); int second(void) { return missing ? 1 : pointer(2); }",
}


@pytest.fixture
def merged(tmp_path: Path) -> Path:
    """Both sources as one object, for this machine."""
    for name, text in SOURCES.items():
        (tmp_path / f"{name}.c").write_text(text)
        subprocess.run(["gcc", "-O1", "-fPIC", "-g0", "-c", f"{name}.c"], cwd=tmp_path, check=True)
    subprocess.run(["gcc", "-r", "-nostdlib", "first.o", "second.o", "-o", "all.o"], cwd=tmp_path, check=True)
    return tmp_path / "all.o"


def seen(path: Path) -> set[tuple[str, str]]:
    lines = subprocess.run(["nm", "-P", "-g", path], capture_output=True, text=True, check=True).stdout.splitlines()
    return {(line.split()[0], line.split()[1]) for line in lines}


def test_what_is_not_kept_is_local_and_still_found(merged: Path) -> None:
    before = seen(merged)
    assert {name for name, _ in before} >= {"first", "second", "helper", "shared", "pointer", "missing"}
    merged.write_bytes(localised(merged.read_bytes(), {"first", "second"}))
    assert seen(merged) == {(name, kind) for name, kind in before if name in ("first", "second", "missing", "_GLOBAL_OFFSET_TABLE_")}
    library = merged.with_suffix(".so")
    subprocess.run(["gcc", "-shared", merged, "-o", library], check=True)
    loaded = ctypes.CDLL(str(library))
    assert (loaded.first(1), loaded.second()) == (1 + 10 + 4, 12)


def test_it_is_what_objcopy_does(merged: Path) -> None:
    theirs = merged.with_name("theirs.o")
    subprocess.run(["objcopy", "-G", "first", "-G", "second", merged, theirs], check=True)
    merged.write_bytes(localised(merged.read_bytes(), {"first", "second"}))
    assert seen(merged) == seen(theirs)
    for path in (merged, theirs):
        subprocess.run(["gcc", "-shared", "-s", "-Wl,--build-id=none", path, "-o", path.with_suffix(".so")], check=True)
    assert merged.with_suffix(".so").read_bytes() == theirs.with_suffix(".so").read_bytes()


@pytest.mark.parametrize("content", [b"", b"\x7fELF\x01\x01", b"text"])
def test_other_files_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="not a 64-bit little-endian ELF file"):
        localised(content, ())
