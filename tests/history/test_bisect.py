"""`tvmmobile history bisect` in a real checkout: it names the commit, and leaves nothing behind, not even when it is interrupted."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import CommandLine, Outcome
from histories import git_in, results
from waiting import wait_until

from tvmmobile.history.commits import commit_of
from tvmmobile.history.file import open_history
from tvmmobile.results.file import write_results

COMMITS, AT = 12, 7
#: What stands for building and timing: the checkout holds the latency, or why there is none.
SCRIPT = """
import json, os, pathlib, sys, time
content, where = json.loads(pathlib.Path(sys.argv[1]).read_text()), pathlib.Path.cwd()
said = (where / "latency").read_text().split()
pathlib.Path(sys.argv[2]).open("a").write(said[0] + "\\n")
if said[0] == "hangs":
    time.sleep(600)
if said[0] == "broken":
    sys.exit(1)
(one,) = content["benchmarks"]
factor = float(said[0])
one["samples_us"] = [sample * factor for sample in one["samples_us"]]
for name in ("latency_us", "real_time", "cpu_time"):
    one[name] *= factor
runs = pathlib.Path(sys.argv[2]).read_text().split().count(said[0])
if "invalid" in said or ("spoiled" in said and runs == 1):
    one["invalid"] = "the clock fell to 0.6 GHz"
