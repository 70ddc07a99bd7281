"""Kernels with pages of 16 KiB, as Android's since version 15, and of 64 KiB map only segments that are aligned to them."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from tvmmobile.devices.agent.build import build_bundle
from tvmmobile.devices.registry import find_device
from tvmmobile.kernels.codegen import compile_kernel
from tvmmobile.system.doctor import CROSS_COMPILER

pytestmark = pytest.mark.virtual
#: 16 KiB would do; Debian's linker aligns to the largest pages that AArch64 has, and so do the makers of TVM's wheels.
PAGE_BYTES = 64 << 10
_LOAD = 1


def alignments(path: Path) -> set[int]:
    """Return the alignment of each mapped segment of an ELF file (System V ABI), if the segment's place in the file agrees with it."""
    data = path.read_bytes()
    (table,), (size, count) = struct.unpack_from("<Q", data, 32), struct.unpack_from("<HH", data, 54)
    found = set()
    for at in range(table, table + size * count, size):
        kind, _, offset, address, _, _, _, alignment = struct.unpack_from("<IIQQQQQQ", data, at)
        if kind == _LOAD:
            assert (address - offset) % alignment == 0
            found.add(alignment)
    return found


def test_the_agent_and_all_its_libraries() -> None:
    files = sorted(build_bundle().iterdir())
    assert len(files) > 8
    for path in files:
        assert min(alignments(path)) >= PAGE_BYTES, path.name


def test_a_compiled_library(tmp_path: Path) -> None:
    from tvm import te

    x = te.placeholder((16,), name="x")
    function = te.create_prim_func([x, te.compute((16,), lambda i: x[i] * 2, name="y")]).with_attr("global_symbol", "twice")
    compile_kernel(function, find_device("pi4-virtual").profile.target, tmp_path / "twice.so")
    assert min(alignments(tmp_path / "twice.so")) >= PAGE_BYTES


def test_what_such_kernels_would_refuse_is_seen(tmp_path: Path) -> None:
    words = [CROSS_COMPILER, "-shared", "-nostdlib", "-Wl,-z,max-page-size=4096", "-x", "c", "/dev/null", "-o", str(tmp_path / "small.so")]
    subprocess.run(words, check=True)
    assert alignments(tmp_path / "small.so") == {4096}
