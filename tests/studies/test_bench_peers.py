"""The study bench_peers: ratios and tables, the choice of what to run again, error messages, and one complete run."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studies.peers import bench_peers, runs
from studies.peers.kernels import HotKernel
from studies.peers.results import (
    BenchmarkContext,
    BoardFacts,
    Figures,
    GridCell,
    PeerComparison,
    PeerRow,
    best_peer,
    from_json,
    hottest_kernels,
    our_ratio,
    ratio,
    to_json,
)
from studies.peers.systems import EXAMPLES, OURS, OURS_C, ROOT, System, chosen_systems, systems
from studies.peers.tables import pages
from tvmmobile.networks.model import Model
from tvmmobile.system.errors import Disagreement, UserError
from tvmmobile.virtual.board import load_board

STUDIES = Path(__file__).resolve().parents[2] / "studies"

PI4 = load_board("pi4")
ONE, FOUR = GridCell("pi4", 1, 1.0, 224), GridCell("pi4", 4, 1.0, 224)
TITLES = {"ncnn": "ncnn 1.0.2", "mnn": "MNN 3.6.1", "litert": "LiteRT 2", OURS: "tvmmobile, TVM 0.27", OURS_C: "tvmmobile 1.2.3, C library"}
CONTEXT = BenchmarkContext(
    boards={"pi4": BoardFacts("pi4", "Raspberry Pi 4", "Cortex-A72", 1.8e9, "feedc0de", "deadbeef", True)},
    titles=TITLES,
    versions={"tvmmobile": "1.2.3"},
    logs="abcd",
    date="2026-11-20",
)


def figures(modelled_ms: float = 100.0, difference: float = 1e-6) -> Figures:
    counts = (150_000_000, 160_000_000, 170_000_000, 7_000_000, 2_000_000, 84_000_000, 0)
    return Figures(modelled_ms, {"core": modelled_ms}, *counts, difference)


def row(system: str, *latencies_ms: float, cell: GridCell = ONE, **more: Any) -> PeerRow:
    return PeerRow(cell, system, tuple(figures(ms) for ms in latencies_ms), **more)


def lines_of(text: str, beginning: str) -> list[list[str]]:
    return [[word.strip() for word in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith(f"| {beginning}")]


def test_ratios_are_to_the_best_peer_and_never_to_ours() -> None:
    rows = [row("ncnn", 120.0), row("mnn", 100.0), row(OURS, 80.0), row("litert", failure="it crashed")]
    best = best_peer(rows)
    assert best is not None and best.system == "mnn"
    assert [ratio(entry, best) for entry in rows] == [pytest.approx(1.2), 1.0, pytest.approx(0.8), None]
    assert best_peer([row(OURS, 80.0), row(OURS_C, 70.0)]) is None and ratio(row(OURS, 80.0), None) is None


def test_several_attempts_have_a_mean_and_a_spread() -> None:
    twice = row("ncnn", 49.0, 51.0, cell=FOUR)
    assert twice.modelled_ms == 50.0 and twice.spread == pytest.approx(0.04)
    assert row("ncnn", 49.0).spread is None and row("ncnn", failure="x").modelled_ms is None


def test_tables() -> None:
    rows = [row("ncnn", 120.0), row("mnn", 100.0), row(OURS, 80.0, untuned=(3, 29))]
    rows += [row("ncnn", 60.0, 61.2, cell=FOUR), row("mnn", failure="It was killed by SIGSEGV.", cell=FOUR), row(OURS, 9.0, 9.0, cell=FOUR)]
    found = pages(PeerComparison(CONTEXT, tuple(rows)), "benchmarks")
    text = found["benchmarks/pi4.md"]
    summary, threaded, *details = lines_of(text, "1.0-224")
    assert summary == ["1.0-224", "120.0", "**100.0**", "80.0", "0.80"]
    assert details[0] == ["1.0-224", "ncnn", "120.0", "1.20", "150.0 (160.0)", "170.0", "7.00", "84.0", "1e-06"]
    assert [words[1] for words in details] == ["ncnn", "MNN", "ours, VM"] * 2
    assert threaded == ["1.0-224", "**60.6 ± 1.0 %**", "failed", "9.00 ± 0.0 %", "0.15"]
    assert details[4][2] == "failed: It was killed by SIGSEGV."
    assert "3 of 29 kernels of a variant have no record" in text
    for what in (
        "# Raspberry Pi 4, Cortex-A72 at 1.8 GHz, ",
        "## 1 thread\n",
        "## 4 threads\n",
        "`feedc0de`",
        "**modelled**",
        "ncnn 1.0.2",
        "abcd",
    ):
        assert what in text
    for page in found.values():
        assert max(map(len, (line for line in page.splitlines() if not line.startswith("|")))) <= 140


def test_ours_is_the_c_library_where_one_was_run() -> None:
    """In ratios; a C library that failed is not replaced by the other form, and files of before there was one are as they were."""
    peers = [row("ncnn", 120.0), row("mnn", 100.0)]
    both, failed = [*peers, row(OURS, 80.0), row(OURS_C, 75.0)], [*peers, row(OURS, 80.0), row(OURS_C, failure="no")]
    assert [our_ratio(rows) for rows in (both, [*peers, row(OURS, 80.0)], failed, peers)] == [
        pytest.approx(0.75),
        pytest.approx(0.8),
        None,
        None,
    ]
    assert systems()[-1].title.endswith("C library")
    page = pages(PeerComparison(CONTEXT, tuple(both)), "benchmarks")
    headings, figures_ms = (lines_of(page["benchmarks/pi4.md"], word)[0] for word in ("variant", "1.0-224"))
    assert headings == ["variant", "ncnn", "MNN", "ours, VM", "ours, C library", "ours ÷ best peer"]
    assert figures_ms == ["1.0-224", "120.0", "**100.0**", "80.0", "75.0", "0.75"]
    assert lines_of(page["benchmarks.md"], "[Raspberry")[0][-3:] == ["0.75", "MNN 100.0", "C library 75.0"]
    assert not hottest_kernels(CONTEXT, [replace(one, runs=(replace(one.runs[0], hottest=HotKernel("f", "", 1.0)),)) for one in both[2:]])


def test_json_has_every_attempt() -> None:
    rows = (row("mnn", 100.0, 102.0), row(OURS, 80.0, 81.0, untuned=(0, 29)))
    report = json.loads(json.dumps(to_json(PeerComparison(CONTEXT, rows)), allow_nan=False))
    first, second = report["benchmarks"]
    assert (first["system"], first["kind"], first["threads"], first["ratio_to_best_peer"]) == ("mnn", "modelled", 1, 1.0)
    assert [run["modelled_ms"] for run in second["runs"]] == [80.0, 81.0] and second["ratio_to_best_peer"] == pytest.approx(80.5 / 101)
    assert report["context"]["boards"]["pi4"]["timing_model"] == "feedc0de"


def test_the_peers_figures_of_an_earlier_comparison(tmp_path: Path) -> None:
    """They hold where versions and boards are the same; ours are always got anew, and so are those that failed."""
    ours = (row(OURS, 80.0, untuned=(0, 29)), row(OURS_C, 75.0))
    rows = (row("ncnn", 120.0), row("mnn", 100.0, 102.0), *ours, row("litert", failure="it crashed"))
    (tmp_path / "earlier.json").write_text(json.dumps(to_json(PeerComparison(CONTEXT, rows))), encoding="utf-8")
    earlier = from_json(tmp_path / "earlier.json")
    assert earlier == PeerComparison(CONTEXT, rows)

    def known(now: BenchmarkContext) -> list[str]:
        return [system for _, system in bench_peers._known(now, earlier)]

    assert known(replace(CONTEXT, versions={"tvmmobile": "2"}, logs="other", date="later")) == ["ncnn", "mnn"]
    assert known(replace(CONTEXT, titles={**TITLES, "mnn": "MNN 4"})) == ["ncnn"]
    assert known(replace(CONTEXT, titles={OURS: "", "mnn": "MNN 3.6.1"})) == ["mnn"]
    assert known(replace(CONTEXT, versions={**CONTEXT.versions, "PyTorch": "3"})) == []
    assert known(replace(CONTEXT, boards={"pi4": replace(CONTEXT.boards["pi4"], timing_model="0")})) == []
    assert known(replace(CONTEXT, boards={**CONTEXT.boards, "pi5": CONTEXT.boards["pi4"]})) == ["ncnn", "mnn"]
    assert known(replace(CONTEXT, boards={"pi5": CONTEXT.boards["pi4"]})) == []
    page = pages(replace(earlier, context=replace(CONTEXT, known="2026-11-20")), "benchmarks")["benchmarks/pi4.md"]
    assert "earlier comparison with the same versions; 2026-11-20" in page
    assert "earlier comparison" not in pages(earlier, "benchmarks")["benchmarks/pi4.md"]


def test_the_diagonal_comes_first_and_alone_on_several_threads() -> None:
    def named(models: Sequence[Model]) -> list[tuple[float, int]]:
        return [(model.spec.alpha, model.spec.resolution) for model in models]

    assert len(bench_peers.variants("mobilenet_v1", [], [], False, 1)) == 16
    assert named(bench_peers.variants("mobilenet_v1", [], [], False, 1))[:4] == list(bench_peers.DIAGONAL)
    assert (
        named(bench_peers.variants("mobilenet_v1", [], [], False, 4))
        == named(bench_peers.variants("mobilenet_v1", [], [], True, 1))
        == list(bench_peers.DIAGONAL)
    )
    assert named(bench_peers.variants("mobilenet_v1", [0.5], [224, 160], False, 4)) == [(0.5, 160), (0.5, 224)]


def test_systems_are_chosen_by_name() -> None:
    assert [system.key for system in chosen_systems(["ours", "ncnn"])] == ["ncnn", "ours"]
    assert chosen_systems([]) == systems() and [system.key for system in systems()[-2:]] == [OURS, OURS_C]
    assert all(system.program.is_file() for system in systems())
    tolerances = {tolerance: {system.key for system in systems() if system.tolerance == tolerance} for tolerance in (1e-3, 1e-4)}
    assert tolerances == {1e-3: {"ncnn", "mnn", "litert", "onnxruntime", "iree"}, 1e-4: {OURS, OURS_C}}
    with pytest.raises(UserError, match="no system 'onnx'") as caught:
        chosen_systems(["onnx"])
    assert "onnxruntime" in caught.value.remedy


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> runs.PeerRun:
    """A run of a program that does nothing, in a cache of its own."""
    monkeypatch.setattr(runs, "cache_dir", lambda: tmp_path / "cache")
    for name in ("image.npy", "logits.npy"):
        np.save(tmp_path / name, np.array([[0.5, -2.0]], np.float32))
    (tmp_path / "model").write_bytes(b"weights")
    (tmp_path / "program.py").write_text("pass\n", encoding="utf-8")
    system = System("ncnn", "ncnn 1", tmp_path / "program.py", (), ("model",), 1e-3)
    return runs.PeerRun(PI4, "pi4", system, (tmp_path / "model",), tmp_path / "sysroot-pi4-1", 1)


def test_keys_change_with_what_decides_a_run_and_with_nothing_else(job: runs.PeerRun, tmp_path: Path) -> None:
    key = job.key()
    assert key == job.key() == replace(job, board_name="boards/pi4.toml", sysroot=tmp_path / "elsewhere").key()
    assert key == replace(job, board=load_board("pi4-1500")).key()  # a board that differs in its clock alone
    here, moved = (replace(job, system=replace(job.system, environment={"A": f"{folder}/b"})) for folder in (ROOT, ""))
    assert here.key() == moved.key() != key  # another checkout
    others = [
        replace(job, threads=4),
        replace(job, attempt=1),
        replace(job, system=replace(job.system, requirements=("ncnn==2",))),
        replace(job, system=replace(job.system, environment={"A": "b"})),
        replace(job, board=load_board("pi5")),
    ]
    assert len({key, *(other.key() for other in others)}) == 6
    for name in ("model", "program.py", "image.npy", "logits.npy"):
        before = job.key()
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes() + b"#")
        assert job.key() != before, name


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """QEMU's and the model's stand-ins; what was called, in order."""
    calls: list[str] = []

    def count(job: runs.PeerRun) -> tuple[bytes, str, float]:
        calls.append("qemu")
        return b"\x00counted\xff", "maps", 1e-5

    def model(profile: bytes, maps: str, *_: object, **__: object) -> str:
        assert (profile, maps) == (b"\x00counted\xff", "maps")
        calls.append("model")
        return "run"

    monkeypatch.setattr(runs, "count_run", count)
    monkeypatch.setattr(runs, "parse_profile", lambda profile: profile)
    monkeypatch.setattr(runs, "model_program", model)
    monkeypatch.setattr(Figures, "of", lambda _run, difference, _system: figures(12.5, difference))
    return calls


def test_a_finished_run_is_kept_and_only_modelled_again_where_the_model_changed(
    job: runs.PeerRun, counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, ran = runs.figures_of(job)
    assert ran and counted == ["qemu", "model"] and first == figures(12.5, 1e-5)
    assert runs.figures_of(job) == (first, False) and counted == ["qemu", "model"]
    monkeypatch.setattr(runs, "run_hash", lambda _board, _threads: "another")
    assert runs.figures_of(job) == (first, False) and counted == ["qemu", "model", "model"]
    runs.figures_of(replace(job, threads=4))
    assert counted[3:] == ["qemu", "model"]


def test_instructions_are_those_of_all_threads(job: runs.PeerRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the timing model, from what is kept."""
    segments = [[1, 0, 0, [0] * 7, [0, 3, 1, 2]], [1, 1, 0, [0] * 7, [1, 5]]]
    blocks = {"0": [4096, "00" * 8], "1": [8192, "00" * 4]}
    profile = {"problem": "", "regions": 1, "guest_base": 0, "thread": 0, "segments": segments, "blocks": blocks}
    monkeypatch.setattr(runs, "count_run", lambda _job: (json.dumps(profile).encode(), "", 0.0))
    assert runs.instructions_of(job) == 3 * 2 + 2 + 5
    monkeypatch.delattr(runs, "count_run")
    assert runs.instructions_of(job) == 13


