"""Other people's programs: AArch64 wheels in a sysroot, ELF files, and the figures of an independent experiment."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.elf import NotElf, read_elf
from tvmmobile.virtual.sysroot import cpuinfo, python_sysroot

#: MobileNet v1's blocks: stride of the depthwise layer, channels out of the pointwise one (arXiv 1704.04861, table 1).
BLOCKS = ((1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512), *((1, 512),) * 5, (2, 1024), (1, 1024))
PROGRAM = """
import ctypes, sys, ncnn, numpy as np
libc = ctypes.CDLL(None)
net = ncnn.Net()
net.opt.num_threads = 1
net.load_param(sys.argv[1])
net.load_model(ncnn.DataReaderFromEmpty())
side = int(sys.argv[2])
image = np.zeros((3, side, side), np.float32)
def run():
    extractor = net.create_extractor()
    extractor.input("data", ncnn.Mat(image))
    return np.array(extractor.extract("output")[1])
run()
libc.prctl(0x7a110001, 0, 0, 0, 0)
run()
libc.prctl(0x7a110002, 0, 0, 0, 0)
"""


def mobilenet(alpha: float, side: int) -> str:
    """MobileNet v1 as an ncnn .param file."""
    rows = [f"Input data 0 1 b0 0={side} 1={side} 2=3"]
    channels = int(32 * alpha)

    def add(kind: str, figures: str) -> None:
        number = len(rows)
        rows.append(f"{kind} l{number} 1 1 {'data' if number == 1 else f'b{number}'} b{number + 1} {figures}")

    add("Convolution", f"0={channels} 1=3 3=2 4=1 5=1 6={27 * channels} 9=1")
    for stride, width in BLOCKS:
        add("ConvolutionDepthWise", f"0={channels} 1=3 3={stride} 4=1 5=1 6={9 * channels} 7={channels} 9=1")
        wider = int(width * alpha)
        add("Convolution", f"0={wider} 1=1 5=1 6={channels * wider} 9=1")
        channels = wider
    add("Pooling", "0=1 4=1")
    add("InnerProduct", f"0=1000 1=1 2={1000 * channels}")
    add("Softmax", "")
    rows[0] = rows[0].replace(" b0 ", " data ")
    rows[-1] = rows[-1].replace(f"b{len(rows)} ", "output ")
    return f"7767517\n{len(rows)} {len(rows)}\n" + "\n".join(rows) + "\n"


@pytest.mark.virtual
@pytest.mark.long
@pytest.mark.parametrize(
    ("alpha", "side", "instructions", "cycles", "l1d_misses", "dram_bytes", "tolerance"),
    [(1.0, 224, 173.0e6, 159.9e6, 7.15e6, 173.7e6, 0.03), (0.25, 128, 5.4e6, 5.2e6, 0.24e6, 4.2e6, 0.2)],
)
def test_ncnn_agrees_with_an_independent_experiment(
    tmp_path: Path, alpha: float, side: int, instructions: float, cycles: float, l1d_misses: float, dram_bytes: float, tolerance: float
) -> None:
    sysroot = python_sysroot(load_board("pi4"), ["ncnn==1.0.20261020", "numpy==2.4.6"])
    (tmp_path / "net.param").write_text(mobilenet(alpha, side), encoding="ascii")
    (tmp_path / "program.py").write_text(PROGRAM, encoding="ascii")
    command = [sys.executable, "-m", "tvmmobile", "virtual", "run", "--json", "--sysroot", str(sysroot), "--", "python3"]
    runs = []
    for _ in range(2):
        done = subprocess.run(
            [*command, str(tmp_path / "program.py"), str(tmp_path / "net.param"), str(side)], capture_output=True, text=True, check=True
        )
        runs.append(json.loads(done.stdout))
    for name, expected in {
        "instructions": instructions,
        "core_cycles": cycles,
        "l1d_misses": l1d_misses,
        "dram_bytes": dram_bytes,
    }.items():
        assert runs[0][name] == pytest.approx(expected, rel=tolerance), name
        assert runs[0][name] == pytest.approx(runs[1][name], rel=0.001 if name == "core_cycles" else 0.01)


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
    while not children and time.monotonic() < deadline:
        time.sleep(0.2)
        text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
        children = [int(pid) for pid in text if "qemu" in Path(f"/proc/{pid}/comm").read_text(encoding="ascii")]
    assert children
    process.send_signal(2)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in errors
    assert not Path(f"/proc/{children[0]}").exists()
