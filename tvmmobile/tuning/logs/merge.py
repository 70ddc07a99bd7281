"""Merges the tuning logs of several machines, keeping each schedule once."""

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
from tvmmobile.tuning.database import content_of, file_name, locked, log_paths, writing
from tvmmobile.tuning.logs.directories import Present, present_identity
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

#: Device names that can be folders.
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


@dataclass(frozen=True)
class MergedLog:
    """Counts a target log's records: how many are `new` to it, and how many were `known` before or given twice."""

    path: Path
    new: int
    known: int


@dataclass(frozen=True)
class Merged:
    """Result of a merge, log by log, and the omitted lines."""

    joined: tuple[MergedLog, ...]
    refused: tuple[RefusedLine, ...]


@dataclass(frozen=True)
class _ParsedLine:
    """A line of a source with records, and where it is."""

    path: Path
    number: int
    text: bytes
    held: Line

    @property
    def identity(self) -> Identity:
        return self.held.identity

    def is_known(self, known: Set[Key]) -> bool:
        """Return whether lines with these keys contain everything in this one; a schedule may be known by its digest alone."""
        for record in self.held.records:
            ways = [record.schedule] if record.again else [record.schedule, (family(record.schedule), digest(record.schedule))]
            if not any((self.identity, self.held.task, way, record.again) in known for way in ways):
                return False
        return dropped_keys(self.held) <= known


def merge_logs(sources: str | Path | Sequence[str | Path], into: str | Path) -> Merged:
    """Add the records of other logs to those of a directory, by the timing models of the devices known here.

    A schedule that is already there keeps its record; if several sources have a schedule, the first one counts. Each log is
    written whole or not at all, and merging once more adds nothing.

    Args:
        sources: one or several: directories with a folder per device, folders of one device, or files. Each record names its device.
        into: the directory; it need not exist.

    Raises:
        UserError: a source has no logs or cannot be read, `into` cannot be written, or another process is tuning there. Or the sources
            rest on several timing models and nothing tells which one counts.
    """
    return merge([Path(source) for source in one_or_several(sources)], Path(into), present_identity)


def merge(sources: Sequence[Path], into: Path, present: Present) -> Merged:
    """Do what `merge_logs` does.

    Args:
        present: gives the timing model that counts. If it does not know the device, that of the records in `into` counts.
    """
    files = files_of(sources)
    present = cache(present)
    found, refused = _read(files, present)
    models = {device: _models(device, found, into, present) for device in {one.identity.device for one in found}}
    wanted: dict[str, dict[str, list[_ParsedLine]]] = {}
    for one in found:
        why = _unwanted(one.identity, models)
        if why:
            refused.append(RefusedLine(one.path, one.number, why))
        else:
            wanted.setdefault(one.identity.device, {}).setdefault(file_name(one.held.task), []).append(one)
    with ExitStack() as stack:
        for device in sorted(wanted):
            stack.enter_context(writing(into, device))
        joined = [
            _join(into / device / name, members) for device, files in sorted(wanted.items()) for name, members in sorted(files.items())
        ]
    return Merged(tuple(joined), tuple(sorted(refused, key=lambda one: (files.index(one.path), one.number))))


def _read(files: Iterable[Path], present: Present) -> tuple[list[_ParsedLine], list[RefusedLine]]:
    found: list[_ParsedLine] = []
    refused: list[RefusedLine] = []
    for path in files:
        for line in read_lines(settled_content(path)):
            why = line.fault
            if line.held is not None and not why:
                why = _unsafe(line.held) or refusal(line.held, present(line.held.identity.device))
                if not why:
                    found.append(_ParsedLine(path, line.number, line.text, line.held))
            if why:
                refused.append(RefusedLine(path, line.number, why))
    return found, refused


def _unsafe(line: Line) -> str:
    """Return why no file can hold a line, such as an invalid device or dtype; "" if one can."""
    if not _DEVICE.fullmatch(line.identity.device):
        return f"{short(line.identity.device)!r} cannot be a device's name"
    name = file_name(line.task)
    return "" if is_log_name(name) else f"{short(name)!r} cannot be a log's name"


def _models(device: str, found: Sequence[_ParsedLine], into: Path, present: Present) -> frozenset[Identity]:
    """Return the identities whose records count for a device."""
    now = present(device)
    if now is not None:
        return frozenset({now})
    identities = [line.held.identity for path in log_paths(into, device) for line in read_lines(settled_content(path)) if line.held]
    models = frozenset(replace(identity, tvm=TVM_VERSION) for identity in identities if identity.device == device)
    if models:
        return models
    first: dict[Identity, Path] = {}
    for one in found:
        if one.identity.device == device and one.identity.tvm == TVM_VERSION:
            first.setdefault(one.identity, one.path)
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
    """Add to a log of which this process is the writer."""
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
            write_bytes(path, ended + b"".join(one.text.strip() + b"\n" for one in fresh))
    new = sum(len(one.held.records) for one in fresh)
    return MergedLog(path, new, sum(len(member.held.records) for member in members) - new)


def _keys(content: bytes) -> set[Key]:
    return {key for line in read_lines(content) if line.held for key in keys_of(line.held)}