@pytest.mark.parametrize("damage", [b"", b"{}", b"\x1f\x8b torn"])
def test_damaged_files_are_made_again(job: runs.PeerRun, counted: list[str], tmp_path: Path, damage: bytes) -> None:
    expected, _ = runs.figures_of(job)
    for path in (tmp_path / "cache/peers/runs").iterdir():
        path.write_bytes(damage)
    assert runs.figures_of(job) == (expected, True) and counted == ["qemu", "model"] * 2


def test_a_system_that_disagrees_has_no_figures(job: runs.PeerRun, counted: list[str]) -> None:
    strict = replace(job, system=replace(job.system, tolerance=1e-6))
    for _ in range(2):  # also from the cache
        with pytest.raises(Disagreement, match=r"ncnn.s output is 1\.0e-05 of its largest magnitude off"):
            runs.figures_of(strict)


def test_a_system_whose_output_is_no_number_has_no_figures(job: runs.PeerRun, counted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "count_run", lambda _job: (b"\x00counted\xff", "maps", math.nan))
    for _ in range(2):
        with pytest.raises(Disagreement, match=r"ncnn.s output is nan of its largest magnitude off"):
            runs.figures_of(job)


def profiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> None:
    path = tmp_path / "profiler.py"
    path.write_text(f"import os, pathlib, subprocess, sys, time\n{code}\n", encoding="utf-8")
    monkeypatch.setattr(runs, "_PROFILER", path)


