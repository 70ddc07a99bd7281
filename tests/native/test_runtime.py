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


def shares_program(folder: Path, compiler: str, *words: str) -> Path:
    """`shares.c`, built."""
    command = [
        compiler,
        "-std=gnu11",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        *words,
        f"-I{REPOSITORY}/tvmmobile/native",
        str(HERE / "shares.c"),
    ]
    subprocess.run([*command, "-pthread", "-o", str(folder / "shares")], check=True)
    return folder / "shares"


def test_no_split_of_a_step_could_end_sooner(tmp_path: Path) -> None:
    program = shares_program(tmp_path, "gcc", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    done = subprocess.run([program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


#: By the name of a file of each of the CPUs 58 to 63, which no machine of ours has.
SPEEDS: dict[str, tuple[object, ...]] = {
    "cpu_capacity": (300, 897, 897, 1024, 512, ""),
    "cpufreq/cpuinfo_max_freq": (2000000, 1, 1, 1, 1, 3000000),
}


@pytest.mark.virtual
@pytest.mark.parametrize(
    ("cpus", "lanes", "expected"),
    [
        ((59, 60, 61), 3, "28 28 31"),  # by their capacities
        ((61, 62), 2, "58 29"),
        ((61, 62, 63), 2, "44 43"),  # one capacity is not known, and two of the clocks are equal
        ((58, 63), 2, "35 52"),  # by their clocks
        ((59, 60), 2, "44 43"),
        ((59, 60, 61), 2, "44 43"),  # a run of fewer threads than init's, whose speeds are equal
        ((58, 61), 1, "87"),
        ((57, 61), 2, "44 43"),  # nothing is known of one
    ],
)
def test_threads_have_shares_by_the_speeds_of_their_cpus(cpus: tuple[int, ...], lanes: int, expected: str, tmp_path: Path) -> None:
    compiler, runner = MACHINES["aarch64"]
    for name, numbers in SPEEDS.items():
        for cpu, number in enumerate(numbers, 58):
            path = tmp_path / f"sys/devices/system/cpu/cpu{cpu}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{number}\n")
    program = shares_program(tmp_path, compiler, "-static", "-Wl,-u,pthread_create,-u,pthread_join")
    words = [runner[0], "-L", str(tmp_path), str(program), "87", str(len(cpus)), str(sum(1 << cpu for cpu in cpus)), str(lanes)]
    assert subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout == f"{expected}\n"
