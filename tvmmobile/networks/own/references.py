"""Computes a network on the host with the first of several programs that can, for comparison with its library.

A program starts when its answer is first wanted: loading a network stays cheap, and a file that crashes one does so in a worker process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from tvmmobile.graph.layers import Array
from tvmmobile.networks.frontend import Compute
from tvmmobile.system.errors import UserError

#: Starts a program for one network: returns its name and version, and what computes. Raises errors of any kind where it cannot.
Start = Callable[[], tuple[str, Compute]]
#: The preamble of ONNX Runtime's messages: its name, a number and a kind, and a place in its source.
_PREAMBLE = re.compile(r"(\[ONNXRuntimeError\] : \d+ : \w+ : )?(/\S+:\d+ .*?\) (?=[A-Z]))?")
#: Longest reason in characters.
_MOST_REASON = 160


class HostReference:
    """Computes a network's expected output.

    Args:
        subject: names the network in messages.
        programs: names and starts, those that are trusted most first.
    """

    def __init__(self, subject: str, programs: Sequence[tuple[str, Start]]) -> None:
        self._subject, self._left = subject, list(programs)
        self._running: tuple[str, Compute] | None = None
        #: Why each of those in front could not be used.
        self._reasons: list[str] = []

    def program(self) -> str:
        """Name and version of the program that computes, and why preferred ones do not; raises `UserError` as `compute` does."""
        title, _ = self._started()
        return f"{title} ({'; '.join(self._reasons)})" if self._reasons else title

    def compute(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Return the outputs for these inputs; raise `UserError` if no program can compute them."""
        while True:
            _, compute = self._started()
            try:
                return compute(inputs)
            except Exception as error:  # their operators raise errors of any kind
                self._give_up(error)

    def _started(self) -> tuple[str, Compute]:
        while self._running is None:
            if not self._left:
                raise UserError(
                    f"no program on this machine computes {self._subject}: {'; '.join(self._reasons)}",
                    "Export it with operators that one of them computes: without one, the output cannot be checked.",
                )
            try:
                self._running = self._left[0][1]()
            except Exception as error:  # they raise errors of any kind
                self._give_up(error)
        return self._running

    def _give_up(self, error: Exception) -> None:
        name, _ = self._left.pop(0)
        self._running = None
        self._reasons.append(f"{name}: {_reason(error)}")


def _reason(error: Exception) -> str:
    if isinstance(error, ImportError):
        return "not installed"
    reason = _PREAMBLE.sub("", next(iter(str(error).strip().splitlines()), type(error).__name__), count=1).rstrip(". ")
    return reason if len(reason) <= _MOST_REASON else f"{reason[:_MOST_REASON]}…"
