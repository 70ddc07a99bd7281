"""Gives every test caches and data of its own, and a plain environment."""

from __future__ import annotations

import gc
import multiprocessing.util
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from torch_tables import keep_torch_tables

from tvmmobile.cli import run
from tvmmobile.system.collector import collect_rarely

# Before torch is imported: on a busy machine OpenMP's threads spin for each other, and a test of milliseconds takes seconds.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# As in the program's own processes.
collect_rarely()
# A shell ignores them for what it starts in the background, and what the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# How long an example takes says nothing on a busy machine, least of all the first, which imports what it needs.
settings.register_profile("tvmmobile", deadline=None)
settings.register_profile("all", deadline=None)
settings.load_profile("tvmmobile")

# The process that workers are forked from has its socket in this folder, which is not to be a test's.
multiprocessing.util.get_temp_dir()

REPOSITORY = Path(__file__).resolve().parents[1]
#: Where the user's own devices are registered; tests of hardware alone look there.
USER_DATA = os.environ.get("TVMMOBILE_DATA")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--device NAME`: the registered board for tests marked `hardware`; `--android DIR`: an Android's own loader and C library."""
    parser.addoption("--device", metavar="NAME", help="the registered board that tests marked 'hardware' run on")
    parser.addoption("--android", metavar="DIR", help="a folder with system/bin/linker64 and system/lib64 of an Android device, for QEMU")


def pytest_configure(config: pytest.Config) -> None:
    """In long runs, `host_kernels.examples` returns all its examples."""
    if "or" in config.option.markexpr.split():
        settings.load_profile("all")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that no process works on one alone while the others have nothing left."""
    slow = {item.path for item in items if item.get_closest_marker("virtual")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Tests and imports live as long as the process: the collector does not look through millions of objects again."""
    gc.freeze()


@dataclass(frozen=True)
class Outcome:
    """The outcome of a command line."""

    code: int
    out: str
    err: str


class CommandLine:
    """Runs `tvmmobile` verbs in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Outcome:
        self._capsys.readouterr()
        code = run(arguments)
        captured = self._capsys.readouterr()
        return Outcome(code, captured.out, captured.err)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """`cli("models", "--json")` runs that command line and returns its exit code, stdout and stderr."""
    return CommandLine(capsys)


@pytest.fixture
def repository() -> Path:
    """The checkout's root."""
    return REPOSITORY


@pytest.fixture(autouse=True, scope="module")
def _environment_stays() -> Iterator[None]:
    """A file's tests leave the variables that tvmmobile reads as they were: the next file's tests run in the same process."""
    before = _variables()
    yield
    assert _variables() == before


def _variables() -> dict[str, str]:
    own = ("TVMMOBILE_", "XDG_", "ANDROID_")
    return {name: value for name, value in os.environ.items() if name.startswith(own) or name in ("HOME", "PATH", "JAVA_HOME", "TMPDIR")}


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """80 columns, no debugging, the user's own logs and device profiles out of reach; PyTorch's tables are made once.

    The cache is left where it is: the device agent in it takes seconds to build and is named by its content.
    """
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TVMMOBILE_DATA", str(tmp_path_factory.mktemp("data")))
    monkeypatch.delenv("TVMMOBILE_DEBUG", raising=False)
    keep_torch_tables()
