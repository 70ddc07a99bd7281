"""CONTRIBUTING.md, docs/layer-kinds.md and docs/core-models.md followed to the letter in a copy of the checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
GUIDE = "\n".join(
    (REPOSITORY / name).read_text(encoding="utf-8") for name in ("CONTRIBUTING.md", "docs/layer-kinds.md", "docs/core-models.md")
)
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
SECTIONS = (
    "A virtual board",
    "A core",
    "A schedule template",
    "A layer kind",
    "An operator's trait",
    "A graph pass",
    "A command",
    "An option",
)


def section(title: str) -> str:
    """Return the text below a heading, up to the next one."""
    return GUIDE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def follow(title: str, checkout: Path) -> tuple[set[str], set[str]]:
    """Do what a section says; the files it writes and edits."""
    text = section(title)
    made, edited = set(), set()
    for found in BLOCK.finditer(text):
        kind, content = found.group(2), textwrap.dedent(found.group(3))
        before = text[: found.start()].rstrip().splitlines()[-1]
        if kind in ("python", "toml"):
            (name,) = re.findall(r"Create `([^`]+)`", before)
            (checkout / name).write_text(content, encoding="utf-8")
            made.add(name)
        elif kind == "diff":
            subprocess.run(["git", "apply", "--unidiff-zero", "-"], input=content, text=True, cwd=checkout, check=True)
            edited.update(re.findall(r"^\+\+\+ b/(.*)$", content, re.MULTILINE))
        elif title == "A virtual board":
            known = set(checkout.rglob("*.toml"))
            subprocess.run(["sh", "-ec", content], cwd=checkout, check=True)
            made.update(path.relative_to(checkout).as_posix() for path in set(checkout.rglob("*.toml")) - known)
    return made, edited


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in which all of them were added."""
    copy = tmp_path_factory.mktemp("copy") / "checkout"
    for name in ("tvmmobile", "schedules", "tests/support"):
        shutil.copytree(REPOSITORY / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "tuning_logs").mkdir()
    (copy / "docs").mkdir()
    shutil.copy(REPOSITORY / "docs/commands.md", copy / "docs")
    for title in SECTIONS:
        follow(title, copy)
    return copy


def environment_of(checkout: Path) -> dict[str, str]:
    """Return the environment of a Python in the copy."""
    return os.environ | {"PYTHONPATH": ":".join(str(checkout / folder) for folder in ("", "tests", "tests/support"))}


