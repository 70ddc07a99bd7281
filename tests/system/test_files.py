"""Files are written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from tvmmobile.system.files import replacing, sha256_of, write_bytes, write_text


def test_folders_are_made_and_content_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.txt"
    write_text(path, "α\n")
    assert path.read_bytes() == "α\n".encode()
    write_bytes(path, b"2")
    assert path.read_bytes() == b"2"
    assert sha256_of(path) == hashlib.sha256(b"2").hexdigest()
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "library.so"
    write_bytes(path, b"old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_not_there_before_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "library.so"
    with replacing(path) as temporary:
        temporary.write_bytes(b"half")
        assert not path.exists()
        # In the same folder, or renaming would copy; and with the same suffix, by which compilers go.
        assert temporary.parent == path.parent and temporary.suffix == ".so"
    assert path.read_bytes() == b"half"


def test_a_file_that_the_body_deleted_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_bytes(path, b"old")
    with pytest.raises(FileNotFoundError), replacing(path) as temporary:
        temporary.unlink()
    assert path.read_bytes() == b"old"


def test_others_may_read_it_as_far_as_the_umask_lets_them(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "x", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640
