"""`tvmmobile report`: which files become what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import CommandLine
from evaluations import CONTEXT, result
from report_samples import sample_results

from tvmmobile.accuracy.evaluation_file import evaluation_of, write_evaluation
from tvmmobile.results.file import Results, read_results, write_results


@pytest.fixture
def written(tmp_path: Path) -> list[Path]:
    """Three result files: the first half of the grid, the second half, and the first half again a day later on another device."""
    results = sample_results(4)
    context = results.context
    later = replace(context, date="2026-11-21T08:00:00+00:00")
    parts = [
        Results(context, results.variants[:2]),
        Results(later, results.variants[1:]),
        Results(replace(context, device="pi5-virtual", timing_model="5"), results.variants[:2]),
    ]
    paths = [tmp_path / name for name in ("first.json", "second.json", "other.json")]
    for part, path in zip(parts, paths, strict=True):
        write_results(part, path)
    return paths


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_one_file(cli: CommandLine, tmp_path: Path, written: list[Path]) -> None:
    outcome = cli("report", str(written[0]), "--out", str(tmp_path / "out"))
    assert outcome.code == 0 and "modelled" in outcome.out and outcome.err == ""
    assert _names(tmp_path / "out") == ["report-kernels.csv", "report.csv", "report.html", "report.json", "report.md"]
    assert outcome.out.splitlines()[-1].startswith(f"Written to {tmp_path / 'out'}: report.json, report.csv, report-kernels.csv, report.md")
    # Again onto itself: the result stays what it was.
    before = read_results(tmp_path / "out" / "report.json")
    assert cli("report", str(tmp_path / "out" / "report.json"), "--out", str(tmp_path / "out")).code == 0
    assert read_results(tmp_path / "out" / "report.json") == before


def test_accuracies_that_were_measured(cli: CommandLine, tmp_path: Path, written: list[Path]) -> None:
    """They are those of the results, by the library's digest."""
    results = read_results(written[0])
    context = replace(CONTEXT, library_sha256=results.variants[0].library_sha256)
    path, _ = write_evaluation(evaluation_of(context, [result("0/a.png", 0.0)]), tmp_path)
    outcome = cli("report", str(written[0]), "--accuracy", str(path), "--out", str(tmp_path / "out"))
    assert outcome.code == 0, outcome.err
    assert "measured on 1 image of val" in outcome.out and "Measured accuracy" in (tmp_path / "out" / "report.html").read_text()
    assert read_results(tmp_path / "out" / "report.json").variants[0].top1 == 100.0
    outcome = cli("report", *map(str, written[:2]), "--accuracy", str(path), "--out", str(tmp_path / "out"))
    assert outcome.code == 1 and "--accuracy is for one result" in outcome.err


def test_two_files_go_side_by_side(cli: CommandLine, tmp_path: Path, written: list[Path]) -> None:
    outcome = cli("report", str(written[0]), str(written[1]), "--out", str(tmp_path / "out"))
    assert outcome.code == 0 and "0.0%" in outcome.out and "old" in outcome.out and "tvmmobile compare" in outcome.out
    assert max(map(len, outcome.out.replace(str(tmp_path), "").splitlines())) <= 100
    assert _names(tmp_path / "out") == ["report-kernels.csv", "report.csv", "report.html", "report.md"]
    assert "Side by side" in (tmp_path / "out" / "report.html").read_text()


def test_joined_files_are_one_result(cli: CommandLine, tmp_path: Path, written: list[Path]) -> None:
    outcome = cli("report", "--join", *map(str, written[:2]), "--out", str(tmp_path / "out"))
    assert outcome.code == 0 and "mobilenet_v1_1.0_192_float32_t1 appears 2 times" in outcome.err
    joined = read_results(tmp_path / "out" / "report.json")
    assert len(joined.variants) == 4 and joined.context.date == "2026-11-21T08:00:00+00:00"
    assert "appears 2 times" in (tmp_path / "out" / "report.html").read_text()


def test_renamed_copies_are_not_merged(cli: CommandLine, tmp_path: Path, written: list[Path]) -> None:
    """A table would show one of them under the name of the other; in one file, or in two."""
    results = read_results(written[0])
    first, second = results.variants
    both = tmp_path / "both.json"
    write_results(replace(results, variants=(first, replace(first, name="copy"), second)), both)
    write_results(replace(results, variants=(replace(first, name="copy"),)), tmp_path / "copy.json")
    joined = ("--join", str(written[0]), str(tmp_path / "copy.json"))
    for words in ((str(both),), (str(both), str(both)), joined):
        outcome = cli("report", *words, "--out", str(tmp_path / "out"))
        assert outcome.code == 1 and f"{first.name} and copy have the same network" in " ".join(outcome.err.split()), words
    outcome = cli("models", "--results", str(written[0]), "--results", str(tmp_path / "copy.json"))
    assert outcome.code == 1 and f"{first.name} and copy have the same network" in " ".join(outcome.err.split())


def test_two_contexts_are_not_joined(cli: CommandLine, tmp_path: Path, written: list[Path]) -> None:
    outcome = cli("report", "--join", *map(str, written), "--out", str(tmp_path / "out"))
    assert outcome.code == 1 and "pi4-virtual" in outcome.err and "pi5-virtual" in outcome.err and "side by side" in outcome.err
    assert not (tmp_path / "out").exists()


def test_three_do_not_go_side_by_side(cli: CommandLine, written: list[Path]) -> None:
    outcome = cli("report", *map(str, written))
    assert outcome.code == 1 and "3 results cannot be shown side by side" in outcome.err and "--join" in outcome.err


def test_joining_replaces_none_of_its_files(cli: CommandLine, tmp_path: Path, written: list[Path]) -> None:
    inside = tmp_path / "out" / "report.json"
    inside.parent.mkdir()
    inside.write_bytes(written[0].read_bytes())
    outcome = cli("report", "--join", str(inside), str(written[1]), "--out", str(tmp_path / "out"))
    assert outcome.code == 1 and "would be replaced" in outcome.err
    assert inside.read_bytes() == written[0].read_bytes() and _names(tmp_path / "out") == ["report.json"]


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"version": 99}', "<html>"])
def test_what_is_no_result_is_said_to_be_none(cli: CommandLine, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "strange.json"
    if content is not None:
        path.write_text(content)
    outcome = cli("report", str(path), "--out", str(tmp_path / "out"))
    assert outcome.code == 1 and str(path) in outcome.err and "Traceback" not in outcome.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "complaint", "remedy"),
    [
        (("report", "report.json", "--out", "taken"), "Is a directory (taken/report.html)", "or choose another place."),
        (("report", "report.json", "--out", "lost"), "lost is a symbolic link that leads nowhere.", "Name another directory with --out."),
        (("history", "add", "report.json/history.sqlite", "report.json", "--commit", "v1"), "File exists", "or choose another place."),
    ],
)
def test_something_else_where_a_file_or_folder_is_needed(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], complaint: str, remedy: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_results(sample_results(1), tmp_path / "report.json")
    (tmp_path / "taken" / "report.html").mkdir(parents=True)
    (tmp_path / "lost").symlink_to("lost")
    outcome = cli(*words)
    assert outcome.code == 1 and complaint in outcome.err and remedy in outcome.err
