"""Checks the shell that an SSH server runs programs with: that it runs them, and that it prints nothing of its own."""

from __future__ import annotations

from tvmmobile.devices.board.remote import LinkLost, Remote
from tvmmobile.devices.ssh.config import Route
from tvmmobile.system.errors import DeviceUnavailable, shown

_SAID = "tvmmobile"


def check_shell(remote: Remote, route: Route, timeout_s: float) -> None:
    """Run a program; raise `DeviceUnavailable` if it does not run, or if start-up files such as `~/.bashrc` add to its output."""
    try:
        done = remote.run(["echo", _SAID], timeout_s=timeout_s)
    except LinkLost as error:
        raise DeviceUnavailable(
            f"{route.where} let {route.user} in, and then stopped answering: {error}.",
            "Check that the board is not overloaded, and try again.",
        ) from error
    if done.status == 0 and done.stdout == f"{_SAID}\n":
        return
    printed = done.stdout.replace(f"{_SAID}\n", "")
    if done.status == 0 and printed != done.stdout:
        raise DeviceUnavailable(
            f"the shell of {route.user} on {route.where} prints text before what a program prints: {shown(printed.strip())}.",
            f"Let ~/.bashrc and the like print in interactive shells only, until this prints nothing: ssh {route.ssh_arguments} true",
        )
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    raise DeviceUnavailable(
        f"{route.where} lets {route.user} in, but runs no programs: {(lines[-1] if lines else f'status {done.status}').rstrip('.')}.",
        f"Give {route.user} a shell there, without a forced command, until this prints nothing: ssh {route.ssh_arguments} true",
    )
