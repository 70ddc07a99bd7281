"""The shell commands on a page of the documentation, which tests run unchanged."""

from __future__ import annotations

import re
from pathlib import Path

from conftest import REPOSITORY


def commands_of(page: Path, heading: str | None = None) -> str:
    """Return the text of all blocks marked `sh`, or of those below a heading of the page; "" is what comes before the first."""
    text = page.read_text(encoding="utf-8")
    if heading is not None:
        headings = ["", *re.findall(r"^## (.*)$", text, re.MULTILINE)]
        text = dict(zip(headings, re.split(r"^## .*$", text, flags=re.MULTILINE), strict=True))[heading]
    return "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))


def readme_commands() -> list[str]:
    """Return the README's commands, without their comments."""
    return [line.partition(" #")[0].strip() for line in commands_of(REPOSITORY / "README.md").splitlines()]