content["context"]["date"] = "2026-11-20T08:00:%02d+00:00" % int(said[1])
(where / "out").mkdir(exist_ok=True)
(where / "out" / "report.json").write_text(json.dumps(content))
"""


class Checkout:
    """A checkout with a commit for each number, and a history with results of the first and the last one."""

    def __init__(self, folder: Path, latencies: list[str], known: tuple[str, str] = ("1.0", "1.1")) -> None:
        self.folder, self.history, self.log = folder / "checkout", folder / "history.sqlite", folder / "log"
        self.folder.mkdir()
        (folder / "time_it.py").write_text(SCRIPT)
        write_results(results(0), folder / "template.json")
        git_in(self.folder, "init", "-q")
        self.names = []
        for number, latency in enumerate(latencies):
            factor, *state = latency.split()
            (self.folder / "latency").write_text(" ".join((factor, str(number), *state)))
            git_in(self.folder, "add", "latency")
            git_in(self.folder, "commit", "-q", "-m", f"Change {number}")
            self.names.append(git_in(self.folder, "rev-parse", "HEAD"))
        with open_history(self.history, add=True) as history:
            for number, factor in ((0, known[0]), (len(latencies) - 1, known[1])):
                history.add(results(number, (float(factor),)), commit_of(self.names[number], self.folder), "bench")

    @property
    def command(self) -> list[str]:
        """The command that times a commit."""
        return [sys.executable, *(str(self.folder.parent / name) for name in ("time_it.py", "template.json")), str(self.log)]

    @property
    def timed(self) -> list[str]:
        """Return the commits that were timed, in order."""
        return self.log.read_text().split() if self.log.exists() else []

    def check_clean(self) -> None:
        """No worktree, no folder and no change is left."""
        assert len(git_in(self.folder, "worktree", "list").splitlines()) == 1
        assert git_in(self.folder, "status", "--porcelain") == "" and git_in(self.folder, "rev-parse", "HEAD") == self.names[-1]


def bisect(cli: CommandLine, made: Checkout, monkeypatch: pytest.MonkeyPatch, *options: str) -> Outcome:
    monkeypatch.chdir(made.folder)
    words = options if options else ("--good", made.names[0][:12], "--bad", made.names[-1])
    return cli("history", "bisect", str(made.history), *words, "--", *made.command)


def stepped() -> list[str]:
    return ["1.1" if number >= AT else "1.0" for number in range(COMMITS)]


def test_the_commit_is_named_and_its_results_are_kept(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Checkout(tmp_path, stepped())
    outcome = bisect(cli, made, monkeypatch)
    assert outcome.code == 0, outcome.err
    assert outcome.out == f"{made.names[AT]} Change {AT}\nis the first with the new latency, after {made.names[AT - 1][:10]}.\n"
    assert len(made.timed) <= 4 and f"Change {AT}: " in outcome.err and "new latency" in outcome.err
    with open_history(made.history, add=False) as history:
        assert {entry.source for entry in history.entries()} == {"bench", "bisect"}
    made.check_clean()


def test_commits_that_cannot_be_timed_are_skipped(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    latencies = stepped()
    latencies[AT] = latencies[AT - 1] = latencies[5] = "broken"
    made = Checkout(tmp_path, latencies)
    outcome = bisect(cli, made, monkeypatch)
    assert outcome.code == 0 and "cannot be timed, skipped" in outcome.err
    assert outcome.out.startswith(f"{made.names[AT + 1]} ") and "3 commits between could not be timed" in outcome.out
    made.check_clean()


def test_a_commit_close_to_the_middle_is_timed_again(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    latencies = stepped()
    latencies[5] = "1.049"
    made = Checkout(tmp_path, latencies)
    assert bisect(cli, made, monkeypatch).code == 0
    assert made.timed.count("1.049") == 4
    made.check_clean()


def test_a_run_that_does_not_count_is_repeated(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    latencies = stepped()
    latencies[5], latencies[8] = "1.0001 spoiled", "1.1001 invalid"
    made = Checkout(tmp_path, latencies)
    outcome = bisect(cli, made, monkeypatch)
    assert outcome.code == 0 and outcome.out.startswith(f"{made.names[AT]} "), outcome.err
    assert (made.timed.count("1.0001"), made.timed.count("1.1001")) == (2, 4)
    assert f"{made.names[8][:10]} Change 8: cannot be timed, skipped (the clock fell to 0.6 GHz)" in outcome.err
    with open_history(made.history, add=False) as history:
        assert {entry.invalid for entry in history.entries()} == {"", "the clock fell to 0.6 GHz"}
    made.check_clean()


@pytest.mark.parametrize("program", ["./time_commit", "no-such-program", "/nowhere/time_commit", "./latency"])
def test_a_command_that_cannot_be_started_is_refused(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    made = Checkout(tmp_path, stepped())
    script = made.folder / "time_commit"  # not committed: it is in no commit's worktree
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.chdir(made.folder)
    outcome = cli("history", "bisect", str(made.history), "--good", made.names[0], "--bad", made.names[-1], "--", program)
    assert outcome.code == 1 and len(outcome.err.splitlines()) == 2, outcome.err
    assert f"{program} is not a program that can be started in commit {made.names[-1][:10]}" in outcome.err
    script.unlink()
    made.check_clean()


def test_commits_without_the_script_are_skipped(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Checkout(tmp_path, stepped())
    script = made.folder / "time_commit"
    script.write_text(f"#!/bin/sh\nexec {shlex.join(made.command)}\n")
    script.chmod(0o755)
    git_in(made.folder, "add", "time_commit")
    git_in(made.folder, "commit", "-q", "--amend", "-m", "The script")
    made.names[-1] = git_in(made.folder, "rev-parse", "HEAD")
    with open_history(made.history, add=True) as history:
        history.add(results(COMMITS, (1.1,)), commit_of(made.names[-1], made.folder), "bench")
    monkeypatch.chdir(made.folder)
    outcome = cli("history", "bisect", str(made.history), "--good", made.names[0], "--bad", made.names[-1], "--", "./time_commit")
    assert outcome.code == 1 and "no commit between" in outcome.err, outcome.err
    assert outcome.err.count("./time_commit cannot be started: No such file or directory") == COMMITS - 2
    made.check_clean()


def test_it_fails_where_no_commit_could_be_timed(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Checkout(tmp_path, ["broken"] * COMMITS)
    outcome = bisect(cli, made, monkeypatch)
    assert outcome.code == 1 and outcome.out == "" and len(made.timed) == COMMITS - 2, outcome.err
    assert f"no commit between {made.names[0][:10]} and {made.names[-1][:10]} could be timed." in outcome.err
    assert outcome.err.splitlines()[-1].startswith("Run the command in one of them to see why: git worktree add ../tried ")
    made.check_clean()


def test_neighbours_need_no_timing(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Checkout(tmp_path, ["broken"] * 2)
    outcome = bisect(cli, made, monkeypatch)
    assert outcome.code == 0 and outcome.out.startswith(f"{made.names[1]} Change 1\n") and made.timed == [], outcome.err


@pytest.mark.parametrize(
    ("known", "options", "complaint"),
    [
        (("1.0", "1.005"), [], "which noise explains"),
        (("1.0", "1.1"), ["--good", "-1", "--bad", "HEAD"], "cannot be the name of a commit"),
        (("1.0", "1.1"), ["--good", "HEAD~1", "--bad", "HEAD"], "has no result of HEAD~1"),
        (("1.0", "1.1"), ["--good", "HEAD", "--bad", f"HEAD~{COMMITS - 1}"], "is not an ancestor of"),
        (("1.0", "1.1"), ["--threads", "1"], "has no step"),
        (("1.0", "1.1"), ["--good", "HEAD"], "only one commit is given"),
        (("1.0", "1.1"), ["--device", "toaster"], "has no such results"),
    ],
)
def test_what_cannot_be_bisected(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: tuple[str, str], options: list[str], complaint: str
) -> None:
    made = Checkout(tmp_path, stepped(), known)
    outcome = bisect(cli, made, monkeypatch, *options)
    assert outcome.code == 1 and complaint in outcome.err and len(outcome.err.splitlines()) == 2
    assert made.timed == []
    made.check_clean()


def test_a_step_before_the_timing_model_changed_is_not_bisected(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Checkout(tmp_path, stepped())
    with open_history(made.history, add=True) as history:
        for number, factor, model in ((1, 1.0, "old"), (3, 1.1, "old"), (4, 1.1, "new"), (5, 1.1, "new")):
            found = results(number, (factor,), measured=False)
            found = replace(found, context=replace(found.context, timing_model=model))
            history.add(found, commit_of(made.names[number], made.folder), "bench")
    outcome = bisect(cli, made, monkeypatch, "--device", "pi4-virtual")
    assert outcome.code == 1 and "has no step since its board or timing model changed" in outcome.err, outcome.err
    assert made.timed == []


def test_results_of_something_else_are_refused(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Checkout(tmp_path, stepped())
    template = tmp_path / "template.json"
    content = json.loads(template.read_text())
    content["context"]["device"] = "pi5"
    template.write_text(json.dumps(content))
    outcome = bisect(cli, made, monkeypatch)
    assert outcome.code == 1 and "the command's result has no mobilenet_v1 1.0-224 float32, 1 thread on pi4" in outcome.err
    made.check_clean()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    latencies = stepped()
    latencies[5] = "hangs"
    made = Checkout(tmp_path, latencies)
    words = ["history", "bisect", str(made.history), "--good", made.names[0], "--bad", made.names[-1], "--", *made.command]
    script = tmp_path / "started"
    script.write_text(f"cd {shlex.quote(str(made.folder))} && exec {shlex.join([sys.executable, '-m', 'tvmmobile', *words])}")
    running = subprocess.Popen(["sh", str(script)], stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_until(lambda: "hangs" in made.timed, "the command", 60)
    running.send_signal(number)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number], errors
    made.check_clean()
    assert subprocess.run(["pgrep", "-f", str(tmp_path / "time_it.py")], capture_output=True, check=False).stdout == b""
