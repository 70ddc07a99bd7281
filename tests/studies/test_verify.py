"""The studies that check libraries from outside: in TVM's own Python for AArch64, and by counting cycles."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, CommandLine
from deployed import make_library

STEM = "mobilenet_v1_0.25_32_float32_t1"
SMALL = ("--alpha", "0.25", "--resolution", "32")


def study(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a study with this Python."""
    command = [sys.executable, str(REPOSITORY / "studies"), name, *arguments]
    return subprocess.run(command, cwd=REPOSITORY / "tests", capture_output=True, text=True, check=False)  # they run from any folder


@pytest.mark.long
@pytest.mark.virtual
def test_tvms_own_machine_in_an_aarch64_python_agrees(cli: CommandLine, tmp_path: Path) -> None:
    assert cli("compile", *SMALL, "--format", "vm", "--out", str(tmp_path)).code == 0
    done = study("verify_in_python", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.fullmatch(rf"ok    {STEM}\.so: error (\S+) of the output's largest magnitude\n", done.stdout)
    assert found and float(found.group(1)) < 1e-5
    path = tmp_path / f"{STEM}.reference.npz"
    with np.load(path) as reference:
        data, output = reference["input"], reference["output"]
    output[0, 0] += 3e-4 * np.abs(output).max()
    np.savez(path, input=data, output=output)
    done = study("verify_in_python", str(tmp_path / f"{STEM}.so"))
    assert done.returncode == 5 and done.stdout.startswith(f"WRONG {STEM}.so: error 0.0003 of")


def test_there_must_be_something_to_verify(tmp_path: Path) -> None:
    done = study("verify_in_python", str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("verify_in_python: error: no library in ")


def test_a_c_library_is_not_for_tvm(tmp_path: Path) -> None:
    make_library(tmp_path, format="c", c={"prefix": "net", "workspace_bytes": 64})
    done = study("verify_in_python", str(tmp_path))
    assert done.returncode == 1 and "is a C library.\nCompile one for TVM's virtual machine: tvmmobile compile --format vm" in done.stderr


@pytest.mark.long
@pytest.mark.virtual
def test_cycles_are_counted_and_limited() -> None:
    done = study("count_cycles", *SMALL, "--limit", "1")
    cycles = int(re.search(r"([\d,]+) core cycles", done.stdout)[1].replace(",", ""))  # type: ignore[index]
    least = int(re.search(r"([\d,]+) cycles at least", done.stdout)[1].replace(",", ""))  # type: ignore[index]
    assert least < cycles < 2 * least and "modelled" in done.stdout
    assert done.returncode == 1 and done.stderr == f"{cycles:,} core cycles are more than the limit of 1.\n"


@pytest.mark.parametrize(("arguments", "complaint"), [(("--alpha", "3"), "width multiplier"), (("--resolution", "7"), "resolution 7")])
def test_cycles_of_no_network(arguments: tuple[str, ...], complaint: str) -> None:
    done = study("count_cycles", *arguments)
    assert done.returncode == 1 and complaint in done.stderr and "Traceback" not in done.stderr
