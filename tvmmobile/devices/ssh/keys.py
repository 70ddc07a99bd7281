"""Host keys: their text form, and their status in OpenSSH's known_hosts files."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import hmac
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tvmmobile.devices.ssh.config import Route

Known = Literal["known", "unknown", "changed"]


@dataclass(frozen=True)
class HostKey:
    """Public key of a server.

    Attributes:
        text: `<type> <base64>`, as in a known_hosts file.
        fingerprint: `SHA256:…`, as `ssh-keygen -l` prints it.
        name: the server's name in known_hosts files.
        known: verdict of the known_hosts files: the same key, nothing, or another one (or that this one is revoked).
    """

    text: str
    fingerprint: str
    name: str
    known: Known


def host_key_of(destination: str, port: int | None = None, timeout_s: float = 10.0) -> HostKey:
    """Return the key that a server presents, of the type in known_hosts if listed there. This needs no login.

    Destination and port are as in `SshAddress`; `timeout_s` is for all of it, from looking up the name.

    Raises:
        DeviceUnavailable: the server cannot be reached, or speaks no SSH.
    """
    from tvmmobile.devices.ssh.config import route_to
    from tvmmobile.devices.ssh.link import open_link

    route = route_to(destination, port)
    listed = [text for text, _ in _entries(route)]
    link = open_link(route, time.monotonic() + timeout_s, [text.split(" ", 1)[0] for text in listed])
    try:
        text = link.host_key
    finally:
        link.close()
    return HostKey(text, fingerprint_of(text), route.known_name, known_state(route, text))


def fingerprint_of(text: str) -> str:
    """Return the fingerprint `SHA256:…` of a key written `<type> <base64>`; "no key" for other text."""
    try:
        blob = base64.b64decode(text.split()[1], validate=True)
    except (IndexError, ValueError):
        return "no key"
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def known_state(route: Route, text: str) -> Known:
    """Return the status of a server's key in the route's known_hosts files."""
    entries = list(_entries(route))
    if (text, True) in entries:
        return "changed"
    usable = [entry for entry, revoked in entries if not revoked]
    if text in usable:
        return "known"
    return "changed" if usable else "unknown"


def _entries(route: Route) -> Iterator[tuple[str, bool]]:
    """Yield the keys listed for a server, and whether each is revoked."""
    # Like OpenSSH, a key that is listed for the host alone counts for its other ports too, unless one is listed for the port.
    for name in dict.fromkeys((route.known_name, route.known_as)):
        found = [entry for path in route.known_hosts for entry in _entries_in(path, name)]
        yield from found
        if any(not revoked for _, revoked in found):
            return


def _entries_in(path: Path, name: str) -> Iterator[tuple[str, bool]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, ValueError):  # missing, or not a file's name
        return
    for line in lines:
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) >= 3 and not words[0].startswith("#") and marker in {"", "@revoked"} and _names(words[0], name):
            yield f"{words[1]} {words[2]}", marker == "@revoked"


def _names(patterns: str, name: str) -> bool:
    """Return whether the first field of a known_hosts line is about `name` (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
    found = False
    for pattern in patterns.split(","):
        if pattern.startswith("|1|"):
            found = found or _hashed_is(pattern, name)
        elif pattern.startswith("!"):
            if _matches(pattern[1:], name):
                return False
        else:
            found = found or _matches(pattern, name)
    return found


def _matches(pattern: str, name: str) -> bool:
    # Only * and ? are special there; brackets belong to [host]:port.
    return fnmatch.fnmatchcase(name, pattern.lower().replace("[", "[[]"))


def _hashed_is(pattern: str, name: str) -> bool:
    try:
        _, _, salt, digest = pattern.split("|")
        expected = hmac.new(base64.b64decode(salt), name.encode(), hashlib.sha1).digest()
        return hmac.compare_digest(expected, base64.b64decode(digest))
    except ValueError:
        return False
