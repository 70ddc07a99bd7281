"""Tests of an agent's answers to a file, as `AgentSession` understands them."""

from __future__ import annotations

import errno
import pickle
import socket
import struct
from pathlib import Path

import pytest

from tvmmobile.devices.agents.session import AgentSession
from tvmmobile.devices.protocol import NotStored


def upload(folder: Path, answer: int) -> None:
    """Upload a file of five bytes to an agent that gives this answer."""
    (folder / "file").write_bytes(b"12345")
    here, agent = socket.socketpair()
    with here, agent:
        agent.sendall(struct.pack("<Q", answer % (1 << 64)))
        session = AgentSession.__new__(AgentSession)
        session._connection = here
        session.upload_file(folder / "file")


def test_a_file_arrives(tmp_path: Path) -> None:
    upload(tmp_path, 5)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, 0])
def test_a_file_that_is_not_stored(tmp_path: Path, number: int) -> None:
    """Agents of older versions answer all ones."""
    with pytest.raises(NotStored, match=r"cannot store file \(5 bytes\)") as caught:
        upload(tmp_path, ~number)
    other = pickle.loads(pickle.dumps(caught.value))  # between worker processes
    assert caught.value.number == other.number == number and str(other) == str(caught.value)


@pytest.mark.parametrize("answer", [4, 0, 1 << 40, -5000])
def test_another_answer_ends_the_session(tmp_path: Path, answer: int) -> None:
    with pytest.raises(ConnectionResetError):
        upload(tmp_path, answer)
