"""The study bench_peers on several boards: merging, pages and plots, thread counts, and the kernels that the other libraries run."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from studies.peers import bench_peers
from studies.peers.kernels import MAKERS, HotKernel, hottest_kernel, loop_of
from studies.peers.plot import draw_boards
from studies.peers.results import (
    BenchmarkContext,
    BoardFacts,
    Figures,
    FiguresOrigin,
    GridCell,
    PeerComparison,
    PeerRow,
    from_json,
    hottest_kernels,
    merged,
    to_json,
)
from studies.peers.systems import OURS, System
from studies.peers.tables import pages
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.cores.core_model import BlockCost, CoreTime
from tvmmobile.virtual.elf import Mapping
from tvmmobile.virtual.modelled import ModelledRun
from tvmmobile.virtual.profile import MissCounts
from tvmmobile.virtual.program import ProgramRun

RESULTS = Path(__file__).resolve().parents[2] / "studies/results"
TITLES = {"ncnn": "ncnn 1.0.2", "mnn": "MNN 3.6.1", OURS: "tvmmobile, TVM 0.27"}
PI4 = BoardFacts("pi4", "Raspberry Pi 4", "Cortex-A72", 1.8e9, "feedc0de", "deadbeef", True)
PI5 = BoardFacts("pi5", "Raspberry Pi 5", "Cortex-A76", 2.4e9, "c0ffee", "deadbeef", False)
GEMM, DEPTHWISE = HotKernel("gemm", "24 fmla", 0.5), HotKernel("depthwise", "9 fmla", 0.4)


def row(cell: GridCell, system: str, ms: float, hottest: HotKernel | None = None) -> PeerRow:
    cycles = round(ms * 1e6)
    return PeerRow(cell, system, (Figures(ms, {"core": ms}, cycles, cycles, cycles, 1000, 100, 6400, 0, 1e-6, hottest),))


def comparison(facts: BoardFacts, ours_ms: float, date: str, titles: dict[str, str] = TITLES) -> PeerComparison:
    context = BenchmarkContext({facts.name: facts}, titles, {"tvmmobile": "1"}, f"logs of {date}", date)
    rows = []
    for threads in (1, 4):
        for number, (alpha, side) in enumerate(((1.0, 224), (0.25, 128), (1.0, 192))):
            cell = GridCell(facts.name, threads, alpha, side)
            scale = (number + 1) * threads
            rows += [row(cell, "ncnn", 120.0 / scale, GEMM), row(cell, "mnn", 100.0 / scale), row(cell, OURS, ours_ms / scale)]
    return PeerComparison(context, tuple(rows), hottest_kernels(context, rows))


OLD, NEW = comparison(PI4, 80.0, "monday"), comparison(PI5, 90.0, "tuesday", {**TITLES, "ncnn": "ncnn 2"})


def test_boards_merge_without_being_run_again(tmp_path: Path) -> None:
    """Boards of an earlier file keep their results and context; a board that is run again is replaced as a whole."""
    both = merged(NEW, OLD)
    assert list(both.context.boards) == ["pi4", "pi5"] and both.context.date == "tuesday"
    assert both.context.boards["pi4"] == replace(PI4, origin=FiguresOrigin(TITLES, {"tvmmobile": "1"}, "logs of monday", "monday"))
    assert both.context.boards["pi5"] == PI5 and both.context.origin("pi5").titles["ncnn"] == "ncnn 2"
    assert both.rows_of("pi4") == list(OLD.rows) and both.rows_of("pi5") == list(NEW.rows)
    assert [(kernel.cpu, kernel.system, kernel.title) for kernel in both.kernels] == [
        ("Cortex-A72", "ncnn", "ncnn 1.0.2"),
        ("Cortex-A76", "ncnn", "ncnn 2"),
    ]
    (tmp_path / "both.json").write_text(json.dumps(to_json(both)), encoding="utf-8")
    assert from_json(tmp_path / "both.json") == both
    again = merged(comparison(replace(PI4, timing_model="new"), 70.0, "wednesday"), both)
    assert list(again.context.boards) == ["pi4", "pi5"] and again.context.boards["pi4"].timing_model == "new"
    assert again.context.origin("pi4").date == "wednesday" and again.context.origin("pi5").date == "tuesday"
    assert len(again.rows) == len(both.rows) and {one.modelled_ms for one in again.rows_of("pi4", 1) if one.system == OURS} == {
        70,
        35,
        70 / 3,
    }
    nothing = PeerComparison(replace(NEW.context, boards={}), ())
    assert merged(nothing, OLD) == OLD


def test_a_file_of_before_there_were_kernels(tmp_path: Path) -> None:
    report = to_json(OLD)
    del report["kernels"]
    for entry in report["benchmarks"]:
        for run in entry["runs"]:
            del run["hottest"]
    for facts in report["context"]["boards"].values():
        del facts["origin"]
    (tmp_path / "old.json").write_text(json.dumps(report), encoding="utf-8")
    read = from_json(tmp_path / "old.json")
    assert read.context == OLD.context and read.kernels == () and all(run.hottest is None for one in read.rows for run in one.runs)


def test_only_pages_and_plots_are_written_where_no_board_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "known.json").write_text(json.dumps(to_json(OLD.in_order())), encoding="utf-8")
    for folder in ("a", "b"):
        monkeypatch.setattr(
            sys, "argv", ["bench_peers", "--known", str(tmp_path / "known.json"), "--boards", "--out", str(tmp_path / folder)]
        )
        assert bench_peers.main() == 0
    names = [f"benchmarks{name}" for name in (".json", ".md", ".svg", "/pi4.md", "/pi4.svg")]
    assert sorted(str(path.relative_to(tmp_path / "a")) for path in (tmp_path / "a").rglob("*.*")) == sorted(names)
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert (tmp_path / "a/benchmarks.json").read_text(encoding="utf-8") == json.dumps(to_json(OLD.in_order()), indent=1) + "\n"


def test_a_board_is_added_to_a_file_and_no_other_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers of the named board whose figures hold are not run either; ours is."""
    ran: list[tuple[str, int, str]] = []

    def stand_in(place: bench_peers.ReadyBoard, threads: int, spec: ModelSpec, system: System, _logs: Path) -> PeerRow:
        ran.append((place.board.name, threads, system.key))
        return row(bench_peers._cell(place, threads, spec), system.key, 50.0)

    monkeypatch.setattr(bench_peers, "row_of", stand_in)
    monkeypatch.setattr(bench_peers, "python_sysroot", lambda *_: tmp_path)
    monkeypatch.setattr(
        bench_peers, "context_of", lambda places, *_: replace(NEW.context, boards={place.board.name: PI5 for place in places})
    )
    monkeypatch.setattr(bench_peers, "require", lambda _tool: tmp_path)
    for name in ("draw_boards", "draw_board"):
        monkeypatch.setattr(bench_peers, name, lambda *_: None)  # matplotlib takes its time
    known = tmp_path / "benchmarks.json"
    known.write_text(json.dumps(to_json(OLD.in_order())), encoding="utf-8")
    command = ["bench_peers", "--known", str(known), "--boards", "pi5", "--only", "ncnn,mnn,ours", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*command, "--alpha", "1", "--resolution", "224"])
    for expected in (["ncnn", "mnn", OURS] * 2, [OURS] * 2):  # the second time from its own file
        ran.clear()
        assert bench_peers.main() == 0
        assert ran == [
            ("pi5", threads, key) for threads, key in zip((1,) * (len(expected) // 2) + (4,) * (len(expected) // 2), expected, strict=True)
        ]
        found = from_json(known)
        assert [one for one in found.rows if one.cell.board == "pi4"] == list(OLD.in_order().rows) and len(found.rows_of("pi5")) == 6
    assert found.context.known == "tuesday" and found.context.origin("pi4").date == "monday"


INDEX = """\
## Boards

| board | core | first network | threads | networks | ours ÷ best peer | best peer, ms | ours, ms |
| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |
| [Raspberry Pi 4](peers/pi4.md) | Cortex-A72 at 1.8 GHz | 1.0-224 | 1 | 3 | 0.80 to 0.80 | MNN 100.0 | VM 80.0 |
| [Raspberry Pi 4](peers/pi4.md) | Cortex-A72 at 1.8 GHz | 1.0-224 | 4 | 3 | 0.80 to 0.80 | MNN 25.0 | VM 20.0 |
| [Raspberry Pi 5](peers/pi5.md) | Cortex-A76 at 2.4 GHz, uncalibrated | 1.0-224 | 1 | 3 | 0.90 to 0.90 | MNN 100.0 | VM 90.0 |
| [Raspberry Pi 5](peers/pi5.md) | Cortex-A76 at 2.4 GHz, uncalibrated | 1.0-224 | 4 | 3 | 0.90 to 0.90 | MNN 25.0 | VM 22.5 |
"""
KERNELS = """\
| Cortex-A72 | ncnn | `gemm` | no, `convolution_gemm_transB_packed_tile, 8×12, others` | pi4, 1.0-224 | 50 % |
| Cortex-A76 | ncnn | `gemm` | no, `convolution_gemm_transB_packed_tile, 8×12, others` | pi5, 1.0-224 | 50 % |
"""
BOARD = """\
## 1 thread

Modelled milliseconds:

| variant | ncnn | MNN | ours, VM | ours ÷ best peer |
| --- | ---: | ---: | ---: | ---: |
| 1.0-224 | 120.0 | **100.0** | 90.0 | 0.90 |
| 0.25-128 | 60.0 | **50.0** | 45.0 | 0.90 |
| 1.0-192 | 40.0 | **33.3** | 30.0 | 0.90 |
"""


def test_pages() -> None:
    """All boards on one, each on its own: its variants, the diagonal first, then all figures, then what it was got with."""
    found = pages(merged(NEW, OLD).in_order(), "peers")
    assert list(found) == ["peers.md", "peers/pi4.md", "peers/pi5.md"]
    assert INDEX in found["peers.md"] and KERNELS in found["peers.md"] and "(peers.svg)" in found["peers.md"]
    assert BOARD in found["peers/pi5.md"] and "# Raspberry Pi 5, Cortex-A76 at 2.4 GHz" in found["peers/pi5.md"]
    assert "(`pi5`, timing model `c0ffee`, uncalibrated: the core's time alone)" in found["peers/pi5.md"]
    assert "- ncnn 2, MNN" in found["peers/pi5.md"] and "`logs of monday`; monday" in found["peers/pi4.md"]
    assert [line for line in found["peers/pi4.md"].splitlines() if line.startswith("## ")] == [
        *("## 1 thread", "## 4 threads", "## Columns", "## All figures, 1 thread", "## All figures, 4 threads", "## Versions")
    ]


def test_thread_counts_are_at_most_the_cores() -> None:
    counts = {name: bench_peers.thread_counts(load_board(name), []) for name in ("pi4", "rk3399", "rk3399-a53", "sd7c", "sd7c-a55")}
    assert counts == {"pi4": (1, 4), "rk3399": (1, 2), "rk3399-a53": (1, 4), "sd7c": (1, 2), "sd7c-a55": (1, 4)}
    assert bench_peers.thread_counts(load_board("sd7c-a55"), [6, 1, 1]) == (1, 6)


def test_kernels_are_those_that_most_time_goes_to() -> None:
    """Over all variants on one thread: not what a single variant, a run on several threads or our library says."""
    small, large, threaded = GridCell("pi4", 1, 0.25, 128), GridCell("pi4", 1, 1.0, 224), GridCell("pi4", 4, 1.0, 224)
    rows = [row(large, "ncnn", 90.0, GEMM), row(small, "ncnn", 9.0, DEPTHWISE), row(threaded, "ncnn", 900.0, DEPTHWISE)]
    rows += [row(large, OURS, 50.0, DEPTHWISE), row(large, "mnn", 80.0)]
    (found,) = hottest_kernels(OLD.context, rows)
    assert (found.cpu, found.system, found.variant, found.kernel) == ("Cortex-A72", "ncnn", "1.0-224", GEMM)


def run_of(*assembly: str, path: str = "/nowhere.so") -> ProgramRun:
    core = CoreTime(1000, 100, 1e-6, (BlockCost(0x1010, 10, 60.0, assembly),) if assembly else (), 0)
    modelled = ModelledRun(1, core, MissCounts(), {"core": 1.0}, True, 0, (1.0,))
    return ProgramRun(modelled, core, 0, 1, 0, (Mapping(0x1000, 0x2000, 0, Path(path)),))


def test_a_kernel_is_named_by_symbol_else_by_its_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = ["ldr\tq8, [x0], #16"] * 4 + ["ldp\tq4, q5, [x1], #256"] * 8
    loop += [f"fmla\tv{16 + number % 16}.4s, v4.4s, v8.s[{number // 16}]" for number in range(64)]
    assert hottest_kernel(run_of(*loop), "onnxruntime") == HotKernel(MAKERS["onnxruntime"].kernel("Cortex-A72"), loop_of(loop), 0.6)
    assert hottest_kernel(run_of(*loop), "ncnn") == HotKernel("", "64 fmla by lane to 16 accumulators; 8 ldp q, 4 ldr q", 0.6)
    assert hottest_kernel(run_of(), "ncnn") is None
    monkeypatch.setattr("studies.peers.kernels.place_of", lambda address, _mappings: f"lib.so+{address:#x} (xnn_gemm+0x10)")
    named = hottest_kernel(run_of(*loop), "litert")
    assert named is not None and named.name == "xnn_gemm"


def test_loops_are_told_apart_by_their_work_and_their_loads() -> None:
    fused = ["fmla\tv8.4s, v4.4s, v0.s[0]", "fmla\tv9.4s, v4.4s, v0.s[1]", "fmla\tv8.4s, v5.4s, v1.s[0]"]
    little = ["ldr\td5, [x2]", "mov\tv1.d[1], x21", "ins\tv2.d[1], x22", "ldr\tx25, [x2, #8]", "prfm\tpldl1keep, [x2, #256]"]
    assert loop_of([*fused, *little]) == "3 fmla by lane to 2 accumulators; 2 ins, 1 ldr d, 1 ldr x, 1 prfm"
    loads = ["ld1\t{ v0.4s, v1.4s, v2.4s }, [x15], #48", "ld1\t{ v3.4s }, [x2], #16", "mov\tv1.16b, v2.16b"]
    assert loop_of([*fused, *loads]) == "3 fmla by lane to 2 accumulators; 1 ld1 1v, 1 ld1 3v"
    assert loop_of(["fmla\tv8.4s, v4.4s, v0.4s"]) == "1 fmla to 1 accumulators"
    assert loop_of(["ldr\tq2, [x0]", "fadd\tv2.4s, v2.4s, v25.4s", "fmax\tv2.4s, v3.4s, v2.4s"]) == "1 fadd, 1 fmax, 1 ldr"


@pytest.mark.parametrize("cpu", ["Cortex-A53", "Cortex-A55", "Cortex-A72", "Cortex-A73", "Cortex-A76"])
def test_each_library_takes_the_kernel_that_its_makers_chose(cpu: str) -> None:
    """In the committed figures, also where QEMU runs programs on another core that stands in."""
    found = {kernel.system: kernel for kernel in from_json(RESULTS / "benchmarks.json").kernels if kernel.cpu == cpu}
    assert set(found) >= set(MAKERS)
    for system, choice in MAKERS.items():
        assert found[system].kernel.name == choice.kernel(cpu), system
        assert found[system].kernel.share > 0.25


def test_many_networks_on_one_board_are_a_line_each(tmp_path: Path) -> None:
    """The lowest ratio first, each by its name; marks on one line would lie on each other."""
    cells = [GridCell("pi4", 1, 1.0, 224, f"network{number}") for number in range(25)]
    rows = [row(cell, key, ms) for number, cell in enumerate(cells) for key, ms in (("ncnn", 100.0), (OURS, 90.0 - number))]
    draw_boards(replace(OLD, rows=tuple(rows)), tmp_path / "one.svg")
    text = (tmp_path / "one.svg").read_text(encoding="utf-8")
    places = [text.index(f"<!-- network{number} 1.0-224 -->") for number in range(25)]
    assert places == sorted(places, reverse=True)