def test_what_a_program_prints_is_read(job: runs.PeerRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = "folder = pathlib.Path(sys.argv[3]); (folder / 'profile').write_bytes(b'p'); (folder / 'maps').write_text('m')\n"
    code += "print('hello', sys.argv[4:], sorted(os.environ)); print('largest difference from PyTorch: 4.0e-05')"
    profiler(monkeypatch, tmp_path, code)
    profile, maps, difference = runs.count_run(job)
    assert (profile, maps) == (b"p", "m") and difference == pytest.approx(4e-5 / 2.0)
    profiler(monkeypatch, tmp_path, code.replace("from PyTorch", ""))
    with pytest.raises(UserError, match="ncnn did not say how far it is from PyTorch"):
        runs.count_run(job)


def test_a_program_that_fails_is_named_with_its_last_words(job: runs.PeerRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    profiler(monkeypatch, tmp_path, "print('ImportError: no ncnn', file=sys.stderr); sys.exit('python3 ended with exit code 1.')")
    with pytest.raises(UserError, match=r"ncnn on pi4 failed: ImportError: no ncnn python3 ended with exit code 1\.") as caught:
        runs.count_run(job)
    assert "program.py" in caught.value.remedy


def test_a_program_that_hangs_is_ended_with_all_it_started(job: runs.PeerRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    profiler(monkeypatch, tmp_path, f"c = subprocess.Popen(['sleep', '600']); open({str(pid)!r}, 'w').write(str(c.pid)); c.wait()")
    monkeypatch.setattr(runs, "RUN_TIMEOUT_S", 3)
    with pytest.raises(UserError, match="did not finish within 3 s"):
        runs.count_run(job)
    _gone(int(pid.read_text(encoding="ascii")))


def _gone(process: int) -> None:
    state = Path(f"/proc/{process}/stat")
    deadline = time.monotonic() + 10
    while state.exists() and state.read_text(encoding="ascii").split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def call(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(STUDIES), "bench_peers", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "tflite"], "there is no system 'tflite'."),
        (["--boards", "pi9"], "there is no virtual board 'pi9'."),
        (["--threads", "8"], "has 4 cores, not 8."),
        (["--threads", "0"], "0 threads are too few."),
        (["--alpha", "2"], "2.0 is outside (0, 1]"),
        (["--alpha", "0.3", "--diagonal"], "nothing is left to compare"),
        (["--boards", "pi4", "rk3399", "--threads", "4"], "has 2 cores, not 4."),
        (["--boards"], "--boards names no board, and there is no --known."),
        (["--logs", "/nowhere/at/all"], "/nowhere/at/all does not exist"),
        (["--out", "/dev/null/x"], "--out /dev/null/x"),
        (["--known", str(STUDIES / "peers/bench_peers.py")], "bench_peers.py cannot be read: JSONDecodeError"),
    ],
)
def test_wrong_options_are_said_before_any_work(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_peers", *arguments])
    assert bench_peers.main() == 1
    done = capsys.readouterr()
    assert message in done.err and not done.out
    assert len(done.err.strip().splitlines()) == 2  # what is wrong, and what to do


@pytest.mark.virtual
@pytest.mark.long
def test_ncnn_and_ours_end_to_end(tmp_path: Path) -> None:
    arguments = ["--alpha", "0.25", "--resolution", "128", "--threads", "1", "4", "--only", "ncnn,ours,ours-c", "--out", str(tmp_path)]
    started = time.monotonic()
    first = call(*arguments)
    took_s = time.monotonic() - started
    assert first.returncode == 0, first.stderr
    report = json.loads((tmp_path / "benchmarks.json").read_text(encoding="utf-8"))
    found = {(entry["system"], entry["threads"]): entry for entry in report["benchmarks"]}
    assert set(found) == {(system, threads) for system in ("ncnn", OURS, OURS_C) for threads in (1, 4)}
    for (_, threads), entry in found.items():
        assert len(entry["runs"]) == (1 if threads == 1 else 2)
        assert all(run["difference"] < 1e-4 and run["dram_bytes"] > 1e6 for run in entry["runs"])
    # An independent experiment counted 5.4 M instructions for ncnn, and 3.4 M are the least there can be.
    assert found["ncnn", 1]["runs"][0]["instructions"] == pytest.approx(5.4e6, rel=0.05)
    assert 3.4e6 < found[OURS, 1]["runs"][0]["core_cycles"] < 5.2e6
    assert all(found[OURS_C, threads]["modelled_ms"] < found[OURS, threads]["modelled_ms"] for threads in (1, 4))
    assert found["ncnn", 4]["modelled_ms"] < found["ncnn", 1]["modelled_ms"]
    assert "<svg" in (tmp_path / "benchmarks.svg").read_text(encoding="utf-8")
    started = time.monotonic()
    again = call(*arguments)
    assert again.returncode == 0 and again.stderr.count("(kept)") == 9 and time.monotonic() - started < max(took_s, 60)


@pytest.mark.virtual
@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_a_program_runs(tmp_path: Path, number: int, in_cache: Callable[[], dict[str, str]]) -> None:
    arguments = ["--alpha", "0.25", "--resolution", "128", "--threads", "1", "--only", "ncnn", "--out", str(tmp_path)]
    command = [sys.executable, str(STUDIES), "bench_peers", *arguments]
    process = subprocess.Popen(command, env=in_cache(), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 600
    profilers: list[int] = []
    while not profilers and time.monotonic() < deadline:
        time.sleep(0.2)
        assert process.poll() is None
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
        profilers = [int(pid) for pid in children if b"profile_program.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    time.sleep(3)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else 143) and "Traceback" not in errors
    _gone(profilers[0])
    assert not list(tmp_path.iterdir())


@pytest.fixture
def in_cache(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], dict[str, str]]:
    """An environment with a cache that lacks finished runs, but has everything that takes long to make."""
    from tvmmobile.system.environment import cache_dir

    def environment() -> dict[str, str]:
        folder = tmp_path_factory.mktemp("cache")
        for path in cache_dir().iterdir():
            if path.name.startswith(("sysroot-", "converters-", "program-")) and path.suffix != ".lock":
                (folder / path.name).symlink_to(path)
        (folder / "peers").mkdir()
        for path in (cache_dir() / "peers").glob("mobilenet_*"):
            if path.is_dir():  # locks lie beside the folders, and one that is a link is refused
                (folder / "peers" / path.name).symlink_to(path)
        return {**os.environ, "TVMMOBILE_CACHE": str(folder)}

    return environment


def test_programs_are_where_the_table_says() -> None:
    assert (EXAMPLES / "region.py").is_file()
    own = {OURS: "tvmmobile", OURS_C: "c_library"}
    assert all(f"run_{own.get(system.key, system.key)}.py" == system.program.name for system in systems())


def test_other_networks_are_named() -> None:
    cell = replace(ONE, model="mobilenet_v2")
    found = pages(PeerComparison(CONTEXT, (row("ncnn", 50.0, cell=cell), row(OURS, 40.0, cell=cell))), "later")
    assert "MobileNet v2, float32" in found["later.md"] and "MobileNet v1" not in found["later.md"]
    assert [line[0] for line in lines_of(found["later/pi4.md"], "mobilenet_v2 1.0-224")] == ["mobilenet_v2 1.0-224"] * 3
