"""`tvmmobile virtual run`: regions, threads, processes, what passes through, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandLine
from own_boards import calibrated_board, own_board, uncalibrated_board
from region_programs import build_program

from tvmmobile.system import files
from tvmmobile.system.errors import UserError
from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.calibration.terms import TERMS
from tvmmobile.virtual.program import _check_end, read_profile, run_program


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build_program(tmp_path_factory.mktemp("program")))


def start(*words: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tvmmobile", "virtual", "run", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, **settings)


def model(*words: str) -> dict[str, Any]:
    done = start("--json", "--", *words)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.virtual
def test_a_region_counts_alone(program: str) -> None:
    found = model(program, "region", "100000")
    assert 200_000 <= found["instructions"] < 200_100
    assert found["regions"] == 1 and found["kind"] == "modelled" and found["calibrated"] is True
    assert found["modelled_terms"] == ["core", "cache_hits", "lines_read", "stores"]
    assert found["core_cycles"] >= found["scheduled_core_cycles"] >= 100_000
    assert found["term_ms"]["core"] == pytest.approx(found["scheduled_core_cycles"] / 1.8e6)
    assert found["modelled_ms"] == pytest.approx(sum(found["term_ms"].values()))
    assert sum(found["term_shares"].values()) == pytest.approx(1)
    assert found["loads_from_l2"] + found["loads_from_memory"] + found["store_misses"] == found["l1d_misses"]
    assert found == model(program, "region", "100000")


@pytest.mark.virtual
def test_what_comes_before_the_warm_up_may_be_skipped(program: str) -> None:
    """Lines that the program read since then are in the caches, and what ran before is counted nowhere."""
    skipping = json.loads(start("--json", "--skip-start", "--", program, "watched", "100000").stdout)
    whole = model(program, "watched", "100000")
    assert skipping["instructions"] == whole["instructions"] > 200_000
    assert skipping["core_cycles"] == whole["core_cycles"]
    assert skipping["l1d_misses"] <= whole["l1d_misses"] + 3  # of the stack


@pytest.mark.virtual
@pytest.mark.parametrize(
    ("mode", "reason"),
    [("region", "a region begins before the program says what to watch"), ("whole", "it never says what to watch")],
)
def test_a_program_that_does_not_say_where_its_start_ends(program: str, mode: str, reason: str) -> None:
    done = start("--skip-start", "--", program, mode, "1000")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"cannot be modelled: {reason}." in done.stderr and "--skip-start" in done.stderr


@pytest.mark.virtual
def test_a_board_of_the_users_own(program: str, tmp_path: Path) -> None:
    own = own_board(tmp_path, clock_hz="0.9e9")
    found = json.loads(start("--board", own, "--json", "--", program, "region", "100000").stdout)
    assert found["board"] == "mine" and found["calibrated"] is True
    assert found["term_ms"]["core"] == pytest.approx(found["scheduled_core_cycles"] / 0.9e6)
    assert (
        "Calibrated on pi4 and rk3399-a72, which have the same core; no measurement"
        in start("--board", own, "--", program, "region", "9").stdout
    )
    missing = start("--board", str(tmp_path / "none.toml"), "--", program, "region", "9")
    assert missing.returncode == 1 and "there is no board file" in missing.stderr


@pytest.mark.virtual
def test_the_calibration_in_a_boards_own_file_is_applied(program: str, tmp_path: Path) -> None:
    own = load_board(str(calibrated_board(tmp_path / "mine.toml", stores=0.5)))
    mine, cores = (run_program(board, [program, "whole", "1000"]).modelled for board in (own, load_board("pi4")))
    assert mine.misses == cores.misses and mine.misses.stores and mine.calibrated
    changed = {name for name in cores.term_ms if mine.term_ms[name] != cores.term_ms[name]}
    assert changed == {"stores"} and mine.term_ms["stores"] == pytest.approx(0.5 * TERMS["stores"].amount_ms(own, mine.misses))


@pytest.mark.virtual
def test_an_uncalibrated_board_says_so(program: str, tmp_path: Path) -> None:
    own = uncalibrated_board(tmp_path)
    found = json.loads(start("--board", own, "--json", "--", program, "region", "100000").stdout)
    assert found["calibrated"] is False and found["modelled_terms"] == ["core"]
    assert found["modelled_ms"] == pytest.approx(found["scheduled_core_cycles"] / 1.8e6)
    done = start("--board", own, "--", program, "region", "100000")
    assert "mine is uncalibrated" in done.stdout and "core's alone" in done.stdout


@pytest.mark.virtual
def test_without_markers_the_whole_run_counts(program: str) -> None:
    found = model(program, "whole", "1000000")
    assert found["regions"] == 0
    assert 2_000_000 < found["instructions"] < 3_000_000  # and what starts and ends a C program


@pytest.mark.virtual
@pytest.mark.parametrize(
    ("what", "regions", "trips"), [("twice", 2, 2), ("child", 1, 1), ("fork", 1, 1), ("worker", 1, 1), ("helper", 1, 1)]
)
def test_regions_threads_and_processes(program: str, what: str, regions: int, trips: int) -> None:
    found = model(program, what, "100000")
    assert found["regions"] == regions
    assert trips * 200_000 <= found["instructions"] < trips * 200_000 + 5_000
    assert (found["other_threads_instructions"] > 10_000) == (what == "helper")


@pytest.mark.virtual
def test_another_threads_work_is_mentioned(program: str) -> None:
    done = start("--", program, "helper")
    assert done.returncode == 0
    assert "other threads executed" in done.stderr and "not modelled" in done.stderr


@pytest.mark.virtual
@pytest.mark.parametrize(
    ("what", "lines", "l1d", "l2", "dram_lines"),
    [
        ("reads", 256, 0, 0, 0),
        ("reads", 4096, 4096, 0, 0),  # 256 KiB: in the second level
        ("reads", 32768, 32768, 32768, 32768),  # 2 MiB: read again from memory
        ("writes", 32768, 32768, 32768, 65536),  # and written back
        ("straddle", 32768, 32769, 32769, 32769),  # two lines an access, the second one again
    ],
)
def test_caches(program: str, what: str, lines: int, l1d: int, l2: int, dram_lines: int) -> None:
    found = model(program, what, str(lines))
    noise = 40  # prctl's and main's own stack and code
    assert abs(found["l1d_misses"] - l1d) <= noise
    assert abs(found["l2_misses"] - l2) <= noise
    assert abs(found["dram_bytes"] - 64 * dram_lines) <= 64 * 2 * noise


@pytest.mark.virtual
def test_what_the_caches_do_not_see_is_said(program: str) -> None:
    done = start("--json", "--", program, "clear", "0")
    assert json.loads(done.stdout)["zeroed_lines"] > 16_000
    assert "DC ZVA" in done.stderr


@pytest.mark.virtual
def test_environment_input_and_output_pass_through(program: str) -> None:
    done = start("--json", "--", program, "echo", input="hello\n", env={"GREETING": "world", "PATH": "/usr/bin:/bin"})
    assert done.stdout.startswith("hello\nworld\n{") and done.stderr.startswith("to stderr\n")


def test_a_full_disk_is_not_taken_for_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="it became another program"):
        read_profile(tmp_path, 1, "program")
    monkeypatch.setattr(files, "_FULL_BYTES", 1 << 60)
    with pytest.raises(OSError, match="No space left on device"):
        read_profile(tmp_path, 1, "program")


@pytest.mark.virtual
def test_folders_whose_names_have_blanks_and_commas(program: str, tmp_path: Path) -> None:
    cache, temporary = tmp_path / "a cache, mine", tmp_path / "tmp,own"
    temporary.mkdir()
    settings = {"TVMMOBILE_CACHE": str(cache)}
    done = start("--", program, "region", env={**os.environ, **settings})
    assert (done.returncode, done.stderr) == (0, "")
    done = start("--", program, "region", env={**os.environ, "TMPDIR": str(temporary)})
    assert (done.returncode, done.stderr) == (0, ""), "QEMU's options end at a comma"
    done = start("--", program, "region", env={**os.environ, **settings, "TMPDIR": str(temporary)})
    assert done.returncode == 1 and "its name has a blank, colon or comma" in done.stderr


@pytest.mark.virtual
def test_top_shows_blocks_with_place_and_reason(program: str) -> None:
    done = start("--top", "2", "--", program, "region", "100000")
    assert done.returncode == 0
    assert "\n1. 100.0%: 100,000 × 1 cycles, program+0x" in done.stdout and "(spin+0x0)" in done.stdout
    assert "limited by branch ports" in done.stdout and "subs x0, x0, #1" in done.stdout and "b.ne" in done.stdout
    assert "Raspberry Pi 4 Model B, 1.8 GHz" in done.stdout and "modelled" in done.stdout
    assert "Calibrated on 10 networks" in done.stdout
    found = json.loads(start("--json", "--top", "1", "--", program, "reads", "4096").stdout)
    assert len(found["hottest"]) == 1
    assert found["hottest"][0]["assembly"][0] == "ldr\tq0, [x0], #64" and found["hottest"][0]["share"] > 0.9
    assert found["hottest"][0]["count"] in (4095, 4096)


@pytest.mark.virtual
@pytest.mark.parametrize(
    ("what", "complaint"),
    [
        ("crash", "was killed by SIGSEGV."),
        ("code", "exited with code 3."),
        ("unclosed", "a region was begun and never ended."),
        ("leave", "a region was begun and never ended."),
        ("unopened", "a region ends that was not begun."),
        ("nested", "a region begins inside a region."),
        ("two-threads", "regions begin in different threads."),
        ("children", "2 processes of"),
        ("crowd", "it has more than 32 threads at once."),
        ("exec", "left nothing to model"),
    ],
)
def test_runs_that_cannot_be_modelled(program: str, what: str, complaint: str) -> None:
    done = start("--", program, what)
    assert done.returncode == 1 and done.stdout == ""
    assert complaint in done.stderr and "Traceback" not in done.stderr


def test_programs_that_cannot_run(cli: CommandLine, tmp_path: Path) -> None:
    script, text, torn = tmp_path / "script", tmp_path / "text", tmp_path / "torn"
    script.write_text("#!/bin/sh\ntrue\n", encoding="utf-8")
    text.write_text("hello", encoding="utf-8")
    torn.write_bytes(Path("/bin/true").read_bytes()[:100])
    run = partial(cli, "virtual", "run")
    for arguments, complaint, remedy in [
        (["--", str(sys.executable)], "is a program for x86-64, not for AArch64.", "aarch64-linux-gnu"),
        (["--", str(tmp_path / "none")], "there is no program", "--sysroot"),
        (["--", "no-such-program"], "there is no program 'no-such-program'.", "--sysroot"),
        (["--", str(script)], "is a script.", "interprets it"),
        (["--", str(text)], "is not an executable that Linux can run.", "AArch64"),
        (["--", str(torn)], "is not an executable that Linux can run.", "AArch64"),
        (["--board", "pi3000", "--", "x"], "there is no virtual board 'pi3000'.", "pi4"),
        (["--threads", "5", "--", "x"], "has 4 cores, not 5.", "--threads 4"),
        (["--sysroot", str(tmp_path / "none"), "--", "x"], "is not a folder.", "scripts/sysroot"),
        ([], "Missing argument 'PROGRAM", "--help"),
    ]:
        outcome = run(*arguments)
        assert outcome.code == 1 and outcome.out == "", arguments
        assert complaint in outcome.err and remedy in outcome.err.splitlines()[-1], outcome.err


def test_a_loader_that_is_missing(cli: CommandLine, program: str, tmp_path: Path) -> None:
    outcome = cli("virtual", "run", "--sysroot", str(tmp_path), "--", program, "whole")
    if Path("/lib/ld-linux-aarch64.so.1").exists():
        pytest.skip("this machine has the loader in its own /lib")
    assert outcome.code == 1 and "ld-linux-aarch64.so.1, which is not in" in outcome.err


@pytest.mark.virtual
def test_a_program_is_found_in_its_sysroot(program: str, tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "lib").symlink_to("/usr/aarch64-linux-gnu/lib")
    (tmp_path / "usr/bin/counted").symlink_to(program)
    for name in ("counted", "/usr/bin/counted"):
        run = run_program(load_board("pi4"), [name, "region", "1000"], tmp_path)
        assert 2_000 <= run.core.instructions < 2_100


@pytest.mark.parametrize(("code", "complaint"), [(-11, "killed by SIGSEGV."), (-40, "killed by signal 40."), (3, "exited with code 3.")])
def test_ends_are_named(code: int, complaint: str) -> None:
    """A real-time signal has no name."""
    with pytest.raises(UserError, match=complaint):
        _check_end(code, "program")
