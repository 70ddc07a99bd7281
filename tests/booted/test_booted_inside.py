"""tvmmobile itself on a board that boots: README's commands in a clean clone, as an ordinary user, and the machine as its own device."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from booted_checkout import LONG_S, MachineRunner, clone_into, install, keep_set_up, packages_asked_for, set_up_disk, update_clone
from booted_image import Image
from booted_machine import NETWORK, Machine, machine
from conftest import REPOSITORY
from page_commands import commands_of, readme_commands
from workflows import SOMEBODY, Done, load_workflow

pytestmark = pytest.mark.long
WORKFLOW = REPOSITORY / "examples/ci/latency-arm-runner.yml"
GATE = "Compare with the baselines"
#: Of the second command's tests, those of an AArch64 machine that is its own device; all take days under emulation.
SUBSET = "tests/devices/test_local.py tests/devices/test_agent_build.py"


class Inside:
    """The ordinary user of a machine, in a clone."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def __call__(self, command: str) -> str:
        """Run a command that succeeds; returns what it said."""
        result = self.machine.user("plain", f"export COLUMNS=80; cd tvmmobile && {command}", LONG_S)
        assert result.code == 0 and "Traceback" not in result.err, f"{command}: {result.code}\n{result.out[-6000:]}\n{result.err[-6000:]}"
        return result.out + result.err


@contextmanager
def big_machine(image: Image, folder: Path, **options: Any) -> Iterator[Machine]:
    """A machine that PyTorch and TVM have room on, and that reaches what this one reaches."""
    # PyTorch 2.10 has instructions that a Cortex-A72 lacks (pytorch/pytorch 176993); later builds do not.
    with machine(image, folder, restricted=False, memory="8G", core="cortex-a76", **options) as made:
        yield made


@pytest.fixture(scope="module")
def inside(debian: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    """A machine whose ordinary user cloned and set up tvmmobile, which had said what to install as root."""
    folder = tmp_path_factory.mktemp("machine")
    disk = set_up_disk(debian)
    if not disk.exists():
        with big_machine(debian, folder / "first", disk_size="24G") as made:
            clone_into(made, folder)
            set_up = "./scripts/tvmmobile doctor"
            install(made, packages_asked_for(made.user("plain", f"cd tvmmobile && {set_up}")))
            Inside(made)(set_up)
            keep_set_up(made)
    with big_machine(debian, folder / "second", base=disk) as made:
        update_clone(made, folder)
        yield Inside(made)


def test_the_first_command(inside: Inside) -> None:
    first, _ = readme_commands()
    output = inside(first)
    assert "modelled" in output and "measured" not in output
    assert inside("ls out/*.so").count(".so") == 16


def test_the_machine_as_its_own_device(inside: Inside) -> None:
    assert "latencies are emulated" in inside("./scripts/tvmmobile device add here --local")
    assert "here is ready." in inside("./scripts/tvmmobile device check here")
    inside(f"cat >../network.py <<'end'\n{NETWORK}end")
    words = "--device here --model ../network.py:small --resolution 16 --trials 2 --logs ../logs --out ../own --require-hardware"
    tuned = inside(f"./scripts/tvmmobile tune {words}")
    assert "emulated on" in tuned and "measured on" not in tuned
    assert ", 0 trials to run" in inside(f"./scripts/tvmmobile tune {words}")
    assert inside.machine.leftovers() == []


def test_the_wheel(inside: Inside) -> None:
    """The clone's packages and the wheel's tvmmobile, without the clone."""
    inside("./scripts/build_wheel --out dist && .venv/bin/pip install -q --no-deps --target ../wheel dist/*.whl")
    python = "cd .. && PYTHONPATH=wheel tvmmobile/.venv/bin/python"
    assert "wheel/tvmmobile" in inside(f"{python} -c 'import tvmmobile; print(tvmmobile.__file__)'")
    assert "mobilenet_v1_0.25_128" in inside(f"{python} -m tvmmobile compile --alpha 0.25 --resolution 128 --out small")


def test_the_workflow_of_an_arm_runner(inside: Inside, tmp_path: Path) -> None:
    """Its steps in order, as docs/ci.md has it, with few trials: without baselines the gate ends with 1; with them, all is well."""
    workflow = load_workflow(WORKFLOW)
    runner = MachineRunner(inside.machine, {**workflow.content["env"], "TRIALS": "2", **SOMEBODY}, tmp_path)
    steps = [step["name"] for step in workflow.steps if "run" in step and not step.get("continue-on-error")]
    first = {one.name: one for one in runner.run(workflow, *steps)}
    assert {name: one.code for name, one in first.items() if one.code} == {GATE: 1}, _output(first.values())
    assert "has no baseline" in first[GATE].err
    saved = runner.execute({"name": "save", "run": commands_of(REPOSITORY / "docs/ci.md", "Saving the baselines")})
    assert saved.code == 0, saved.err
    inside("./scripts/tvmmobile device remove arm-runner")
    again = runner.run(workflow)
    assert [one.code for one in again] == [0] * (len(steps) + 1), _output(again)
    assert "emulated" in inside("cat ../summary.md")


def _output(steps: Iterable[Done]) -> str:
    return "".join(f"{one.name}: {one.code}\n{one.out[-3000:]}\n{one.err[-3000:]}\n" for one in steps)


def test_the_second_command(inside: Inside) -> None:
    _, second = readme_commands()
    output = inside(f"{second} {SUBSET}")
    assert re.search(r"\d+ passed", output) and "failed" not in output
