"""The agent itself, under QEMU, outlives sessions of clients who have proved themselves and then say anything."""

from __future__ import annotations

import contextlib
import socket

import numpy as np
import pytest
from hostile.agent_sessions import session

from tvmmobile.devices.agents.rpc import open_relay, open_session
from tvmmobile.devices.protocol import Endpoint
from tvmmobile.devices.registry import find_device

pytestmark = pytest.mark.virtual
_LIMIT_S = 5.0


def _say(endpoint: Endpoint, content: bytes) -> None:
    """A session that says this and hangs up."""
    with open_relay(endpoint, _LIMIT_S) as relay, contextlib.suppress(OSError):
        relay.agent.settimeout(_LIMIT_S)
        relay.agent.sendall(content)
        relay.agent.shutdown(socket.SHUT_WR)
        while relay.agent.recv(1 << 16):
            pass


@pytest.mark.parametrize("count", [pytest.param(2000, marks=pytest.mark.long)])
def test_mutated_sessions_of_a_true_client(count: int) -> None:
    with find_device("pi4-virtual").started(1, timed=False) as endpoint:
        for number in range(count):
            _say(endpoint, session(7, number))
        with open_session(endpoint, 30.0) as after:
            array = np.arange(100, dtype=np.float32)
            np.testing.assert_array_equal(after.get(after.put(array)), array)
