"""Puts the agent on a board, into a folder of the user's own, and takes it away again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tvmmobile.devices.agent.build import AGENT, LOADER
from tvmmobile.devices.board.deploy import push_files
from tvmmobile.devices.board.remote import Remote
from tvmmobile.system.errors import DeviceUnavailable, UserError

Progress = Callable[[str], None]
#: For some megabytes on a slow card.
_REMOVE_TIMEOUT_S = 60.0
#: In every folder of ours on a board: nothing is removed that does not hold it.
MARK = ".tvmmobile"


def agent_words(folder: str) -> list[str]:
    """The start of the command line that runs the agent installed in `folder`."""
    return [f"{folder}/{LOADER}", "--library-path", folder, f"{folder}/{AGENT}"]


def home_directory(remote: Remote) -> str:
    """Where the user's own folder for this program belongs on a board.

    Raises:
        DeviceUnavailable: there is no place that can be written.
    """
    script = (
        "if [ -d /data/local/tmp ] && [ -w /data/local/tmp ]; then echo /data/local/tmp/tvmmobile; "
        'elif [ -n "$HOME" ] && [ -w "$HOME" ]; then echo "$HOME/.tvmmobile"; else exit 1; fi'
    )
    done = remote.run(["sh", "-c", script])
    if done.status != 0 or not done.stdout.startswith("/"):
        raise DeviceUnavailable("The board's user has no writable home directory.", "Name another folder with --directory.")
    return done.stdout.strip()


def install_agent(remote: Remote, directory: str, bundle: Path, progress: Progress = lambda _sentence: None) -> str:
    """Make sure the agent is on the board as it is here; agents of other versions are removed. Returns its folder there.

    Raises:
        DeviceUnavailable: the board cannot store it, or what it stored is not what was sent.
    """
    folder = f"{directory}/{bundle.name}"

    def prepare(missing: list[str]) -> None:
        _make_directory(remote, directory)
        old = 'cd "$1" && for name in agent-*; do [ "$name" = "$2" ] || rm -rf "./$name"; done; mkdir -p -m 700 "./$2"'
        remote.run(["sh", "-c", old, "sh", directory, bundle.name])
        size = sum((bundle / name).stat().st_size for name in missing)
        progress(f"pushing the agent ({size / 1e6:.0f} MB)")

    push_files(remote, folder, {path.name: path for path in sorted(bundle.iterdir())}, "--directory", prepare)
    return folder


def remove_folder(remote: Remote, directory: str) -> None:
    """Remove everything of ours from the board.

    Raises:
        UserError: the folder is not one that this program made, or cannot be removed.
    """
    script = '[ -e "$1" ] || exit 0; [ -f "$1/$2" ] || exit 9; rm -rf "$1"'
    done = remote.run(["sh", "-c", script, "sh", directory, MARK], timeout_s=_REMOVE_TIMEOUT_S)
    if done.status == 9:
        raise UserError(f"{directory} on the board was not made by tvmmobile and is kept.", "Remove it by hand if it is not needed.")
    if done.status != 0:
        raise UserError(f"{directory} cannot be removed from the board: {done.stderr.strip()}.", "Remove it there by hand.")


def _make_directory(remote: Remote, directory: str) -> None:
    """The user's own folder on the board, readable by nobody else."""
    script = 'if [ -e "$1" ]; then [ -f "$1/$2" ] || [ -z "$(ls -A "$1")" ] || exit 9; fi; mkdir -p -m 700 "$1" && : > "$1/$2"'
    done = remote.run(["sh", "-c", script, "sh", directory, MARK])
    if done.status == 9:
        raise DeviceUnavailable(f"{directory} on the board holds files that are not tvmmobile's.", "Name another folder with --directory.")
    if done.status != 0:
        raise DeviceUnavailable(
            f"{directory} cannot be created on the board: {done.stderr.strip()}.", "Name another folder with --directory."
        )
