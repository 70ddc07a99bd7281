"""Other people's programs: AArch64 wheels in a sysroot, ELF files, and the figures of an independent experiment."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.elf import NotElf, read_elf
from tvmmobile.virtual.sysroot import cpuinfo, python_sysroot

EXAMPLES = Path(__file__).resolve().parents[2] / "examples/virtual-run"
MODELS = {"ncnn": "model.ncnn.param", "mnn": "model.mnn", "litert": "model.tflite", "onnxruntime": "model.onnx"}
#: An independent experiment's figures of MobileNet v1, one thread: millions of instructions, core cycles, L1D misses; MB of traffic.
SMALL, LARGE = (0.25, 128), (1.0, 224)
ELSEWHERE = {
    (*SMALL, "ncnn"): (5.4, 5.2, 0.24, 4.2),
    (*SMALL, "mnn"): (6.2, 5.8, 0.17, 4.0),
    (*SMALL, "litert"): (6.4, 5.1, 0.14, 3.9),
    (*SMALL, "onnxruntime"): (11.8, 9.8, 0.25, 3.7),
    (*LARGE, "ncnn"): (173.0, 159.9, 7.15, 173.7),
}
FIGURES = ("instructions", "core_cycles", "l1d_misses", "dram_bytes")
#: Python does not place its objects the same way each time, which the small network's traffic shows most.
REPEATS = {"instructions": 0.001, "core_cycles": 0.001, "l1d_misses": 0.01, "dram_bytes": 0.03}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[float, int], Path]:
    """The folder with a variant's models; exported once."""
    root = tmp_path_factory.mktemp("models")

    def folder(alpha: float, side: int) -> Path:
        made = root / f"{alpha}_{side}"
        if not made.is_dir():
            command = [sys.executable, str(EXAMPLES.parents[1] / "studies"), "export_models"]
            subprocess.run([*command, "--alpha", str(alpha), "--resolution", str(side), str(made)], check=True)
        return made

    return folder


def run_wheel(system: str, models: Path, threads: int = 1) -> dict[str, Any]:
    """Run one of the example programs, which compares its output with PyTorch's; the figures of `virtual run`."""
    sysroot = python_sysroot(load_board("pi4"), (EXAMPLES / "wheels.txt").read_text(encoding="ascii").split())
    command = [sys.executable, "-m", "tvmmobile", "virtual", "run", "--json", "--threads", str(threads), "--sysroot", str(sysroot), "--"]
    command += ["python3", str(EXAMPLES / f"run_{system}.py"), str(models / MODELS[system]), "--threads", str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    *lines, figures = done.stdout.splitlines()
    assert any(line.startswith("largest difference from PyTorch: ") for line in lines)
    found: dict[str, Any] = json.loads(figures)
    return found


def pinned(file: Path) -> dict[str, str]:
    lines = [line for line in file.read_text(encoding="ascii").splitlines() if not line.startswith("#")]
    return dict(line.split("==", 1) for line in lines)


def test_converters_and_wheels_are_of_the_same_versions() -> None:
    wheels, converters = pinned(EXAMPLES / "wheels.txt"), pinned(EXAMPLES.parents[1] / "studies/formats/converters.txt")
    assert set(wheels) == {"ncnn", "MNN", "ai-edge-litert", "onnxruntime", "numpy"}
    assert {name: converters[name] for name in ("MNN", "ai-edge-litert")} == {name: wheels[name] for name in ("MNN", "ai-edge-litert")}
    assert "1.0." + converters["pnnx"] == wheels["ncnn"]


@pytest.mark.parametrize(("off", "code"), [(0.0, 0), (5e-3, 0), (2e-2, 1), (float("nan"), 1)])
def test_a_program_that_disagrees_with_pytorch_fails(tmp_path: Path, off: float, code: int) -> None:
    np.save(tmp_path / "image.npy", np.zeros((1, 3, 4, 4), np.float32))
    np.save(tmp_path / "logits.npy", np.full((1, 10), -10, np.float32))
    program = f"from region import *; given = read_arguments('a test'); run_marked(lambda: given.logits + float('{off}'), given)"
    command = [sys.executable, "-c", program, str(tmp_path / "model.onnx"), "--threads", "2"]
    done = subprocess.run(command, cwd=EXAMPLES, capture_output=True, text=True, check=False)
    assert done.returncode == code and ("That is more than" in done.stderr) == bool(code)


@pytest.mark.virtual
@pytest.mark.long
@pytest.mark.parametrize(("alpha", "side", "system"), ELSEWHERE)
def test_wheels_agree_with_an_independent_experiment(exported: Callable[[float, int], Path], alpha: float, side: int, system: str) -> None:
    runs = [run_wheel(system, exported(alpha, side)) for _ in range(2)]
    # The small network's figures have two digits; what Python does between the calls weighs more there.
    tolerance = 0.03 if (alpha, side) == LARGE else 0.15
    for name, expected in zip(FIGURES, ELSEWHERE[alpha, side, system], strict=True):
        assert runs[0][name] == pytest.approx(expected * 1e6, rel=tolerance), name
        assert runs[0][name] == pytest.approx(runs[1][name], rel=REPEATS[name]), name


@pytest.mark.virtual
@pytest.mark.long
@pytest.mark.parametrize("system", MODELS)
def test_four_threads_repeat(exported: Callable[[float, int], Path], system: str) -> None:
    runs = [run_wheel(system, exported(*SMALL), threads=4) for _ in range(2)]
    # Other threads of the program, such as numpy's, may have worked for some microseconds.
    assert [sum(ms > 0.1 * run["busy_ms"][0] for ms in run["busy_ms"]) for run in runs] == [4, 4]
    assert runs[0]["modelled_ms"] == pytest.approx(runs[1]["modelled_ms"], rel=0.02)


def test_cpuinfo_is_the_boards() -> None:
    text = cpuinfo(load_board("pi4"))
    assert text.count("processor\t: ") == 4 and text.count("CPU part\t: 0xd08\n") == 4 and text.count("CPU implementer\t: 0x41\n") == 4


def test_elf_files_are_read_or_refused(tmp_path: Path) -> None:
    good = Path("/usr/aarch64-linux-gnu/lib/libc.so.6").resolve()
    elf = read_elf(good)
    assert elf.machine == "AArch64" and elf.runs and elf.interpreter == "/lib/ld-linux-aarch64.so.1"
    begin = next(address for address, _, name in elf.symbols if name == "qsort")
    assert elf.place(begin + 4) == "qsort+0x4"  # in libc, code lies at the same offset as address
    content = good.read_bytes()
    for cut in (3, 20, 63, 64, 100, 500, 5000, len(content) - 100):
        torn = tmp_path / f"torn{cut}"
        torn.write_bytes(content[:cut])
        with pytest.raises(NotElf):
            read_elf(torn)


@pytest.mark.virtual
def test_interrupted(tmp_path: Path) -> None:
    from region_programs import build_program

    program = build_program(tmp_path)
    command = [sys.executable, "-m", "tvmmobile", "virtual", "run", "--", str(program), "whole", "1000000000000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    children: list[int] = []
    try:
        while not children and time.monotonic() < deadline:
            time.sleep(0.2)
            text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
            children = [int(pid) for pid in text if "qemu" in Path(f"/proc/{pid}/comm").read_text(encoding="ascii")]
        assert children
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 130 and "Traceback" not in errors
        assert not Path(f"/proc/{children[0]}").exists()
    finally:  # what a failure left would run for days
        for pid in (process.pid, *children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
