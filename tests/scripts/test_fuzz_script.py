"""`./scripts/fuzz`: counts for each reader, and every fault with what shows it."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from hostile.fuzzing import Finding


@pytest.fixture
def script(repository: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The script's names; its folder and the tests' are on the path as it has them."""
    monkeypatch.setattr(sys, "path", [str(repository / "scripts"), *sys.path])
    return runpy.run_path(str(repository / "scripts" / "fuzz.py"), run_name="fuzz")


def _run(script: dict[str, Any], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["fuzz", *arguments])
    return int(script["main"]())


def test_counts_of_each_reader(script: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert _run(script, monkeypatch, "--reader", "maps", "--reader", "lease", "--inputs", "201", "--seed", "3") == 0
    heading, *rows, last = capfd.readouterr().out.splitlines()
    assert heading.split() == ["reader", "inputs", "a", "second", "accepted", "faults"]
    assert [(row.split()[0], row.split()[1], row.split()[4]) for row in rows] == [("lease", "101", "0"), ("maps", "101", "0")]
    assert last.startswith("202 inputs over 2 readers in 0.0 minutes: 0 faults")


def test_a_reader_that_is_not_there(script: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert _run(script, monkeypatch, "--reader", "mops") == 1
    assert capfd.readouterr().err.startswith("fuzz: error: there is no reader mops.\nReaders: record, log, ")


def test_a_fault_is_told_with_its_input(script: dict[str, Any]) -> None:
    finding = Finding("maps", 17, b"\xff" * 1000, "KeyError: 'x'", "virtual/elf.py:7")
    first, shown, again = script["description"](finding, 5).strip().splitlines()
    assert first == "maps: KeyError: 'x' (virtual/elf.py:7)" and shown.strip() == repr(b"\xff" * 400) + " and 600 bytes more"
    assert again.strip() == "./scripts/fuzz --reader maps --seed 5 --first 17 --inputs 1"
