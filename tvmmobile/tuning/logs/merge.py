"""Merges tuning logs of several machines; each schedule is kept once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from tvmmobile.system.arguments import one_or_several
from tvmmobile.system.environment import TVM_VERSION
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import write_bytes
from tvmmobile.tuning.claims import RefusedLine, short
from tvmmobile.tuning.logs.directories import Present, present_identity
from tvmmobile.tuning.logs.files import content_of, file_name, locked, log_paths, writing
from tvmmobile.tuning.logs.inspection import (
    Key,
    dropped_keys,
    files_of,
    is_log_name,
    keys_of,
    model_name,
    read_lines,
    refusal,
    settled_content,
)
from tvmmobile.tuning.records import Identity, Line
from tvmmobile.tuning.trials import digest, family

#: Device names that are safe as names of folders.
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


@dataclass(frozen=True)
class MergedLog:
    """A log that records were merged into, with the numbers of records that were new, and that it had already or that came twice."""

    path: Path
    new: int
    known: int


@dataclass(frozen=True)
class Merged:
    """The result of a merge: the logs that records were merged into, and the lines that were omitted."""

    joined: tuple[MergedLog, ...]
    refused: tuple[RefusedLine, ...]


@dataclass(frozen=True)
class _ParsedLine:
    """A line of a source, with its file and number."""

    path: Path
    number: int
    text: bytes
    held: Line

    @property
    def identity(self) -> Identity:
        return self.held.identity

    def is_known(self, known: Set[Key]) -> bool:
        """Return whether the keys `known` cover all trials of this line; a schedule may be known by its digest alone."""
        for record in self.held.records:
            forms = [record.schedule] if record.again else [record.schedule, (family(record.schedule), digest(record.schedule))]
            if not any((self.identity, self.held.task, form, record.again) in known for form in forms):
                return False
        return dropped_keys(self.held) <= known


def merge_logs(sources: str | Path | Sequence[str | Path], into: str | Path) -> Merged:
    """Add the records of other logs to those of a directory, by the timing models of the devices known here.

    A schedule that is already there keeps its record; if several sources have a schedule, the first one counts. Each log is
    written whole or not at all, and merging once more adds nothing.

    Args:
        sources: one or several: directories with a folder per device, folders of one device, or files. Each record names its device.
        into: the directory; it need not exist.

    Returns:
        How many records each log got, and the lines that were left out.

    Raises:
        UserError: a source has no logs or cannot be read, `into` cannot be written, or another process is tuning there. Or the sources
            rest on several timing models and nothing tells which one counts.
    """
    return merge([Path(source) for source in one_or_several(sources)], Path(into), present_identity)


def merge(sources: Sequence[Path], into: Path, present: Present) -> Merged:
    """Merge logs as `merge_logs` does.

    Args:
        present: gives a device's current identity, whose timing model's records are merged; for an unknown device, those with the timing
            model of the records in `into`.
    """
    files = files_of(sources)
    present = cache(present)
    parsed, refused = _read(files, present)
    models = {device: _models(device, parsed, into, present) for device in {line.identity.device for line in parsed}}
    wanted: dict[str, dict[str, list[_ParsedLine]]] = {}
    for line in parsed:
        why = _unwanted(line.identity, models)
        if why:
            refused.append(RefusedLine(line.path, line.number, why))
        else:
            wanted.setdefault(line.identity.device, {}).setdefault(file_name(line.held.task), []).append(line)
    with ExitStack() as stack:
        for device in sorted(wanted):
            stack.enter_context(writing(into, device))
        joined = [
            _join(into / device / name, members) for device, files in sorted(wanted.items()) for name, members in sorted(files.items())
        ]
    return Merged(tuple(joined), tuple(sorted(refused, key=lambda line: (files.index(line.path), line.number))))


def _read(files: Iterable[Path], present: Present) -> tuple[list[_ParsedLine], list[RefusedLine]]:
    parsed: list[_ParsedLine] = []
    refused: list[RefusedLine] = []
    for path in files:
        for line in read_lines(settled_content(path)):
            held, why = line.counted, line.remark if line.is_later else line.fault
            if held is not None:
                why = _unsafe(held) or refusal(held, present(held.identity.device))
            if held is not None and not why:
                parsed.append(_ParsedLine(path, line.number, line.text, held))
            else:
                refused.append(RefusedLine(path, line.number, why))
    return parsed, refused


def _unsafe(line: Line) -> str:
    """Return why a line's log would have an invalid path, e.g. because of its device or dtype; "" if the path is valid."""
    if not _DEVICE.fullmatch(line.identity.device):
        return f"{short(line.identity.device)!r} cannot be a device's name"
    name = file_name(line.task)
    return "" if is_log_name(name) else f"{short(name)!r} cannot be a log's name"


def _models(device: str, parsed: Sequence[_ParsedLine], into: Path, present: Present) -> frozenset[Identity]:
    """Return the identities of a device whose records are merged; raise `UserError` if sources differ and nothing decides between them."""
    now = present(device)
    if now is not None:
        return frozenset({now})
    identities = [line.held.identity for path in log_paths(into, device) for line in read_lines(settled_content(path)) if line.held]
    models = frozenset(replace(identity, tvm=TVM_VERSION) for identity in identities if identity.device == device)
    if models:
        return models
    first: dict[Identity, Path] = {}
    for line in parsed:
        if line.identity.device == device and line.identity.tvm == TVM_VERSION:
            first.setdefault(line.identity, line.path)
    if len(first) > 1:
        listed = " and ".join(f"{model_name(identity)} ({path})" for identity, path in first.items())
        raise UserError(
            f"the records of {device} are not comparable: {listed}. The device is unknown here, so nothing tells which of them count.",
            "Merge one kind first; the others are then left out.",
        )
    return frozenset(first)


def _unwanted(identity: Identity, models: dict[str, frozenset[Identity]]) -> str:
    if identity.tvm != TVM_VERSION:
        return f"TVM {short(identity.tvm)}; this is {TVM_VERSION}"
    wanted = models[identity.device]
    return "" if identity in wanted else f"{model_name(identity)}; what counts is {', '.join(sorted(map(model_name, wanted)))}"


def _join(path: Path, members: Sequence[_ParsedLine]) -> MergedLog:
    """Append the new ones of `members` to a log for which this process holds `writing`."""
    with locked(path, f"nothing can be merged into {path}", "It is as it was; name another directory with --into DIR."):
        content = content_of(path) if path.exists() else b""
        known = _keys(content)
        for other in log_paths(path.parent.parent, path.parent.name):
            if other != path:
                known |= _keys(content_of(other))
        fresh = []
        for member in members:
            if not member.is_known(known):
                fresh.append(member)
                known |= keys_of(member.held)
        if fresh:
            ended = content + b"\n" if content and not content.endswith(b"\n") else content
            write_bytes(path, ended + b"".join(line.text.strip() + b"\n" for line in fresh))
    new = sum(len(line.held.records) for line in fresh)
    return MergedLog(path, new, sum(len(member.held.records) for member in members) - new)


def _keys(content: bytes) -> set[Key]:
    return {key for line in read_lines(content) if line.held for key in keys_of(line.held)}
