"""Caches the output of llvm-mc and llvm-mca: in memory, and in a SQLite file that several processes share."""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Code = tuple[int, ...]
Cost = tuple[float, bool]
BUSY_S = 30.0
_QUERY_LIMIT = 500


class CostCache:
    """Caches the text of instruction words and the cost of blocks, for one version of the model.

    The file only saves time: if it cannot be used (disk full, read-only, damaged), costs are computed again.

    Args:
        path: path of the file, whose name contains the model's hash, so that entries are never outdated.
    """

    def __init__(self, path: Path) -> None:
        self._texts: dict[int, str] = {}
        self._costs: dict[Code, Cost] = {}
        self._database: sqlite3.Connection | None = None
        with contextlib.suppress(OSError, sqlite3.Error):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=BUSY_S, check_same_thread=False, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=OFF")
            self._database.execute("CREATE TABLE IF NOT EXISTS texts (word INTEGER PRIMARY KEY, text TEXT NOT NULL)")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS costs (code BLOB PRIMARY KEY, cycles REAL NOT NULL, unknown INTEGER NOT NULL)"
            )

    @staticmethod
    def at(path: Path) -> CostCache:
        """Return the process's cache at `path`; a forked process opens its own connection."""
        return _open(path, os.getpid())

    def texts(self, words: set[int]) -> dict[int, str]:
        """Return the cached texts of `words`."""
        missing = [word for word in words if word not in self._texts]
        for row in self._select("SELECT word, text FROM texts WHERE word IN", missing):
            self._texts[row[0]] = row[1]
        return {word: self._texts[word] for word in words if word in self._texts}

    def add_texts(self, texts: dict[int, str]) -> dict[int, str]:
        """Cache `texts`, and return them."""
        self._texts |= texts
        self._insert("INSERT OR IGNORE INTO texts VALUES (?, ?)", list(texts.items()))
        return texts

    def costs(self, codes: set[Code]) -> dict[Code, Cost]:
        """Return the cached costs of `codes`."""
        missing = {_packed(code): code for code in codes if code not in self._costs}
        for row in self._select("SELECT code, cycles, unknown FROM costs WHERE code IN", list(missing)):
            self._costs[missing[row[0]]] = (row[1], bool(row[2]))
        return {code: self._costs[code] for code in codes if code in self._costs}

    def add_costs(self, costs: dict[Code, Cost]) -> dict[Code, Cost]:
        """Cache `costs`, and return them."""
        self._costs |= costs
        self._insert(
            "INSERT OR IGNORE INTO costs VALUES (?, ?, ?)", [(_packed(code), cost, int(bad)) for code, (cost, bad) in costs.items()]
        )
        return costs

    def _select(self, query: str, keys: list[Any]) -> list[Any]:
        rows: list[Any] = []
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                for begin in range(0, len(keys), _QUERY_LIMIT):
                    part = keys[begin : begin + _QUERY_LIMIT]
                    rows += self._database.execute(f"{query} ({','.join('?' * len(part))})", part).fetchall()
        return rows

    def _insert(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    self._database.executemany(statement, rows)
                    self._database.execute("COMMIT")
                finally:  # after an error or Ctrl-C, other processes would wait for this one's transaction
                    if self._database.in_transaction:
                        self._database.execute("ROLLBACK")


@functools.cache
def _open(path: Path, _process: int) -> CostCache:
    return CostCache(path)


def _packed(code: Code) -> bytes:
    return struct.pack(f"<{len(code)}I", *code)
