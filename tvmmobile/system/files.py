"""Writing files whole, so that a reader never sees half of one."""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tvmmobile.system.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it is flushed to disk and renamed to `path`.

    If the body raises, the temporary file is removed and `path` is left as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=f".tmp{path.suffix}", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def made_once(folder: Path) -> Iterator[Path | None]:
    """`None` where `folder` exists; else an empty folder to fill, which becomes `folder` as a whole if the body does not raise.

    Of several processes one fills it, and the others wait. Beside what is yielded there is room for scratch files.
    """
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if folder.exists():
            yield None
            return
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            made = Path(scratch, "made")
            made.mkdir()
            yield made
            made.rename(folder)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` as a whole."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write `content` to `path` as a whole, in UTF-8."""
    write_bytes(path, content.encode())


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_writable(directory: Path, option: str) -> None:
    """Raises `UserError` unless `directory` can be written, or created; leaves nothing behind."""
    existing = directory.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise UserError(f"{option} {directory}: {existing} is not a directory.", f"Name another directory with {option}.")
    try:  # permissions do not tell all: root has every one of them, also where nothing can be created
        os.rmdir(tempfile.mkdtemp(prefix=".tvmmobile-", dir=existing))
    except OSError as error:
        raise UserError(
            f"{option} {directory}: {existing} cannot be written: {error.strerror}.", f"Name another directory with {option}."
        ) from error


def set_aside(directory: Path) -> None:
    """Rename a directory out of the way, so that nothing in it is lost."""
    if directory.exists():
        directory.rename(directory.with_name(f"{directory.name}.{time.strftime('%Y%m%d-%H%M%S')}"))


def scratch_folder(purpose: str) -> Path:
    """A new folder that is removed when this process ends."""
    folder = tempfile.mkdtemp(prefix=f"tvmmobile-{purpose}-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
