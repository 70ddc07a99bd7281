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
#:
#: It is passed on as one line, because csh, as a user's shell, ends quoted text with the line. PIPE: dash dies of it without its EXIT trap,
#: where nobody reads the answer any more. A governor is noted before it is changed: a signal may come in between. The guard of an earlier
#: connection, whose end the board's server has not noticed yet, must put the governors back first, and not in the middle of this run.
_GUARD = """
trap '' PIPE;
set_governor() { printf '%s\\n' "$2" > "$1" 2>/dev/null || printf '%s\\n' "$2" | sudo -n tee "$1" >/dev/null 2>&1; };
restore() {
  trap '' HUP INT TERM; IFS="|"; set -f; set -- $saved;
  while [ $# -gt 1 ]; do set_governor "$2" "$1"; shift 2; done;
  rm -f "$note";
};
note=$2/pinning; earlier=$(cat "$note" 2>/dev/null); tries=0;
while [ $tries -lt 50 ] && grep -q scaling_governor "/proc/$earlier/cmdline" 2>/dev/null; do
  kill "$earlier"; tries=$((tries + 1)); sleep 0.1 2>/dev/null || sleep 1;
done;
saved=;
trap restore EXIT;
trap 'exit 1' HUP INT TERM;
{ echo $$ > "$note"; } 2>/dev/null;
for file in "$1"/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor; do
  [ -f "$file" ] || continue;
  old=$(cat "$file");
  saved="$saved$old|$file|";
  set_governor "$file" performance || { echo refused; exit 1; };
done;
[ -n "$saved" ] && echo pinned || echo none;
while read -r _; do :; done
""".replace("\n", " ")


@contextlib.contextmanager
def pinned(remote: Remote, board: RegisteredBoard) -> Iterator[None]:
    """Set the governor `performance` on all cores until the context or connection ends; raise `DeviceUnavailable` if it cannot be set."""
    guard = remote.start(["sh", "-c", _GUARD, "sh", board.root.rstrip("/"), board.directory])
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
