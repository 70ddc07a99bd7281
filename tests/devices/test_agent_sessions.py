"""Tests of the agent with good, bad and hostile libraries, and of what is left when it ends."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from processes import busy, emulated
from small_disk import mounted_disk
from virtual_libraries import build_library

from tvmmobile.devices.agents.host import STOP_S
from tvmmobile.devices.agents.rpc import LinkError, open_relay, open_session
from tvmmobile.devices.protocol import MEASURED, Endpoint, NotStored
from tvmmobile.devices.registry import find_device
from tvmmobile.devices.virtual_board import STRETCH
from tvmmobile.running.measure import Agents, KernelRun, MeasureError, Timing
from tvmmobile.system.emulators import slowdown

pytestmark = pytest.mark.virtual
DEVICE = find_device("pi4")
X = np.arange(1000, dtype="float32")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with DEVICE.started(1) as started:
        yield started


def scale(endpoint: Endpoint, library: Path) -> KernelRun:
    run = Agents(DEVICE.profile, endpoint).measure_kernel(library, "scale", [X, np.zeros_like(X)], 10)
    np.testing.assert_array_equal(run.outputs[0], 2 * X)
    return run


def failure(endpoint: Endpoint, library: Path, function: str, timeout_s: float = 10) -> MeasureError:
    with pytest.raises(MeasureError) as caught:
        Agents(DEVICE.profile, endpoint).measure_kernel(library, function, [], timeout_s, outputs=())
    return caught.value


def test_counts_do_not_depend_on_what_ran_before(endpoint: Endpoint, library: Path) -> None:
    first = scale(endpoint, library)
    failure(endpoint, library, "crash")
    with open_session(endpoint, 10) as session:
        session.put(np.zeros(123456, "float32"))
    again = scale(endpoint, library)
    assert again.latency == first.latency
    assert first.latency.cycles is not None and first.latency.cycles > 1000


def test_counts_are_the_same_in_another_agent(endpoint: Endpoint, library: Path) -> None:
    with DEVICE.started(1) as other:
        there = scale(other, library).latency
    here = scale(endpoint, library).latency
    assert (there.cycles, there.instructions) == (here.cycles, here.instructions)


def test_agents_run_below_folders_whose_names_have_commas(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin's options, its folder among them, are separated by commas."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp,own"))
    Path(tempfile.gettempdir()).mkdir()
    with DEVICE.started(1) as started:
        assert scale(started, library).latency.cycles


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("crash", "killed by SIGSEGV"),
        ("illegal", "killed by SIGILL"),
        ("die", "killed by SIGKILL"),
        ("leave", "the session's process ended with code 3"),
    ],
)
def test_crash_is_named_and_survived(endpoint: Endpoint, library: Path, function: str, reason: str) -> None:
    error = failure(endpoint, library, function)
    assert (error.kind, error.reason) == ("crashed", reason)
    scale(endpoint, library)


@pytest.mark.parametrize("function", ["hang", "hang_deaf", "hang_family", "sleep", "stop"])
def test_hang_ends_at_the_deadline(endpoint: Endpoint, library: Path, function: str) -> None:
    begin = time.monotonic()
    error = failure(endpoint, library, function, timeout_s=0.75)
    assert (error.kind, error.reason) == ("timeout", "did not finish within 0.75 s")
    assert time.monotonic() - begin < 0.75 * STRETCH  # by its use of the processor, which other programs use too
    scale(endpoint, library)
    assert busy(emulated(psutil.Process())) == []


def test_limits_are_longer_on_an_emulated_machine(endpoint: Endpoint, library: Path) -> None:
    error = failure(replace(endpoint, slowdown=3.0), library, "hang", timeout_s=0.25)
    assert (error.kind, error.reason) == ("timeout", "did not finish within 0.75 s")


@pytest.mark.parametrize(("machine", "vendor", "factor"), [("aarch64", "QEMU", 20), ("aarch64", "Ampere", 1), ("x86_64", "QEMU", 1)])
def test_an_emulated_machine_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, vendor: str, factor: float) -> None:
    (tmp_path / "sys/class/dmi/id").mkdir(parents=True)
    (tmp_path / "sys/class/dmi/id/sys_vendor").write_text(vendor)
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert slowdown(tmp_path) == factor


def test_a_session_that_waits_for_a_processor_has_not_had_its_time(library: Path) -> None:
    """On a busy machine, a session stands still for longer than its limit."""
    before = set(emulated(psutil.Process()))
    with DEVICE.started(1) as started, open_session(started, 3.0) as session:
        session.upload_file(library)
        function = session.load_module(library.name)["scale"]
        tensors = [session.put(X), session.put(np.zeros_like(X))]
        (waiting,) = [process for process in set(emulated(psutil.Process())) - before if "qemu" in process.parent().name()]
        waiting.suspend()
        time.sleep(3.5)
        waiting.resume()
        function(*tensors)
        np.testing.assert_array_equal(session.get(tensors[1]), 2 * X)


def test_a_session_without_a_folder_is_not_the_librarys_fault(library: Path) -> None:
    """The disk is full or read-only."""
    before = set(emulated(psutil.Process()))
    with DEVICE.started(1) as started:
        (agent,) = set(emulated(psutil.Process())) - before
        shutil.rmtree(agent.cwd())
        with pytest.raises(NotStored, match="a session's folder") as caught, open_session(started, 10):
            pass
        assert caught.value.number == errno.ENOENT
        error = failure(started, library, "scale")
        assert error.kind == "link" and "cannot store a session's folder" in error.reason


def test_a_full_disk_is_told_apart(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "large").write_bytes(bytes(9 << 20))
    with mounted_disk(tmp_path / "disk", "8m") as disk:
        monkeypatch.setattr("tempfile.tempdir", str(disk))
        with DEVICE.started(1) as started, open_session(started, 10) as session:
            with pytest.raises(NotStored, match="cannot store large") as caught:
                session.upload_file(tmp_path / "large")
            assert caught.value.number == errno.ENOSPC


def test_wrong_architecture_is_a_load_failure(endpoint: Endpoint, tmp_path: Path) -> None:
    error = failure(endpoint, build_library(tmp_path, "gcc"), "scale")
    assert error.kind == "load"
    assert "is not an AArch64 library" in error.reason


def test_damaged_library_is_a_load_failure(endpoint: Endpoint, library: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.so"
    damaged.write_bytes(library.read_bytes()[:100])
    error = failure(endpoint, damaged, "scale")
    assert error.kind == "load"
    assert "damaged.so cannot be loaded on the device" in error.reason


def test_the_clock_is_read_on_a_board(endpoint: Endpoint, library: Path) -> None:
    board = replace(DEVICE.profile, origin=MEASURED)
    timing = Timing(warmup=1, repeat=5, number=2, min_time_ms=1, flush_bytes=1 << 20, produce=(0,))
    run = Agents(board, endpoint).measure_kernel(library, "scale", [X, np.zeros_like(X)], 10, timing, (0, 1))
    assert run.latency.kind == "measured" and run.latency.cycles is None
    assert len(run.latency.samples_ns) == 5 and min(run.latency.samples_ns) > 0
    assert run.latency.seconds == sorted(run.latency.samples_ns)[2] * 1e-9
    np.testing.assert_array_equal(run.outputs[0], X)
    np.testing.assert_array_equal(run.outputs[1], 2 * X)


def test_arrays_and_files_arrive_whole(endpoint: Endpoint, tmp_path: Path) -> None:
    file = tmp_path / "file.bin"
    file.write_bytes(os.urandom(3_000_001))
    with open_session(endpoint, 20) as session:
        for array in (
            X.reshape(10, 100).T,
            np.zeros((0, 3), "int8"),
            np.float32(3).reshape(()),
            np.arange(6, dtype="float16").reshape(2, 3),
        ):
            back = session.get(session.put(array))
            assert back.dtype == array.dtype
            np.testing.assert_array_equal(back, array)
        session.upload_file(file)
        session.upload(bytearray(b"by TVM's own way"), "other.bin")
        assert bytes(session.download("other.bin")) == b"by TVM's own way"
        assert bytes(session.download("file.bin")) == file.read_bytes()


def test_missing_function_is_named(endpoint: Endpoint, library: Path) -> None:
    error = failure(endpoint, library, "absent")
    assert error.kind == "load"
    assert error.reason == "absent() cannot be loaded on the device: the library has no function absent"


def test_killed_agent_is_an_outage_and_comes_back(endpoint: Endpoint, library: Path) -> None:
    error = failure(endpoint, library, "kill_agent", timeout_s=20)
    assert error.kind == "link"
    scale(endpoint, library)


def test_who_does_not_know_the_secret_is_refused(endpoint: Endpoint, library: Path) -> None:
    with pytest.raises(LinkError, match="did not prove that it belongs"), open_session(replace(endpoint, secret="0" * 64), 5):
        pass
    scale(endpoint, library)


def test_client_that_dies_frees_the_agent(endpoint: Endpoint, library: Path) -> None:
    code = (
        "import os, threading; from pathlib import Path\n"
        "from tvmmobile.devices.protocol import Endpoint; from tvmmobile.devices.agents.rpc import open_session\n"
        f"e = Endpoint({endpoint.host!r}, {endpoint.port}, {endpoint.key!r}, {endpoint.secret!r})\n"
        "with open_session(e, 60) as s:\n"
        f"    s.upload_file(Path({str(library)!r})); m = s.load_module({library.name!r})\n"
        "    threading.Timer(0.3, lambda: os._exit(9)).start()\n"
        "    m['hang']()\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], timeout=60, check=False).returncode == 9
    begin = time.monotonic()
    scale(endpoint, library)
    assert time.monotonic() - begin < 4


def test_stock_tvm_client_can_use_an_agent(endpoint: Endpoint) -> None:
    import tvm.rpc

    with open_relay(endpoint, 10) as relay:
        session = tvm.rpc.connect("127.0.0.1", relay.port, key=relay.key)
        relay.hand_over()
        session.upload(bytearray(b"by TVM's own way"), "other.bin")
        assert bytes(session.download("other.bin")) == b"by TVM's own way"
        session.get_function("CloseRPCConnection")()


def test_no_agent_is_reported_in_time(endpoint: Endpoint) -> None:
    with pytest.raises(LinkError, match="was free within"), open_session(replace(endpoint, key="pi5"), 5, wait_s=0.3):
        pass
    with pytest.raises(LinkError, match="cannot be asked"), open_session(Endpoint("127.0.0.1", 1, "pi4", "0" * 64), 5, wait_s=0.3):
        pass


def test_sessions_in_threads_share_the_agents(library: Path) -> None:
    with DEVICE.started(2) as started:
        runs: list[KernelRun] = []
        threads = [threading.Thread(target=lambda: runs.append(scale(started, library))) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(runs) == 6 and len({run.latency.cycles for run in runs}) == 1


STARTER = """
import sys, time
from tvmmobile.devices.registry import find_device
with find_device("pi4").started(2) as endpoint:
    print(endpoint.port, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_the_process_that_started_it(number: signal.Signals, tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", STARTER], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline().strip().isdigit()
        family = psutil.Process(starter.pid).children(recursive=True)
        assert len(family) == 3  # the device host and two agents
        starter.send_signal(number)
    gone, alive = psutil.wait_procs(family, timeout=STOP_S + 12)  # the host's own limit for agents, and a busy machine
    assert (len(gone), alive) == (3, [])
    assert list(tmp_path.iterdir()) == []


def test_nothing_outlives_the_device_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with DEVICE.started(1):
        (host,) = [
            p
            for p in psutil.Process().children()
            if "tvmmobile.devices.agents.host" in " ".join(p.cmdline()) and str(tmp_path) in str(p.children()[0].cmdline())
        ]
        agents = host.children(recursive=True)
        host.kill()
        _, alive = psutil.wait_procs(agents, timeout=5)
        assert alive == []
    assert list(tmp_path.iterdir()) == []


def test_an_agent_that_stands_still_is_cut_off(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvmmobile.devices.agents.rpc.GRACE_S", 0.2)
    monkeypatch.setattr("tvmmobile.devices.virtual_board.STRETCH", 1)
    before = set(emulated(psutil.Process()))
    with DEVICE.started(1) as started:

        def freeze() -> None:
            for process in set(emulated(psutil.Process())) - before:
                process.suspend()

        threading.Timer(0.5, freeze).start()
        assert failure(started, library, "hang", timeout_s=1.5).kind == "link"
    assert set(emulated(psutil.Process())) == before
