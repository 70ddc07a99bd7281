"""The path from the command line to verified libraries on the virtual Pi 4, with everything that can happen on the way.

One story, told in module fixtures because each part continues the last: `tune` is interrupted, killed, loses its agents, finishes, and is
run again; then `compile` and `bench` take over. Its hero is a network of two of MobileNet v1's blocks, and in the long tests MobileNet v1.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from commands import Command, Ended, ended_here, records
from network_files import module_of, write_python
from torch import nn

from tvmmobile.networks.models.registry import build_torch_model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.results.file import read_results
from tvmmobile.system.files import sha256_of

pytestmark = pytest.mark.virtual


@dataclass(frozen=True)
class Hero:
    """The network that the story is about.

    Attributes:
        words: words of the command line, but for the side of its image.
        name: name of its libraries, before that side.
        shown: its name in tables.
        nodes: layers in its graph.
        kernels: number of its kernels in the library of another side, as a pattern.
        between: share of its latency by which its kernels may add up to less, or to more: what passes between them, and what telling costs.
        classes: number of its output's classes.
    """

    words: tuple[str, ...]
    name: str
    shown: str
    nodes: int
    kernels: str
    between: float
    classes: int

    @property
    def stem(self) -> str:
        """The stem of its library's name."""
        return f"{self.name}_32_float32_t1"

    def module(self, folder: Path) -> nn.Module:
        """Return the network in PyTorch."""
        return (
            module_of(folder / "net.py", "separable") if self is SMALL else build_torch_model(ModelSpec(alpha=0.25, resolution=32)).module
        )


SMALL = Hero(("--model", "net.py:separable"), "separable_1.0", "separable", 7, r"\d", 0.2, 10)
WHOLE = Hero(("--alpha", "0.25"), "mobilenet_v1_0.25", "0.25", 29, r"2\d", 0.1, 1000)


@dataclass(frozen=True)
class Run:
    """A command that ended."""

    command: Command
    code: int
    out: str
    logged: list[dict[str, Any]]


class Story:
    """The folders and libraries of the story."""

    def __init__(self, folder: Path, hero: Hero) -> None:
        self.folder, self.logs, self.out, self.hero = folder, folder / "logs", folder / "out", hero
        write_python(folder)

    @property
    def library(self) -> Path:
        """The library that `tune` makes."""
        return self.out / f"{self.hero.stem}.so"

    def tune(self) -> Command:
        """Start `tune`."""
        return self.run("tune", self.out, "--trials", "1")

    def run(self, verb: str, out: Path, *words: str) -> Command:
        """Start `tune` or `compile`."""
        return Command(self.folder, *self._words(verb, out, 32), *words)

    def run_here(self, verb: str, out: Path, *words: str, side: int = 32) -> Ended:
        """Run `tune` or `compile` in this process."""
        return ended_here(self.folder, *self._words(verb, out, side), *words)

    def _words(self, verb: str, out: Path, side: int) -> tuple[str, ...]:
        return verb, *self.hero.words, "--resolution", str(side), "--logs", str(self.logs), "--out", str(out)

    def lines(self) -> int:
        """Lines in the log, finished or not."""
        return sum(path.read_bytes().count(b"\n") for path in self.logs.glob("*/*.jsonl"))

    def wait_for(self, command: Command, more: int) -> None:
        """Wait for `more` new records."""
        wanted = self.lines() + more
        command.wait_until(lambda: self.lines() >= wanted)

    def ended(self, command: Command, timeout_s: float = 240) -> Run:
        """Wait for the end."""
        code, out = command.wait(timeout_s)
        return Run(command, code, out, records(self.logs))


@pytest.fixture(scope="module", params=[SMALL, pytest.param(WHOLE, marks=pytest.mark.long)], ids=lambda hero: hero.name)
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Story:
    return Story(tmp_path_factory.mktemp("story"), request.param)


