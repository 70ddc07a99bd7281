"""Files are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tvmmobile.system.errors import UserError
from tvmmobile.system.files import (
    check_file_writable,
    check_writable,
    replacing,
    set_aside,
    sha256_of,
    whole_files,
    write_bytes,
    write_text,
)
from tvmmobile.system.programs import run_tool

#: What may open a file for writing without `system/files.py`: only scratch files, locks, logs that grow, and what is nobody's output.
WRITES_ITSELF = {
    "tvmmobile/tuning/search/trial.py": "a worker's scratch folder",
    "tvmmobile/tuning/logs/files.py": "the lock's owner; records are appended",
    "tvmmobile/accuracy/noise.py": "inputs in a scratch folder",
    "tvmmobile/networks/own/pt2/archive.py": "an archive in memory",
    "tvmmobile/native/library.py": "sources and objects in a scratch folder",
    "tvmmobile/native/objects.py": "objects in a scratch folder",
    "tvmmobile/packaging/aar.py": "sources in a scratch folder",
    "tvmmobile/virtual/sysroot.py": "a folder that `made_once` renames as a whole",
    "tvmmobile/pipeline/cluster/worker.py": "a Dask worker's folder",
    "tvmmobile/pipeline/cluster/parcel.py": "a Dask worker's folder",
    "tvmmobile/devices/agent/build.py": "a folder that `made_once` renames as a whole",
    "tvmmobile/devices/agents/host.py": "an agent's log, in the host's scratch folder",
    "tvmmobile/system/files.py": "this is it",
}


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


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, str]]:
    """A pseudo-terminal: what reads from it, and the path of its device."""
    reader, writer = os.openpty()
    try:
        yield reader, os.ttyname(writer)
    finally:
        os.close(reader)
        os.close(writer)


def test_a_device_is_written_to() -> None:
    with terminal() as (reader, device):
        check_file_writable(Path(device), "--json")
        write_text(Path(device), "table")
        assert os.read(reader, 100) == b"table" and stat.S_ISCHR(os.stat(device).st_mode)


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    found: list[bytes] = []
    reading = threading.Thread(target=lambda: found.append(path.read_bytes()))
    reading.start()
    check_file_writable(path, "--json")
    write_text(path, "table")
    reading.join(10)
    assert found == [b"table"] and path.is_fifo() and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("folder", ["/dev/fd", "/proc/self/fd", "/proc/thread-self/fd"])
def test_an_open_pipe_is_written_to(folder: str) -> None:
    reader, writer = os.pipe()
    try:
        check_file_writable(Path(folder, str(writer)), "--json")
        write_text(Path(folder, str(writer)), "table")
        assert os.read(reader, 100) == b"table"
        with pytest.raises(UserError, match=f"^`json='{folder}/{reader}'` cannot be written: it is open for reading only"):
            check_file_writable(Path(folder, str(reader)), "--json")
    finally:
        os.close(reader)
        os.close(writer)
    with pytest.raises(UserError, match=f"^`json='{folder}/{writer}'` cannot be written: Bad file descriptor"):
        check_file_writable(Path(folder, str(writer)), "--json")


def test_an_open_file_is_written_where_it_stands(tmp_path: Path) -> None:
    """After `> FILE`, the file that the shell opened stays that file, and keeps what is in it."""
    path, link = tmp_path / "out", tmp_path / "stdout"
    with path.open("wb", buffering=0) as stream:
        link.symlink_to(f"/proc/self/fd/{stream.fileno()}")  # what /dev/stdout is
        stream.write(b"before,")
        write_text(link, "table,")
        stream.write(b"after")
    assert path.read_bytes() == b"before,table,after" and link.is_symlink()


def test_what_a_link_points_to_is_replaced(tmp_path: Path) -> None:
    target, link, dangling = tmp_path / "a" / "target", tmp_path / "link", tmp_path / "dangling"
    write_text(target, "old")
    link.symlink_to("a/target")
    dangling.symlink_to(tmp_path / "b" / "new")
    with replacing(link) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old" and temporary.parent == target.parent
    check_file_writable(dangling, "--json")
    write_text(dangling, "made")
    assert target.read_text() == "new" and (tmp_path / "b" / "new").read_text() == "made"
    assert link.is_symlink() and dangling.is_symlink()


def test_links_without_an_end_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(UserError, match="Too many levels of symbolic links"):
        check_file_writable(tmp_path / "a", "--json")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        write_text(tmp_path / "a", "")


@pytest.mark.parametrize("place", ["here", "here/below"])
@pytest.mark.parametrize("target", ["here", "missing"])
def test_a_folder_behind_a_link_that_leads_nowhere(tmp_path: Path, target: str, place: str) -> None:
    (tmp_path / "here").symlink_to(target)
    with pytest.raises(UserError, match=r"^`out=\S+`: \S+/here is a symbolic link that leads nowhere\."):
        check_writable(tmp_path / place, "--out")
    assert list(tmp_path.iterdir()) == [tmp_path / "here"]


def test_what_a_killed_process_left_is_not_listed(tmp_path: Path) -> None:
    for name in ("b.so", "a.so", "b.json"):
        (tmp_path / name).touch()
    written = "import os, sys; from pathlib import Path; from tvmmobile.system.files import replacing\n"
    kill = "with replacing(Path(sys.argv[1])) as temporary: temporary.write_bytes(b'half'); os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", written + kill, tmp_path / "b.so"], check=False)
    assert done.returncode == -9 and len(list(tmp_path.glob("*.so"))) == 3
    assert whole_files(tmp_path, "*.so") == [tmp_path / "a.so", tmp_path / "b.so"] and (tmp_path / "b.so").read_bytes() == b""


def test_a_folder_is_set_aside_at_a_time_that_was_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clocks are put back."""
    monkeypatch.setattr("time.strftime", lambda _form: "20260101-020000")
    for number in range(3):
        (tmp_path / "logs").mkdir()
        (tmp_path / "logs" / "content").write_text(str(number))
        set_aside(tmp_path / "logs")
    kept = {path.name: (path / "content").read_text() for path in tmp_path.iterdir()}
    assert kept == {"logs.20260101-020000": "0", "logs.20260101-020000-2": "1", "logs.20260101-020000-3": "2"}


