"""The C part alone, under sanitizers: no race, no byte beside, nothing undefined, and every run right."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from conftest import REPOSITORY

HERE = Path(__file__).parent
SOURCE = HERE / "team.c"
#: How to compile for a machine, and to run what was compiled.
MACHINES = {"host": ("gcc", []), "aarch64": ("aarch64-linux-gnu-gcc", ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"])}


@pytest.fixture(scope="module", params=["thread", "address,undefined", ""])
def team(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`team.c`, built with a sanitizer or none."""
    program = tmp_path_factory.mktemp("team") / "team"
    sanitizer = [f"-fsanitize={request.param}", "-fno-sanitize-recover=all"] if request.param else []
    warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-tsan"]
    command = [
        "gcc",
        "-std=gnu11",
        "-O1",
        "-g",
        *warnings,
        *sanitizer,
        f"-I{REPOSITORY}/tvmmobile/native",
        SOURCE,
        "-pthread",
        "-o",
        program,
    ]
    subprocess.run(command, check=True)
    return program


def said(program: Path, runs: int, threads: int, spins: int, shared: bool, observed: bool = False) -> str:
    """What it prints, and how it ended if not well."""
    words = [str(program), *map(str, (runs, threads, spins, int(shared), int(observed)))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout + done.stderr + (f"exit code {done.returncode}" if done.returncode else "")


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize(("threads", "spins"), [(1, 0), (2, 1), (4, 100)])
def test_eight_callers(team: Path, threads: int, spins: int, shared: bool) -> None:
    assert said(team, 60, threads, spins, shared) == ""


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_an_observer_hears_of_each_kernel(team: Path, shared: bool) -> None:
    """Of one that is several steps once; from every caller, whether it got the threads or not."""
    assert said(team, 60, 2, 100, shared, observed=True) == ""


def test_ten_thousand_runs(team: Path) -> None:
    assert said(team, 1250, 2, 1, False) == ""


@pytest.mark.parametrize("machine", ["host", pytest.param("aarch64", marks=pytest.mark.virtual)])
def test_threads_compute_in_their_callers_mode(machine: str, tmp_path: Path) -> None:
    """Its rounding, subnormal numbers and NaNs, with the library's threads and with a pool's, which keep their own mode."""
    compiler, runner = MACHINES[machine]
    command = [compiler, "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{REPOSITORY}/tvmmobile/native", str(HERE / "modes.c")]
    subprocess.run([*command, "-pthread", "-o", str(tmp_path / "modes")], check=True)
    assert subprocess.run([*runner, str(tmp_path / "modes")], capture_output=True, text=True, check=True).stdout == ""
