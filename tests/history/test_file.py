"""The history file: what is added is there, once, whole, whoever else writes or dies; what is no history is refused."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from histories import Writers, commit, git_in, results
from pydantic_core import to_json

from tvmmobile.history import file
from tvmmobile.history.commits import Commit, commit_of
from tvmmobile.history.file import FORMAT, History, open_history
from tvmmobile.results.file import read_results, write_results
from tvmmobile.system.errors import UserError


def entries(path: Path) -> list[file.Entry]:
    with open_history(path, add=False) as history:
        return history.entries()


def test_a_result_is_read_as_it_was_added(tmp_path: Path) -> None:
    path, found = tmp_path / "new" / "history.sqlite", results(7, (1.0, 1.1))
    with open_history(path, add=True) as history:
        assert history.add(found, commit(7), "bench") == 2
    first, second = entries(path)
    variant, context = found.variants[0], found.context
    assert (first.name, first.subject, first.time, first.dirty) == (commit(7).name, "Change number 7", commit(7).time, 0)
    assert (first.model, first.alpha, first.side, first.dtype, first.threads) == ("mobilenet_v1", 1.0, "224", "float32", 1)
    assert (first.device, first.kind, first.clock_hz, first.timing_model) == (context.device, "measured", 1.8e9, "")
    assert first.median_us == variant.latency_us and first.least_us == min(variant.samples_us) and first.samples == 5
    assert first.spread == pytest.approx(0.01, rel=0.1) and first.source == "bench" and second.median_us == found.variants[1].latency_us
    with open_history(path, add=False) as history:
        kernels = history.kernels(first.id)
    assert [(kernel.name, kernel.schedule, kernel.network_us, kernel.latency_us) for kernel in kernels] == [
        (kernel.name, kernel.schedule, kernel.network_us, kernel.latency_us) for kernel in variant.kernels
    ]


def test_adding_twice_adds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    with open_history(path, add=True) as history:
        assert history.add(results(1), commit(1), "bench") == 1
        assert history.add(results(1), commit(2), "add") == 0  # a run belongs to one commit
        assert history.add(results(2), commit(2), "bench") == 1
    assert [entry.name for entry in entries(path)] == [commit(1).name, commit(2).name]


def test_results_are_found_that_were_added_before_small_weights_were_known(tmp_path: Path) -> None:
    path, found = tmp_path / "history.sqlite", results(1)
    with open_history(path, add=True) as history:
        history.add(found, commit(1), "bench")
    known = to_json((found.context, found.variants[0])).replace(b',"weights_dtype":null', b"")
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT digest FROM results").fetchall() == [(hashlib.sha256(known).hexdigest(),)]


def test_the_name_of_a_file_that_is_not_utf8_is_added_as_its_report_has_it(tmp_path: Path) -> None:
    path, found = tmp_path / "history.sqlite", results(1)
    named = replace(found, variants=(replace(found.variants[0], name="n\udce9t", conditions={"a\udcff": ["\udcff"]}),))
    write_results(named, tmp_path / "report.json")
    with open_history(path, add=True) as history:
        assert history.add(named, commit(1), "bench", {"n\udce9t": "slower"}) == 1
        assert history.add(read_results(tmp_path / "report.json"), commit(1), "add") == 0
    (only,) = entries(path)
    assert only.verdict == "slower"


def test_a_baseline_and_a_verdict_are_marked_on_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    with open_history(path, add=True) as history:
        history.add(results(1), commit(1), "bench")
        assert history.add(results(1), commit(1), "baseline") == 0
        name = results(1).variants[0].name
        history.add(results(1), commit(1), "regress", {name: "slower"})
        history.add(results(1), commit(1), "add")
    (only,) = entries(path)
    assert (only.baseline, only.verdict, only.source) == (1, "slower", "bench")


def test_commits_are_in_the_order_of_their_times(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    with open_history(path, add=True) as history:
        for number in (5, 1, 3):
            history.add(results(number), commit(number), "bench")
        history.add(results(4), Commit("by hand"), "add")  # as old as its result
        history.add(results(3, (1.2,)), replace(commit(3), dirty=True), "bench")
    found = entries(path)
    assert [one.name for one in found] == [commit(1).name, commit(3).name, commit(3).name, "by hand", commit(5).name]
    assert [one.dirty for one in found] == [0, 0, 1, 0, 0]


def test_commits_of_one_second_are_in_the_order_of_their_ancestors(tmp_path: Path) -> None:
    """Git rebase makes such commits."""
    git_in(tmp_path, "init", "-q")
    names = []
    for number in range(4):
        git_in(tmp_path, "commit", "-q", "--allow-empty", "-m", str(number), "--date", "2026-11-20T08:00:00")
        names.append(git_in(tmp_path, "rev-parse", "HEAD"))
    with open_history(tmp_path / "history.sqlite", add=True) as history:
        for place in (2, 0, 3, 1):
            history.add(results(place), replace(commit_of(names[place], tmp_path), time=5), "bench")
    assert [entry.name for entry in entries(tmp_path / "history.sqlite")] == names


def changed(path: Path, statement: str) -> Path:
    database = sqlite3.connect(path)
    database.execute(statement)
    database.commit()
    database.close()
    return path


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda path: path.write_bytes(b"no database" * 1000), "is not an SQLite database"),
        (lambda path: path.write_text("{}"), "is not an SQLite database"),
        (lambda path: changed(path, "CREATE TABLE notes (text)"), "it is another database"),
        (lambda path: path.mkdir(), "is a directory"),
    ],
)
@pytest.mark.parametrize("add", [False, True])
def test_another_file_is_refused_and_left_alone(tmp_path: Path, make: object, complaint: str, add: bool) -> None:
    path = tmp_path / "other"
    make(path)  # type: ignore[operator]
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(UserError) as error, open_history(path, add=add):
        pass
    assert complaint in error.value.message or "is not a file" in error.value.message
    assert not path.is_file() or path.read_bytes() == before


@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        (f"PRAGMA user_version = {FORMAT + 1}", f"has format {FORMAT + 1}, of a newer tvmmobile; this one reads {FORMAT}"),
        ("CREATE TRIGGER evil AFTER INSERT ON results BEGIN DELETE FROM results; END", "it has other tables"),
        ("ALTER TABLE results ADD COLUMN more TEXT", "it has other tables"),
        ("DROP TABLE kernel_times", "it has other tables"),
        ("PRAGMA application_id = 7", "it is another database"),
    ],
)
@pytest.mark.parametrize("add", [False, True])
def test_other_versions_and_tables_are_refused(tmp_path: Path, statement: str, complaint: str, add: bool) -> None:
    path = tmp_path / "history.sqlite"
    with open_history(path, add=True) as history:
        history.add(results(1), commit(1), "bench")
    before = changed(path, statement).read_bytes()
    with pytest.raises(UserError, match=complaint), open_history(path, add=add):
        pass
    assert path.read_bytes() == before


@pytest.mark.parametrize("value", ["-1.0", "1e300", "9e999"])
def test_impossible_latencies_are_refused(tmp_path: Path, value: str) -> None:
    path = tmp_path / "history.sqlite"
    with open_history(path, add=True) as history:
        history.add(results(1), commit(1), "bench")
    with pytest.raises(UserError, match="is damaged"):
        entries(changed(path, f"UPDATE results SET median_us = {value}"))


def test_a_damaged_file_is_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    with open_history(path, add=True) as history:
        for number in range(20):
            history.add(results(number), commit(number), "bench")
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged|is not a history"):
        entries(path)


def test_a_file_that_is_missing_or_empty(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    with pytest.raises(UserError, match="does not exist"):
        entries(path)
    assert not path.exists()
    path.touch()
    with pytest.raises(UserError, match="it is empty"):
        entries(path)
    with open_history(path, add=True) as history:
        assert history.entries() == []


def test_a_folder_whose_name_is_not_utf8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9 %41?#")
    with open_history(folder / "history.sqlite", add=True) as history:
        history.add(results(1), commit(1), "bench")
    assert os.listdir(folder) == ["history.sqlite"] and entries(folder / "history.sqlite")


def test_a_date_that_is_none_is_refused(tmp_path: Path) -> None:
    found = results(1)
    with open_history(tmp_path / "history.sqlite", add=True) as history, pytest.raises(UserError, match="has an invalid date"):
        history.add(replace(found, context=replace(found.context, date="yesterday")), commit(1), "add")


def test_a_lock_is_waited_for_and_then_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history.sqlite"
    with open_history(path, add=True):
        pass
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(file, "_BUSY_S", 0.1)
    with pytest.raises(UserError, match=r"has been locked by another process for 0.1 s"), open_history(path, add=True):
        pass
    monkeypatch.setattr(file, "_BUSY_S", 30.0)
    threading.Timer(0.3, holder.rollback).start()
    with open_history(path, add=True) as history:
        assert history.add(results(1), commit(1), "bench") == 1


def test_an_interrupted_result_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history.sqlite"

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    with open_history(path, add=True) as history:
        history.add(results(1), commit(1), "bench")
        monkeypatch.setattr(History, "_kernel", interrupted)
        with pytest.raises(KeyboardInterrupt):
            history.add(results(2), commit(2), "bench")
        assert [entry.name for entry in history.entries()] == [commit(1).name]
    database = sqlite3.connect(path)
    assert database.execute("SELECT count(*) FROM commits").fetchone() == (1,)


def check_writers(writers: Writers, processes: int, each: int) -> None:
    """Everything that was acknowledged is there once and whole, in a sound file, with no journal left."""
    found: dict[str, list[str]] = {}
    database = sqlite3.connect(writers.path)
    kernels_of = "(SELECT count(*) FROM kernel_times WHERE result_id = results.id)"
    query = f"SELECT model, commits.name, {kernels_of} FROM results JOIN commits ON commits.id = commit_id"
    for model, name, kernels in database.execute(query):
        found.setdefault(model, []).append(name)
        assert kernels == 3
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    for writer in range(processes):
        assert sorted(writers.noted(writer)) == list(range(each))
        assert sorted(found[f"writer {writer}"]) == sorted(commit(number).name for number in range(each))
    assert [path.name for path in writers.path.parent.glob("history.sqlite*")] == ["history.sqlite"]


def test_several_writers_and_kills_lose_nothing(tmp_path: Path) -> None:
    writers = Writers(tmp_path, 4, 50)
    writers.run(kills=6, between_s=0.1)
    check_writers(writers, 4, 50)


@pytest.mark.long
def test_four_thousand_results_and_many_kills(tmp_path: Path) -> None:
    writers = Writers(tmp_path, 4, 1000)
    writers.run(kills=100, between_s=0.1)
    assert writers.kills > 50
    check_writers(writers, 4, 1000)


def test_the_commit_of_a_checkout(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a git checkout"):
        commit_of(None, tmp_path)
    assert commit_of("v1.0", tmp_path) == Commit("v1.0")
    git_in(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1")
    git_in(tmp_path, "add", "a")
    git_in(tmp_path, "commit", "-q", "-m", "First\n\nMore.")
    name = git_in(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "untracked").touch()
    found = commit_of(None, tmp_path)
    assert (
        (found.name, found.dirty, found.subject) == (name, False, "First") and found.time is not None and found.time > 1_112_000_000
    )  # git's first commit
    # With this setting git prints what it thinks of a commit's signature in front of the commit.
    judge = tmp_path / "gpg"
    judge.write_text("#!/bin/sh\necho gpg: Signature made >&2\nexit 1\n")
    judge.chmod(0o755)
    git_in(tmp_path, "config", "gpg.program", str(judge))
    git_in(tmp_path, "config", "log.showSignature", "true")
    signed = git_in(tmp_path, "cat-file", "commit", "HEAD").replace(
        "\n\n", "\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END\n\n", 1
    )
    (tmp_path / "signed").write_text(f"{signed}\n")
    git_in(tmp_path, "reset", "-q", "--soft", git_in(tmp_path, "hash-object", "-t", "commit", "-w", str(tmp_path / "signed")))
    assert commit_of(None, tmp_path) == replace(found, name=git_in(tmp_path, "rev-parse", "HEAD"))
    git_in(tmp_path, "reset", "-q", "--soft", name)
    (tmp_path / "a").write_text("2")
    assert commit_of(None, tmp_path) == replace(found, dirty=True)
    assert commit_of(name[:8], tmp_path) == found  # what is called by its name is not the tree
    for odd in ("", "--output=x", "a\nb"):
        with pytest.raises(UserError, match="cannot be the name of a commit"):
            commit_of(odd, tmp_path)
