"""Resolves an SSH destination: the user's input, completed from OpenSSH's configuration files."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import paramiko

from tvmmobile.devices.ssh.config_lines import DIRECT, expanded, user_and_system_lines, words_of
from tvmmobile.system.environment import environment, user_name
from tvmmobile.system.errors import DeviceUnavailable, UserError, shown

DEFAULT_PORT = 22
#: Key files in the order in which they are tried if the configuration names none.
_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
#: Value of IdentityAgent, and name of the variable with the agent's socket.
_AGENT_VARIABLE = "SSH_AUTH_SOCK"
#: Units of times in configuration files, in seconds.
_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
# Both end up in a proxy's command, parts of which a shell interprets.
_HOST = re.compile(r"[\w:%][\w.:%-]*")
_USER = re.compile(r"[\w.][\w.@+-]*")


@dataclass(frozen=True)
class Route:
    """A resolved way to connect to a server.

    Attributes:
        destination: the destination as the user gave it.
        host, port, user: the server's host name and port, and the user who logs in there.
        known_as: the server's name in known_hosts files when the port is the default one.
        alias: true if `known_as` is a HostKeyAlias, which goes without the port.
        key_files: private keys to try.
        only_these_keys: true if keys of the agent that are not among `key_files` are left alone (IdentitiesOnly).
        agent: the socket of the ssh agent; `None` to ask none.
        proxy: the command whose standard input and output lead to the server; `None` for a TCP connection.
        timeout_s: ConnectTimeout; `None` where it is not set.
        known_hosts: files with host keys.
    """

    destination: str
    host: str
    port: int
    user: str
    known_as: str
    alias: bool
    key_files: tuple[Path, ...]
    only_these_keys: bool
    agent: Path | None
    proxy: tuple[str, ...] | None
    timeout_s: float | None
    known_hosts: tuple[Path, ...]

    @property
    def where(self) -> str:
        """The server for messages, and the destination if it has a different name."""
        server = f"{self.host} port {self.port}"
        return server if self.destination.rpartition("@")[2] == self.host else f"{self.destination} ({server})"

    @property
    def known_name(self) -> str:
        """The server's name in known_hosts files, with its port if that is not the default one."""
        return self.known_as if self.alias or self.port == DEFAULT_PORT else f"[{self.known_as}]:{self.port}"

    @property
    def ssh_arguments(self) -> str:
        """The arguments of `ssh` for commands that the user is told to run."""
        port = ["-p", str(self.port)] if self.port != DEFAULT_PORT else []
        return shlex.join([*port, f"{self.user}@{self.host}"])


def route_to(destination: str, port: int | None) -> Route:
    """Return the route to `[user@]host`. User and port given here take precedence over `~/.ssh/config`, and that over the system's file.

    Raises:
        UserError: the destination is invalid.
        DeviceUnavailable: this user has no name, or a configuration file cannot be parsed.
    """
    user, _, name = destination.rpartition("@")
    with_port = name.count(":") == 1  # an IPv6 address has more of them
    if not _HOST.fullmatch(name) or (user and not _USER.fullmatch(user)) or destination.startswith("@") or with_port:
        raise UserError(
            f"{destination!r} is not an SSH destination.",
            "Give [user@]host, such as pi@raspberrypi.local, a port with --port, and an IPv6 address without brackets.",
        )
    me = user_name()
    if not me:  # paramiko and OpenSSH need it in any case
        raise DeviceUnavailable(f"the user with the number {os.getuid()} has no name, which SSH needs.", "Give it any: export LOGNAME=NAME")
    options = _options(name, user, port)
    try:
        number = _port(options.get("port", str(DEFAULT_PORT)))
        timeout_s = _seconds(options.get("connecttimeout", "none"))
    except ValueError as error:
        raise DeviceUnavailable(
            f"the SSH configuration of {name} has {error}.", f"Run: ssh -G {shlex.quote(name)} (and repair ~/.ssh/config)."
        ) from error
    host = options.get("hostname", name)
    alias = options.get("hostkeyalias")
    log_in_as = options.get("user") or me
    return Route(
        destination=destination,
        host=host,
        port=number,
        user=log_in_as,
        known_as=(alias or host).lower(),
        alias=alias is not None,
        key_files=_key_files(options),
        only_these_keys=options.get("identitiesonly") == "yes",
        agent=_agent(options.get("identityagent", _AGENT_VARIABLE), {"h": host, "n": name, "p": str(number), "r": log_in_as}),
        proxy=_proxy(options, host, number),
        timeout_s=timeout_s,
        known_hosts=_known_hosts(options),
    )


