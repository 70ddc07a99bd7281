"""`tvmmobile regress` on the virtual Pi 4: an unchanged rebuild passes, a library made slower on purpose fails and is explained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from commands import ended_here
from conftest import CommandLine
from registered_boards import make_board, make_home, register

from tvmmobile.devices.registry import find_device
from tvmmobile.graph.tasks import Task
from tvmmobile.history.file import open_history
from tvmmobile.history.series import SeriesFilter, over_commits
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.pipeline.build import build
from tvmmobile.pipeline.job import variant_job
from tvmmobile.running.library import Library
from tvmmobile.schedules import KnobSchedule
from tvmmobile.system.environment import SHIPPED_LOGS
from tvmmobile.system.files import sha256_of
from tvmmobile.tuning.choice import Choice, choose

pytestmark = pytest.mark.virtual
STEM = "mobilenet_v1_0.25_32_float32_t1"
#: A product of the last block but one; five layers use it.
KERNEL = "pw_2x2_128x128_32c_to_32c_relu6_float32_t1"


def worse(task: Task, *arguments: Any) -> Choice:
    """Choose schedules as tuned, but with a register tile of one pixel and four channels for one kernel."""
    choice = choose(task, *arguments)
    if task.name != KERNEL:
        return choice
    assert isinstance(choice.schedule, KnobSchedule)
    knobs = tuple((choice.schedule.values | {"rows": 1, "columns": 4}).items())
    return replace(choice, schedule=replace(choice.schedule, knobs=knobs))


@dataclass(frozen=True)
class OneVariant:
    """Libraries of one variant, each in a separate folder, and a directory with the first one's baseline."""

    folder: Path
    libraries: Mapping[str, Library]

    @property
    def baselines(self) -> Path:
        """Folder of the baseline."""
        return self.folder / "baselines"

    @property
    def history(self) -> Path:
        """History to which the results are added."""
        return self.folder / "history.sqlite"

    def regress(self, name: str, *options: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr."""
        words = ("regress", str(self.libraries[name].path.parent), "--dir", str(self.baselines), *options)
        done = ended_here(self.folder, *words)
        return done.code, done.out, done.errors


def padded(library: Library, folder: Path) -> Library:
    """Return a different file with the same code: it has another byte at its end, which no loader reads."""
    shutil.copytree(library.path.parent, folder)
    copy = replace(library, path=folder / library.path.name)
    with copy.path.open("ab") as stream:
        stream.write(b"\0")
    copy.manifest_path.write_text(json.dumps(copy.manifest() | {"sha256": sha256_of(copy.path)}))
    return copy


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> OneVariant:
    folder = tmp_path_factory.mktemp("regress")
    profile = find_device("pi4-virtual").profile
    spec = ModelSpec(alpha=0.25, resolution=32)
    libraries = {}
    for name, chosen in (("old", choose), ("slow", worse)):
        job = variant_job(Model(spec), profile, (SHIPPED_LOGS,), folder / name)
        with mock.patch("tvmmobile.pipeline.planning.choose", chosen):
            libraries[name] = build(job).library
    rebuilt = shutil.copytree(libraries["old"].path.parent, folder / "rebuilt")  # as `pipeline/test_end_to_end.py` sees, to the byte
    libraries["rebuilt"] = replace(libraries["old"], path=rebuilt / libraries["old"].path.name)
    libraries["padded"] = padded(libraries["old"], folder / "padded")
    made = OneVariant(folder, libraries)
    kept = ("--history", str(made.history), "--commit", "before")
    bench = ended_here(folder, "bench", str(libraries["old"].path), "--out", str(folder / "old"), *kept)
    assert bench.code == 0, bench.errors
    save = ended_here(folder, "baseline", "save", str(folder / "old" / "report.json"), "--dir", str(made.baselines), *kept)
    assert (save.code, save.out) == (0, f"{made.baselines}/pi4-virtual/{STEM}.result.json\n"), save.errors
    return made


def test_the_baseline_keeps_the_library(built: OneVariant) -> None:
    kept = {path.name for path in (built.baselines / "pi4-virtual").iterdir()}
    assert kept == {f"{STEM}{suffix}" for suffix in (".result.json", ".so", ".json", ".reference.npz")}
    assert sha256_of(built.baselines / "pi4-virtual" / f"{STEM}.so") == sha256_of(built.libraries["old"].path)


def test_an_unchanged_rebuild_passes(built: OneVariant) -> None:
    code, out, errors = built.regress("rebuilt")
    assert code == 0, errors
    assert "same library" in out and "1 skipped" in out


def test_a_slower_library_fails_with_its_variant_and_kernel(built: OneVariant) -> None:
    report, junit = built.folder / "gate.json", built.folder / "gate.xml"
    kept = ("--out", str(built.folder / "new"), "--history", str(built.history), "--commit", "after")
    code, out, errors = built.regress("slow", "--json", str(report), "--junit", str(junit), *kept)
    assert code == 2, errors
    assert "mobilenet_v1 0.25-32" in out and "1 slower" in out and f"kernel {KERNEL}: " in out and "modelled" in out
    (variant,) = json.loads(report.read_text())["variants"]
    assert variant["verdict"] == "slower" and variant["change"] > 0.2
    added_us = variant["new_us"] - variant["base_us"]
    assert variant["change"] == pytest.approx(added_us / variant["base_us"])
    slowest, *others = variant["kernels"]
    assert slowest["name"] == KERNEL and slowest["added_us"] == pytest.approx(added_us, rel=0.1)
    assert sum(kernel["added_us"] for kernel in others) < 0.05 * added_us  # of neighbours, whose input it leaves in another cache
    assert STEM in junit.read_text() and KERNEL in junit.read_text()
    assert json.loads((built.folder / "new" / "report.json").read_text())["benchmarks"][0]["library_sha256"] == variant["library_sha256"]
    with open_history(built.history, add=False) as history:
        before, after = history.entries()
        over = over_commits(history, SeriesFilter(), 0.01)
    assert (before.name, before.source, before.baseline, before.verdict) == ("before", "bench", 1, "")
    assert (after.name, after.source, after.baseline, after.verdict) == ("after", "regress", 0, "slower")
    (step,) = over.steps
    assert step.step.change == pytest.approx(variant["change"]) and step.kernels[0].name == KERNEL


@pytest.mark.long
def test_the_same_code_in_another_file_passes(built: OneVariant) -> None:
    code, out, errors = built.regress("padded")
    assert code == 0 and "1 same" in out and "0.0%" in out, errors


def test_what_cannot_be_compared_is_said_before_anything_runs(built: OneVariant, cli: CommandLine, tmp_path: Path) -> None:
    library = str(built.libraries["old"].path)
    for options, message in (
        (["--dir", str(tmp_path)], "has no baseline of these libraries on pi4-virtual"),
        (["--device", "toaster", "--dir", str(built.baselines)], "no device 'toaster'"),
        (["--threshold", "9999", "--dir", str(built.baselines)], "threshold of 9999"),
    ):
        outcome = cli("regress", library, *options)
        assert outcome.code == 1 and message in outcome.err and len(outcome.err.splitlines()) == 2
    damaged = tmp_path / "damaged"
    shutil.copytree(built.baselines, damaged)
    result = damaged / "pi4-virtual" / f"{STEM}.result.json"
    content = json.loads(result.read_text())
    content["context"]["timing_model"] = "another"
    result.write_text(json.dumps(content))
    assert "timing models differ" in cli("regress", library, "--dir", str(damaged)).err
    content = json.loads((built.baselines / "pi4-virtual" / result.name).read_text())
    content["benchmarks"][0]["format"] = other = {"vm": "c", "c": "vm"}[content["benchmarks"][0]["format"]]
    result.write_text(json.dumps(content))
    outcome = cli("regress", library, "--dir", str(damaged))
    assert outcome.code == 1 and f"and its baseline {other}: their latencies cannot be compared" in outcome.err
    assert f"Compile it with --format {other}, or save a new baseline" in outcome.err
    shutil.copy(built.baselines / "pi4-virtual" / result.name, result)
    (damaged / "pi4-virtual" / f"{STEM}.so").write_bytes(b"rotten")
    assert "not the library its manifest describes" in cli("regress", library, "--dir", str(damaged)).err


@pytest.mark.long
def test_a_board_is_asked_again_in_turns(built: OneVariant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: CommandLine) -> None:
    """Behind a real SSH server, with times that an emulator's clock measures: as noisy as any board."""
    board = make_board(tmp_path / "board", make_home(tmp_path, monkeypatch))
    try:
        register(cli, board)
        old, kept = built.libraries["old"], tmp_path / "kept"
        assert cli("bench", str(old.path), "--device", "desk", "--out", str(tmp_path / "old")).code == 0
        saved = cli("baseline", "save", str(tmp_path / "old" / "report.json"), "--dir", str(kept), "--libraries", str(old.path.parent))
        assert saved.code == 0 and saved.err == ""
        # As if it had been much faster: suspicious at first, cleared by the library itself.
        path = kept / "desk" / f"{STEM}.result.json"
        content = json.loads(path.read_text())
        (entry,) = content["benchmarks"]
        entry["samples_us"] = [sample / 2 for sample in entry["samples_us"]]
        entry |= dict.fromkeys(("latency_us", "real_time", "cpu_time"), entry["latency_us"] / 2)
        path.write_text(json.dumps(content))
        outcome = cli(
            "regress", str(built.libraries["padded"].path), "--device", "desk", "--dir", str(kept), "--json", str(tmp_path / "gate.json")
        )
        assert outcome.code in (0, 4), outcome.err  # never a regression; on a busy machine it may not be able to say
        assert outcome.err.count(f"timed again: {STEM}\n") >= 4 and outcome.err.count("timed again") % 2 == 0
        (variant,) = json.loads((tmp_path / "gate.json").read_text())["variants"]
        assert variant["pairs"] >= 2 and abs(variant["change"]) < 0.3
        assert board.leftovers() == []
    finally:
        board.server.stop()
