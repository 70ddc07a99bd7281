"""Puts the agent and libraries into folders on a board: compares hashes, pushes files that differ, and checks them afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tvmmobile.devices.agent.build import AGENT, LOADER
from tvmmobile.devices.board.remote import LinkLost, Remote
from tvmmobile.devices.board.storage import not_stored
from tvmmobile.system.errors import DeviceUnavailable, UserError
from tvmmobile.system.files import sha256_of

Progress = Callable[[str], None]
#: Time to copy some megabytes to a slow card.
_REMOVE_TIMEOUT_S = 60.0
#: A shell's exit code for a file that it may not execute.
_NOT_EXECUTABLE = 126
#: Marks every folder of ours on a board: folders without it are never removed.
MARK = ".tvmmobile"


def home_directory(remote: Remote) -> str:
    """Return the user's own folder for this program on a board; raise `DeviceUnavailable` where none can be written."""
    script = (
        "if [ -d /data/local/tmp ] && [ -w /data/local/tmp ]; then echo /data/local/tmp/tvmmobile; "
        'elif [ -n "$HOME" ] && [ -w "$HOME" ]; then echo "$HOME/.tvmmobile"; else exit 1; fi'
    )
    done = remote.run(["sh", "-c", script])
    if done.status != 0 or not done.stdout.startswith("/"):
        raise DeviceUnavailable("the board's user has no writable home directory.", "Name another folder with --directory.")
    return done.stdout.strip()


def check_separators(option: str, directory: str | None) -> None:
    """Raise `UserError` for a directory in which programs would not find their libraries, because the loader splits its name."""
    if found := next((character for character in ":;" if character in (directory or "")), None):
        raise UserError(
            f"{option} {directory} has a {found!r}, at which loaders split a path into several.",
            "Name a directory without colons and semicolons.",
        )


def install_agent(remote: Remote, directory: str, bundle: Path, progress: Progress = lambda _sentence: None) -> str:
    """Make sure that this version of the agent is on the board; agents of other versions are removed. Returns its folder there.

    Raises:
        DeviceUnavailable: the board cannot store it, or stored something else.
    """
    folder = f"{directory}/{bundle.name}"

    def prepare(missing: list[str]) -> None:
        make_directory(remote, directory)
        old = 'cd "$1" && for name in agent-*; do [ "$name" = "$2" ] || rm -rf "./$name"; done; mkdir -p -m 700 "./$2"'
        done = remote.run(["sh", "-c", old, "sh", directory, bundle.name])
        if done.status != 0:
            raise not_stored(folder, done.stderr, "Name another folder with --directory.", "created")
        size = sum((bundle / name).stat().st_size for name in missing)
        progress(f"pushing the agent ({size / 1e6:.0f} MB)")

    push_files(remote, folder, {path.name: path for path in sorted(bundle.iterdir())}, "--directory", prepare)
    return folder


def check_runs(remote: Remote, folder: str, runner: Sequence[str] = ()) -> None:
    """Start the loader that was installed in `folder`; raise `DeviceUnavailable` if this user may not execute it there."""
    done = remote.run([*runner, f"{folder}/{LOADER}", "--version"])
    if done.status == 0:
        return
    reason = (done.stderr.strip() or f"status {done.status}").splitlines()[-1].rstrip(".")
    if done.status == _NOT_EXECUTABLE or "ermission denied" in reason:
        raise DeviceUnavailable(
            f"the board does not let this user execute programs in {folder}: {reason}.",
            "Name a folder where it does, not mounted noexec, with --directory; Android's shell executes in /data/local/tmp alone.",
        )
    raise DeviceUnavailable(
        f"the agent does not start on the board: {reason}.", "It needs a 64-bit Arm Linux with pages of at most 64 KiB: getconf PAGESIZE"
    )


def remove_folder(remote: Remote, directory: str) -> None:
    """Remove all our files from the board; a folder that cannot be emptied keeps its mark, so that it can be removed later.

    Raises:
        UserError: the folder is not ours.
        DeviceUnavailable: it cannot be removed.
    """
    script = '[ -e "$1" ] || exit 0; [ -f "$1/$2" ] || exit 9; rm -rf "$1" && exit 0; true 2>/dev/null >"$1/$2"; exit 1'
    done = remote.run(["sh", "-c", script, "sh", directory, MARK], timeout_s=_REMOVE_TIMEOUT_S)
    if done.status == 9:
        raise UserError(f"{directory} on the board was not made by tvmmobile and is kept.", "Remove it by hand if it is not needed.")
    if done.status != 0:
        raise not_stored(directory, done.stderr, "Remove it there by hand, or run the same command again.", "removed")