def _options(name: str, user: str, port: int | None) -> Mapping[str, str]:
    given = ["Host *", *([f"User {user}"] if user else []), *([f"Port {port}"] if port is not None else [])]
    lines = [*given, *user_and_system_lines()]
    try:
        found: Mapping[str, str] = paramiko.SSHConfig.from_text("\n".join(lines) + "\n").lookup(name)
    except (paramiko.SSHException, ImportError, LookupError, ValueError) as error:
        raise DeviceUnavailable(
            f"the SSH configuration of {name} cannot be parsed: {error}.", f"Run: ssh -G {shlex.quote(name)} (and repair ~/.ssh/config)."
        ) from error
    return found


def _port(text: str) -> int:
    """Return a port; raise `ValueError` for any other text."""
    if not (text.isdecimal() and 0 < int(text[:6]) < 1 << 16):
        raise ValueError(f"{shown(text)} as a port")
    return int(text)


def _seconds(text: str) -> float | None:
    """Return a time such as `90` or `1m30s` in seconds, `None` for none or 0; raise `ValueError` for any other text."""
    parts = re.findall(r"([0-9]{1,9})([smhdw]?)", text.lower())
    if text == "none":
        return None
    if not parts or "".join(map("".join, parts)) != text.lower():
        raise ValueError(f"{shown(text)} as ConnectTimeout")
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts) or None


def _with_variables(text: str) -> str:
    """Return text with the environment's variables in place of `${NAME}`."""
    variables = environment()
    return re.sub(r"\$\{(\w+)\}", lambda found: variables.get(found[1], ""), text)


def _agent(named: str, tokens: Mapping[str, str]) -> Path | None:
    """Return the socket that IdentityAgent names: a path with tokens such as %d, a variable that holds the path, or none."""
    if named.lower() == "none":
        return None
    variables = environment()
    if named == _AGENT_VARIABLE or (named.startswith("$") and not named.startswith("${")):
        path = variables.get(named.removeprefix("$"), "")
        return Path(path) if path else None
    known = {**tokens, "%": "%", "d": str(Path.home()), "i": str(os.getuid())}
    path = re.sub("%(.)", lambda found: known.get(found[1], found[0]), named)
    return expanded(_with_variables(path))


def _key_files(options: Mapping[str, str]) -> tuple[Path, ...]:
    named = options.get("identityfile")
    if named:
        return tuple(expanded(_with_variables(name)) for name in named if name.lower() != "none")
    return tuple(path for key in _DEFAULT_KEYS if (path := Path.home() / ".ssh" / key).is_file())


def _known_hosts(options: Mapping[str, str]) -> tuple[Path, ...]:
    mine = options.get("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2")
    system = options.get("globalknownhostsfile", "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2")
    return tuple(expanded(_with_variables(name)) for name in words_of(f"{mine} {system}") if name.lower() != "none")


def _proxy(options: Mapping[str, str], host: str, port: int) -> tuple[str, ...] | None:
    """Return the command that leads to a server. As in OpenSSH, ProxyCommand or ProxyJump counts, whichever is set first."""
    jumps = options.get("proxyjump", "none").lower() != "none"
    name = next((name for name in options if name == "proxycommand" or (name == "proxyjump" and jumps)), "")
    value = options.get(name, DIRECT)
    if value == DIRECT:
        return None
    if name == "proxycommand":
        return ("/bin/sh", "-c", f"exec {value}")  # a shell interprets it, as in OpenSSH
    # As in OpenSSH: its own client, which knows the jump hosts' keys and configuration, forwards the bytes.
    *earlier, last = (part.strip() for part in value.split(","))
    through = ["-J", ",".join(earlier)] if earlier else []
    uri = last if last.startswith("ssh://") else f"ssh://{last}"
    settings = ("BatchMode=yes", "ClearAllForwardings=yes", "ServerAliveInterval=5", "ServerAliveCountMax=3")
    return ("ssh", *(word for setting in settings for word in ("-o", setting)), *through, "-W", f"[{host}]:{port}", uri)
