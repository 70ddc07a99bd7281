"""`tvmmobile history` on the command line: add, show, page, and `--history` of the commands that make results."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import CommandLine
from histories import commit, results, stepped

from tvmmobile.gate.kernel_changes import KernelChange
from tvmmobile.history.commits import Commit
from tvmmobile.history.file import open_history
from tvmmobile.history.page import schedule_change
from tvmmobile.history.series import SeriesFilter, over_commits
from tvmmobile.results.file import write_results


@pytest.fixture(scope="module")
def slower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty commits; the first of two variants becomes slower by 5 % at the 25th."""
    path = tmp_path_factory.mktemp("history") / "history.sqlite"
    stepped(path)
    return path


def test_results_are_added_once(cli: CommandLine, tmp_path: Path) -> None:
    path = str(tmp_path / "history.sqlite")
    files = [tmp_path / "report.json", tmp_path / "net.result.json"]
    for number, file in enumerate(files):
        write_results(results(number, (1.0, 1.0)), file)
    words = ("history", "add", path, *map(str, files), "--commit", "v1")
    assert cli(*words).out == f"{path}: 4 results added.\n"
    assert cli(*words).out == f"{path}: 0 results added, 4 were there already.\n"
    with open_history(path, add=False) as history:
        assert [(entry.name, entry.source, entry.baseline) for entry in history.entries()] == [("v1", "add", 0)] * 2 + [
            ("v1", "baseline", 1)
        ] * 2


def test_nothing_is_added_if_a_file_is_bad(cli: CommandLine, tmp_path: Path) -> None:
    write_results(results(1), tmp_path / "good.json")
    (tmp_path / "bad.json").write_text("{")
    path = tmp_path / "history.sqlite"
    outcome = cli("history", "add", str(path), str(tmp_path / "good.json"), str(tmp_path / "bad.json"), "--commit", "v1")
    assert outcome.code == 1 and "was cut off" in outcome.err and not path.exists()


def test_the_table_shows_latest_latencies_and_the_step(cli: CommandLine, slower: Path) -> None:
    outcome = cli("history", "show", str(slower))
    assert outcome.code == 0, outcome.err
    assert "pi4: measured on Raspberry Pi 4 Model B, Cortex-A72 at 1.8 GHz\nfloat32, 1 thread\n" in outcome.out
    row = next(line for line in outcome.out.splitlines() if line.strip().startswith("mobilenet_v1 1.0-224"))
    assert commit(25).name[:10] in row and " 40 " in row
    sentence = next(line for line in outcome.out.splitlines() if "95 % sure" in line)
    assert (
        sentence.startswith("mobilenet_v1 1.0-224 float32, 1 thread on pi4 (measured): +4.9% (+4.0% to +5.8%) at ")
        and "Change number 25" in sentence
    )
    kernel = outcome.out.splitlines()[outcome.out.splitlines().index(sentence) + 1]
    assert kernel.startswith("  kernel ") and "conv@1(rows=9)" in kernel
    assert "40 commits, 2 series, 1 step." in outcome.out
    assert max(map(len, outcome.out.splitlines()[:9])) <= 80


def test_filters_and_the_smallest_step(cli: CommandLine, slower: Path) -> None:
    assert "1 series" in cli("history", "show", str(slower), "--network", "1.0-224", "--device", "pi4", "--threads", "1").out
    assert "0 steps" in cli("history", "show", str(slower), "--least", "9").out
    outcome = cli("history", "show", str(slower), "--dtype", "int8")
    assert outcome.code == 1 and outcome.err.endswith("has no such results.\nSee all that it has: tvmmobile history show FILE\n")


def test_json_and_csv_have_all_numbers(cli: CommandLine, slower: Path) -> None:
    content = json.loads(cli("history", "show", str(slower), "--format", "json").out)
    (step,) = content["steps"]
    assert (
        content["commits"][step["after"]]["name"] == commit(25).name
        and step["earliest"] <= step["before"] < step["after"] <= step["latest"]
    )
    assert step["low"] < 0.05 < step["high"] and step["kernels"][0]["new_schedule"] == "conv@1(rows=9)"
    assert len(content["series"][0]["lines"][0]["points"]) == 40
    lines = list(csv.DictReader(io.StringIO(cli("history", "show", str(slower), "--format", "csv").out)))
    assert len(lines) == 80 and [line["commit"] for line in lines if line["change"]] == [commit(25).name]
    points = content["series"][0]["lines"][0]["points"]
    assert float(lines[0]["latency_us"]) == points[0]["latency_us"] and lines[0]["kind"] == "measured"


