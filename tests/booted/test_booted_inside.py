"""tvmmobile itself on a board that boots: README's commands in a clean clone, as an ordinary user, and the machine as its own device."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from booted_checkout import LONG_S, MachineRunner, clone_into, install, packages_asked_for
from booted_image import Image
from booted_machine import NETWORK, Machine, machine
from conftest import REPOSITORY
from page_commands import commands_of, readme_commands
from workflows import SOMEBODY, load_workflow

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
        said = self.machine.user("plain", f"export COLUMNS=80; cd tvmmobile && {command}", LONG_S)
        assert said.code == 0 and "Traceback" not in said.err, said
        return said.out + said.err


@pytest.fixture(scope="module")
def inside(debian: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    folder = tmp_path_factory.mktemp("machine")
    # PyTorch 2.10 has instructions that a Cortex-A72 lacks (pytorch/pytorch 176993); later builds do not.
    with machine(debian, folder, restricted=False, memory="8G", disk_size="24G", core="cortex-a76") as made:
        clone_into(made, folder)
        yield Inside(made)


def test_the_first_command(inside: Inside) -> None:
    first, _ = readme_commands()
    refused = inside.machine.user("plain", f"cd tvmmobile && {first}")
    install(inside.machine, packages_asked_for(refused))
    said = inside(first)
    assert "modelled" in said and "measured" not in said
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
    """Its steps in order, as docs/ci.md has it: without baselines the gate ends with 1; with them, all is well."""
    workflow = load_workflow(WORKFLOW)
    runner = MachineRunner(inside.machine, {**workflow.content["env"], **SOMEBODY}, tmp_path)
    first = {one.name: one for one in runner.run(workflow)}
    assert {name: one.code for name, one in first.items() if one.code} == {GATE: 1}, first
    assert "has no baseline" in first[GATE].err
    saved = runner.execute({"name": "save", "run": commands_of(REPOSITORY / "docs/ci.md", "Saving the baselines")})
    assert saved.code == 0, saved.err
    inside("./scripts/tvmmobile device remove arm-runner")
    again = runner.run(workflow)
    assert [one.code for one in again] == [0] * len(first), again
    assert "emulated" in inside("cat ../summary.md")


def test_the_second_command(inside: Inside) -> None:
    _, second = readme_commands()
    said = inside(f"{second} {SUBSET}")
    assert re.search(r"\d+ passed", said) and "failed" not in said
