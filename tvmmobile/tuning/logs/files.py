"""The files of tuning logs: their paths, their lines, and the locks under which they change.

A directory holds one file per device, dtype and thread count, `<device>/<dtype>_t<threads>.jsonl`.
"""

from __future__ import annotations

import codecs
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import filelock

from tvmmobile.graph.tasks import Task
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import is_stream, make_folders, sync_folder, whole_files, write_bytes
from tvmmobile.tuning.records import Identity, KnownTasks, Line, MalformedRecord, read_line, usable


def log_paths(directory: Path, device: str) -> list[Path]:
    """Return the logs of a device, sorted."""
    return whole_files(directory / device, "*.jsonl")


def file_name(task: Task) -> str:
    """Return the name of the log that holds a task's records, within its device's folder."""
    return f"{task.dtype}_t{task.threads}.jsonl"


def content_of(path: Path) -> bytes:
    """Return the content of a log; raise `UserError` if it cannot be read, or is a pipe or a device, which may never end."""
    try:
        if is_stream(path):
            raise UserError(f"the tuning log {path} is not a file.", "Move it away; a log is read more than once.")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"the tuning log {path} cannot be read: {error.strerror}.", "Give yourself access, or move it away.") from error


def lines_in(content: bytes) -> list[bytes]:
    """Return a log's lines without their line ends; the last line is unfinished if `content` does not end with a line end.

    A byte order mark, which some editors put in front, belongs to no line.
    """
    lines = content.removeprefix(codecs.BOM_UTF8).split(b"\n")
    return lines[:-1] if lines[-1] == b"" else lines


def lines_of_any_model(path: Path, identity: Identity) -> Iterator[Line]:
    """Yield a file's lines in order, whatever their timing model, so their latencies are not comparable.

    Lines of other devices and TVM versions are skipped, and so are schedules that this version cannot build.

    Raises:
        UserError: if the file cannot be read.
    """
    known = KnownTasks()
    for text in lines_in(content_of(path)):
        try:
            line = read_line(text, known)
        except MalformedRecord:
            continue
        line_identity = line.identity
        if (line_identity.device, line_identity.tvm) == (identity.device, identity.tvm):
            yield replace(line, records=tuple(record for record in line.records if usable(record, known)))


@contextmanager
def locked(path: Path, wrong: str = "", remedy: str = "Name another directory with --logs DIR.") -> Iterator[None]:
    """Hold the lock of a log that is about to change; its folder is created if necessary.

    Raises:
        UserError: with the texts `wrong` and `remedy`, in place of a disk error.
    """
    try:
        make_folders(path.parent)
        with filelock.FileLock(append_lock(path)):
            yield
    except OSError as error:
        wrong = wrong or f"tuning records cannot be written to {path.parent.parent}"
        raise UserError(f"{wrong}: {error.strerror}.", remedy) from error


def append_lock(path: Path) -> Path:
    """Return the path of the lock file that is held while a log is changed."""
    return path.with_suffix(".lock")


def append_whole(path: Path, content: bytes) -> None:
    """Append `content` to a file and flush it to disk; append nothing if that fails, e.g. because the disk is full.

    An unfinished last line is terminated first, so that `content` starts on a new line.
    """
    with path.open("ab+", buffering=0) as stream:
        end = stream.seek(0, os.SEEK_END)
        if end:
            stream.seek(end - 1)
            content = content if stream.read(1) == b"\n" else b"\n" + content
        try:
            while content:
                content = content[stream.write(content) :]
            os.fsync(stream.fileno())
            sync_folder(path.resolve().parent)
        except OSError:
            stream.truncate(end)
            raise


def replace_log(path: Path, content: bytes) -> Path:
    """Replace a log's content; return the path of a copy of the old one, `<path>.bak`. The caller must hold the log's lock."""
    backup = path.with_name(path.name + ".bak")
    write_bytes(backup, path.read_bytes())
    write_bytes(path, content)
    return backup


@contextmanager
def writing(directory: Path, device: str) -> Iterator[None]:
    """Hold the exclusive right to measure for a log directory and a device, since two processes would measure everything twice.

    It is held for a whole run, during which records can be read, and is released when the process ends, even by a crash.

    Raises:
        UserError: if another process (which is named) holds it, or if the directory cannot be written.
    """
    path = directory / device / "writer.lock"
    with ExitStack() as stack:
        try:
            make_folders(path.parent)
            stack.enter_context(filelock.FileLock(path, timeout=0))
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
            stack.callback(_without_owner, path)
        except filelock.Timeout as error:
            raise UserError(
                f"{_owner(path)} is writing tuning records of {device} to {directory}.", "Wait for it to finish, or name another directory."
            ) from error
        except OSError as error:
            raise UserError(f"tuning records cannot be written to {directory}: {error.strerror}.", "Name another directory.") from error
        yield


@contextmanager
def writing_all(directory: Path, device: str) -> Iterator[None]:
    """Hold the right to measure for a device and for each other that has been measured for in a log directory; see `writing`."""
    devices = {device, *(path.parent.name for path in directory.glob("*/writer.lock"))}
    with ExitStack() as held:
        for name in sorted(devices):
            held.enter_context(writing(directory, name))
        yield


def _without_owner(path: Path) -> None:
    """Empty a writer's lock file; its folder may have been moved away."""
    with suppress(OSError):
        path.write_text("", encoding="utf-8")


def _owner(path: Path) -> str:
    """Return the first line of a writer's lock file, which names its owner."""
    lines = path.read_text(encoding="utf-8", errors="replace")[:200].splitlines()
    return "".join(filter(str.isprintable, lines[0])) if lines else "another process"