@pytest.fixture(scope="module")
def interrupted(story: Story) -> Run:
    command = story.tune()
    story.wait_for(command, 5)
    trackers = {word for agent in command.agents() for word in agent.cmdline() if re.fullmatch(r"127\.0\.0\.1:\d+", word)}
    assert len(trackers) == 1
    before = story.lines()
    command.signal_group(signal.SIGINT)
    start = time.monotonic()
    run = story.ended(command, 60)
    assert time.monotonic() - start < 8
    assert len(run.logged) >= before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(trackers.pop().partition(":")[2])))
    return run


@pytest.fixture(scope="module")
def killed(story: Story, interrupted: Run) -> Run:
    command = story.tune()
    story.wait_for(command, 2)
    command.signal(signal.SIGKILL)
    return story.ended(command)


@pytest.fixture(scope="module")
def finished(story: Story, killed: Run) -> Run:
    command = story.tune()
    story.wait_for(command, 3)
    agents = command.agents()
    assert agents
    for agent in agents:
        with suppress(psutil.NoSuchProcess):  # a session's process ends with its agent, or by itself
            agent.kill()
    return story.ended(command)


@pytest.fixture(scope="module")
def again(story: Story, finished: Run) -> Ended:
    return story.run_here("tune", story.out, "--trials", "1")


@pytest.fixture(scope="module")
def compiled(story: Story, finished: Run) -> Path:
    out = story.folder / "compiled"
    dump = story.folder / "dump"
    done = story.run_here("compile", out, "--dump-ir", str(dump))
    assert (done.code, done.out) == (0, f"{out / story.library.name}\n"), done.errors
    return out


def announced(command: Command | Ended) -> tuple[int, int]:
    """Records that were there, and trials to run, as the command said."""
    found = re.search(r"\d+ distinct kernels?, (\d+) records?, (\d+) trials? to run", command.errors)
    assert found, command.errors
    return int(found.group(1)), int(found.group(2))


def test_an_interrupted_run_leaves_only_its_records(interrupted: Run) -> None:
    assert interrupted.code == 130
    assert interrupted.command.errors.endswith("tvmmobile: interrupted\n") and "Traceback" not in interrupted.command.errors
    assert interrupted.command.leftovers() == []
    assert list(interrupted.command.temporary.iterdir()) == []


def test_a_killed_run_leaves_no_process_and_a_sound_log(interrupted: Run, killed: Run) -> None:
    assert killed.code == -signal.SIGKILL
    assert killed.command.leftovers() == []
    assert announced(killed.command)[0] == len(interrupted.logged)  # nothing of the interrupted run is measured again
    assert killed.logged[: len(interrupted.logged)] == interrupted.logged


def test_tuning_survives_the_loss_of_its_agents(killed: Run, finished: Run) -> None:
    assert finished.code == 0, finished.command.errors
    there, missing = announced(finished.command)
    assert there == len(killed.logged) and there + missing == len(finished.logged)
    assert [record["error"] for record in finished.logged if record["latency_us"] is None] == []
    assert finished.command.leftovers() == []


def test_a_second_run_measures_nothing(story: Story, finished: Run, again: Ended) -> None:
    assert again.code == 0, again.errors
    assert announced(again) == (len(finished.logged), 0)
    assert records(story.logs) == finished.logged


def test_every_latency_is_called_modelled(story: Story, finished: Run) -> None:
    assert "modelled" in finished.out
    assert all("modelled" in line for line in finished.command.errors.splitlines() if " us" in line)
    assert "modelled" in (story.out / "report.md").read_text() and "modelled" in (story.out / "report.html").read_text()
    report = json.loads((story.out / "report.json").read_text())
    assert report["context"]["kind"] == "modelled" and len(report["benchmarks"]) == 1
    assert report["benchmarks"][0]["name"] == story.hero.stem and report["benchmarks"][0]["max_error"] < 1e-4
    assert (story.out / "report.csv").read_text().count("\n") == 2


