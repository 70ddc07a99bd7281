"""Leases of boards: a file on the board with owner and expiry keeps two people's measurements from disturbing each other.

Expiry counts seconds since the board was booted, and is valid for that boot only: its calendar may step, and a reboot ends all leases.
"""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import dataclass

from tvmmobile.devices.board.remote import Remote
from tvmmobile.devices.board.storage import not_stored

#: Duration of a lease after it was taken or renewed, and the interval of renewals.
LEASE_S, RENEW_S = 60.0, 15.0
_RELEASE_S = 10.0
#: A lease is written over in place: files in /tmp cannot be removed by others.
_SIZE = 512
_STATE = 'cat "$1" 2>/dev/null; echo; cat "$2/proc/sys/kernel/random/boot_id"; cut -d" " -f1 "$2/proc/uptime"'
_CREATE = 'umask 0; set -C; cat > "$1"'
_REWRITE = 'all=$(cat); printf "%s\\n" "$all" | dd of="$1" conv=nocreat,notrunc 2>/dev/null || printf "%s\\n" "$all" | cat > "$1"'
_UPTIME = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")
_REMOVE = 'rm -f "$1" 2>/dev/null || true'


class BoardBusy(Exception):
    """Raised when somebody else uses the board; the message says who and for how long."""


@dataclass(frozen=True)
class Lease:
    """Notes who uses a board.

    Attributes:
        owner: `user@host`.
        run: distinguishes runs of one owner and, with a number after a dot, the links of a run.
        boot: the board's boot that `until_s` refers to.
        until_s: seconds since that boot.
    """

    owner: str
    run: str
    boot: str
    until_s: float

    def to_bytes(self) -> bytes:
        """Encode the lease for its file."""
        text = json.dumps({"owner": self.owner, "run": self.run, "boot": self.boot, "until_s": round(self.until_s, 1)})
        return text.encode().ljust(_SIZE - 1) + b"\n"


class BoardLease:
    """Takes, renews and releases the lease on one board.

    Args:
        path: the lease's file on the board, the same for all its users.
        root: the tree whose `proc` has the board's uptime.
        owner, run: see `Lease`.
        link: number of the link among those of its run: two of them may lead to the same board.
    """

    def __init__(self, path: str, root: str, owner: str, run: str, link: int = 0) -> None:
        self.path, self.root, self.owner, self.run = path, root.rstrip("/"), owner, f"{run}.{link}"

    def take(self, remote: Remote) -> None:
        """Take or renew it; raise `BoardBusy` if somebody else has the board, and `DeviceUnavailable` if it cannot be written there."""
        boot, uptime_s = self.check_free(remote)
        mine = Lease(self.owner, self.run, boot, uptime_s + LEASE_S)
        exists = remote.run(["sh", "-c", _CREATE, "sh", self.path], stdin=mine.to_bytes()).status != 0
        if exists:
            written = remote.run(["sh", "-c", _REWRITE, "sh", self.path], stdin=mine.to_bytes())
            if written.status != 0:
                raise not_stored(self.path, written.stderr)
        now_held, *_ = self._state(remote)
        if now_held is not None and now_held.run != self.run:
            raise BoardBusy(f"{now_held.owner} took the board at the same moment")

    def check_free(self, remote: Remote) -> tuple[str, float]:
        """Return the board's current boot and seconds since then; raise `BoardBusy` if somebody else has the board."""
        held, boot, uptime_s = self._state(remote)
        if held is not None and held.run != self.run and held.boot == boot and held.until_s > uptime_s:
            if held.run.startswith(self.run.partition(".")[0] + "."):
                raise BoardBusy("it is the same board as another one of its device")
            raise BoardBusy(f"{held.owner} uses the board, for {math.ceil(held.until_s - uptime_s)} s more unless that is renewed")
        return boot, uptime_s

    def release(self, remote: Remote) -> None:
        """Release it, if it is this run's. If the board has no memory for a program, this is retried for a while."""
        deadline = time.monotonic() + _RELEASE_S
        while remote.run(["true"]).status != 0 and time.monotonic() < deadline:
            time.sleep(1)
        held, boot, _ = self._state(remote)
        if held is not None and held.run == self.run:
            ended = Lease(self.owner, self.run, boot, 0.0)
            remote.run(["sh", "-c", f"{_REWRITE}; {_REMOVE}", "sh", self.path], stdin=ended.to_bytes())

    def _state(self, remote: Remote) -> tuple[Lease | None, str, float]:
        """Return the stored lease, the board's current boot, and seconds since then."""
        lines = remote.run(["sh", "-c", _STATE, "sh", self.path, self.root]).stdout.splitlines()
        boot, uptime_s = (lines[-2].strip(), float(lines[-1])) if len(lines) >= 2 and _UPTIME.fullmatch(lines[-1]) else ("", 0.0)
        try:
            value = json.loads("\n".join(lines[:-2]))
            held = Lease(str(value["owner"]), str(value["run"]), str(value["boot"]), float(value["until_s"]))
        except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
            return None, boot, uptime_s
        return held if math.isfinite(held.until_s) else None, boot, uptime_s
