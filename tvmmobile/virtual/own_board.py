"""Writes a board's file for a user: all figures, and optionally its own calibration."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tvmmobile.system.errors import UserError, in_one_line
from tvmmobile.system.files import check_file_writable, write_text
from tvmmobile.virtual.board import VIRTUAL_SUFFIX, Board, is_board, read_board

#: Characters of a comment.
_MOST_REMARK = 300


def check_own_board(path: Path, option: str) -> None:
    """Raise `UserError` unless a new board's file can be written there, under a name that no other board has."""
    if path.suffix != ".toml":
        raise UserError(f"{path} is not the name of a board's file.", f"Give {option} a name that ends in .toml.")
    if is_board(path.stem.removesuffix(VIRTUAL_SUFFIX)):
        raise UserError(f"{path.stem} is the name of a built-in board.", f"Give {option} another name, such as my-{path.name}.")
    if path.exists():
        raise UserError(f"{path} already exists.", f"Give {option} the name of a new file.")
    check_file_writable(path, option)


def write_own_board(board: Board, path: Path, remarks: Sequence[str] = ()) -> Board:
    """Write a board under the file's name, with `remarks` as comments at the top; return the board read back."""
    named = board.model_copy(update={"name": path.stem})
    values = named.model_dump() | {name: getattr(named, name) for name in ("midr", "features", "assumed")}
    if named.clocks_hz:
        values["clocks_hz"] = named.clocks_hz
    if named.calibration is not None:
        own = named.calibration.model_dump()
        values["calibration"] = own | {"parameters": dict(own["parameters"])}
    write_text(path, "".join(f"# {in_one_line(remark, _MOST_REMARK)}\n" for remark in remarks) + _toml(values))
    return read_board(path)


def _toml(values: dict[str, Any], table: str = "") -> str:
    """Write tables after the plain values, as TOML needs; JSON writes numbers, booleans and printable text like TOML."""
    inner = {key: value for key, value in values.items() if isinstance(value, dict)}
    lines = [f"[{table}]\n"] if table and len(inner) < len(values) else []
    lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items() if key not in inner]
    text = ("\n" if table else "") + "".join(lines)
    return text + "".join(_toml(value, f"{table}.{key}" if table else key) for key, value in inner.items())
