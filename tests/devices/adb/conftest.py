"""A private adb server, a phone that is switched on, and a connection to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from phones import ADB, Phone, adb_servers, private_adb_server, switched_on

from tvmmobile.devices.adb.remote import AdbRemote, connect_adb


@pytest.fixture(autouse=True)
def _needs_adb() -> None:
    if ADB is None:
        pytest.skip("there is no adb program; apt-get install -y adb")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with private_adb_server(tmp_path_factory.mktemp("adb")) as port:
        yield port
    assert not adb_servers(port)


@pytest.fixture
def phone(server: int, tmp_path: Path) -> Iterator[Phone]:
    with switched_on(tmp_path / "phone") as phone:
        yield phone


@pytest.fixture
def remote(phone: Phone) -> Iterator[AdbRemote]:
    remote = connect_adb(phone.address)
    yield remote
    remote.close()
