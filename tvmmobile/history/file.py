"""The history file: results of many commits in one SQLite database, which several processes may add to at once.

A result is added in one transaction and is on the disk when `add` returns: the journal is a rollback journal and SQLite's `synchronous` is
EXTRA, so neither a kill nor a power cut loses it or leaves half of it. Between transactions the history is this one file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import ConfigDict, Field, ValidationError
from pydantic_core import to_json

from tvmmobile.devices.protocol import Kind
from tvmmobile.history.commits import Commit
from tvmmobile.results.file import (
    Clock,
    Context,
    Count,
    KernelResult,
    Latency,
    NotNegative,
    Positive,
    PositiveCount,
    Results,
    VariantResult,
    encodable,
)
from tvmmobile.system.errors import UserError, one_line, shown
from tvmmobile.system.files import make_folders
from tvmmobile.system.json_files import place, reader_of

FORMAT = 1
#: SQLite's application ID of our databases ("tvmh").
_OURS = 0x74766D68
_BUSY_S = 60.0
#: The end of the year 9999, in seconds since 1970.
_LAST_TIME = 253_402_300_799
_DAMAGED_REMEDY = "Restore a copy of it, or import the result files into a new one."
_REMEDY = "Name a file that `tvmmobile history add` wrote, or a new one."
#: Rejects a file with foreign objects, such as triggers.
_TABLES = (
    """CREATE TABLE commits (id INTEGER PRIMARY KEY, name TEXT NOT NULL, dirty INTEGER NOT NULL, time INTEGER NOT NULL,
    ancestors INTEGER NOT NULL, subject TEXT NOT NULL, UNIQUE (name, dirty)) STRICT""",
    """CREATE TABLE results (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, commit_id INTEGER NOT NULL REFERENCES commits,
    date INTEGER NOT NULL, source TEXT NOT NULL, name TEXT NOT NULL, model TEXT NOT NULL, alpha REAL NOT NULL, side TEXT NOT NULL,
    dtype TEXT NOT NULL, format TEXT NOT NULL, threads INTEGER NOT NULL, device TEXT NOT NULL, board TEXT NOT NULL, cpu TEXT NOT NULL,
    clock_hz REAL NOT NULL, kind TEXT NOT NULL, timing_model TEXT NOT NULL, versions TEXT NOT NULL, median_us REAL NOT NULL,
    least_us REAL NOT NULL, spread REAL, samples INTEGER NOT NULL, invalid TEXT NOT NULL, library_sha256 TEXT NOT NULL,
    verdict TEXT NOT NULL, baseline INTEGER NOT NULL) STRICT""",
    """CREATE TABLE kernels (id INTEGER PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, macs INTEGER NOT NULL,
    schedule TEXT NOT NULL, digest TEXT NOT NULL UNIQUE) STRICT""",
    """CREATE TABLE kernel_times (result_id INTEGER NOT NULL REFERENCES results, position INTEGER NOT NULL,
    kernel_id INTEGER NOT NULL REFERENCES kernels, network_us REAL, record_us REAL, PRIMARY KEY (result_id, position))
    STRICT, WITHOUT ROWID""",
)
_Time = Annotated[int, Field(ge=0, le=_LAST_TIME)]


@dataclass(frozen=True)
class Entry:
    """A result in a history.

    Attributes:
        id: its number in the file.
        name, dirty, time, subject: its commit; see `Commit`.
        date: time when it was obtained, in seconds since 1970.
        source: the command it came from: `bench`, `tune`, `regress`, `baseline` or `add`.
        model, alpha, side, dtype, format, threads: the network variant; `dtype` is the `precision` of `VariantResult`.
        device, board, cpu, clock_hz, kind, timing_model: origin of the latency; "" for no timing model.
        versions: versions of tvmmobile, tvm and others.
        median_us, least_us: median and least of the samples, in microseconds.
        spread: interquartile range of the samples over their median; `None` for fewer than four.
        samples: number of samples.
        invalid: reason why the latency does not count; "" if it does.
        verdict: verdict of `regress`; "" without it.
        baseline: it was saved as a baseline.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    id: int
    name: str
    dirty: Annotated[int, Field(ge=0, le=1)]
    time: _Time
    subject: str
    date: _Time
    source: str
    model: str
    alpha: Positive
    side: str
    dtype: str
    format: str
    threads: PositiveCount
    device: str
    board: str
    cpu: str
    clock_hz: Clock
    kind: Kind
    timing_model: str
    versions: str
    median_us: Latency
    least_us: Latency
    spread: Annotated[float, Field(ge=0, le=1e18)] | None
    samples: PositiveCount
    invalid: str
    verdict: str
    baseline: Annotated[int, Field(ge=0, le=1)]


