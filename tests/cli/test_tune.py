"""`tune`, `compile` and `bench` answer bad input with one sentence and a remedy, at once, with nothing written."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from conftest import CommandLine, Outcome

from tvmmobile.system import doctor

SMALL = ("--alpha", "0.25", "--resolution", "32")


def refused(outcome: Outcome, code: int, complaint: str) -> None:
    """The command ended with `code` and two lines: what was wrong, and what to do."""
    assert outcome.code == code and outcome.out == ""
    lines = outcome.err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("tvmmobile: error: ") and complaint in lines[0]
    assert lines[1] and "Traceback" not in outcome.err


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("verb", ["tune", "compile"])
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--device", "toaster"], "no device 'toaster'"),
        (["--alpha", "0"], "width multiplier 0.0 is outside (0, 1]"),
        (["--alpha", "2"], "width multiplier 2.0 is outside (0, 1]"),
        (["--resolution", "7"], "resolution 7 is outside 32 to 512"),
        (["--model", "resnet"], "model 'resnet' is not known"),
        (["--target", "riscv"], "target 'riscv' is not known"),
        (["--threads", "0"], "--threads 0 is not a number of threads"),
        (["--threads", "two"], "--threads two is not a number of threads"),
        (["--threads", "9"], "9 threads exceed the 4 cores of Raspberry Pi 4 Model B"),
        (["--max-error", "0.01"], "--max-error bounds the error of float16"),
        *(
            (["--dtype", "float16", "--device", "pi5", "--max-error", error], "as a share above 0 and up to 1")
            for error in ("0", "-1", "nan", "inf", "1.5")
        ),
        (["--dtype", "int8", "--calibrate", ""], "--calibrate is empty"),
        (["--image", "--std", "-1"], "cannot normalise pixels"),
        (["--image", "--std", "0.5,1e-50,0.5"], "cannot normalise pixels"),
        (["--image", "--mean", "1e300"], "cannot normalise pixels"),
        (["--io-dtype", "float16"], "libraries in float32 cannot take and return float16"),
        (["--dtype", "float8"], "precision 'float8' is not known"),
        (["--dtype", "float16"], "float16 needs arithmetic that the cortex-a72 of Raspberry Pi 4 Model B does not have"),
        (["--dtype", "bfloat16", "--device", "pi5"], "bfloat16 needs arithmetic that the cortex-a76 of Raspberry Pi 5 does not have"),
        (
            ["--dtype", "bfloat16", "--device", "cobalt100-virtual", "--io-dtype", "bfloat16"],
            "libraries in bfloat16 cannot take and return bfloat16",
        ),
        (["--dtype", "int8"], "int8 needs images to calibrate with"),
        (["--calibrate", "noise:4"], "--calibrate is for int8, and --dtype is float32"),
        (["--keep", "0"], "--keep and --max-drop are for int8"),
        (["--dtype", "float16", "--max-drop", "1%", "--device", "pi5"], "--keep and --max-drop are for int8"),
        (["--dtype", "int8", "--max-drop", "1"], "--max-drop 1 is neither a signal-to-noise ratio nor a share"),
        (["--dtype", "int8", "--calibrate", "noise:4", "--max-drop", "1"], "--max-drop 1 is neither a signal-to-noise ratio nor a share"),
        (
            ["--dtype", "int8", "--calibrate", "noise:4", "--max-drop", "1%", "--classes", "1"],
            "--max-drop 1% counts classes, and mobilenet_v1_1.0_224 returns no scores of classes, but output: float32 [1, 1]",
        ),
        (["--dtype", "int8", "--calibrate", "nowhere"], "--calibrate nowhere does not exist"),
        (["--dtype", "int8", "--calibrate", "noise:4", "--io-dtype", "int8"], "libraries in int8 cannot take and return int8"),
        (["--dtype", "int8", "--calibrate", "noise:4", "--max-error", "0.1"], "--max-error bounds the error of float16"),
        (["--dtype", "int8", "--calibrate", "noise:4", "--checkpoint", "trained.pth"], "noise cannot calibrate trained weights"),
        (["--seed", "-1"], "Invalid value for '--seed'"),
        (["--seed", str(2**63)], "Invalid value for '--seed'"),
    ],
)
def test_bad_options(cli: CommandLine, tmp_path: Path, verb: str, arguments: list[str], complaint: str) -> None:
    refused(cli(verb, "--out", "results", *arguments), 1, complaint)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["--strategy", "magic"], 1, "strategy 'magic' is not known"),
        (["--fresh", "--logs", "logs"], 1, "--fresh and --logs exclude each other"),
        (["--trials", "-1"], 1, "Invalid value for '--trials'"),
        (["--require-hardware"], 3, "no board is registered as 'pi4'"),
    ],
)
def test_bad_options_of_tune(cli: CommandLine, tmp_path: Path, arguments: list[str], code: int, complaint: str) -> None:
    refused(cli("tune", *SMALL, "--out", "results", *arguments), code, complaint)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--out", "--logs", "--dump-ir"])
@pytest.mark.parametrize(
    ("place", "complaint"),
    [
        ("file", "is a file"),
        ("file/below", "file is not a directory"),
        # Nobody can create anything here, root included.
        ("/proc/results", "/proc cannot be written"),
    ],
)
def test_places_that_cannot_be_written(cli: CommandLine, tmp_path: Path, option: str, place: str, complaint: str) -> None:
    (tmp_path / "file").write_text("important")
    refused(cli("tune", *SMALL, option, place), 1, complaint)
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "important"


@pytest.mark.parametrize("verb", ["tune", "compile"])
def test_no_cross_compiler(cli: CommandLine, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, verb: str) -> None:
    programs = tmp_path_factory.mktemp("bin")
    for tool in doctor.TOOLS:
        for name in (name for name in tool.programs if "linux-gnu" not in name):
            found = shutil.which(name)
            if found:
                (programs / name).symlink_to(found)
    doctor.version_of.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(programs))
        patch.setattr("tvmmobile.system.toolchain.zig_program", lambda: None)
        outcome = cli(verb, *SMALL, "--out", "results")
    doctor.version_of.cache_clear()
    refused(outcome, 1, "aarch64-linux-gnu-gcc is missing")
    assert f"apt-get install -y {doctor.CROSS_PACKAGE}" in outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["garbage", "torn", "names"])
def test_a_bad_checkpoint(cli: CommandLine, tmp_path: Path, damage: str) -> None:
    import torch

    path = tmp_path / "weights.pt"
    torch.save({"fc.weight": torch.zeros(3, 3)}, path)
    if damage == "torn":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "garbage":
        path.write_bytes(os.urandom(1000))
    (tmp_path / "logs").mkdir()
    verb = "tune" if damage == "garbage" else "compile"  # each starts worker processes, which takes seconds
    complaint = f"checkpoint {path} " + ("lacks" if damage == "names" else "cannot be read")
    refused(cli(verb, *SMALL, "--out", "results", "--logs", "logs", "--checkpoint", str(path)), 1, complaint)
    assert sorted(found.name for found in tmp_path.rglob("*")) == ["logs", "weights.pt"]


@pytest.mark.parametrize(
    ("content", "argument", "complaint"),
    [
        ({}, "missing", "missing does not exist"),
        ({"net.so": "x"}, "net.so", "net.json does not exist"),
        ({}, ".", "no library in ."),
        ({"net.so": "x", "net.json": "{}", "net.reference.npz": ""}, ".", "net.json is not a manifest of tvmmobile"),
        ({"net.so": "x", "net.json": "\x00", "net.reference.npz": ""}, "net.so", "net.json is not a manifest of tvmmobile"),
    ],
)
def test_bench_wants_whole_libraries(cli: CommandLine, tmp_path: Path, content: dict[str, str], argument: str, complaint: str) -> None:
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    refused(cli("bench", argument, "--out", "results"), 1, complaint)
    assert {path.name for path in tmp_path.iterdir()} == set(content)


def test_compile_cannot_tell_the_best_number_of_threads(cli: CommandLine) -> None:
    refused(cli("compile", *SMALL, "--threads", "best"), 1, "--threads best needs latencies on one device, and compile runs nothing")


def test_compile_wants_records(cli: CommandLine, tmp_path: Path) -> None:
    refused(cli("compile", *SMALL, "--out", "results", "--logs", "logz"), 1, "--logs logz does not exist")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("names", "complaint"), [(" ,", "no device was given"), ("pi4,pi4-virtual", "names pi4-virtual twice")])
def test_a_dry_run_refuses_the_devices_that_a_run_refuses(cli: CommandLine, names: str, complaint: str) -> None:
    outcome = cli("tune", *SMALL, "--dry-run", "--device", names)
    assert outcome.code == 1 and complaint in outcome.err and outcome.out == ""


def test_a_dry_run_writes_nothing(cli: CommandLine, tmp_path: Path) -> None:
    outcome = cli("tune", *SMALL, "--trials", "0", "--logs", "logs", "--out", "results", "--dry-run")
    assert outcome.code == 0 and "nothing was run" in outcome.out
    kernels = re.search(r"(\d+) distinct kernels?", outcome.err)
    # Names of more than a line are broken anywhere.
    assert kernels and re.sub(r"\s", "", outcome.out).count("_float32_t1") == int(kernels[1]) >= 28
    assert "…" not in outcome.out and max(map(len, outcome.out.splitlines())) <= 80
    assert list(tmp_path.iterdir()) == []


def test_without_trials_the_logs_need_not_be_writable(cli: CommandLine, tmp_path: Path) -> None:
    outcome = cli("tune", *SMALL, "--trials", "0", "--logs", "/proc/logs", "--out", "results", "--dry-run")
    assert outcome.code == 0 and list(tmp_path.iterdir()) == []


@pytest.mark.virtual
def test_without_a_number_of_trials_what_the_shipped_logs_know_is_enough(cli: CommandLine) -> None:
    """The first command of the README only compiles, verifies and reports."""
    words = ("tune", "--alpha", "1.0", "--resolution", "192", "--out", "results", "--dry-run")
    shipped, asked, empty = cli(*words), cli(*words, "--trials", "1000"), cli(*words, "--logs", "logs")
    counts = [re.search(r"(\d+) records?, (\d+) trials? to run", outcome.err) for outcome in (shipped, asked, empty)]
    (records, none), (same, more), (zero, all_of_them) = ([int(group) for group in count.groups()] for count in counts if count)
    assert records == same > 0 == none == zero and all_of_them > more >= 0
    assert "0 trials to run\n" in shipped.err and "trials to run, then up to 1000 for each" in asked.err
