"""Puts files into a folder on a board: compared by hash, pushed where they differ, checked after that."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from pathlib import Path

from tvmmobile.devices.agent.build import AGENT, LOADER
from tvmmobile.devices.board.remote import Remote
from tvmmobile.system.errors import DeviceUnavailable
from tvmmobile.system.files import sha256_of

#: Hashing of some dozens of megabytes on a slow card.
_HASH_TIMEOUT_S = 120.0
#: Where the runtime is below the folder of the libraries.
RUNTIME_FOLDER = "runtime"


def runtime_files(bundle: Path) -> dict[str, Path]:
    """What a program needs to run a library, by its place in the folder: TVM's runtime, with the loader and C library it was built for."""
    return {f"{RUNTIME_FOLDER}/{path.name}": path for path in sorted(bundle.iterdir()) if path.name != AGENT}


def program_words(folder: str) -> list[str]:
    """What comes before a program's path, on the board, for it to find the runtime in `folder`."""
    return [f"{folder}/{RUNTIME_FOLDER}/{LOADER}", "--library-path", f"{folder}/{RUNTIME_FOLDER}"]


def push_files(
    remote: Remote, folder: str, files: Mapping[str, Path], option: str = "--to", prepare: Callable[[list[str]], object] | None = None
) -> list[str]:
    """Make sure that `folder` on the board holds `files`, in this order; nothing in it is removed. Returns what had to be pushed.

    Args:
        files: by their place in the folder, such as `net.so` or `runtime/libtvm_ffi.so`.
        option: names another folder.
        prepare: called with what will be pushed; makes the folders, which is all that is done without it.

    Raises:
        DeviceUnavailable: the board cannot store them, or what it stored is not what was sent.
    """
    wanted = {name: sha256_of(path) for name, path in files.items()}
    stored = _hashes(remote, folder, list(files))
    missing = [name for name in files if stored.get(name) != wanted[name]]
    if not missing:
        return []
    if prepare:
        prepare(missing)
    else:
        _make_folders(remote, sorted({str(Path(folder, name).parent) for name in missing}))
    for name in missing:
        try:
            remote.push(files[name], f"{folder}/{name}")
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise DeviceUnavailable(
                f"{folder}/{name} cannot be stored on the board: {'its disk is full' if full else error}.",
                "Free some megabytes there." if full else f"Name another folder with {option}.",
            ) from error
    stored = _hashes(remote, folder, missing)
    wrong = next((name for name in missing if stored.get(name) != wanted[name]), None)
    if wrong is not None:
        raise DeviceUnavailable(
            f"{folder}/{wrong} on the board differs from what was sent.", "Its storage may be failing; check with df -h."
        )
    return missing


def _make_folders(remote: Remote, folders: list[str]) -> None:
    done = remote.run(["mkdir", "-p", "--", *folders])
    if done.status != 0:
        raise DeviceUnavailable(f"{folders[0]} cannot be created on the board: {done.stderr.strip()}.", "Name another folder with --to.")


def _hashes(remote: Remote, folder: str, names: list[str]) -> dict[str, str]:
    """SHA-256 of files on the board; those that are not there are left out."""
    script = 'cd "$1" 2>/dev/null || exit 0; shift; sha256sum -- "$@" 2>/dev/null; exit 0'
    lines = remote.run(["sh", "-c", script, "sh", folder, *names], timeout_s=_HASH_TIMEOUT_S).stdout.splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
