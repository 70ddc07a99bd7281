"""Writing files whole, so that a reader never sees half of one."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import os
import re
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tvmmobile.system.environment import cache_dir
from tvmmobile.system.errors import UserError

#: Most symbolic links in a row; Linux has the same limit.
_MOST_LINKS = 40
#: Most characters of a file's name and suffix that its temporary file's name repeats, so that the latter is never too long when the former
#: is not.
_MOST_NAME, _MOST_SUFFIX = 32, 16
#: Errors of a disk that lost data.
_LOST = (errno.EIO, errno.ENOSPC, errno.EDQUOT)
#: A disk with less free space than this counts as full.
_FULL_BYTES = 4 << 20


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to fill; on success its content is flushed to disk and replaces that of `path` atomically.

    A symbolic link stays; its target is replaced. Anything but a regular file (a device, a pipe, `/dev/fd/1`) is written to in place.
    If the body raises, the temporary file is removed and `path` does not change. An `OSError` names `path`.
    """
    goal = _goal(path)
    through = _written_through(goal)
    if not through:
        make_folders(goal.parent)
    temporary = None
    try:
        prefix, suffix = f".{path.name[:_MOST_NAME]}.", f".tmp{path.suffix[:_MOST_SUFFIX]}"
        handle, name = tempfile.mkstemp(suffix, prefix, None if through else goal.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        _write_through(temporary, goal) if through else _move(temporary, goal)
    except OSError as error:
        if error.filename is None or str(temporary) in (error.filename, error.filename2):  # `shutil` names what it copies first
            error.filename = str(path)
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _goal(path: Path) -> Path:
    """Return the file behind `path`: symbolic links are followed, except those of /proc to this process's open files."""
    for _ in range(_MOST_LINKS):
        path = Path(os.path.realpath(path.parent), path.name)
        if _descriptor(path) is not None or not path.is_symlink():
            return path
        path = path.parent / path.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def _descriptor(path: Path) -> int | None:
    """Return the number of this process's open file that `path` names."""
    found = re.fullmatch(rf"{re.escape(os.path.realpath('/proc/self'))}(/task/\d+)?/fd/(\d+)", str(path))
    return int(found[2]) if found else None


def _written_through(goal: Path) -> bool:
    return _descriptor(goal) is not None or _is_special(goal)


def is_stream(path: Path) -> bool:
    """Return whether a path names a device, pipe or socket, other than an open file of this process such as `/dev/fd/3`."""
    return _is_special(path) and _descriptor(_goal(path)) is None


def _is_special(path: Path) -> bool:
    """Return whether a path names neither a regular file nor a folder, but exists."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _write_through(content: Path, goal: Path) -> None:
    """Write to an open file at its current position, or to a device or pipe."""
    number = _descriptor(goal)
    if number is not None and sys.stdout is not None:
        sys.stdout.flush()  # stdout may be the same file: flush what was printed before
    handle = os.open(goal, os.O_WRONLY) if number is None else os.dup(number)
    with content.open("rb") as source, open(handle, "wb") as stream:
        shutil.copyfileobj(source, stream)


def _move(temporary: Path, goal: Path) -> None:
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    mask = os.umask(0)
    os.umask(mask)
    temporary.chmod(0o666 & ~mask)
    temporary.replace(goal)
    sync_folder(goal.parent)


def whole_files(folder: Path, pattern: str) -> list[Path]:
    """Return a folder's entries whose names match a pattern, sorted, without temporary files that a killed process left behind."""
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def make_folders(folder: Path) -> None:
    """Create a folder and its parents if they are missing, durably: they survive a power cut."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in missing:
        sync_folder(one.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, if its file system can, so that they survive a power cut."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:  # some file systems do not support it, and some folders are write-only
        if error.errno in _LOST:
            raise


def _sync_tree(folder: Path) -> None:
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names):
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as stream:
                    os.fsync(stream.fileno())
        sync_folder(Path(place))


@contextmanager
def made_once(folder: Path) -> Iterator[Path | None]:
    """Yield `None` if `folder` exists; else an empty folder to fill, which becomes `folder` as a whole unless the body raises.

    Of several processes one fills it while the others wait. Scratch files may lie beside the yielded folder.
    """
    from filelock import FileLock

    make_folders(folder.parent)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if folder.exists():
            yield None
            return
        for left in folder.parent.glob(f".{folder.name}.*"):  # left by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            filled = Path(scratch, "made")
            filled.mkdir()
            yield filled
            _sync_tree(filled)
            filled.rename(folder)
            sync_folder(folder.parent)


@contextmanager
def locked(path: Path, shared: bool = False) -> Iterator[None]:
    """Hold an exclusive or a shared lock on a file, which is created if necessary. It ends with this process at the latest."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def filling_cache(folder: Path | None = None) -> Iterator[None]:
    """Turn an `OSError` of code that writes to the cache, or to `folder` in it, into a `UserError` that names the folder."""
    try:
        yield
    except OSError as error:
        variable = "TORCHINDUCTOR_CACHE_DIR" if folder and cache_dir() not in folder.parents else "TVMMOBILE_CACHE"
        raise UserError(
            f"the cache {folder or cache_dir()} cannot be written: {error.strerror}.", f"Set {variable} to a folder that can be written."
        ) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` as a whole."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write `content` to `path` as a whole, in UTF-8."""
    write_bytes(path, content.encode())


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_writable(directory: Path, option: str) -> None:
    """Raise `UserError` unless `directory` can be written, or created; leave nothing behind."""
    if fault := write_fault(directory):
        raise UserError(f"{option} {directory}: {fault}.", f"Name another directory with {option}.")


def write_fault(directory: Path) -> str:
    """Return why `directory` cannot be written, or created, as a clause; "" if it can. Leave nothing behind."""
    existing = directory.absolute()
    try:
        while not (existing.is_symlink() or existing.exists()) and existing != existing.parent:
            existing = existing.parent
        if not existing.exists():
            return f"{existing} is a symbolic link that leads nowhere"
        if not existing.is_dir():
            return f"{existing} is not a directory"
        # Checking permissions is not enough: root has them all, even where nothing can be created.
        os.rmdir(tempfile.mkdtemp(prefix=".tvmmobile-", dir=existing))
    except OSError as error:
        return f"{existing} cannot be written: {error.strerror}"
    return ""


def check_file_writable(file: Path, option: str) -> None:
    """Raise `UserError` unless `file` can be written, or created; leave nothing behind."""
    try:
        if file.is_dir():
            raise UserError(f"{option} {file} is a directory.", "Name a file in it.")
        goal = _goal(file)
        number = _descriptor(goal)
        if number is not None and fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "it is open for reading only")
        if _written_through(goal):
            if number is None and not os.access(goal, os.W_OK):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
            return
    except OSError as error:
        raise UserError(f"{option} {file} cannot be written: {error.strerror}.", f"Name another file with {option}.") from error
    check_writable(goal.parent, option)


def replaced_by(file: Path) -> Path | None:
    """Return the file whose content is lost when `file` is written; `None` for a device, a pipe or an open file, which is added to."""
    goal = _goal(file)
    return None if _written_through(goal) else goal


def check_space(folder: Path, needed_bytes: int = 0) -> None:
    """Raise `OSError` if the disk under `folder` is full, or files as large as allowed: the probable reasons for a failure there."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit != resource.RLIM_INFINITY:
        for path in folder.rglob("*"):
            if path.is_file() and path.stat().st_size >= limit:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    if shutil.disk_usage(folder).free < needed_bytes + _FULL_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def set_aside(directory: Path) -> None:
    """Rename a directory out of the way, so that nothing in it is lost; clocks may show the same time twice."""
    if directory.exists():
        named = f"{directory.name}.{time.strftime('%Y%m%d-%H%M%S')}"
        names = itertools.chain([named], (f"{named}-{number}" for number in itertools.count(2)))
        directory.rename(next(place for name in names if not (place := directory.with_name(name)).exists()))