@contextlib.contextmanager
def removed_on_failure(remote: Remote, directory: str) -> Iterator[None]:
    """Remove our folder from the board if the context fails, unless it was there before, or the board no longer answers."""
    had = remote.run(["test", "-f", f"{directory}/{MARK}"]).status == 0
    try:
        yield
    except BaseException:  # Ctrl-C, too
        if not had and remote.alive():
            with contextlib.suppress(LinkLost, UserError):
                remove_folder(remote, directory)
        raise


def make_directory(remote: Remote, directory: str) -> None:
    """Create the user's own folder on the board, private and with our mark; raise `DeviceUnavailable` if that is impossible."""
    script = 'if [ -e "$1" ]; then [ -f "$1/$2" ] || [ -z "$(ls -A "$1")" ] || exit 9; fi; mkdir -p -m 700 "$1" && : > "$1/$2"'
    done = remote.run(["sh", "-c", script, "sh", directory, MARK])
    if done.status == 9:
        raise DeviceUnavailable(f"{directory} on the board holds files that are not tvmmobile's.", "Name another folder with --directory.")
    if done.status != 0:
        raise not_stored(directory, done.stderr, "Name another folder with --directory.", "created")


#: Time to hash some dozens of megabytes on a slow card.
_HASH_TIMEOUT_S = 120.0
#: The runtime's folder below that of the libraries.
RUNTIME_FOLDER = "runtime"
#: The parts that a C program needs; newer C libraries include `libdl` and `libpthread`.
_FOR_C = (LOADER, "libc.so.6", "libdl.so.2", "libpthread.so.0")


def runtime_files(bundle: Path, tvm: bool = True) -> dict[str, Path]:
    """Return the files that a program needs, by path in the folder: our programs' loader and C library and, if requested, TVM's runtime."""
    names = sorted(path.name for path in bundle.iterdir() if path.name != AGENT) if tvm else _FOR_C
    return {f"{RUNTIME_FOLDER}/{name}": bundle / name for name in names}


def push_files(
    remote: Remote, folder: str, files: Mapping[str, Path], option: str = "--to", prepare: Callable[[list[str]], object] | None = None
) -> list[str]:
    """Make sure that `folder` on the board holds `files`, in this order; nothing in it is removed. Returns the files that had to be pushed.

    Args:
        files: the files, by path in the folder, such as `net.so` or `runtime/libtvm_ffi.so`.
        option: names another folder.
        prepare: called with the files to push; must make their folders, which are made here without it.

    Raises:
        DeviceUnavailable: the board cannot store them, or stored something else.
    """
    wanted = {name: sha256_of(path) for name, path in files.items()}
    stored = _hashes(remote, folder, list(files))
    missing = [name for name in files if stored.get(name) != wanted[name]]
    if not missing:
        return []
    if prepare:
        prepare(missing)
    else:
        folders = sorted({str(Path(folder, name).parent) for name in missing})
        done = remote.run(["mkdir", "-p", "--", *folders])
        if done.status != 0:
            raise not_stored(folders[0], done.stderr, f"Name another folder with {option}.", "created")
    for name in missing:
        try:
            remote.push(files[name], f"{folder}/{name}")
        except OSError as error:
            raise not_stored(f"{folder}/{name}", str(error), f"Name another folder with {option}.") from error
    stored = _hashes(remote, folder, missing)
    wrong = next((name for name in missing if stored.get(name) != wanted[name]), None)
    if wrong is not None:
        raise DeviceUnavailable(
            f"{folder}/{wrong} on the board differs from what was sent.", "Its storage may be failing; check with df -h."
        )
    return missing


def _hashes(remote: Remote, folder: str, names: list[str]) -> dict[str, str]:
    """Return SHA-256 of files on the board; those that are not there are left out."""
    script = 'cd "$1" 2>/dev/null || exit 0; shift; sha256sum -- "$@" 2>/dev/null; exit 0'
    lines = remote.run(["sh", "-c", script, "sh", folder, *names], timeout_s=_HASH_TIMEOUT_S).stdout.splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