def test_each_kernel_is_timed_within_the_network(story: Story, finished: Run) -> None:
    results = read_results(story.out / "report.json")
    (variant,) = results.variants
    assert variant.kernels_us is not None and abs(variant.kernels_us / variant.latency_us - 1) < story.hero.between
    for kernel in variant.kernels:
        assert kernel.dram_bytes is not None and kernel.l1d_misses is not None and kernel.least_bytes and kernel.course[0][0] == 1
        assert kernel.course[-1][1] == kernel.latency_us and list(kernel.course) == sorted(kernel.course)
    assert results.context.memory_bytes_per_s and "virtual" in results.context.memory_source


def test_the_library_is_for_aarch64_and_needs_nothing(story: Story, finished: Run) -> None:
    library = story.library
    header = library.read_bytes()[:20]
    assert header[:6] == b"\x7fELF\x02\x01" and int.from_bytes(header[18:], "little") == 183
    readelf = shutil.which("aarch64-linux-gnu-readelf")
    assert readelf is not None
    dynamic = subprocess.run([readelf, "--dynamic", str(library)], capture_output=True, text=True, check=True).stdout
    assert "SONAME" in dynamic and "NEEDED" not in dynamic
    assert "RPATH" not in dynamic and "RUNPATH" not in dynamic


def test_the_manifest_describes_the_library(story: Story, finished: Run) -> None:
    manifest = json.loads(story.library.with_suffix(".json").read_text())
    assert manifest["sha256"] == sha256_of(story.library)
    assert (manifest["device"], manifest["threads"], manifest["dtype"]) == ("pi4-virtual", 1, "float32")
    assert f"{manifest['model']['name']}_{manifest['model']['alpha']}" == story.hero.name and manifest["model"]["resolution"] == 32
    assert manifest["target"]["mcpu"] == "cortex-a72" and manifest["timing_model"]
    assert {"tvmmobile", "tvm", "tvm_ffi", "torch"} <= set(manifest["versions"])
    covered = [node for kernel in manifest["kernels"] for node in range(kernel["nodes"][0], kernel["nodes"][1] + 1)]
    assert covered == list(range(story.hero.nodes)) and all(kernel["latency_us"] > 0 for kernel in manifest["kernels"])
    assert {kernel["name"] for kernel in manifest["kernels"]} <= {record["name"] for record in finished.logged}


def test_the_reference_is_pytorchs(story: Story, finished: Run) -> None:
    with np.load(story.out / f"{story.hero.stem}.reference.npz", allow_pickle=False) as reference:
        data, output = reference["input"], reference["output"]
    assert data.shape == (1, 3, 32, 32) and output.shape == (1, story.hero.classes)
    with torch.no_grad():
        expected = story.hero.module(story.folder)(torch.from_numpy(data)).numpy()
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_compiling_gives_the_same_bytes(story: Story, again: Ended, compiled: Path) -> None:
    assert sha256_of(compiled / story.library.name) == sha256_of(story.library)  # of the second `tune`
    dumped = sorted(path.name for path in (story.folder / "dump").rglob("*.py"))
    assert dumped[0].startswith("00_") and len(dumped) > 10


def test_bench_times_what_was_compiled(story: Story, compiled: Path) -> None:
    out = story.folder / "benched"
    command = Command(story.folder, "bench", str(compiled), "--out", str(out))
    code, printed = command.wait()
    assert code == 0, command.errors
    assert "modelled" in printed and story.hero.shown in printed
    tuned, benched = (json.loads((folder / "report.json").read_text())["benchmarks"][0] for folder in (story.out, out))
    assert benched["cycles"] == tuned["cycles"] and benched["library_sha256"] == tuned["library_sha256"]
    assert command.leftovers() == []
    assert list(command.temporary.iterdir()) == []  # what the run left that SIGKILL ended went with the next


def test_compile_says_which_kernels_were_never_measured(story: Story, finished: Run) -> None:
    out = story.folder / "neighbour"
    done = story.run_here("compile", out, side=40)
    assert done.code == 0, done.errors
    assert re.search(rf"\d+ of {story.hero.kernels} kernels have no record", done.errors)
    (manifest,) = out.glob(f"{story.hero.name}_40_float32_t1.json")
    kernels = json.loads(manifest.read_text())["kernels"]
    assert any("nearest tuned shape" in kernel["record"] for kernel in kernels)