class History:
    """An open history file; `open_history` makes one."""

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self.path, self._database = path, database

    def add(self, results: Results, commit: Commit, source: str, verdicts: Mapping[str, str] | None = None) -> int:
        """Add each variant's result, unless it is there already; return how many are new. Each is on the disk before the next is added.

        Args:
            source: the command that it came from; `baseline` also marks results that are there.
            verdicts: the gate's, by the name of the variant.
        """
        context = encodable(results.context)
        return sum(
            self._add(context, encodable(variant), commit, source, (verdicts or {}).get(variant.name, "")) for variant in results.variants
        )

    def entries(self) -> list[Entry]:
        """Return all results in the order of their commits; those of one commit in the order in which they were obtained."""
        names = ", ".join(f"{'commits' if name in _OF_COMMIT else 'results'}.{name}" for name in _COLUMNS)
        query = f"SELECT {names} FROM results JOIN commits ON commits.id = commit_id ORDER BY time, ancestors, commits.id, date, results.id"
        with _refused(self.path):
            rows = [dict(zip(_COLUMNS, row, strict=True)) for row in self._database.execute(query)]
        found: list[Entry] = self._checked(list[Entry], rows)
        return found

    def kernels(self, result: int) -> list[KernelResult]:
        """Return the kernels of a result, in order of execution."""
        query = """SELECT name, kind, macs, record_us, schedule, network_us FROM kernel_times JOIN kernels ON kernels.id = kernel_id
            WHERE result_id = ? ORDER BY position"""
        with _refused(self.path):
            rows = self._database.execute(query, (result,)).fetchall()
        found: list[_Kernel] = self._checked(list[_Kernel], rows)
        return [KernelResult(name, kind, macs, record, schedule, network_us=own) for name, kind, macs, record, schedule, own in found]

    def _checked(self, form: Any, rows: Sequence[Any]) -> Any:
        """Return rows in this form; raise `UserError` if a value is impossible."""
        try:
            return reader_of(form).validate_python(rows)
        except ValidationError as error:
            (first, *_) = error.errors(include_url=False)
            raise self._damaged(f"{place(first['loc'])} is {shown(first['input'])}") from error

    def _damaged(self, problem: str) -> UserError:
        return UserError(f"{self.path} is damaged: {problem}.", _DAMAGED_REMEDY)

    def _add(self, context: Context, variant: VariantResult, commit: Commit, source: str, verdict: str) -> bool:
        values = _values(context, variant, source, verdict)
        with _refused(self.path), self._transaction():
            known = self._database.execute("SELECT id FROM results WHERE digest = ?", (values["digest"],)).fetchone()
            if known is not None:
                change = "baseline = max(baseline, ?), verdict = CASE ? WHEN '' THEN verdict ELSE ? END"
                self._database.execute(f"UPDATE results SET {change} WHERE id = ?", (values["baseline"], verdict, verdict, known[0]))
                return False
            values["commit_id"] = self._commit(commit, values["date"])
            marks = ", ".join("?" * len(values))
            row = self._database.execute(f"INSERT INTO results ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))
            kernels = [
                (row.lastrowid, place, self._kernel(each), each.network_us, each.latency_us) for place, each in enumerate(variant.kernels)
            ]
            self._database.executemany("INSERT INTO kernel_times VALUES (?, ?, ?, ?, ?)", kernels)
        return True

    def _commit(self, commit: Commit, date: int) -> int:
        """Return the number of a commit; one unknown to git is as old as its first result."""
        values = (commit.name, int(commit.dirty), commit.time if commit.time is not None else date, commit.ancestors, commit.subject)
        self._database.execute("INSERT OR IGNORE INTO commits (name, dirty, time, ancestors, subject) VALUES (?, ?, ?, ?, ?)", values)
        (found,) = self._database.execute("SELECT id FROM commits WHERE name = ? AND dirty = ?", values[:2]).fetchone()
        return int(found)

    def _kernel(self, kernel: KernelResult) -> int:
        identity = (kernel.name, kernel.kind, kernel.macs, kernel.schedule)
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
        statement = "INSERT OR IGNORE INTO kernels (name, kind, macs, schedule, digest) VALUES (?, ?, ?, ?, ?)"
        self._database.execute(statement, (*identity, digest))
        (found,) = self._database.execute("SELECT id FROM kernels WHERE digest = ?", (digest,)).fetchone()
        return int(found)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise

    def prepare(self) -> None:
        """Make the tables if the file is new; raise `UserError` if it is not a history, or of a newer version."""
        with _refused(self.path), self._transaction():
            if self._contents() == (0, 0, []):
                for table in _TABLES:
                    self._database.execute(table)
                self._database.execute(f"PRAGMA application_id = {_OURS}")
                self._database.execute(f"PRAGMA user_version = {FORMAT}")
                return
        self.check()

    def _contents(self) -> tuple[int, int, list[str]]:
        """Return the application that the file is of, its version, and how its tables were made."""
        whose, version = (self._database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        made = self._database.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid")
        return whose, version, [row[0] for row in made]

    def check(self) -> None:
        """Raise `UserError` if the file is not a history, or of a newer version."""
        with _refused(self.path):
            whose, version, tables = self._contents()
        if whose != _OURS:
            raise UserError(f"{self.path} is not a history of tvmmobile: it is {'empty' if not tables else 'another database'}.", _REMEDY)
        if version != FORMAT:
            remedy = "Read it with the version that wrote it, or name a new file."
            raise UserError(f"{self.path} has format {version}, of a newer tvmmobile; this one reads {FORMAT}.", remedy)
        if tables != list(_TABLES):
            raise UserError(f"{self.path} is not a history of tvmmobile: it has other tables.", _REMEDY)


@contextmanager
def open_history(path: str | Path, *, add: bool) -> Iterator[History]:
    """Open a history file until the context ends; to add to it, a new file is made if there is none.

    Raises:
        UserError: it cannot be opened, is not a history, is damaged, or was written by a newer version.
    """
    path = Path(path)
    if not add and not path.is_file():
        raise UserError(
            f"{path} does not exist." if not path.exists() else f"{path} is not a file.", "Name a file that `tvmmobile history add` wrote."
        )
    if path.is_dir():
        raise UserError(f"{path} is a directory.", "Name a file in it.")
    with _refused(path):
        if add:
            make_folders(path.absolute().parent)
        address = f"file:{quote(os.fsencode(path.absolute()))}?mode={'rwc' if add else 'rw'}"
        with contextlib.closing(sqlite3.connect(address, timeout=_BUSY_S, isolation_level=None, uri=True)) as database:
            # A file from elsewhere must not run functions, and its own settings do not count.
            for setting in ("trusted_schema = OFF", "journal_mode = DELETE", "synchronous = EXTRA", "foreign_keys = ON"):
                database.execute(f"PRAGMA {setting}")
            history = History(path, database)
            if add:
                history.prepare()
            else:
                history.check()
            yield history


#: Name, kind, multiply-adds, latency of its record, schedule, and latency in the network of a kernel.
_Kernel = tuple[str, str, Count, NotNegative | None, str, NotNegative | None]
#: Columns of `Entry`, and which of them the table of commits has.
_COLUMNS = tuple(Entry.__dataclass_fields__)
_OF_COMMIT = frozenset({"name", "dirty", "time", "subject"})


def identity_of(context: Context, variant: VariantResult) -> dict[str, Any]:
    """Return the columns of a result that decide which others it is compared with."""
    return {
        **{name: getattr(variant, name) for name in ("model", "side", "format", "threads")},
        "alpha": float(variant.alpha),
        "dtype": variant.precision,
        **{name: getattr(context, name) for name in ("device", "board", "cpu", "kind")},
        "clock_hz": float(context.clock_hz),
        "timing_model": context.timing_model or "",
    }


def _values(context: Context, variant: VariantResult, source: str, verdict: str) -> dict[str, Any]:
    """Return the columns of a result, without its commit."""
    return {
        "digest": _digest(context, variant),
        "date": _seconds(context.date, variant.name),
        "source": source,
        **identity_of(context, variant),
        **{name: getattr(variant, name) for name in ("name", "invalid", "library_sha256")},
        "versions": json.dumps(dict(context.versions), sort_keys=True),
        "median_us": float(variant.latency_us),
        "least_us": float(min(variant.samples_us)),
        "spread": variant.spread,
        "samples": len(variant.samples_us),
        "verdict": verdict,
        "baseline": int(source == "baseline"),
    }


def _digest(context: Context, variant: VariantResult) -> str:
    """Return the digest by which a result is found; without small weights, it is that of versions that knew none."""
    content = {item.name: getattr(variant, item.name) for item in fields(variant)}
    if variant.weights_dtype is None:
        del content["weights_dtype"]
    return hashlib.sha256(to_json((context, content))).hexdigest()


def _seconds(date: str, name: str) -> int:
    try:
        found = datetime.fromisoformat(date)
        seconds = int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        seconds = -1
    if not 0 <= seconds <= _LAST_TIME:
        raise UserError(f"{name} has an invalid date: {shown(date)}.", "Time it again with tvmmobile bench.")
    return seconds


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into sentences."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is damaged: it has text that is not UTF-8.", _DAMAGED_REMEDY) from error
    except sqlite3.Error as error:
        name, text = getattr(error, "sqlite_errorname", ""), one_line(error)
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise UserError(f"{path} has been locked by another process for {_BUSY_S:g} s.", "Run it again when that has ended.") from error
        if name == "SQLITE_NOTADB":
            raise UserError(f"{path} is not a history of tvmmobile: it is not an SQLite database.", _REMEDY) from error
        if name.startswith("SQLITE_CORRUPT"):
            raise UserError(f"{path} is damaged: {text}.", _DAMAGED_REMEDY) from error
        if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
            raise UserError(
                f"{path} cannot be opened or written: {text}.", "Give yourself access to it, or choose another place."
            ) from error
        if name.startswith("SQLITE_FULL"):
            raise UserError(f"{path} cannot be written: the disk is full.", "Free some disk space and run it again.") from error
        raise UserError(f"{path} cannot be used: {text}.", _REMEDY) from error
