"""Holds a board's clocks at their highest while it is measured, and restores the governors whatever happens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tvmmobile.devices.board.registered import RegisteredBoard
from tvmmobile.devices.board.remote import Remote
from tvmmobile.system.errors import DeviceUnavailable

#: Time for sudo to refuse.
_PIN_S = 10.0
#: Runs on the board for as long as its standard input is open, which ends with this process or the connection: then the governors are put
#: back. Where the user may not write them, `sudo -n` is tried, which never asks for a password.
_GUARD = """
trap '' PIPE  # of which dash dies without its EXIT trap, where nobody reads the answer any more
set_governor() { printf '%s\\n' "$2" > "$1" 2>/dev/null || printf '%s\\n' "$2" | sudo -n tee "$1" >/dev/null 2>&1; }
restore() { trap '' HUP INT TERM; for pair in $saved; do set_governor "${pair#*=}" "${pair%%=*}"; done; }
saved=
trap restore EXIT
trap 'exit 1' HUP INT TERM
for file in "$1"/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor; do
  [ -f "$file" ] || continue
  old=$(cat "$file")
  saved="$saved $old=$file"  # first: a signal may come in between
  set_governor "$file" performance || { echo refused; exit 1; }
done
[ -n "$saved" ] && echo pinned || echo none
while read -r _; do :; done
"""


@contextlib.contextmanager
def pinned(remote: Remote, board: RegisteredBoard) -> Iterator[None]:
    """Set the governor `performance` on all cores until the context or connection ends; raise `DeviceUnavailable` if it cannot be set."""
    guard = remote.start(["sh", "-c", _GUARD, "sh", board.root.rstrip("/")])
    try:
        answer = guard.read_line(_PIN_S)
        if answer != "pinned":
            reason = "has no governor to set" if answer == "none" else "does not let its user set the governor"
            raise DeviceUnavailable(
                f"{board.facts.model or 'the board'} {reason}.", "Leave out --pin, or allow sudo without a password for tee."
            )
        yield
    finally:
        guard.stop()
