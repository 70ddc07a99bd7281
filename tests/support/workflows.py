"""GitHub Actions workflows, read and run here as the runner would: each `run:` step by bash, in a checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

#: What the runner calls for `shell: bash`.
SHELL = ("bash", "--noprofile", "--norc", "-eo", "pipefail")
#: Who commits.
SOMEBODY = {
    f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "Some Body"), ("EMAIL", "s@example.invalid"))
}


@dataclass(frozen=True)
class Done:
    """A `run:` step that was executed."""

    name: str
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Workflow:
    """A workflow with a single job."""

    path: Path
    content: Mapping[Any, Any]
    text: str

    @property
    def triggers(self) -> Mapping[str, Any]:
        """The events that start it. YAML takes the word `on` for true."""
        found: Mapping[str, Any] = self.content[True]
        return found

    @property
    def job(self) -> Mapping[str, Any]:
        """Its job."""
        (job,) = self.content["jobs"].values()
        found: Mapping[str, Any] = job
        return found

    @property
    def steps(self) -> Sequence[Mapping[str, Any]]:
        """The job's steps."""
        found: Sequence[Mapping[str, Any]] = self.job["steps"]
        return found

    def step(self, name: str) -> Mapping[str, Any]:
        """Return the step of that name."""
        (found,) = [step for step in self.steps if step.get("name") == name]
        return found


def load_workflow(path: Path) -> Workflow:
    """Return the workflow in a file."""
    text = path.read_text()
    return Workflow(path, yaml.safe_load(text), text)


@dataclass
class Runner:
    """Runs a workflow's steps in a checkout.

    Attributes:
        variables: variables in place of the workflow's own `env`, whose expressions only GitHub knows.
        summary: the text that the steps wrote for the job's page.
    """

    checkout: Path
    variables: Mapping[str, str]
    scratch: Path
    done: list[Done] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """The text that was written to the job's page so far."""
        return self._summary.read_text() if self._summary.exists() else ""

    @property
    def _summary(self) -> Path:
        return self.scratch / "summary.md"

    def run(self, workflow: Workflow, *names: str) -> list[Done]:
        """Run the `run:` steps in order, or those named; after a failure those alone that run always."""
        unknown = set(workflow.content["env"]) - set(self.variables)
        assert not unknown, f"say what {unknown} should be"
        self._summary.unlink(missing_ok=True)
        self.done = []
        for step in workflow.steps:
            failed = any(one.code for one in self.done)
            wanted = "run" in step and (not names or step["name"] in names)
            if wanted and (not failed or step.get("if") == "always()"):
                self.done.append(self.execute(step))
        return self.done

    def execute(self, step: Mapping[str, Any]) -> Done:
        """Run one `run:` step."""
        script = self.scratch / "step.sh"
        script.write_text(step["run"])
        environment = {**os.environ, **self.variables, "CI": "true", "GITHUB_STEP_SUMMARY": str(self._summary)}
        ended = subprocess.run(
            [*SHELL, str(script)],
            cwd=self.checkout,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return Done(step["name"], ended.returncode, ended.stdout, ended.stderr)


def clone(repository: Path, folder: Path) -> Path:
    """Return a clean clone of what is committed, in which this Python serves as the one that the set-up would make.

    Making that takes minutes and the network; `test_setup_scripts.py` tests the set-up's own steps.
    """
    git(folder.parent, "clone", "--quiet", "--no-hardlinks", str(repository), str(folder))
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, words in (("python", '"$@"'), ("tvmmobile", '-m tvmmobile "$@"')):
        program = programs / name
        program.write_text(f'#!/bin/bash\nPYTHONPATH="$(dirname "$0")/../..:$PYTHONPATH" exec "{sys.executable}" {words}\n')
        program.chmod(0o755)
    key = subprocess.run(
        ["bash", "-c", 'source "$0/scripts/setup.sh"; _setup_key', str(folder)], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert re.fullmatch("[0-9a-f]{16}", key)
    (folder / ".venv" / f".set-up-{key}").touch()
    return folder


def git(folder: Path, *words: str) -> str:
    """Return git's output."""
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout
