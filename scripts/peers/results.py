"""All figures of one comparison, the ratios between them, and the file that keeps them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as validated

from peers.systems import OURS
from tvmmobile.system.errors import UserError
from tvmmobile.virtual.program import ProgramRun

FORMAT = 1


@validated(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class Figures:
    """The figures of one run, from the caller's array to an array of the logits; all modelled or counted, none measured.

    Attributes:
        modelled_ms: milliseconds.
        term_ms: its terms by name.
        core_cycles: of the schedule that `modelled_ms` rests on, of all threads together.
        llvm_mca_cycles: the same by llvm-mca alone.
        instructions: executed, of all threads together.
        l1d_misses, l2_misses: of the simulated caches.
        dram_bytes: read from memory and written back to it.
        other_instructions: what threads executed that the figures leave out.
        difference: from PyTorch, relative to the output's largest magnitude.
    """

    modelled_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    term_ms: Mapping[str, float]
    core_cycles: int
    llvm_mca_cycles: int
    instructions: int
    l1d_misses: int
    l2_misses: int
    dram_bytes: int
    other_instructions: int
    difference: float

    @classmethod
    def of(cls, run: ProgramRun, difference: float) -> Figures:
        """The figures of a modelled run."""
        modelled = run.modelled
        return cls(
            modelled_ms=modelled.modelled_ms,
            term_ms=dict(modelled.term_ms),
            core_cycles=modelled.core.cycles,
            llvm_mca_cycles=run.core.cycles,
            instructions=run.core.instructions,
            l1d_misses=modelled.misses.l1d,
            l2_misses=modelled.misses.l2,
            dram_bytes=modelled.dram_bytes,
            other_instructions=run.other_instructions,
            difference=difference,
        )


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class BoardFacts:
    """A virtual board: `timing_model` is the hash behind modelled milliseconds, `core_model` that of llvm-mca's cycles alone."""

    name: str
    board: str
    cpu: str
    clock_hz: float
    timing_model: str
    core_model: str
    calibrated: bool


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class BenchmarkContext:
    """Where and how the figures were got.

    Attributes:
        boards: the virtual boards, by name.
        titles: the systems' titles by key, in the table's order.
        versions: of whatever else decides the figures.
        logs: what identifies the tuning logs that ours was compiled from.
        date: ISO 8601, UTC.
        known: when the peers' figures that were taken from an earlier comparison were got; empty where none were.
    """

    boards: Mapping[str, BoardFacts]
    titles: Mapping[str, str]
    versions: Mapping[str, str]
    logs: str
    date: str
    known: str = ""

    def alike(self, other: BenchmarkContext, system: str) -> bool:
        """Whether a peer runs as it did in another comparison: on the same boards, in the same version, with the same tools."""
        mine, its = ({name: text for name, text in context.versions.items() if name != "tvmmobile"} for context in (self, other))
        return self.boards == other.boards and self.titles[system] == other.titles.get(system) and mine == its


@dataclass(frozen=True)
class Cell:
    """Which network ran where.

    Attributes:
        board: name of the virtual board.
        threads: how many the systems might use.
        alpha: width multiplier.
        resolution: input side in pixels.
        model: name of the network.
    """

    board: str
    threads: int
    alpha: float
    resolution: int
    model: str = "mobilenet_v1"

    @property
    def variant(self) -> str:
        """Such as `0.75-192` of MobileNet v1, else `mobilenet_v2 0.75-192`."""
        label = f"{self.alpha}-{self.resolution}"
        return label if self.model == "mobilenet_v1" else f"{self.model} {label}"


@dataclass(frozen=True)
class PeerRow:
    """One system in one cell.

    Attributes:
        system: its key.
        runs: its figures, one for each attempt; none where it failed.
        failure: why it has none, empty where it has.
        untuned: of ours, how many kernels have no record of this timing model, of how many.
        exit_code: of the failure.
    """

    cell: Cell
    system: str
    runs: tuple[Figures, ...]
    failure: str = ""
    untuned: tuple[int, int] | None = None
    exit_code: int = 0

    @property
    def modelled_ms(self) -> float | None:
        """Mean over the attempts in milliseconds."""
        return statistics.fmean(run.modelled_ms for run in self.runs) if self.runs else None

    @property
    def spread(self) -> float | None:
        """Largest less smallest attempt, over their mean; None for a single one."""
        if len(self.runs) < 2:
            return None
        found = [run.modelled_ms for run in self.runs]
        return (max(found) - min(found)) / statistics.fmean(found)

    def mean(self, figure: str) -> float:
        """Mean of one figure over the attempts; there must be one."""
        return statistics.fmean(getattr(run, figure) for run in self.runs)


def best_peer(rows: Sequence[PeerRow]) -> PeerRow | None:
    """The peer with the least modelled time in a cell, None where no peer has one."""
    good = [row for row in rows if row.system != OURS and row.modelled_ms is not None]
    return min(good, key=lambda row: row.modelled_ms or 0.0, default=None)


def ratio(row: PeerRow, best: PeerRow | None) -> float | None:
    """A system's modelled time over the best peer's."""
    if best is None or row.modelled_ms is None or best.modelled_ms is None:
        return None
    return row.modelled_ms / best.modelled_ms


def by_cell(rows: Sequence[PeerRow]) -> dict[Cell, list[PeerRow]]:
    """Rows by cell, in the rows' order."""
    found: dict[Cell, list[PeerRow]] = {}
    for row in rows:
        found.setdefault(row.cell, []).append(row)
    return found


def to_json(context: BenchmarkContext, rows: Sequence[PeerRow]) -> dict[str, Any]:
    """All figures of every attempt, with the ratios: what `benchmarks.json` holds."""
    entries = []
    for cell, members in by_cell(rows).items():
        best = best_peer(members)
        for row in members:
            entry = asdict(cell) | {"system": row.system, "kind": "modelled", "modelled_ms": row.modelled_ms, "spread": row.spread}
            entry |= {"ratio_to_best_peer": ratio(row, best), "failure": row.failure or None, "untuned_kernels": row.untuned}
            entries.append(entry | {"runs": [asdict(run) for run in row.runs]})
    return {"version": FORMAT, "context": asdict(context), "benchmarks": entries}


def from_json(path: Path) -> tuple[BenchmarkContext, list[PeerRow]]:
    """What `to_json` made, the rows that failed left out."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        context = BenchmarkContext(**report["context"])
        rows = [
            PeerRow(
                Cell(*(entry[name] for name in ("board", "threads", "alpha", "resolution")), entry.get("model", Cell.model)),
                entry["system"],
                tuple(Figures(**run) for run in entry["runs"]),
            )
            for entry in report["benchmarks"]
            if not entry["failure"]
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"--known {path} cannot be read: {reason}.", "Give the .json of an earlier comparison.") from error
    return context, rows
