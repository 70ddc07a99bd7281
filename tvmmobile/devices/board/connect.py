"""Opens a connection to a board, by SSH or adb, or on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tvmmobile.devices.board.registered import Address, LocalAddress, SshAddress
from tvmmobile.devices.board.remote import LinkLost, Remote
from tvmmobile.system.errors import DeviceUnavailable

CONNECT_TIMEOUT_S = 10.0


@contextmanager
def connected(address: Address) -> Iterator[Remote]:
    """Connect to a board until the context ends; raise `DeviceUnavailable` if the connection cannot be made, or is lost."""
    remote = connect(address)
    try:
        yield remote
    except LinkLost as error:
        place = described(address)
        raise silent(address, f"{place} stopped answering: {error}.") from error
    finally:
        remote.close()


def connect(address: Address, timeout_s: float = CONNECT_TIMEOUT_S) -> Remote:
    """Connect to the board at `address`; the caller closes it. Raises `DeviceUnavailable` with the reason and what to do."""
    if isinstance(address, SshAddress):
        from tvmmobile.devices.ssh.remote import connect_ssh

        return connect_ssh(address, timeout_s)
    if isinstance(address, LocalAddress):
        from tvmmobile.devices.local.machine import connect_local

        return connect_local(address)
    from tvmmobile.devices.adb.remote import connect_adb

    return connect_adb(address, timeout_s)


def described(address: Address) -> str:
    """Return the address in readable form."""
    if isinstance(address, SshAddress):
        return address.destination + (f":{address.port}" if address.port else "")
    return "this machine" if isinstance(address, LocalAddress) else f"adb {address.serial}"


def silent(address: Address, message: str) -> DeviceUnavailable:
    """Return the error for a board that stopped answering."""
    what = "Look at the machine's load and memory" if isinstance(address, LocalAddress) else "Check its power and network"
    return DeviceUnavailable(message, f"{what}; then run the same command again.", again=True)
