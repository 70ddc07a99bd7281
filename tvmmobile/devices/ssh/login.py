"""Login over an SSH connection with the keys of the ssh agent and of `~/.ssh`, never with a password."""

from __future__ import annotations

import base64
import contextlib
import shlex
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko
from paramiko.agent import AgentSSH

from tvmmobile.devices.ssh.config import Route
from tvmmobile.devices.ssh.keys import fingerprint_of
from tvmmobile.devices.ssh.link import Link, open_link
from tvmmobile.system.errors import DeviceUnavailable

#: A server ends the connection after some refused keys, and paramiko after a key it cannot use: the others get another connection.
_MAX_CONNECTIONS = 3


@dataclass
class _TriedKeys:
    """The keys that were tried, for the message."""

    files: list[str] = field(default_factory=list)
    agent_keys: int = 0
    locked: list[Path] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)


#: A key, and its file unless it is the agent's.
_Candidate = tuple[Any, Path | None]


def log_in(route: Route, host_key: str, timeout_s: float) -> Link:
    """Connect to the route's server, which has that host key (`<type> <base64>`), within `timeout_s` and log the user in.

    Raises:
        DeviceUnavailable: the server cannot be reached, has another key, or does not let the user in.
    """
    deadline = time.monotonic() + timeout_s
    tried = _TriedKeys()
    with _agent_keys(route) as agent_keys:
        candidates = _candidates(route, agent_keys, tried)
        for attempt in range(_MAX_CONNECTIONS):
            link = open_link(route, deadline, [host_key.split(" ", 1)[0]])
            try:
                _check_host_key(route, host_key, link.host_key)
                if _authenticate(route, link.transport, candidates, tried, deadline, first=attempt == 0):
                    return link
                ended = not link.transport.is_active()
            except BaseException:
                link.close()
                raise
            link.close()
            if not ended:
                break
    raise _refused(route, tried)


def _check_host_key(route: Route, expected: str, found: str) -> None:
    if expected != found:
        raise DeviceUnavailable(
            f"the host key of {route.where} has changed: it was {fingerprint_of(expected)}, and is now {fingerprint_of(found)}.",
            "If the board was reinstalled, run: tvmmobile device remove NAME --keep-files, and add it again. "
            "If not, someone may be posing as it.",
        )


def _authenticate(route: Route, transport: Any, candidates: Iterator[_Candidate], tried: _TriedKeys, deadline: float, first: bool) -> bool:
    """Log the user in; return `False` with the transport ended if candidates may be left."""
    if first:
        try:
            _limit(route, transport, deadline)
            transport.auth_none(route.user)  # some boards' images let root in without authentication
        except paramiko.BadAuthenticationType as error:
            _check_methods(route, error.allowed_types)
        except (paramiko.SSHException, EOFError, OSError):
            pass
    while not transport.is_authenticated() and transport.is_active():
        key, file = next(candidates, (None, None))
        if key is None:
            break
        if file is None:
            tried.agent_keys += 1
        else:
            tried.files.append(_short(file))
        try:
            _limit(route, transport, deadline)
            more = transport.auth_publickey(route.user, key)
        except paramiko.BadAuthenticationType as error:
            _check_methods(route, error.allowed_types)
        except (paramiko.SSHException, EOFError, OSError):
            continue
        else:
            if more:
                raise _not_by_key(route, more)
    return bool(transport.is_authenticated())


def _limit(route: Route, transport: Any, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0.0:
        raise DeviceUnavailable(
            f"{route.where} did not log {route.user} in within the time limit.", "Check that the board is not overloaded, and try again."
        )
    transport.auth_timeout = left


def _check_methods(route: Route, methods: list[str]) -> None:
    if "publickey" not in methods:
        raise _not_by_key(route, methods)


def _not_by_key(route: Route, methods: list[str]) -> DeviceUnavailable:
    return DeviceUnavailable(
        f"{route.where} does not let {route.user} in with a key alone; it asks for {' and '.join(methods) or 'nothing known'}.",
        "Set PubkeyAuthentication yes and no other AuthenticationMethods in the board's /etc/ssh/sshd_config.",
    )


def _refused(route: Route, tried: _TriedKeys) -> DeviceUnavailable:
    agent = f"{tried.agent_keys} key{'s' if tried.agent_keys > 1 else ''} of the ssh agent"
    used = " and ".join([*([agent] if tried.agent_keys else []), *([", ".join(tried.files)] if tried.files else [])])
    message = f"{route.where} refuses user {route.user}: " + (f"tried {used}" if used else "there is no key to try")
    if tried.unusable:
        message += f"; {', '.join(tried.unusable)} cannot be read"
    if tried.locked:
        names = ", ".join(_short(path) for path in tried.locked)
        return DeviceUnavailable(
            f"{message}; {names} needs a passphrase and the ssh agent does not hold it.",
            f"Run: ssh-add {shlex.quote(str(tried.locked[0]))}",
        )
    if used:
        return DeviceUnavailable(f"{message}.", f"Run: ssh-copy-id {route.ssh_arguments} (or give another user: USER@{route.host}).")
    return DeviceUnavailable(f"{message}.", f"Run: ssh-keygen -t ed25519, then: ssh-copy-id {route.ssh_arguments}")


@contextlib.contextmanager
def _agent_keys(route: Route) -> Iterator[list[Any]]:
    """Yield the agent's keys, which sign as long as the context lasts; an agent with invalid answers counts as absent."""
    if route.agent is None:
        yield []
        return
    agent = AgentSSH()  # paramiko's own Agent knows SSH_AUTH_SOCK alone
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(str(route.agent))
            agent._connect(connection)
        except (paramiko.SSHException, OSError, ValueError):
            yield []
            return
        yield list(agent.get_keys())


def _candidates(route: Route, agent_keys: list[Any], tried: _TriedKeys) -> Iterator[_Candidate]:
    """Yield the keys in OpenSSH's order: the agent's configured ones, then its others, then the files; each once."""
    configured = [blob for path in route.key_files if (blob := _public_blob(path))]
    held = {key.asbytes(): key for key in agent_keys}
    ordered = [held[blob] for blob in configured if blob in held]
    if not route.only_these_keys:
        ordered += [key for blob, key in held.items() if blob not in configured]
    yield from ((key, None) for key in ordered)
    for path in route.key_files:
        if path.suffix == ".pub" or _public_blob(path) in held:
            continue
        key = _load(path, tried)
        if key is not None and key.asbytes() not in held:
            yield key, path


def _load(path: Path, tried: _TriedKeys) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return paramiko.PKey.from_path(path)
    except (paramiko.PasswordRequiredException, TypeError):  # the latter comes from the cryptography package
        tried.locked.append(path)
    except (paramiko.SSHException, paramiko.pkey.UnknownKeyType, UnsupportedAlgorithm, OSError, ValueError):
        tried.unusable.append(_short(path))
    return None


def _public_blob(path: Path) -> bytes:
    """Return the public half next to a private key file; empty if there is none."""
    public = path if path.suffix == ".pub" else path.with_name(path.name + ".pub")
    try:
        return base64.b64decode(public.read_text(encoding="utf-8").split()[1])
    except (OSError, ValueError, IndexError):
        return b""


def _short(path: Path) -> str:
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)
