"""One machine for a file of tests: each leaves it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from booted_image import Image, image, require_machine
from booted_machine import NETWORK, Machine, at_home, machine
from ssh_server import Home

from tvmmobile.system.environment import cache_dir


@pytest.fixture(scope="session")
def debian() -> Image:
    """Made at the first call ever, which takes up to half an hour."""
    require_machine()
    return image()


@pytest.fixture(scope="module")
def booted(debian: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with machine(debian, tmp_path_factory.mktemp("machine")) as made:
        yield made


@pytest.fixture(autouse=True)
def home(tmp_path: Path, debian: Image, monkeypatch: pytest.MonkeyPatch) -> Home:
    """The home of the user on this side; the cache stays where it was, for the agent in it takes seconds to build."""
    monkeypatch.setenv("TVMMOBILE_CACHE", str(cache_dir()))
    home = at_home(debian, tmp_path / "user")
    monkeypatch.setenv("HOME", str(home.path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return home


@pytest.fixture
def network(tmp_path: Path) -> list[str]:
    """The options that name it."""
    (tmp_path / "network.py").write_text(NETWORK)
    return ["--model", f"{tmp_path / 'network.py'}:small", "--resolution", "16"]
