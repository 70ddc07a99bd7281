"""`./studies/run`: every program of the studies has a name there, and a wrong name is an error."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from studies.__main__ import STUDIES, listing, main


def test_every_program_with_options_is_a_study(repository: Path) -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in (repository / "studies").rglob("*.py")}
    assert {path for path, text in texts.items() if "def main(options" in text} == set(STUDIES.values()) and len(STUDIES) > 15
    assert [path.name for path, text in texts.items() if "ArgumentParser(" in text] == ["harness.py"]


def test_without_a_name_it_lists_the_studies(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["studies"])
    assert main() == 0
    assert capsys.readouterr().out.strip() == listing().strip() and all(f"\n  {name} " in listing() for name in STUDIES)


def test_another_name_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["studies", "bench_pears"])
    assert main() == 1
    assert capsys.readouterr().err == "studies: error: there is no study 'bench_pears'.\nRun ./studies/run for their names.\n"
