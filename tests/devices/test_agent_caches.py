"""The simulated caches see cold weights and warm inputs in a run through the agent, and the same in every run and place."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from virtual_libraries import build_library

from tvmmobile.devices.registry import find_device
from tvmmobile.running.bench import started_agents
from tvmmobile.running.measure import Agents, Latency, Timing

pytestmark = pytest.mark.virtual
DEVICE = find_device("pi4")
LINE_BYTES = 64
#: Fits the first-level cache, with room for what the agent touches on the way.
SMALL = np.ones(2048, dtype="float32")
#: Larger than the second-level cache.
LARGE = np.ones(1 << 20, dtype="float32")
#: Lines that a call touches besides the array: stack, arguments, shapes, code's constants.
OVERHEAD = 60


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def agents() -> Iterator[Agents]:
    with started_agents(DEVICE) as started:
        yield started


def total(agents: Agents, library: Path, array: np.ndarray[tuple[int], np.dtype[np.float32]], timing: Timing) -> Latency:
    run = agents.measure_kernel(library, "total", [array, np.zeros(1, "float32")], 20, timing)
    assert run.outputs[0] == array.sum()
    return run.latency


def lines(array: np.ndarray[tuple[int], np.dtype[np.float32]]) -> int:
    return array.nbytes // LINE_BYTES


def misses(latency: Latency) -> int:
    assert latency.l1d_misses is not None
    return latency.l1d_misses


def test_weights_are_cold_and_inputs_warm(agents: Agents, library: Path) -> None:
    cold = total(agents, library, SMALL, Timing(flush_bytes=1))
    assert lines(SMALL) <= misses(cold) <= lines(SMALL) + OVERHEAD
    assert cold.dram_bytes is not None and cold.dram_bytes >= SMALL.nbytes
    warm = total(agents, library, SMALL, Timing(flush_bytes=1, produce=(0,)))
    assert misses(warm) <= OVERHEAD
    assert warm.cycles == pytest.approx(cold.cycles, rel=0.01) and warm.seconds < cold.seconds


def test_a_run_before_warms_the_caches_unless_they_are_emptied(agents: Agents, library: Path) -> None:
    assert misses(total(agents, library, SMALL, Timing(warmup=1))) <= OVERHEAD
    assert misses(total(agents, library, SMALL, Timing(warmup=1, flush_bytes=1))) >= lines(SMALL)


def test_what_does_not_fit_is_read_from_memory_each_time(agents: Agents, library: Path) -> None:
    latency = total(agents, library, LARGE, Timing(warmup=1))
    assert lines(LARGE) <= misses(latency) <= lines(LARGE) + OVERHEAD
    assert latency.dram_bytes is not None and latency.dram_bytes >= LARGE.nbytes
    assert set(latency.term_ms) > {"core"} and latency.seconds == pytest.approx(1e-3 * sum(latency.term_ms.values()))


def test_a_library_has_the_same_latency_every_time_and_everywhere(agents: Agents, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timing = Timing(flush_bytes=1, produce=(0,))
    first = total(agents, library, SMALL, timing)
    for _ in range(10):  # the sessions' numbers grow by a digit
        assert total(agents, library, SMALL, timing) == first
    # And beside whatever else runs.
    for length in (1, 9, 100, 200):
        with tempfile.TemporaryDirectory(prefix="tvmmobile-deep-", dir="/tmp") as folder:
            deep = Path(folder) / ("x" * length)
            deep.mkdir()
            monkeypatch.setattr("tempfile.tempdir", str(deep))
            with started_agents(DEVICE, 2) as other:
                assert total(other, library, SMALL, timing) == first


def test_profiles_are_not_left_behind(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with started_agents(DEVICE) as started:
        total(started, library, SMALL, Timing())
        total(started, library, SMALL, Timing())
        assert [path.name for path in tmp_path.rglob("*") if path.suffix in (".profile", ".maps", ".part")] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_pool_has_the_threads_that_were_asked_for(agents: Agents, library: Path, threads: int) -> None:
    """Whatever this machine has: each thread has a task of as many cycles as the array has elements, all at once."""
    run = agents.measure_kernel(library, "tasks", [LARGE], 60, Timing(warmup=1, threads=threads), outputs=())
    assert run.latency.cycles == pytest.approx(threads * LARGE.size, rel=0.02)
    assert run.latency.term_ms["core"] == pytest.approx(LARGE.size / DEVICE.profile.clock_hz * 1e3, rel=0.02)
