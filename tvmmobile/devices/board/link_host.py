"""The process behind a started registered device: a tracker, and a link to each of its boards.

Run as a process of its own. It reads its `LinkConfig` as one line of JSON from standard input, prints `{"port": …}` once every board is
ready or given up and at least one is ready (or what `told` returns), and stops at SIGTERM, at the end of its input, or when its
parent is gone.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time

from pydantic import BaseModel

from tvmmobile.devices.agents.host import STILL_INSTALLING, HostLoop, StopRequested, error_message, say, stop_on_signals
from tvmmobile.devices.board.link import STOP_S, AgentPlan, BoardLink
from tvmmobile.devices.board.registered import RegisteredBoard
from tvmmobile.system.errors import DeviceUnavailable

#: Time for all links together to end their agents and release the boards, which takes a slow one some seconds.
_STOP_ALL_S = 4 * STOP_S
#: Interval of messages that the agent is still being sent to a board.
_PROGRESS_S = 1.0


class LinkConfig(BaseModel):
    """Configures a link host; it ends with the process `parent`, and first contact may take `deadline_s` after the agent's installation."""

    plan: AgentPlan
    boards: tuple[RegisteredBoard, ...]
    parent: int
    deadline_s: float


def _serve(config: LinkConfig) -> None:
    loop = HostLoop(config.plan.secret, config.parent)
    links = [BoardLink(board, config.plan, loop.tracker) for board in config.boards]
    deadline = time.monotonic() + config.deadline_s
    for link in links:
        link.start()
    try:
        for _ in loop.looks():
            if not loop.announced and any(link.installing for link in links) and not any(link.ready for link in links):
                if time.monotonic() > deadline - config.deadline_s + _PROGRESS_S:
                    deadline = time.monotonic() + config.deadline_s
                    say(STILL_INSTALLING)
                continue
            problems = [link.problem for link in links if link.problem is not None]
            if len(problems) == len(links):
                say(error_message(problems[0]))
                return
            late = time.monotonic() > deadline
            if not loop.announced and any(link.ready for link in links) and (late or all(link.ready or link.problem for link in links)):
                for problem in problems:
                    print(f"tvmmobile: {problem.as_typed[0]} Other boards do its work.", file=sys.stderr)
                loop.announce()
            if not loop.announced and late:
                trouble = next((link.trouble for link in links if link.trouble is not None), None)
                slow = DeviceUnavailable(f"no board of {config.plan.key} was ready within {config.deadline_s:g} s.")
                say(error_message(trouble or slow))
                return
    finally:
        until = time.monotonic() + _STOP_ALL_S
        for link in links:
            link.stop(0)
        for link in links:
            link.stop(max(0.1, until - time.monotonic()))
        if troubles := [link.trouble for link in links if link.trouble is not None]:
            say(error_message(troubles[0]))  # read if the run ended because of it


def main() -> None:
    """Run the process."""
    stop_on_signals()
    config = LinkConfig.model_validate_json(sys.stdin.readline())
    with contextlib.suppress(StopRequested):
        _serve(config)
    os._exit(0)  # a link that hangs in a call to its board must not keep this process


if __name__ == "__main__":
    main()
