"""`tvmmobile logs rescore`: refusals at once, and a log of one kernel scored again on the virtual board."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import CommandLine
from log_samples import SMALL_KERNEL as KERNEL
from log_samples import old_log

from tvmmobile.devices.registry import find_device


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["--device", "toaster"], 1, "no device 'toaster'"),
        (["--keep", "0"], 1, "Invalid value for '--keep'"),
        (["--jobs", "0"], 1, "Invalid value for '--jobs'"),
        ([], 1, "has no records of pi4-virtual of another timing model"),
        (["--logs", "nowhere"], 1, "nowhere has no records of pi4-virtual"),
    ],
)
def test_refusals(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, complaint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = cli("logs", "rescore", *arguments)
    assert outcome.code == code and outcome.out == "" and complaint in outcome.err
    assert len(outcome.err.splitlines()) == 2 and "Traceback" not in outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.virtual
def test_a_log_is_scored_again(cli: CommandLine, tmp_path: Path) -> None:
    path = old_log(tmp_path / "logs", 3)
    outcome = cli("logs", "rescore", "--logs", str(tmp_path / "logs"), "--keep", "2", "--jobs", "1")
    assert outcome.code == 0, outcome.err
    assert "1 kernel, 2 schedules to measure" in outcome.err
    words = " ".join(outcome.out.split())
    assert f"{KERNEL.name} best 1.0 us by the old model, " in words and "of 2 ranks changed" in words
    assert "1 kernel, 2 schedules, 0 failed" in words
    *records, others = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["model"] for record in (*records, others)] == 3 * [find_device("pi4").profile.origin.model]
    assert others["kept"] == [] and [len(digests) for digests in others["dropped"].values()] == [4]  # the third was tried
    assert all(record["latency_us"] > record["cycles"] / 1.8e3 for record in records)  # misses are in it
    assert all(abs(sum(record["terms_us"].values()) - record["latency_us"]) < 1e-3 for record in records)
    assert len(path.with_name(path.name + ".bak").read_text().splitlines()) == 5
    again = cli("logs", "rescore", "--logs", str(tmp_path / "logs"))
    assert again.code == 1 and "of another timing model than the current one" in again.err
