"""Reads foreign JSON files; one sentence reports any fault and its place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from tvmmobile.system.errors import MOST_SHOWN, UserError, shown

#: A larger file is not one of ours, and would fill memory before it could be refused.
MOST_BYTES = 64 << 20
#: Nesting of objects and lists. Up to this depth, `json.dumps`, which recurses, can write what was read.
MOST_LEVELS = 32
_LARGEST_VERSION = 10**6

Value = TypeVar("Value")


@dataclass(frozen=True)
class FileKind:
    """A kind of file.

    Attributes:
        name: the kind's name, such as `a result file of tvmmobile`.
        remedy: remedy for any other file.
        made_by: the command that writes one.
    """

    name: str
    remedy: str
    made_by: str = ""

    def refusal(self, path: Path, problem: str) -> UserError:
        """Return the error for a `path` that is not such a file."""
        return UserError(f"{path} is not {self.name}: {problem}.", self.remedy)


def read_json(path: Path, kind: FileKind) -> tuple[str, Any]:
    """Read a JSON file, as text and as values; raise `UserError` if it is unreadable, too large, not JSON, or has a NaN or infinity."""
    text = _text(path, kind)
    if not text.strip():
        raise UserError(f"{path} is empty.", kind.remedy)
    try:
        content = from_json(text)
    except ValueError as error:
        problem = str(error)
        if problem.startswith("EOF"):
            raise UserError(f"{path} was cut off: {problem}.", kind.remedy) from error
        if problem.startswith("recursion limit"):
            raise kind.refusal(path, "it is nested too deeply") from error
        raise kind.refusal(path, f"it is not JSON, {problem}") from error
    _check_values(path, kind, content)
    return text, content


def check_version(path: Path, kind: FileKind, content: Any, readable: Sequence[int], parts: Sequence[str]) -> None:
    """Check that a file's content is an object with a `version` that can be read.

    Args:
        readable: versions that can be read, the newest last.
        parts: names that files of every version have besides.

    Raises:
        UserError: it is not.
    """
    if not isinstance(content, dict):
        raise kind.refusal(path, "it is not a JSON object")
    if absent := [name for name in ("version", *parts) if name not in content]:
        raise kind.refusal(path, f"it has no {' and no '.join(absent)}")
    version = content["version"]
    if type(version) is not int or abs(version) > _LARGEST_VERSION:
        raise kind.refusal(path, f"its version is {shown(version)}, not one of ours")
    if version not in readable:
        which = "of a newer tvmmobile" if version > readable[-1] else "which is no longer supported"
        known = f"{readable[0]} to {readable[-1]}" if len(readable) > 1 else str(readable[0])
        raise UserError(
            f"{path} has format {version}, {which}; this one reads {known}.", f"Read it with the version that wrote it, or: {kind.made_by}"
        )


#: Returns pydantic's reader of a type, which takes long to make.
reader_of = cache(TypeAdapter[Any])


def validated(path: Path, kind: FileKind, text: str, form: type[Value]) -> Value:
    """Read the text of `path` as a `form`; raise `UserError` with the first field that is missing, unknown or wrong."""
    try:
        value: Value = reader_of(form).validate_json(text)  # type: ignore[arg-type]  # every type is hashable
        return value
    except ValidationError as error:
        first, *others = error.errors(include_url=False)
        more = f" (and {len(others)} more)" if others else ""
        raise kind.refusal(path, _sentence(first["loc"], first["type"], first["msg"], first["input"]) + more) from error


def place(parts: Sequence[int | str]) -> str:
    """Write a place in a JSON file as text, e.g. `benchmarks[3].samples_us[0]`."""
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if part.isidentifier() and len(part) <= MOST_SHOWN else shown(part))
    return text or "the whole"


def _text(path: Path, kind: FileKind) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.", kind.remedy) from error
    if len(data) > MOST_BYTES:
        raise kind.refusal(path, f"it has more than {MOST_BYTES >> 20} MiB")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise kind.refusal(path, f"byte {error.start} is not UTF-8 text") from error


def _check_values(path: Path, kind: FileKind, content: Any) -> None:
    """Refuse values that would fail only later, in arithmetic or when written again."""
    waiting: list[tuple[tuple[int | str, ...], Any]] = [((), content)]
    while waiting:
        where, value = waiting.pop()
        if isinstance(value, float) and not math.isfinite(value):
            raise kind.refusal(path, f"{place(where)} is {value}, which is not a number")
        if len(where) > MOST_LEVELS:
            raise kind.refusal(path, f"{place(where[:3])} is nested too deeply")
        if isinstance(value, dict):
            waiting += reversed([((*where, key), inner) for key, inner in value.items()])
        elif isinstance(value, list):
            waiting += reversed([((*where, index), inner) for index, inner in enumerate(value)])


def _sentence(where: Sequence[int | str], problem: str, message: str, value: object) -> str:
    if problem == "missing":
        return f"{place(where)} is missing"
    if problem == "unexpected_keyword_argument":
        return f"{place(where)} is not known"
    if problem == "value_error":
        message = message.removeprefix("Value error, ")
        return f"{place(where)}: {message}" if where else message
    given = f" (it is {shown(value)})" if value is None or isinstance(value, int | float | str) else ""
    return f"{place(where)}: {message[0].lower()}{message[1:]}{given}"