def python(checkout: Path, *arguments: str) -> str:
    """Return the output of a Python in the copy."""
    environment = environment_of(checkout)
    done = subprocess.run([sys.executable, *arguments], cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


#: Runs the programs that it reads, a line of JSON each, and answers with what they print; PyTorch and TVM are imported once.
RUNS_PROGRAMS = """
import contextlib, io, json, sys
answers = sys.stdout
for line in sys.stdin:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(json.loads(line), {"__name__": "program"})
    print(json.dumps(printed.getvalue()), file=answers, flush=True)
"""


@pytest.fixture(scope="module")
def printed(checkout: Path) -> Iterator[Callable[[str], str]]:
    """Yield a function that returns a program's output, in one Python in the copy for all of them."""
    command = [sys.executable, "-c", RUNS_PROGRAMS]
    with subprocess.Popen(
        command, cwd=checkout, env=environment_of(checkout), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None

        def run(program: str) -> str:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps(program) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            assert answer, "the program failed; its traceback is above"
            return str(json.loads(answer))

        yield run
        process.stdin.close()


@pytest.mark.parametrize("title", SECTIONS)
def test_the_table_counts_the_files(title: str, tmp_path: Path) -> None:
    rooms = ("cli", "graph", "pipeline/options", "virtual/boards", "virtual/cores")
    for name in (*(f"tvmmobile/{room}" for room in rooms), "schedules", "docs"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.json", "*.svg"))
    made, edited = follow(title, tmp_path)
    anchor = title.lower().replace(" ", "-").replace("'", "")
    (row,) = re.findall(rf"^\| \[.*\]\(.*#{anchor}\).* \| (\d) \| (\d) \|", GUIDE, re.MULTILINE)
    assert (str(len(made)), str(len(edited))) == row


def test_the_board_is_a_device(checkout: Path) -> None:
    code = "from tvmmobile.devices.registry import find_device as f; p = f('r2s').profile; print(p.board, p.clock_hz, p.origin.kind)"
    assert python(checkout, "-c", code).split() == ["NanoPi", "R2S", "1300000000.0", "modelled"]


def test_the_core_is_known_and_its_schedule_counts(checkout: Path, tmp_path: Path) -> None:
    text = (REPOSITORY / "tvmmobile/virtual/boards/rk3566.toml").read_text(encoding="utf-8")
    board = tmp_path / "mine.toml"
    board.write_text(text.replace("cortex-a55", "cortex-a65").replace('name = "rk3566"', 'name = "mine"'), encoding="utf-8")
    code = f"""
from tvmmobile.devices.board.parts import part_of
from tvmmobile.devices.similar_cores import suitability
from tvmmobile.devices.registry import find_device
from tvmmobile.devices.virtual_board import VirtualDevice
from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.cores.corrected import CORES, corrected_version
board, pi4 = load_board({str(board)!r}), find_device("pi4-virtual").profile
mine = VirtualDevice("mine-virtual", board).profile
print(board.cpu, corrected_version(board.mcpu), CORES[board.mcpu](["nop"] * 8), mine.machine.has)
(own,) = (core for core in suitability([pi4, mine]).cores if core.core == 0x41D06)
print(part_of(0x41, 0xD06).mcpu, own.tuned, own.order)
"""
    assert python(checkout, "-c", code).splitlines() == ["Cortex-A65 1 4.0 ('half', 'dot')", "cortex-a65 1 (1, 0)"]


def test_the_template_takes_a_task_and_computes_what_pytorch_computes(printed: Callable[[str], str], tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from host_kernels import run_on_host
from tvmmobile.graph.layers import Pool
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import templates_for
for number, shape in enumerate(((7, 5, 22), (1, 1, 3), (3, 3, 8))):
    task = Task((Pool(*shape),))
    (template,) = [one for one in templates_for(task) if one.name == "pixel_mean"]
    for schedule in template.space(task).unpruned():
        path = Path({str(tmp_path)!r}, f"{{number}}_{{schedule.values['pixels']}}.so")
        print(schedule, run_on_host(task, schedule, path) <= 1e-5)
assert not [one for one in templates_for(Task((Pool(7, 5, 22),), threads=2)) if one.name == "pixel_mean"]
"""
    lines = printed(code).splitlines()
    assert len(lines) == 4 + 1 + 4 and all(line.startswith("pixel_mean@1(pixels=") and line.endswith(" True") for line in lines)


@pytest.mark.parametrize(("title", "lines"), [("A layer kind", [2, 2]), ("An operator's trait", [1])])
def test_few_lines_register_a_kind_and_a_trait(title: str, lines: list[int]) -> None:
    diffs = [found.group(3) for found in BLOCK.finditer(section(title)) if found.group(2) == "diff"]
    assert [len(re.findall(r"^ *[+-](?![+-]{2} )", diff, re.MULTILINE)) for diff in diffs] == lines


def test_the_layer_kind_computes_what_pytorch_computes_and_the_trait_keeps_a_batch_split(
    printed: Callable[[str], str], tmp_path: Path
) -> None:
    code = f"""
import torch
from pathlib import Path
from host_kernels import run_on_host
from small_networks import Lambda, error_against_torch, prepared, seeded
from tvmmobile.graph import operators
from tvmmobile.graph.layers.axis_max import AxisMax
from tvmmobile.graph.passes.split_batch import split_batch
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.serial import task_from_json, task_to_json
from tvmmobile.networks.frontend import import_torch
from tvmmobile.schedules import templates_for
for number, (shape, axis) in enumerate((((2, 5, 3, 3), 1), ((3, 4), 1), ((7,), 0))):
    task = Task((AxisMax(shape, axis),))
    assert task_from_json(task_to_json(task)) == task
    (template,) = templates_for(task)
    for schedule in template.space(task).unpruned():
        print(schedule, run_on_host(task, schedule, Path({str(tmp_path)!r}, f"{{number}}_{{schedule.values['lanes']}}.so")) == 0)
over = [Lambda(lambda x: x * torch.amax(x, 1, keepdim=True)), Lambda(lambda x: torch.amax(x, 3, keepdim=True))]
network, shape = seeded(torch.nn.Conv2d(3, 9, 3), *over), (1, 3, 9, 8)
print(*(node.layer.name for node in prepared(network, shape).nodes if isinstance(node.layer, AxisMax)))
print(error_against_torch(network, shape, Path({str(tmp_path)!r}, "network.so")) <= 1e-5)
batch = import_torch(seeded(torch.nn.Conv2d(3, 4, 3), Lambda(torch.atan), torch.nn.Conv2d(4, 4, 3)), (2, 3, 8, 8))
for _ in range(2):
    print(split_batch(batch).script().count("R.concat("))
    operators._TRAITS_OF.pop("relax.atan", None)
    operators.operators_with.cache_clear()
"""
    *kernels, names, agrees, split, unknown = printed(code).splitlines()
    assert kernels == [f"largest@1(lanes={lanes}) True" for _ in range(3) for lanes in (0, 1)]
    assert (names, agrees, split, unknown) == ("max_1x7x6x9_a3 max_1x7x6x9_a2", "True", "1", "2")


def test_the_pass_runs_in_the_pipeline(printed: Callable[[str], str], tmp_path: Path) -> None:
    code = f"""
import torch
from pathlib import Path
from tvmmobile.graph.passes.pipeline import compose
from tvmmobile.networks.frontend import import_torch
network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.ReLU()).eval()
module = import_torch(network, (1, 3, 8, 8))
(dumps := Path({str(tmp_path)!r})).mkdir(exist_ok=True)
print(module.script().count("relax.op.nn.relu") + module.script().count("R.nn.relu"))
compose(module, lambda layer: False, dumps)
"""
    words = printed(code).split()
    [dumped] = [path.read_text(encoding="utf-8") for path in tmp_path.glob("*_single_relu.py")]
    assert words == ["2"] and dumped.count("R.nn.relu") == 1


def test_the_command_shows_in_the_help_and_runs(checkout: Path) -> None:
    assert "boards    List the virtual boards." in python(checkout, "-m", "tvmmobile", "--help")
    assert "List the virtual boards." in python(checkout, "-m", "tvmmobile", "boards", "--help")
    assert "r2s: NanoPi R2S, 4 × Cortex-A53" in python(checkout, "-m", "tvmmobile", "boards").splitlines()
    assert "| `tvmmobile boards` |" in (checkout / "docs/commands.md").read_text(encoding="utf-8")


def test_the_option_is_one_of_commands_and_calls_and_reaches_the_job(printed: Callable[[str], str]) -> None:
    code = """
import inspect
import tvmmobile as tm
from pathlib import Path
from tvmmobile.cli import run
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.request import jobs_of
from tvmmobile.tuning.logs.directories import log_dirs
for call in tm.compile, tm.tune, tm.plan_tuning:
    print(inspect.signature(call).parameters["note"], "note: Line for readers of the manifest." in (call.__doc__ or ""))
given = tm.Model(tm.load("mobilenet_v1").spec), tm.find_device("pi4").profile
print(jobs_of(*given, LibraryOptions.of({"note": "ours"}), Path("out"), log_dirs(None), None)[0].options.note)
for verb in "compile", "tune":
    print(run([verb, "--out", "out", "--note", "ours\\n, too"]))
    run([verb, "--help"])
"""
    lines = printed(code).splitlines()
    assert lines[:3] == ["note: str | None = None True"] * 3 and lines[3] == "ours"
    assert [line for line in lines if line.isdigit()] == ["1", "1"]
    assert sum("--note TEXT" in line and line.endswith("Line for readers of the manifest.") for line in lines) == 2
