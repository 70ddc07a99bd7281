"""Signals that end a command: where they wait, where they get lost without help, and two of them at once."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from tvmmobile.devices.board.link import BoardLink
from tvmmobile.devices.board.pin import _GUARD
from tvmmobile.devices.board.remote import LinkLost
from tvmmobile.networks.own.files import OwnFile, RequestedShape
from tvmmobile.networks.own.python_file import load_python
from tvmmobile.system.interrupts import ENDING, Terminated, deferred, insisted, terminate
from tvmmobile.system.workers import Workers


@pytest.fixture(autouse=True)
def handlers() -> Iterator[list[object]]:
    """Install handlers as a command does; put the former ones back."""
    before = {number: signal.getsignal(number) for number in ENDING}
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, terminate)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield [signal.getsignal(number) for number in ENDING]
    for number, handler in before.items():
        signal.signal(number, handler)


def now() -> list[object]:
    return [signal.getsignal(number) for number in ENDING]


def test_deferred_signals_take_effect_at_the_end(handlers: list[object]) -> None:
    done: list[str] = []

    def work() -> None:
        with deferred() as arrived:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            assert arrived == [signal.SIGINT, signal.SIGTERM]
            done.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done and now() == handlers


def test_a_deferred_signal_goes_before_an_error() -> None:
    def work() -> None:
        with deferred():
            signal.raise_signal(signal.SIGHUP)
            raise OSError("which the signal ends")

    with pytest.raises(Terminated) as ended:
        work()
    assert ended.value.code == 128 + signal.SIGHUP


def test_threads_have_no_signals_to_defer(handlers: list[object]) -> None:
    seen: list[object] = []

    def work() -> None:
        with deferred():
            seen.extend(now())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == handlers


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("number", ENDING)
def test_a_signal_that_a_callback_swallows_takes_effect_at_the_end(number: signal.Signals) -> None:
    class Thing:
        pass

    reached: list[object] = []

    def work() -> None:
        with insisted():
            thing = Thing()
            weak = weakref.ref(thing, lambda _: signal.raise_signal(number))
            del thing  # "Exception ignored in …"
            reached.append(weak())

    with pytest.raises((KeyboardInterrupt, Terminated)):
        work()
    assert reached == [None]


def test_a_signal_that_gets_through_is_raised_where_it_came(handlers: list[object]) -> None:
    reached: list[str] = []

    def work() -> None:
        with insisted():
            signal.raise_signal(signal.SIGINT)
            reached.append("not this")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert not reached and now() == handlers


def test_two_signals_at_once_leave_nothing_behind(tmp_path: Path) -> None:
    """A session ends so: SIGTERM for its processes, SIGHUP for its terminal."""

    def work() -> None:
        with Workers(1, folder=tmp_path):
            assert list(tmp_path.iterdir())
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.raise_signal(number)

    with pytest.raises(Terminated):
        work()
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_again_while_workers_end(tmp_path: Path) -> None:
    def work() -> None:
        with Workers(1, folder=tmp_path):
            threading.Timer(0.02, signal.raise_signal, [signal.SIGINT]).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    with contextlib.suppress(KeyboardInterrupt):
        time.sleep(0.1)  # where the second one came late
    assert list(tmp_path.iterdir()) == []


def test_a_terminated_command_does_not_blame_the_users_file(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text("import signal\n\n\ndef net():\n    signal.raise_signal(signal.SIGTERM)\n")
    with pytest.raises(Terminated) as ended:
        load_python(OwnFile(path, "net"), RequestedShape(), None, 0)
    assert ended.value.code == 128 + signal.SIGTERM


def test_a_board_that_goes_away_while_its_agent_registers_is_no_error_of_the_tracker() -> None:
    """The tracker drops a peer for `ValueError`, and serves the other boards."""

    class Gone:
        def forward(self, port: int) -> int:
            raise LinkLost(f"no way to {port}")

    link = object.__new__(BoardLink)
    link._remote, link._places = Gone(), {}  # type: ignore[assignment]
    with pytest.raises(ValueError, match="no way to 9090"):
        link._place(9090)


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_governors_are_put_back_where_nobody_reads_the_answer(tmp_path: Path, shell: str) -> None:
    files = [tmp_path / f"sys/devices/system/cpu/cpu{number}/cpufreq/scaling_governor" for number in range(4)]
    for file in files:
        file.parent.mkdir(parents=True)
        file.write_text("ondemand\n")
    guard = subprocess.Popen([shell, "-c", _GUARD, "sh", str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert guard.stdin and guard.stdout
    guard.stdout.close()
    guard.stdin.close()
    guard.wait(10)
    assert {file.read_text() for file in files} == {"ondemand\n"}
