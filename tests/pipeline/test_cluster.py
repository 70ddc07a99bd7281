"""The same work on a Dask cluster: real schedulers and workers, on this machine's loopback."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import CommandLine
from misbehaving_jobs import misbehave
from processes import emulated, runs
from registered_boards import make_board, make_home, register
from waiting import wait_until

from tvmmobile.devices.board.hardware import HardwareDevice
from tvmmobile.devices.registry import find_device
from tvmmobile.graph.layers import Conv2d, Dense
from tvmmobile.graph.tasks import Task
from tvmmobile.pipeline.cluster import pool
from tvmmobile.pipeline.cluster.parcel import elsewhere
from tvmmobile.pipeline.cluster.pool import ClusterWorkers
from tvmmobile.pipeline.cluster.worker import PACKAGES, check_versions, versions_here
from tvmmobile.running.bench import Bench, started_bench
from tvmmobile.system.errors import DeviceUnavailable, ExitCode, UserError
from tvmmobile.system.files import sha256_of
from tvmmobile.system.workers import WorkerError, Workers
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Identity, Record
from tvmmobile.tuning.search.tuner import Search, SearchListener, assign, tune

dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")
pytestmark = pytest.mark.virtual
DEVICE = find_device("pi4-virtual")
TASKS = {Task((Conv2d(7, 7, 16, 16, clamp=(0.0, 6.0)),)): None, Task((Dense(16, 8),)): None}
#: For programs of Dask to start on a machine that does much else.
START_S = 120.0
SMALL = ("--alpha", "0.25", "--resolution", "32", "--classes", "10")


@pytest.fixture(autouse=True, scope="module")
def _unencrypted() -> Iterator[None]:
    """These clusters are this process's own, on loopback; tests/hostile has one with certificates."""
    with dask.config.set({"distributed.comm.require-encryption": False}):
        yield


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A scheduler with two workers under nannies."""
    dask.config.set({"temporary-directory": str(tmp_path_factory.mktemp("dask"))})
    with distributed.LocalCluster(processes=True, n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1") as cluster:
        yield cluster
    wait_until(lambda: not emulated(psutil.Process()), "the workers' boards to end")


@pytest.fixture
def address(cluster: Any) -> str:
    """The scheduler's, once both workers are there."""
    cluster.wait_for_workers(2, timeout=60)
    found: str = cluster.scheduler_address
    return found


class Listener(SearchListener):
    """Calls a function after each record."""

    def __init__(self, after: Callable[[], None] = lambda: None) -> None:
        self.after = after

    def trial_finished(self, record: Record, best: Record | None) -> None:
        """See `SearchListener`."""
        self.after()


def tuned(bench: Bench, logs: Path, trials: int, strategy: str = "climb", listener: Listener | None = None) -> list[tuple[Any, ...]]:
    """Return the log's records after tuning `TASKS`, without the dates."""
    profile = bench.profile
    identity = Identity.of(profile)
    database = Database(identity, (), logs)
    tune(assign(TASKS, database, trials, profile.target), database, bench, listener or Listener(), Search(strategy, 5))
    records = [record for task in TASKS for record in Database(identity, (logs,), None).records(task)]
    return sorted((record.task.name, str(record.schedule), record.latency_us, record.cycles, record.error) for record in records)


def _worker_pids(cluster: Any) -> list[int]:
    return [nanny.pid for nanny in cluster.workers.values() if nanny.pid is not None]


