"""Board files as a user might write them, for the tests."""

from __future__ import annotations

import re
from pathlib import Path

from tvmmobile.virtual.board import BOARDS, Board, OwnCalibration, load_board
from tvmmobile.virtual.calibration.fit import calibration_of, fitted_with
from tvmmobile.virtual.calibration.terms import TERMS
from tvmmobile.virtual.own_board import write_own_board


def own_board(folder: Path, like: str = "pi4", **values: str) -> str:
    """Return the path of a file like that of a board that ships, with other values."""
    text = (BOARDS / f"{like}.toml").read_text(encoding="utf-8").replace(f'name = "{like}"', 'name = "mine"')
    for figure, value in values.items():
        text = re.sub(rf"(?m)^{figure} = \S+", f"{figure} = {value}", text)
    (folder / "mine.toml").write_text(text, encoding="utf-8")
    return str(folder / "mine.toml")


def calibrated_board(path: Path, like: Board | None = None, **shares: float) -> Path:
    """Write the file of a board with a calibration of its own: its core's with other shares, half of everything where it has none."""
    board = like or load_board("pi4")
    core = calibration_of(board)
    values = {p.name: p.value for p in core.parameters} if core else dict.fromkeys(TERMS, 0.5)
    own = OwnCalibration(
        fitted_with=fitted_with(board), points=20, mean_error=0.01, worst_error=0.03, parameters=tuple(sorted((values | shares).items()))
    )
    write_own_board(board.model_copy(update={"calibration": own}), path)
    return path


def uncalibrated_board(folder: Path) -> str:
    """Return the path of a file like the pi4's, but for a core that was never calibrated."""
    values = load_board("pi4").model_dump() | {"name": "mine", "mcpu": "cortex-a57"}
    lines = [f"{name} = {_toml(value)}" for name, value in values.items() if not isinstance(value, dict)]
    for name, table in values.items():
        if isinstance(table, dict):
            lines += [f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
    (folder / "mine.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(folder / "mine.toml")


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)
