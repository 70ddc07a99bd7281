"""Board files as a user might write them, for the tests."""

from __future__ import annotations

import re
from pathlib import Path

from tvmmobile.virtual.board import BOARDS

PI4 = (BOARDS / "pi4.toml").read_text(encoding="utf-8")


def own_board(folder: Path, **values: str) -> str:
    """The path of a file like the pi4's, with other values."""
    text = PI4.replace('name = "pi4"', 'name = "mine"')
    for figure, value in values.items():
        text = re.sub(rf"(?m)^{figure} = \S+", f"{figure} = {value}", text)
    (folder / "mine.toml").write_text(text, encoding="utf-8")
    return str(folder / "mine.toml")
