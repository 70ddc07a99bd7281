"""paramiko's transport, which says nothing about a channel after that channel's close.

paramiko writes a message under the channel's lock and sends it after letting go of the lock. When the program at the other end ends just
then, its reader's thread sends the close first, and the message follows it. OpenSSH takes that for a protocol error and ends the whole
connection ("packet referred to nonexistent channel", channels.c), with everything else that runs over it.
"""

from __future__ import annotations

import socket
from typing import Any


def new_transport(sock: socket.socket) -> Any:
    """A `paramiko.Transport` over `sock`, not negotiated yet."""
    import paramiko
    from paramiko.common import MSG_CHANNEL_DATA, MSG_CHANNEL_EOF, MSG_CHANNEL_EXTENDED_DATA, MSG_CHANNEL_REQUEST, MSG_CHANNEL_WINDOW_ADJUST

    of_open_channels = {MSG_CHANNEL_WINDOW_ADJUST, MSG_CHANNEL_DATA, MSG_CHANNEL_EXTENDED_DATA, MSG_CHANNEL_EOF, MSG_CHANNEL_REQUEST}

    class OrderedTransport(paramiko.Transport):  # type: ignore[misc]
        def _send_message(self, message: Any) -> None:
            # The last step of sending, which one thread takes at a time: what is closed here has sent its close, or is about to.
            content = message.asbytes()
            if content[0] in of_open_channels and not self._is_open(int.from_bytes(content[1:5], "big")):
                return
            super()._send_message(message)

        def _is_open(self, remote_id: int) -> bool:
            return any(channel.remote_chanid == remote_id and not channel.closed for channel in self._channels.values())

    return OrderedTransport(sock)
