"""One library for several devices: on each CPU it takes the kernels that suit it, and computes what that device's own library does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_libraries import CPU, OK, SYSROOT, answers_of, taking_program
from conftest import CommandLine

import tvmmobile as tm
from tvmmobile.devices.registry import find_device
from tvmmobile.pipeline.build import build
from tvmmobile.pipeline.compiled_library import CompiledLibrary
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.planning import plan_variant
from tvmmobile.pipeline.request import jobs_for
from tvmmobile.pipeline.sentences import differences, fewer_threads, without_baseline
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.logs.directories import log_dirs
from tvmmobile.tuning.records import Record
from tvmmobile.virtual.board import load_board

NETWORK = """
from torch import nn

def make():
    first = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish()
    depthwise = nn.Conv2d(16, 16, 3, 1, 1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU6()
    last = nn.Conv2d(16, 64, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)
    return nn.Sequential(*first, *depthwise, *last)
"""
DEVICES = ("pi4", "pi5")
ANY_CPU, FASTEST_THREADS = 2, 4
A53, A55, A72, A76 = (f"0x00000000{midr}\n" for midr in ("410fd034", "412fd050", "410fd083", "414fd0b1"))
TUNED, SIMILAR = "it was tuned for this core", "it was tuned for a similar core"


@dataclass(frozen=True)
class Libraries:
    """An int8 library for two devices, a library for each of them, and a program that prints which kernels a library takes and a hash of
    its output.
    """

    both: CompiledLibrary
    alone: tuple[CompiledLibrary, ...]
    program: Path

    def answers(self, library: CompiledLibrary, cpu: str, flags: int = 0, cpus: int = 0, root: Path = SYSROOT) -> tuple[int, list[str]]:
        """Return the program's exit code on a CPU of QEMU's, and its output, see `answers_of`."""
        return answers_of(self.program, library, cpu, flags, cpus, root)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Libraries:
    folder = tmp_path_factory.mktemp("several")
    (folder / "network.py").write_text(NETWORK)
    np.save(folder / "images.npy", np.random.default_rng(0).uniform(-1, 1, (4, 3, 32, 32)).astype(np.float32))
    model = tm.load(f"{folder / 'network.py'}:make", resolution=32)
    options: dict[str, Any] = {"dtype": "int8", "calibrate": folder / "images.npy"}
    both = tm.compile(model, DEVICES, out=folder / "both", **options)
    jobs = [
        jobs_for(model, [find_device(name).profile], LibraryOptions.of(options), folder / name, log_dirs(None), None)[0] for name in DEVICES
    ]
    alone = tuple(CompiledLibrary(**vars(build(job).library)) for job in jobs)
    return Libraries(both, alone, taking_program(folder))


@pytest.mark.virtual
@pytest.mark.parametrize(
    ("cpu", "place", "why"),
    [
        ("cortex-a53", 0, SIMILAR),
        ("cortex-a57", 0, SIMILAR),
        ("cortex-a72", 0, TUNED),
        ("cortex-a76", 1, TUNED),
        ("neoverse-n1", 1, SIMILAR),
        ("a64fx", 0, "the CPU has the instructions of its core"),  # no dot products
        ("max", 1, "the CPU has the instructions of its core"),
    ],
)
def test_a_cpu_takes_what_suits_it_and_computes_the_same_bits(built: Libraries, cpu: str, place: int, why: str) -> None:
    code, (device, reason, _, output, *_) = built.answers(built.both, cpu)
    assert (code, device, reason) == (OK, f"{DEVICES[place]}-virtual", why)
    _, (_, only, _, alone, *_) = built.answers(built.alone[place], cpu)
    assert alone == output and only == "there is no other"


@pytest.mark.virtual
def test_the_options_name_a_set(built: Libraries) -> None:
    """One whose instructions the CPU lacks is refused in words."""
    assert built.answers(built.both, "cortex-a76", 1 << 24)[1][:2] == ["pi4-virtual", "the options name it"]
    code, answers = built.answers(built.both, "cortex-a72", 2 << 24)
    assert code == CPU and "(nothing for cortex-a72, asimddp for cortex-a76, as /proc/cpuinfo names them)" in answers[0]
    assert built.answers(built.both, "cortex-a72", ANY_CPU)[1][0] == "pi4-virtual"


@pytest.mark.virtual
@pytest.mark.parametrize(
    ("shown", "cpus", "place"),
    [
        ([(A72, 0)], 0, 0),  # not what QEMU's own register says
        ([(A76, 0)], 0, 1),
        ([(A53, 400), (A76, 1024)], 1, 0),
        ([(A53, 400), (A76, 1024)], 2, 1),
        ([(A76, 1024), (A53, 400)], 3, 1),  # of one thread, the first of the CPUs counts
        ([(A72, 1024), (A76, 400)], 1, 0),
        ([("what\n", 0)], 0, 1),
        ([("", 0)], 0, 1),
        ([], 0, 1),  # the instruction tells
    ],
)
def test_linux_shows_the_cores(built: Libraries, shown: list[tuple[str, int]], cpus: int, place: int, tmp_path: Path) -> None:
    """The one that the threads are pinned to, or may run on, by what `/sys` shows of each CPU."""
    _write_cpus(tmp_path, shown)
    code, (device, *_) = built.answers(built.both, "cortex-a76", cpus=cpus, root=tmp_path)
    assert (code, device) == (OK, f"{DEVICES[place]}-virtual")


@pytest.mark.virtual
def test_the_largest_core_counts_where_threads_are_not_pinned(built: Libraries, tmp_path: Path) -> None:
    """It is determined by capacity, or by the table of cores if Linux shows none.

    Whatever `/sys` says, a CPU without dot products takes no kernels with them.
    """
    if len(os.sched_getaffinity(0)) < 2 or max(os.sched_getaffinity(0)) > 63:
        pytest.skip("needs two CPUs")
    numbers = sorted(os.sched_getaffinity(0))[:2]
    cases = [(((A55, 300), (A76, 1024)), 1), (((A76, 0), (A53, 0)), 1), (((A72, 1024), (A76, 500)), 0)]
    for number, (shown, place) in enumerate(cases):
        root = tmp_path / str(number)
        root.mkdir()
        _write_cpus(root, shown, numbers)
        assert built.answers(built.both, "cortex-a76", root=root)[1][0] == f"{DEVICES[place]}-virtual"
        assert built.answers(built.both, "cortex-a57", root=root)[1][0] == "pi4-virtual"


def _write_cpus(root: Path, shown: Sequence[tuple[str, int]], numbers: Sequence[int] | None = None) -> None:
    """Write what Linux shows of some CPUs below a root for QEMU: main ID registers, and capacities where they are not 0."""
    (root / "lib").symlink_to(SYSROOT / "lib")
    for number in range(64):
        (root / f"sys/devices/system/cpu/cpu{number}/regs/identification").mkdir(parents=True)
    for number, (midr, capacity) in zip(numbers or range(len(shown)), shown, strict=True):
        folder = root / f"sys/devices/system/cpu/cpu{number}"
        (folder / "regs/identification/midr_el1").write_text(midr)
        if capacity:
            (folder / "cpu_capacity").write_text(f"{capacity}\n")


@pytest.mark.virtual
def test_each_set_was_checked_and_is_in_the_manifest(built: Libraries) -> None:
    facts = built.both.facts
    assert facts.checked and facts.check.place == "QEMU's cortex-a72, QEMU's cortex-a76"
    assert [(kernel_set.device, kernel_set.cpu, kernel_set.needs) for kernel_set in facts.sets] == [
        ("pi4-virtual", "Cortex-A72", ()),
        ("pi5-virtual", "Cortex-A76", ("asimddp",)),
    ]
    for one, each in zip(built.alone, facts.sets, strict=True):
        assert one.facts.kernels == each.kernels and one.facts.target == each.target
        assert one.facts.program.workspace_bytes == each.workspace_bytes
    assert built.both.kernels_by_device["pi5-virtual"] == built.alone[1].kernels
    assert not any(differences("net", facts, find_device(name).profile) for name in DEVICES)
    assert "was compiled for cortex-a72, not for pi3bplus-virtual's cortex-a53" in differences(
        "net", facts, find_device("pi3bplus").profile
    )


@pytest.mark.virtual
def test_a_library_that_some_cpus_cannot_run_is_remarked_upon(built: Libraries) -> None:
    facts = built.both.facts
    assert without_baseline("net.so", facts) == without_baseline("net.so", built.alone[1].facts) == ""
    remark = without_baseline("net.so", facts.model_copy(update={"sets": facts.sets[1:]}))
    assert remark.startswith("net.so: all its kernels need instructions beyond Armv8.0, at least asimddp; its init refuses other CPUs.")


@pytest.mark.virtual
def test_devices_run_their_own_kernels(built: Libraries) -> None:
    (image,), (expected,) = built.both.reference()
    for place, name in enumerate(DEVICES):
        found = built.both.run(image, name)
        assert np.array_equal(found, built.alone[place].run(image, name)) and np.abs(found - expected).max() < 0.2


@pytest.mark.virtual
@pytest.mark.parametrize(("counts", "expected"), [((1, 2), (1, 2)), ((2,), (2, 2))])
def test_each_set_has_the_number_of_threads_that_was_fastest(
    counts: tuple[int, ...], expected: tuple[int, ...], built: Libraries, tmp_path: Path
) -> None:
    """By records of kernels tuned for 1 and 2 threads, which cost more than they save on one board. Without some, as many as it has."""
    (tmp_path / "network.py").write_text(NETWORK)
    model, logs = tm.load(f"{tmp_path / 'network.py'}:make", resolution=32), tmp_path / "logs"
    profiles = [find_device(name).profile for name in DEVICES]
    (job,) = jobs_for(model, profiles, LibraryOptions(threads=2), tmp_path, log_dirs(logs), None)
    for each, profile, slower in zip(job.sets, profiles, (1.5, 0.6), strict=True):
        database, clock_hz = Database(each.identity, (), logs), load_board(str(profile.board_file)).clock_hz
        for count in counts:
            plan = plan_variant(replace(each, options=replace(each.options, threads=count)))
            latency_us = 1000.0 if count == 1 else 1000.0 * slower
            schedules = {step.task: plan.choices[step.task].schedule for step in plan.steps}
            cycles = round(latency_us * clock_hz / 1e6)
            database.append([Record(task, schedule, latency_us, cycles=cycles) for task, schedule in schedules.items()])
    library = tm.compile(model, DEVICES, threads=2, out=tmp_path / "out", logs=logs, check=False)
    assert all(kernel.latency_us in (1500.0, 600.0) for kernel_set in library.facts.sets for kernel in kernel_set.kernels)
    assert library.fastest_threads == dict(zip(("pi4-virtual", "pi5-virtual"), expected, strict=True))
    assert [library.facts.on(profile).fastest_threads for profile in profiles] == list(expected)
    assert fewer_threads("net.so", library.facts).startswith("net.so: by") == (expected[0] < 2)
    cpus = len(os.sched_getaffinity(0))
    for cpu, threads in zip(("cortex-a72", "cortex-a76"), expected, strict=True):
        code, answers = built.answers(library, cpu, FASTEST_THREADS)
        assert (code, answers[4]) == (OK, str(min(threads, cpus)))
        assert built.answers(library, cpu)[1][3:5] == [answers[3], "1"]


def test_a_library_for_several_is_a_c_library_for_cores_that_differ(cli: CommandLine) -> None:
    network = "--alpha", "0.25", "--resolution", "128"
    cases = {
        ("--device", "pi4", "--device", "pi4"): "--device names pi4-virtual twice",
        ("--device", "pi4,pi4-1500"): "both have a Cortex-A72: a library tells cores apart",
        ("--device", "pi4,pi5", "--format", "vm"): "a library for several devices must be a C library",
        ("--device", "pi4,pi5", "--dtype", "float16"): "the cortex-a72 of Raspberry Pi 4 Model B does not have",
        ("--device", "pi4,pi5", "--dtype", "int8", "--calibrate", "noise:8", "--max-drop", "30dB"): "latency on one device",
        ("--device", "pi4,nowhere"): "there is no device 'nowhere'",
    }
    for words, problem in cases.items():
        done = cli("compile", *network, *words)
        assert done.code == 1 and problem in " ".join(done.err.split())


@pytest.mark.virtual
@pytest.mark.long
def test_a_published_network_is_as_fast_as_in_its_own_library(cli: CommandLine, tmp_path: Path) -> None:
    """Modelled, but for what the weights' addresses change in the caches. Shared weights make the file smaller than two."""
    words = "compile", "--alpha", "0.25", "--resolution", "128"
    for devices in ("pi4,pi5", *DEVICES):
        assert cli(*words, "--device", devices, "--out", str(tmp_path / devices)).code == OK
    (both,), *alone = (tm.open_libraries(tmp_path / name) for name in ("pi4,pi5", *DEVICES))
    assert both.path.stat().st_size < sum(one.path.stat().st_size for (one,) in alone)
    for name, (one,) in zip(DEVICES, alone, strict=True):
        mine, theirs = (library.bench(name).variants[0] for library in (both, one))
        assert mine.latency_us == pytest.approx(theirs.latency_us, rel=0.02)
        assert [(kernel.name, kernel.schedule) for kernel in mine.kernels] == [(kernel.name, kernel.schedule) for kernel in theirs.kernels]
        assert all(kernel.network_us is not None for kernel in mine.kernels)


def test_tuning_for_several_devices_refuses_what_their_library_cannot_have(cli: CommandLine, tmp_path: Path) -> None:
    """Before anything is tried."""
    words = "tune", "--alpha", "0.25", "--resolution", "128", "--out", str(tmp_path / "out")
    cases = {
        ("--device", "pi4,pi4-1500"): "both have a Cortex-A72",
        ("--device", "pi4,pi5", "--threads", "best"): "--threads best needs latencies on one device",
        ("--device", "pi4,pi5", "--fresh"): "--fresh starts the log of one device",
        ("--device", "pi4,pi5", "--format", "vm"): "a library for several devices must be a C library",
    }
    for more, problem in cases.items():
        done = cli(*words, *more)
        assert done.code == 1 and problem in " ".join(done.err.split())
    assert not any((tmp_path / "out").glob("**/*.so"))


@pytest.mark.virtual
@pytest.mark.long
def test_tuning_for_several_devices_ends_with_one_library(cli: CommandLine, tmp_path: Path) -> None:
    """Each device gets a report."""
    (tmp_path / "network.py").write_text(NETWORK)
    out = tmp_path / "out"
    network = "--model", f"{tmp_path / 'network.py'}:make", "--resolution", "32", "--logs", str(tmp_path / "logs")
    done = cli("tune", *network, "--trials", "1", "--device", ",".join(DEVICES), "--out", str(out))
    assert done.code == OK and "1 library with the kernels of 2 devices" in " ".join(done.out.split())
    (both,) = tm.open_libraries(out)
    assert [kernel_set.device for kernel_set in both.facts.sets] == [f"{name}-virtual" for name in DEVICES]
    for name in DEVICES:
        (alone,) = tm.open_libraries(out / f"{name}-virtual")
        assert not alone.facts.sets and (out / f"{name}-virtual/report.html").is_file()
        (image,), _ = both.reference()
        assert np.allclose(both.run(image, name), alone.run(image, name), atol=1e-5)
