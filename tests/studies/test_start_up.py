"""The study start_up: what is marked, which pages count, the page it writes, and the figures that are committed."""

from __future__ import annotations

import ctypes
import json
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import CommandLine

from studies.peers.results import BenchmarkContext, BoardFacts
from studies.peers.runs import PeerRun
from studies.peers.systems import EXAMPLES, OURS, OURS_C, System
from studies.start_up import start_up, starts
from studies.start_up.page import BEYOND_BYTES, StartReport, from_file, page, to_text
from studies.start_up.starts import PLAIN, MemoryUse, Pages, StartUp
from tvmmobile.system.errors import Disagreement, UserError
from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.program import CROSS_SYSROOT

STUDIES = Path(__file__).resolve().parents[2] / "studies"
FACTS = BoardFacts("pi4", "Raspberry Pi 4", "Cortex-A72", 1.8e9, "feedc0de", "deadbeef", True)
TITLES = {"ncnn": "ncnn 1", "mnn": "MNN 3", OURS_C: "tvmmobile 1, C library", PLAIN: "tvmmobile 1, C library in C"}
REPORT = StartReport(
    BenchmarkContext({"pi4": FACTS}, TITLES, {"PyTorch": "2"}, "abcd", "monday"),
    (
        StartUp("ncnn", "0.25-128", 13_000_000, 6_600_000, 6.0),
        StartUp("mnn", "0.25-128", 50_000_000, 8_800_000, 9.0),
        StartUp(OURS_C, "0.25-128", 400_000, 6_000_000, 3.0),
        StartUp(PLAIN, "0.25-128", None, 5_280_000, 2.7),
    ),
    (
        MemoryUse("ncnn", "1.0-224", Pages(start=5120, end=9000, most=10240, most_before=5120), None),
        MemoryUse(PLAIN, "1.0-224", Pages(start=256, end=5376, most=5376, most_before=300), 20 << 20),
    ),
)
TOUCHES = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>
enum { PAGE = 4096 };
int main(int count, char **words) {
  int written = atoi(words[1]), zeros = open("/dev/zero", O_RDONLY);
  prctl(0x7a110001, 0, 0, 0, 0);
  char *all = mmap(NULL, 400 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  for (int i = 0; i < written; i++) all[i * PAGE] = 1;
  munmap(all, 10 * PAGE);
  madvise(all + 10 * PAGE, 5 * PAGE, MADV_DONTNEED);
  int failed = count != 2 || read(zeros, all + 200 * PAGE, 7 * PAGE) != 7 * PAGE;
  char *moved = mremap(all + 200 * PAGE, 7 * PAGE, 8 * PAGE, MREMAP_MAYMOVE);
  munmap(moved, PAGE);
  prctl(0x7a110002, 0, 0, 0, 0);
  return failed;
}
"""


def test_pages_are_those_that_a_program_holds(tmp_path: Path) -> None:
    """Written or read into, until they are unmapped or given back; what is mapped and not touched does not count."""
    (tmp_path / "touches.c").write_text(TOUCHES, encoding="ascii")
    subprocess.run(["aarch64-linux-gnu-gcc", "-static", "-O1", "touches.c", "-o", "touches"], cwd=tmp_path, check=True)
    for written in (20, 120):
        out = tmp_path / f"{written}.json"
        words = ["qemu-aarch64", "-plugin", f"{starts.plugin()},out={out}", str(tmp_path / "touches"), str(written)]
        subprocess.run(words, check=True)
        found = Pages(**json.loads(out.read_text(encoding="utf-8")))
        assert found.end - found.start == written - 15 + 6
        assert found.loading_bytes == written * starts.PAGE_BYTES
        assert found.most_before == found.start and found.most_bytes == found.most * starts.PAGE_BYTES


@pytest.mark.parametrize(
    ("region", "marked"), [("import", ["begin", "imported", "end", "run"]), ("load", ["imported", "begin", "run", "end"])]
)
def test_what_is_marked(region: str, marked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Library:
        """Notes the markers."""

        def prctl(self, number: int, *_: int) -> None:
            seen.append({0x7A110001: "begin", 0x7A110002: "end"}[number])

    for name in ("image", "logits"):
        np.save(tmp_path / f"{name}.npy", np.zeros(2, np.float32))
    (tmp_path / "marks.py").write_text("import sys\nsys.modules['test_start_up_seen'].append('imported')\n", encoding="ascii")
    program = "import marks\nfrom region import read_arguments, run_marked\narguments = read_arguments(__doc__)\n"
    program += "run_marked(lambda: (marks.sys.modules['test_start_up_seen'].append('run'), arguments.logits)[1], arguments)\n"
    (tmp_path / "program.py").write_text(program, encoding="ascii")
    for name in ("region", "marks"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "test_start_up_seen", seen)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setenv("TVMMOBILE_PROGRAM", str(tmp_path / "program.py"))
    monkeypatch.setenv("TVMMOBILE_REGION", region)
    monkeypatch.setattr(sys, "argv", ["first_result.py", str(tmp_path / "model")])
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: Library())
    runpy.run_path(str(STUDIES / "start_up/first_result.py"), run_name="__main__")
    assert seen == marked
    del sys.modules["region"], sys.modules["marks"]


def test_the_page() -> None:
    text = page(REPORT, "start-up")
    for line in (
        "| 0.25-128 | ncnn 1 | 13.0 | 6.60 | 1.00 | 6.00 |",
        "| 0.25-128 | MNN 3 | 50.0 | 8.80 | 1.33 | 9.00 |",
        "| 0.25-128 | tvmmobile 1, C library in C | – | 5.28 | 0.80 | 2.70 |",
        "| 1.0-224 | ncnn 1 | 40.00 | 20.00 | – | – |",
        "| 1.0-224 | tvmmobile 1, C library in C | 21.00 | 20.00 | 20.00 | 1.00 |",
        "- ncnn 1, MNN 3, tvmmobile 1, C library",
    ):
        assert line in text.splitlines()
    assert max(len(line) for line in text.splitlines() if not line.startswith("|")) <= 140


def test_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(to_text(REPORT), encoding="utf-8")
    assert from_file(tmp_path / "a.json") == REPORT
    for damage in ("", "[]", "{}", to_text(REPORT).replace('"version": 1', '"version": 9'), to_text(REPORT).replace("5376", "-1")):
        (tmp_path / "a.json").write_text(damage, encoding="utf-8")
        with pytest.raises(UserError, match=r"a\.json cannot be read"):
            from_file(tmp_path / "a.json")


def test_a_c_librarys_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer has one; a C library has another in a program in C, and its weights and workspace are what it needs."""

    class Compiled:
        """A library's stand-in."""

        path = tmp_path / "net_float32_t1.so"

        def manifest(self) -> dict[str, dict[str, object]]:
            return {"c": {"prefix": "net", "weight_bytes": 1000, "workspace_bytes": 24}}

    job = PeerRun(
        load_board("pi4"), "pi4", System("ncnn", "", tmp_path / "run.py", (), ("m",), 1.0, {"A": "b"}), (tmp_path / "m",), tmp_path, 1
    )
    place = start_up.ReadyBoard("pi4", job.board, (1,), None, dict.fromkeys(("ncnn", OURS_C, OURS), tmp_path))
    monkeypatch.setattr(start_up, "exported", lambda *_: tmp_path)
    monkeypatch.setattr(
        start_up, "our_library", lambda _place, _threads, _spec, system, _logs: None if system.key == "ncnn" else Compiled()
    )

    def runs(key: str) -> list[tuple[str, int | None, str, dict[str, str]]]:
        system = replace(job.system, key=key)
        found = start_up.jobs_of(place, start_up.STARTED, system, tmp_path)
        return [(name, needed, Path(run.command()[0]).name.partition("-")[0], dict(run.system.environment)) for name, run, needed in found]

    assert runs("ncnn") == [("ncnn", None, "python3", {"A": "b"})] and runs(OURS) == [(OURS, None, "python3", {"A": "b"})]
    (python, plain) = runs(OURS_C)
    assert python == (OURS_C, 1024, "python3", {"A": "b"})
    assert plain[:2] == (PLAIN, 1024) and plain[2] == "load_and_run" and plain[3] == {"TVMMOBILE_PREFIX": "net"}
    marked = starts._marked(job, "load")
    assert marked.command()[:2] == ["python3", str(STUDIES / "start_up/first_result.py")] and marked.files == (
        tmp_path / "m",
        job.system.program,
    )
    assert dict(marked.system.environment) == {"A": "b", "TVMMOBILE_PROGRAM": str(job.system.program), "TVMMOBILE_REGION": "load"}


def test_pages_are_kept_of_a_run_that_agrees_with_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("image", "logits"):
        np.save(tmp_path / f"{name}.npy", np.array([0.5, -2.0], np.float32))
    for name in ("run", "net"):
        (tmp_path / name).write_bytes(b"")
    job = PeerRun(load_board("pi4"), "pi4", System("ncnn", "", tmp_path / "run", (), (), 1e-3), (tmp_path / "net",), tmp_path, 1)
    ran = []

    def run(words: list[str], _environment: dict[str, str], _job: PeerRun) -> str:
        (option,) = (word for word in words if ",out=" in word)
        Path(option.partition(",out=")[2]).write_text('{"start": 3, "end": 4, "most": 9, "most_before": 5}', encoding="ascii")
        ran.append(words[-4:])
        return f"largest difference from PyTorch: {difference}\n"

    monkeypatch.setattr(starts, "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr(starts, "find_program", lambda name, _sysroot: (Path(name), None))
    monkeypatch.setattr(starts, "run_to_the_end", run)
    difference = "4.0e-01"
    with pytest.raises(Disagreement, match=r"2\.0e-01 of its largest magnitude off"):
        starts.memory_use(PLAIN, "0.25-128", job)
    difference = "4.0e-05"
    for _ in range(2):
        assert starts.memory_use(PLAIN, "0.25-128", job).pages == Pages(3, 4, 9, 5)
    assert ran == [[str(tmp_path / "run"), str(tmp_path / "net"), "--threads", "1"]] * 2


def test_the_committed_figures() -> None:
    """Ours starts with the fewest instructions, and a program in C holds little besides what it needs."""
    report = from_file(STUDIES / "results" / "start-up.json")
    counted = {start.key: start.instructions for start in report.starts}
    assert {"ncnn", "mnn", "litert", "onnxruntime", OURS, OURS_C, PLAIN} == set(counted)
    peers = [count for key, count in counted.items() if key not in (OURS, OURS_C, PLAIN)]
    assert counted[PLAIN] < counted[OURS_C] < min(peers)
    held = {use.variant: use for use in report.memory if use.key == PLAIN}
    assert set(held) == {"0.25-128", "1.0-224"}
    for use in held.values():
        assert use.needed_bytes is not None and use.needed_bytes < use.pages.most_bytes <= use.needed_bytes + BEYOND_BYTES


@pytest.mark.virtual
@pytest.mark.long
def test_a_program_in_c_holds_little_besides_weights_and_workspace(cli: CommandLine, tmp_path: Path) -> None:
    done = cli("compile", "--alpha", "0.25", "--resolution", "128", "--out", str(tmp_path))
    assert done.code == 0, done.err
    (library,) = tmp_path.glob("*.so")
    with np.load(library.with_suffix(".reference.npz")) as reference:
        np.save(tmp_path / "image.npy", reference["input"])
        np.save(tmp_path / "logits.npy", reference["output"])
    called = json.loads(library.with_suffix(".json").read_text(encoding="utf-8"))["c"]
    system = System(OURS_C, "", tmp_path, (), (), 1e-4)
    job = PeerRun(load_board("pi4"), "pi4", system, (library,), CROSS_SYSROOT, 1)
    found = starts.count_pages(starts.plain_program(job, called["prefix"]))
    needed_bytes = called["weight_bytes"] + called["workspace_bytes"]
    assert needed_bytes < found.most_bytes <= needed_bytes + BEYOND_BYTES
