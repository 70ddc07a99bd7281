"""The C part alone, under sanitizers: no race, no byte beside, nothing undefined, and every run right."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Sequence
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


def complaints(program: Path, runs: int, threads: int, spins: int, shared: bool, observed: bool = False) -> str:
    """Return the program's output, and its exit code other than 0."""
    words = [str(program), *map(str, (runs, threads, spins, int(shared), int(observed)))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout + done.stderr + (f"exit code {done.returncode}" if done.returncode else "")


def test_programs_that_other_threads_start_get_no_files(tmp_path: Path) -> None:
    program = tmp_path / "opened"
    words = ["gcc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", f"-I{REPOSITORY}/tvmmobile/native", HERE / "opened.c", "-pthread"]
    subprocess.run([*words, "-o", program], check=True)
    assert subprocess.run([program], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize(("threads", "spins"), [(1, 0), (2, 1), (4, 100)])
def test_eight_callers(team: Path, threads: int, spins: int, shared: bool) -> None:
    assert complaints(team, 60, threads, spins, shared) == ""


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_an_observer_hears_of_each_kernel(team: Path, shared: bool) -> None:
    """The observer hears once of a kernel of several steps, and from every caller, whether it got the threads or not."""
    assert complaints(team, 60, 2, 100, shared, observed=True) == ""


def test_ten_thousand_runs(team: Path) -> None:
    assert complaints(team, 1250, 2, 1, False) == ""


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
    "cpufreq/cpuinfo_max_freq": (2000000, 1, 4320000, 1, 1, 3000000),
}


@pytest.mark.virtual
@pytest.mark.parametrize(
    ("cpus", "lanes", "expected"),
    [
        ((59, 60, 61), 3, "28 28 31"),  # by their capacities
        ((61, 62), 2, "58 29"),
        ((61, 62, 63), 2, "44 43"),  # one capacity is not known, and two of the clocks are equal
        ((58, 63), 2, "35 52"),  # by their clocks
        ((60, 63), 2, "51 36"),  # a phone's newest core: 4.32 GHz, in kHz
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


BIG_CORES, FASTEST = 1, 4


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`fastest.c`, built for AArch64."""
    program, (compiler, _) = tmp_path_factory.mktemp("fastest") / "fastest", MACHINES["aarch64"]
    static = ["-static", "-Wl,-u,pthread_create,-u,pthread_join", "-pthread"]
    command = [compiler, "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{REPOSITORY}/tvmmobile/native", str(HERE / "fastest.c")]
    subprocess.run([*command, *static, "-o", str(program)], check=True)
    return program


def counted(program: Path, root: Path, capacities: dict[int, int], words: Sequence[object], allowed: Sequence[int]) -> str:
    """Return the output of `fastest.c` where Linux shows these capacities, 0 for none, and its threads may run on some of the CPUs here."""
    for cpu, capacity in capacities.items():
        path = root / f"sys/devices/system/cpu/cpu{cpu}/cpu_capacity"
        path.parent.mkdir(parents=True)
        path.write_text(f"{capacity}\n" if capacity else "")
    command = ["taskset", "-c", ",".join(map(str, allowed)), "qemu-aarch64", "-L", str(root), str(program), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.virtual
@pytest.mark.parametrize(
    ("capacities", "threads", "fastest", "expected"),
    [
        ((0, 0), 0, 4, 2),  # all CPUs, of which nothing is known
        ((1024, 1024), 0, 4, 2),
        ((1024, 1024), 0, 1, 1),
        ((1024, 1024), 1, 4, 1),  # a limit
        ((1024, 600), 0, 4, 2),
        ((1024, 400), 0, 4, 1),
        ((400, 1024), 0, 4, 1),
        ((1024,), 0, 4, 1),
    ],
)
def test_the_fastest_number_of_threads_leaves_small_cores_out(
    capacities: tuple[int, ...], threads: int, fastest: int, expected: int, counting: Path, tmp_path: Path
) -> None:
    """CPUs that the program may not use are left out too; pinned threads change nothing."""
    allowed = sorted(os.sched_getaffinity(0))[: len(capacities)]
    if len(allowed) < len(capacities) or allowed[-1] > 63:
        pytest.skip("needs two CPUs")
    shown = dict.fromkeys(range(64), 0) | dict(zip(allowed, capacities, strict=True))
    assert counted(counting, tmp_path, shown, (threads, FASTEST, 0, fastest), allowed) == f"{expected} 0\n"


#: CPUs 56 to 63 of a phone, whose small cores come first, as they do on most.
PHONE = dict(enumerate((300, 300, 300, 300, 897, 897, 897, 1024), 56))


@pytest.mark.virtual
@pytest.mark.parametrize(
    ("threads", "flags", "cpus", "fastest", "expected"),
    [
        (0, FASTEST, PHONE, 4, (60, 61, 62, 63)),
        (0, FASTEST, PHONE, 2, (60, 63)),
        (1, FASTEST, PHONE, 4, (63,)),
        (0, FASTEST, (56, 57), 4, (56, 57)),  # whoever names them gets them
        (2, BIG_CORES, (), 4, (60, 63)),  # and the number is not asked for
        (2, 0, PHONE, 4, tuple(PHONE)),
    ],
)
def test_no_thread_is_pinned_to_a_small_core_by_its_number(
    threads: int, flags: int, cpus: Iterable[int], fastest: int, expected: tuple[int, ...], counting: Path, tmp_path: Path
) -> None:
    """The largest of the CPUs that the options name, or of all, are taken."""
    shown = dict.fromkeys(range(64), 0) | PHONE
    words = threads, flags, sum(1 << cpu for cpu in cpus), fastest
    count = threads if not flags & FASTEST else len(expected)
    found = counted(counting, tmp_path, shown, words, sorted(os.sched_getaffinity(0)))
    assert found == f"{count} {sum(1 << cpu for cpu in expected):x}\n"


@pytest.mark.virtual
@pytest.mark.parametrize("flags", [BIG_CORES, BIG_CORES | FASTEST])
def test_of_equal_cpus_those_that_the_program_was_given_are_taken(flags: int, counting: Path, tmp_path: Path) -> None:
    """Two programs that `taskset` keeps apart must not meet on the first CPU."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2 or cpus[-1] > 63:
        pytest.skip("needs two CPUs")
    shown = dict.fromkeys(range(64), 0) | dict.fromkeys(cpus, 1024)
    assert counted(counting, tmp_path, shown, (1, flags, 0, 1), cpus[-1:]) == f"1 {1 << cpus[-1]:x}\n"


@pytest.mark.virtual
def test_nothing_is_pinned_where_no_capacity_is_shown(counting: Path, tmp_path: Path) -> None:
    shown = dict.fromkeys(range(64), 0)
    assert counted(counting, tmp_path, shown, (2, BIG_CORES, 0, 2), sorted(os.sched_getaffinity(0))) == "2 0\n"


@pytest.mark.virtual
def test_zeros_mean_one_thread(counting: Path, tmp_path: Path) -> None:
    """They meant that before anyone could ask for the fastest number."""
    assert counted(counting, tmp_path, {}, (0, 0, 0, 4), sorted(os.sched_getaffinity(0))) == "1 0\n"
