"""Proof that a process belongs to a run: HMAC-SHA256 with a secret that only the run's own processes have.

The secret travels through pipes, and through SSH or adb (encrypted, or by cable); never in a command line, an environment or a file.
Standard library only. The agent's side is `agent/proof.h`.
"""

from __future__ import annotations

import hmac
import secrets

#: Bytes of a secret, a nonce and a proof.
BYTES = 32


def new_secret() -> str:
    """Return a run's secret: 64 hexadecimal digits."""
    return secrets.token_hex(BYTES)


def nonce() -> bytes:
    """Return random bytes that are used once."""
    return secrets.token_bytes(BYTES)


def proof(key: bytes, purpose: str, *parts: bytes) -> bytes:
    """Return HMAC-SHA256 (RFC 2104) over a purpose and parts, each preceded by its length (32 bits, little-endian)."""
    message = b"".join(len(part).to_bytes(4, "little") + part for part in (purpose.encode(), *parts))
    return hmac.digest(key, message, "sha256")


def proves(claimed: bytes, key: bytes, purpose: str, *parts: bytes) -> bool:
    """Return whether `claimed` is that proof; takes the same time wherever they differ."""
    return hmac.compare_digest(claimed, proof(key, purpose, *parts))


class Seal:
    """Tags the messages of one connection: a message that was changed, repeated, left out or sent back has a wrong tag.

    Args:
        key: the key of this connection alone.
        ours, theirs: labels of the messages in each direction.
    """

    def __init__(self, key: bytes, ours: str, theirs: str) -> None:
        self._key, self._ours, self._theirs = key, ours, theirs
        self._sent = self._received = 0

    def closed(self, content: bytes) -> bytes:
        """Return the next message to send: its tag, then `content`."""
        self._sent += 1
        return proof(self._key, self._ours, self._sent.to_bytes(8, "little"), content) + content

    def opened(self, message: bytes) -> bytes:
        """Return the content of the next message received; raise `ValueError` where its tag is wrong."""
        self._received += 1
        tag, content = message[:BYTES], message[BYTES:]
        if not proves(tag, self._key, self._theirs, self._received.to_bytes(8, "little"), content):
            raise ValueError("a message with a wrong tag")
        return content


def tracker_seal(key: bytes, client: bytes, tracker: bytes, at_tracker: bool) -> Seal:
    """Return the seal of a connection to a tracker, from the nonces of both ends."""
    names = ("from tracker", "to tracker") if at_tracker else ("to tracker", "from tracker")
    return Seal(proof(key, "tracker messages", client, tracker), *names)
