"""A session with an agent. Imports TVM, so import this module only where a session is opened."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm.rpc.client import RPCSession

from tvmmobile.devices.protocol import NotStored

BULK_MAGIC = 0xF674766D62756C6B
_WRITE, _READ, _FILE = 1, 2, 3
_ALL_ONES, _MOST_ERRORS = (1 << 64) - 1, 4095


class AgentSession(RPCSession):  # type: ignore[misc]
    """Extends TVM's session by transfers of arrays and files that do not take a function call per byte (see agent/stream.h).

    Args:
        module: the connected session as `rpc.Connect` returns it.
        connection: connection to the agent, past the relay; used only while no call is under way.
    """

    def __init__(self, module: Any, connection: socket.socket) -> None:
        super().__init__(module)
        self._connection = connection
        self._address = self.get_function("tvmmobile.address")

    def upload_file(self, path: Path) -> None:
        """Copy a file into the session's directory on the device, under its own name; raise `NotStored`, or another `OSError`."""
        content, name = path.read_bytes(), path.name.encode()
        self._request(_FILE, 0, len(content), name)
        self._connection.sendall(content)
        stored = self._answer()
        if stored == len(content):
            return
        number = stored ^ _ALL_ONES
        if number > _MOST_ERRORS:
            raise ConnectionResetError("the device ended the session")
        raise NotStored(path.name, len(content), number)

    def put(self, array: npt.NDArray[Any]) -> Any:
        """Make a tensor on the device with the array's shape, type and content; raise `OSError` if the connection is gone."""
        content = np.ascontiguousarray(array)
        tensor = tvm.runtime.empty(content.shape, str(content.dtype), self.cpu(0))
        self._request(_WRITE, self._address(tensor), content.nbytes)
        self._connection.sendall(content.reshape(-1).view(np.uint8).data)
        if self._answer() != content.nbytes:
            raise ConnectionResetError("the device ended the session")
        return tensor

    def get(self, tensor: Any) -> npt.NDArray[Any]:
        """Return a copy of a tensor of the device; raise `OSError` if the connection is gone."""
        array = np.empty(tuple(int(extent) for extent in tensor.shape), dtype=str(tensor.dtype))
        self._request(_READ, self._address(tensor), array.nbytes)
        self._receive_into(array.reshape(-1).view(np.uint8).data)
        return array

    def _request(self, operation: int, address: int, size: int, name: bytes = b"") -> None:
        self._connection.sendall(struct.pack("<QIIqQ", BULK_MAGIC, operation, len(name), address, size) + name)

    def _answer(self) -> int:
        answer = bytearray(8)
        self._receive_into(memoryview(answer))
        return int.from_bytes(answer, "little")

    def _receive_into(self, view: memoryview) -> None:
        received = 0
        while received < len(view):
            count = self._connection.recv_into(view[received:])
            if count == 0:
                raise ConnectionResetError("the device closed the connection")
            received += count