@contextlib.contextmanager
def dask_program(folder: Path, *words: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A running `dask scheduler` or `dask worker`, its log in `folder`."""
    with (folder / f"{words[0]}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *words, "--no-dashboard", "--host", "127.0.0.1"],
            env={**os.environ, "DASK_TEMPORARY_DIRECTORY": str(folder), **environment},
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_the_same_records_as_on_this_machine_alone(address: str, tmp_path: Path) -> None:
    with Workers(2) as workers, started_bench(DEVICE, workers) as bench:
        alone = tuned(bench, tmp_path / "alone", 9)
    with ClusterWorkers(address) as workers:
        assert workers.count == 2
        shared = tuned(Bench(elsewhere(DEVICE.profile), workers), tmp_path / "shared", 9)
    assert len(alone) == 9 + 3 and all(latency is not None for _, _, latency, _, _ in alone)  # the second task's space is small
    assert shared == alone


def test_a_job_that_dies_or_hangs_costs_no_worker(cluster: Any, address: str) -> None:
    before = _worker_pids(cluster)
    with ClusterWorkers(address) as workers:
        found = dict(workers.run(misbehave, ["well", "die", "hang", "still well"], 2))
    assert found["well"] == "well" and found["still well"] == "still well"
    assert isinstance(found["die"], WorkerError) and str(found["die"]) == "its worker process died (exit code -9)"
    assert isinstance(found["hang"], WorkerError) and str(found["hang"]) == "not done within 2 s"
    assert _worker_pids(cluster) == before


@pytest.mark.long
def test_a_worker_that_dies_costs_no_candidate(cluster: Any, address: str, tmp_path: Path) -> None:
    victims: list[psutil.Process] = []

    def kill_one() -> None:
        if victims:
            return
        worker = psutil.Process(_worker_pids(cluster)[0])
        victims.extend([worker, *worker.children(recursive=True)])
        assert emulated(worker)
        worker.kill()

    with ClusterWorkers(address) as workers:
        disturbed = tuned(Bench(elsewhere(DEVICE.profile), workers), tmp_path / "disturbed", 10, listener=Listener(kill_one))
        quiet = tuned(Bench(elsewhere(DEVICE.profile), workers), tmp_path / "quiet", 10)
    assert victims and disturbed == quiet
    wait_until(lambda: not any(map(runs, victims)), "its processes")


@pytest.mark.long
def test_libraries_are_the_same_and_so_is_what_is_measured(address: str, cli: CommandLine, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    for name, more in (("alone", ()), ("shared", ("--dask", address))):
        out = str(tmp_path / name)
        compiled = cli("compile", *SMALL, "--logs", str(logs), "--out", out, "--dump-ir", f"{out} dump", *more)
        assert compiled.code == 0 and compiled.out == f"{out}/mobilenet_v1_0.25_32_float32_t1.so\n", compiled.err
        benched = cli("bench", out, "--out", out, *more)
        assert benched.code == 0, benched.err
    alone, shared = (tmp_path / name for name in ("alone", "shared"))
    stem = "mobilenet_v1_0.25_32_float32_t1"
    assert sha256_of(shared / f"{stem}.so") == sha256_of(alone / f"{stem}.so")
    assert sha256_of(shared / f"{stem}.reference.npz") == sha256_of(alone / f"{stem}.reference.npz")
    manifests = [json.loads((folder / f"{stem}.json").read_text()) | {"created": ""} for folder in (alone, shared)]
    assert manifests[0] == manifests[1]
    rows = [json.loads((folder / "report.json").read_text())["benchmarks"][0] for folder in (alone, shared)]
    assert all(rows[0][key] == rows[1][key] for key in ("name", "real_time", "cycles", "instructions", "l1d_misses", "library_sha256"))
    dumped = [
        sorted(path.relative_to(folder) for path in folder.rglob("*.py")) for folder in (tmp_path / "alone dump", tmp_path / "shared dump")
    ]
    assert dumped[0] == dumped[1] and len(dumped[0]) > 10


@pytest.mark.long
def test_a_whole_run_is_the_same(address: str, cli: CommandLine, tmp_path: Path) -> None:
    found = []
    for name, more in (("alone", ()), ("shared", ("--dask", address))):
        out = tmp_path / name
        run = cli("tune", *SMALL, "--fresh", "--trials", "1", "--out", str(out), *more)
        assert run.code == 0, run.err
        lines = [json.loads(line) for path in out.glob("tuning_logs/*/*.jsonl") for line in path.read_text().splitlines()]
        found.append(sorted(json.dumps({key: value for key, value in line.items() if key != "when"}, sort_keys=True) for line in lines))
    assert found[0] == found[1] and len(found[0]) > 20
    assert len({sha256_of(path) for path in tmp_path.glob("*/*.so")}) == 1


@pytest.mark.long
def test_for_a_registered_board_only_builds_go_there(
    cluster: Any, address: str, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = make_board(tmp_path / "board", make_home(tmp_path, monkeypatch))
    try:
        device = HardwareDevice(register(cli, board))
        before = [len(emulated(psutil.Process(pid))) for pid in _worker_pids(cluster)]
        with Workers(2) as here, ClusterWorkers(address, here) as workers, started_bench(device, workers) as bench:
            records = tuned(bench, tmp_path / "logs", 10, "random")
        assert len(records) == 10 + 3 and all(latency is not None for _, _, latency, _, _ in records), records
        assert [len(emulated(psutil.Process(pid))) for pid in _worker_pids(cluster)] == before
        assert board.leftovers() == []
    finally:
        board.server.stop()


@pytest.mark.long
def test_nothing_listens_beyond_loopback(cluster: Any, address: str) -> None:
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    with ClusterWorkers(address) as workers:
        assert list(workers.run(misbehave, ["well"], 30)) == [("well", "well")]
        listening = {
            connection.laddr.ip for process in family for connection in process.net_connections("tcp") if connection.status == "LISTEN"
        }
    assert listening == {"127.0.0.1"}


@pytest.mark.parametrize("wrong", ["here", "localhost:8786", "http://localhost:8786", "tcp://:8786", "tcp://host:0", "tcp://host:99999"])
def test_what_is_no_address(wrong: str, cli: CommandLine) -> None:
    outcome = cli("compile", "--dask", wrong)
    assert outcome.code == 1 and f"--dask {wrong} is not the address of a Dask scheduler." in outcome.err


def test_an_address_without_encryption_is_refused(cli: CommandLine) -> None:
    with dask.config.set({"distributed.comm.require-encryption": None}):
        outcome = cli("compile", "--dask", "tcp://127.0.0.1:9")
    assert outcome.code == 1 and "tcp://127.0.0.1:9 is not encrypted: anybody who can reach it can run code there" in outcome.err
    assert "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=False" in outcome.err


def test_a_scheduler_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(DeviceUnavailable, match=f"the Dask scheduler {address} did not answer within 1 s.") as caught:
            ClusterWorkers(address, connect_s=1)
    assert caught.value.exit_code == ExitCode.DEVICE_UNAVAILABLE and "dask scheduler" in caught.value.remedy


@pytest.mark.long
def test_a_scheduler_that_is_not_there_ends_the_command_in_time(cli: CommandLine, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    begin = time.monotonic()
    outcome = cli("compile", *SMALL, "--out", str(tmp_path), "--dask", f"tcp://127.0.0.1:{port}")
    assert outcome.code == 3 and time.monotonic() - begin < 45
    first, second = outcome.err.strip().splitlines()
    assert f"tcp://127.0.0.1:{port} did not answer within 30 s" in first and "leave out --dask" in second


def test_other_versions_are_named(tmp_path: Path) -> None:
    older = tmp_path / "apache_tvm-0.26.0.dist-info"
    older.mkdir()
    (older / "METADATA").write_text("Metadata-Version: 2.1\nName: apache-tvm\nVersion: 0.26.0\n")
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    with distributed.LocalCluster(n_workers=0, dashboard_address=None, host="127.0.0.1") as empty:
        words = ("worker", empty.scheduler_address, "--nthreads", "1", "--no-nanny")
        with dask_program(tmp_path, *words, PYTHONPATH=paths), pytest.raises(UserError) as caught:
            ClusterWorkers(empty.scheduler_address, connect_s=START_S)
    here = versions_here()["apache-tvm"]
    assert caught.value.exit_code == ExitCode.USAGE
    assert f"has apache-tvm 0.26.0; this machine has apache-tvm {here}." in caught.value.message


def test_versions_are_looked_at_again_by_the_worker() -> None:
    here = versions_here()
    check_versions(here, dict(here), "tcp://a:1")
    assert set(here) == set(PACKAGES) and "not installed" not in here.values()
    with pytest.raises(UserError, match=r"tcp://a:1 has tvmmobile 9; this machine has tvmmobile 0"):
        check_versions(here, {**here, "tvmmobile": "9"}, "tcp://a:1")


@pytest.mark.long
@pytest.mark.parametrize(("victim", "message"), [("scheduler", "went away"), ("worker", "has had no workers for 1 s")])
def test_a_cluster_that_goes_away_ends_the_run(victim: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "WITHOUT_WORKERS_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    paths = os.pathsep.join([str(Path(__file__).parents[1] / "support"), *filter(None, [os.environ.get("PYTHONPATH")])])
    with (
        dask_program(tmp_path, "scheduler", "--port", str(port)) as scheduler,
        dask_program(tmp_path, "worker", address, "--nthreads", "1", "--no-nanny", PYTHONPATH=paths) as worker,
        ClusterWorkers(address, connect_s=START_S) as workers,
    ):
        results = workers.run(misbehave, ["well", "hang"], 500)
        assert next(results) == ("well", "well")
        family = psutil.Process(worker.pid).children(recursive=True)
        {"scheduler": scheduler, "worker": worker}[victim].kill()
        begin = time.monotonic()
        with pytest.raises(DeviceUnavailable, match=message):
            next(results)
        assert time.monotonic() - begin < 30
    wait_until(lambda: not any(map(runs, family)), "its processes")