def test_a_full_disk_is_said_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        write_text(tmp_path / "full", "table")
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(tmp_path / "full")
    assert (tmp_path / "full").is_symlink() and stat.S_ISCHR(os.stat("/dev/full").st_mode)


def test_names_as_long_as_they_may_be(tmp_path: Path) -> None:
    """Their temporary files have shorter ones. Names that are too long are refused before any work."""
    longest, too_long = tmp_path / ("é" * 125 + ".json"), tmp_path / ("x" * 300)
    write_text(longest, "table")
    assert longest.read_text() == "table" and list(tmp_path.iterdir()) == [longest]
    check_file_writable(longest, "--json")
    for check in (check_file_writable, check_writable):
        with pytest.raises(UserError, match=r"^`out='.* cannot be written: File name too long\.") as caught:
            check(too_long, "--out")
        assert caught.value.remedy.endswith("with `out`.")


def test_a_limit_on_the_size_of_files_is_named(tmp_path: Path) -> None:
    """The limit is named for programs that it ends, and for workers, which leave their file behind."""
    grow = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, -1)); from tvmmobile.system.files import check_space; "
    grow += "from pathlib import Path; here = Path(sys.argv[1]); check_space(here); (here / 'kernels.o').open('wb', 0).write(bytes(2000)); "
    done = subprocess.run([sys.executable, "-c", f"{grow} check_space(here)", tmp_path], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == f"OSError: [Errno 27] File too large: '{tmp_path / 'kernels.o'}'"
    for last in ("exec head -c 5000 /dev/zero > x", "head -c 5000 /dev/zero > x; exit 1"):
        with pytest.raises(OSError, match="Linking x failed: File too large") as caught:
            run_tool(["bash", "-c", f"ulimit -f 1; {last}"], "Linking x", "", folder=tmp_path)
        assert caught.value.errno == errno.EFBIG


def test_every_output_goes_through_here(repository: Path) -> None:
    writes = re.compile(
        r"""\.write_(?:text|bytes)\(|open\((?:[^()]*, )?["'][wax]|os\.open\([^)]*O_(?:WRONLY|RDWR)"""
        r"""|shutil\.(?:copy|move)|np\.savez?\((?!stream)|\.touch\("""
    )
    allowed = re.compile(r"with replacing\(|temporary|os\.devnull|scratch")
    found = {
        str(path.relative_to(repository))
        for path in (repository / "tvmmobile").rglob("*.py")
        for line in path.read_text().splitlines()
        if writes.search(line) and not allowed.search(line)
    }
    assert found == WRITES_ITSELF.keys()
