"""Board files as a user might write them, for the tests."""

from __future__ import annotations

import re
from pathlib import Path

from tvmmobile.virtual.board import BOARDS


def own_board(folder: Path, like: str = "pi4", **values: str) -> str:
    """The path of a file like that of a board that ships, with other values."""
    text = (BOARDS / f"{like}.toml").read_text(encoding="utf-8").replace(f'name = "{like}"', 'name = "mine"')
    for figure, value in values.items():
        text = re.sub(rf"(?m)^{figure} = \S+", f"{figure} = {value}", text)
    (folder / "mine.toml").write_text(text, encoding="utf-8")
    return str(folder / "mine.toml")