def test_modelled_and_measured_are_never_one_series(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    modelled, measured = results(1, measured=False), results(1)
    same = replace(measured, context=replace(measured.context, device=modelled.context.device))
    newer = replace(modelled, context=replace(modelled.context, timing_model="another", date="2026-12-01T00:00:00+00:00"))
    slow = replace(same, context=replace(same.context, clock_hz=1.5e9))
    with open_history(path, add=True) as history:
        for one in (modelled, same, newer, slow):
            history.add(one, commit(1), "bench")
    with open_history(path, add=False) as history:
        over = over_commits(history, SeriesFilter(), 0.01)
    assert sorted((one.kind, one.clock_hz, len(one.lines)) for one in over.series) == [
        ("measured", 1.5e9, 1),
        ("measured", 1.8e9, 1),
        ("modelled", 1.8e9, 2),  # of two timing models
    ]


def test_a_library_with_small_weights_has_a_series_of_its_own(cli: CommandLine, tmp_path: Path) -> None:
    path, found = tmp_path / "history.sqlite", results(1)
    small = replace(found.variants[0], name="small", weights_dtype="int8")
    both = replace(found, variants=(*found.variants, small))
    with open_history(path, add=True) as history:
        assert history.add(both, commit(1), "bench") == 2
        plain, other = over_commits(history, SeriesFilter(), 0.01).series
    assert [plain.holds(found.context, one) for one in both.variants] == [True, False]
    assert [other.holds(found.context, one) for one in both.variants] == [False, True]
    assert other.label == "mobilenet_v1 1.0-224 float32_int8weights, 1 thread"
    assert "1 series" in cli("history", "show", str(path), "--dtype", "float32_int8weights").out


def test_results_of_a_machine_that_hides_its_clock_are_shown(cli: CommandLine, tmp_path: Path) -> None:
    path, found = tmp_path / "history.sqlite", results(1)
    with open_history(path, add=True) as history:
        history.add(replace(found, context=replace(found.context, clock_hz=0.0)), commit(1), "bench")
    assert "Cortex-A72 at an unknown clock\n" in cli("history", "show", str(path)).out
    outcome = cli("history", "page", str(path), "--out", str(tmp_path))
    assert outcome.code == 0 and "at an unknown clock" in (tmp_path / "history.html").read_text(encoding="utf-8")


def test_dirty_trees_and_invalid_results_do_not_count(cli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    with open_history(path, add=True) as history:
        history.add(results(1), commit(1), "bench")
        history.add(results(2, (1.5,)), replace(commit(1), dirty=True), "bench")
        spoiled = results(3, (1.5,))
        invalid = replace(spoiled, variants=tuple(replace(variant, invalid="throttled") for variant in spoiled.variants))
        history.add(invalid, commit(2), "bench")
    outcome = cli("history", "show", str(path))
    assert "2 results of dirty trees, or not valid, do not count." in outcome.out and " 1 " in outcome.out
    with open_history(path, add=True) as history:
        history.add(invalid, Commit("x"), "bench")
        over = over_commits(history, SeriesFilter(), 0.01)
    assert [len(line.points) for one in over.series for line in one.lines] == [1]


def test_a_history_without_valid_results_says_so(cli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    with open_history(path, add=True) as history:
        history.add(results(2), replace(commit(1), dirty=True), "bench")
    shown = cli("history", "show", str(path)).out
    assert shown == "1 commit, 0 series, 0 steps.\n1 result of dirty trees, or not valid, does not count.\n"
    outcome = cli("history", "bisect", str(path), "--", "true")
    assert outcome.code == 1 and "all results are of dirty trees, or not valid" in outcome.err


def test_several_runs_of_a_commit_are_one_point(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    with open_history(path, add=True) as history:
        for number, factor in ((1, 1.0), (2, 1.21)):
            history.add(results(number, (factor,)), commit(1), "bench")
        (series,) = over_commits(history, SeriesFilter(), 0.01).series
    (point,) = series.current.points
    assert len(point.results) == 2 and point.latency_us == pytest.approx((results(1).variants[0].latency_us ** 2 * 1.21) ** 0.5, rel=1e-3)


def test_equal_runs_of_a_commit_are_that_latency(tmp_path: Path) -> None:
    """To the last digit: a rounded mean of logarithms is above the only sample."""
    median = 22.427047934290133
    with open_history(tmp_path / "history.sqlite", add=True) as history:
        for number in (1, 2):
            found = results(number, measured=False)
            (variant,) = found.variants
            history.add(replace(found, variants=(replace(variant, samples_us=(median,)),)), commit(1), "bench")
        (series,) = over_commits(history, SeriesFilter(), 0.01).series
    (point,) = series.current.points
    assert (len(point.results), point.latency_us, point.least_us) == (2, median, median)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("a@1(rows=4, columns=8)", "a@1(rows=4, columns=8)", ""),
        ("a@1(rows=4, columns=8)", "a@1(rows=6, columns=8, unroll=2)", "rows 4 → 6, unroll – → 2"),
        ("a@1(rows=4)", "b@2(rows=4)", "a@1 → b@2"),
        ("metaschedule(01)", "metaschedule(02)", "another schedule"),
        (None, "a@1()", "new kernel"),
        ("a@1()", None, "no longer there"),
        ("a@1(a=1, b=1, c=1, d=1, e=1)", "a@1(a=2, b=2, c=2, d=2, e=2)", "a 1 → 2, b 1 → 2, c 1 → 2, d 1 → 2…"),
    ],
)
def test_schedules_are_compared_in_few_words(old: str | None, new: str | None, words: str) -> None:
    assert schedule_change(KernelChange("k", old, new, 1.0, 2.0, 1, 1.0)) == words


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["bench", "{library}", "--out", "{folder}/out", "--commit", "v1"], "--commit is for a history"),
        (["bench", "{library}", "--out", "{folder}/out", "--history", "{other}", "--commit", "v1"], "is not a history of tvmmobile"),
        (
            ["tune", "--out", "{folder}/out", "--alpha", "0.25", "--resolution", "32", "--history", "{other}", "--commit", "v1"],
            "is not a history",
        ),
        (
            ["baseline", "save", "{report}", "--dir", "{folder}/b", "--history", "{other}", "--commit", "v1"],
            "is not a history of tvmmobile",
        ),
        (["history", "page", "{other}"], "is not a history of tvmmobile"),
        (["history", "show", "{folder}/none"], "does not exist"),
        (["history", "bisect", "{history}", "--", "true"], "has no step"),
    ],
)
def test_a_wrong_history_is_refused_before_any_work(cli: CommandLine, tmp_path: Path, words: list[str], complaint: str) -> None:
    from deployed import make_library

    names = {name: tmp_path / name for name in ("other", "report", "history")}
    names["other"].write_text("no history")
    write_results(results(1), names["report"])
    with open_history(names["history"], add=True) as history:
        history.add(results(1), commit(1), "bench")
    library = make_library(tmp_path / "made")
    outcome = cli(*(word.format(folder=tmp_path, library=library, **names) for word in words))
    assert outcome.code == 1 and complaint in outcome.err and len(outcome.err.splitlines()) == 2
    assert not (tmp_path / "out").exists() and not (tmp_path / "b").exists()


def test_a_saved_baseline_is_marked(cli: CommandLine, tmp_path: Path) -> None:
    path, report = tmp_path / "history.sqlite", tmp_path / "report.json"
    write_results(results(1), report)
    assert cli("history", "add", str(path), str(report), "--commit", "v1").code == 0
    assert cli("baseline", "save", str(report), "--dir", str(tmp_path / "b"), "--history", str(path), "--commit", "v1").code == 0
    with open_history(path, add=False) as history:
        assert [(entry.source, entry.baseline) for entry in history.entries()] == [("add", 1)]
