"""The figures of one comparison, the ratios between them, and their file."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as validated

from studies.peers.kernels import HotKernel, hottest_kernel
from studies.peers.shortcuts import Shortcuts
from studies.peers.systems import OURS_KEYS
from studies.trained.networks import GENERATED
from tvmmobile.system.errors import UserError
from tvmmobile.virtual.program import ProgramRun

FORMAT = 1
#: Of the paper's grid, what is compared on several threads too.
DIAGONAL = ((1.0, 224), (0.75, 192), (0.5, 160), (0.25, 128))


@validated(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class Figures:
    """The figures of one run, from the caller's array to an array of the logits; all modelled or counted, none measured.

    Attributes:
        modelled_ms: milliseconds.
        term_ms: its terms by name.
        core_cycles: cycles of the schedule that `modelled_ms` rests on, of all threads together.
        llvm_mca_cycles: the same by llvm-mca alone.
        instructions: executed, of all threads together.
        l1d_misses, l2_misses: misses of the simulated caches.
        dram_bytes: read from memory and written back to it.
        other_instructions: instructions of threads that the figures leave out.
        difference: difference from PyTorch, relative to the output's largest magnitude.
        hottest: the kernel with the costliest block; `None` in files of before it was looked for.
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
    hottest: HotKernel | None = None

    @classmethod
    def of(cls, run: ProgramRun, difference: float, system: str) -> Figures:
        """Return the figures of a run of a system that was modelled with its hottest block."""
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
            hottest=hottest_kernel(run, system),
        )

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Figures:
        """Read figures from the output of `asdict`; raise `TypeError` or `ValueError` for anything else."""
        hottest = values.get("hottest")
        return cls(**{**values, "hottest": HotKernel(**hottest) if hottest else None})


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class FiguresOrigin:
    """The versions and logs behind a board's figures; the attributes are those of `BenchmarkContext`."""

    titles: Mapping[str, str]
    versions: Mapping[str, str]
    logs: str
    date: str
    known: str = ""


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class BoardFacts:
    """A virtual board: `timing_model` is the hash behind modelled milliseconds, `core_model` that of llvm-mca's cycles alone.

    Attributes:
        origin: origin of the board's figures, if an earlier comparison than the file's own.
    """

    name: str
    board: str
    cpu: str
    clock_hz: float
    timing_model: str
    core_model: str
    calibrated: bool
    origin: FiguresOrigin | None = None


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class BenchmarkContext:
    """The boards, versions and logs behind the figures.

    Attributes:
        boards: the virtual boards, by name.
        titles: the systems' titles by key, in the table's order.
        versions: versions of whatever else decides the figures.
        logs: identity of the tuning logs that ours was compiled from.
        date: ISO 8601, UTC.
        known: time of the earlier comparison that the peers' figures were taken from; empty where none were.
        dtype: type that ours computes in; the others compute in that and in float32.
        weights: `generated`, `trained` on drawn digits, or each file's `own`.
        top1: percent of the digits that PyTorch gets right with trained weights, by variant.
    """

    boards: Mapping[str, BoardFacts]
    titles: Mapping[str, str]
    versions: Mapping[str, str]
    logs: str
    date: str
    known: str = ""
    dtype: str = "float32"
    weights: str = GENERATED
    top1: Mapping[str, float] = field(default_factory=dict)

    def origin(self, board: str) -> FiguresOrigin:
        """Return the versions and logs behind a board's figures."""
        return self.boards[board].origin or FiguresOrigin(self.titles, self.versions, self.logs, self.date, self.known)

    def alike(self, other: BenchmarkContext, board: str, system: str) -> bool:
        """Return whether a peer runs on a board as in another comparison: same model, same version, same tools."""
        if board not in self.boards or board not in other.boards:
            return False
        mine, its = self.origin(board), other.origin(board)
        facts = [replace(context.boards[board], origin=None) for context in (self, other)]
        tools = [{name: text for name, text in origin.versions.items() if name != "tvmmobile"} for origin in (mine, its)]
        return facts[0] == facts[1] and tools[0] == tools[1] and mine.titles[system] == its.titles.get(system)


@dataclass(frozen=True)
class GridCell:
    """A network on a board with a number of threads.

    Attributes:
        board: name of the virtual board.
        threads: number of threads that the systems might use.
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
        """The variant's label: `0.75-192` for MobileNet v1, else `mobilenet_v2 0.75-192`."""
        label = f"{self.alpha}-{self.resolution}"
        return label if self.model == "mobilenet_v1" else f"{self.model} {label}"

    @property
    def on_diagonal(self) -> bool:
        """True for the variants that are compared everywhere."""
        return (self.alpha, self.resolution) in DIAGONAL


@dataclass(frozen=True)
class PeerRow:
    """One system in one cell.

    Attributes:
        system: its key.
        runs: its figures, one for each attempt; none where it failed.
        failure: reason why it has none; empty where it has some.
        untuned: number of our kernels that have no record of this timing model, and number of all.
        exit_code: exit code of the failure.
        shortcuts: shortcuts of our integer kernels: the work that they leave out.
    """

    cell: GridCell
    system: str
    runs: tuple[Figures, ...]
    failure: str = ""
    untuned: tuple[int, int] | None = None
    exit_code: int = 0
    shortcuts: Shortcuts = field(default_factory=dict)

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
        """Return the mean of a figure over the attempts, at least one."""
        return statistics.fmean(getattr(run, figure) for run in self.runs)


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class PeerKernel:
    """The kernel in which a peer spends most of its time on a core: `title` names the peer, `board` and `variant` are where it was seen."""

    cpu: str
    system: str
    title: str
    board: str
    variant: str
    kernel: HotKernel


@dataclass(frozen=True)
class PeerComparison:
    """Everything that a comparison's file holds."""

    context: BenchmarkContext
    rows: tuple[PeerRow, ...]
    kernels: tuple[PeerKernel, ...] = ()

    def in_order(self) -> PeerComparison:
        """Return the rows by board, threads and network, as tables show them: the diagonal first, largest first; kernels by core."""
        boards, models = list(self.context.boards), list(dict.fromkeys(row.cell.model for row in self.rows))
        rows = sorted(self.rows, key=lambda row: (not row.cell.on_diagonal, -row.cell.alpha, -row.cell.resolution))
        rows.sort(key=lambda row: (boards.index(row.cell.board), row.cell.threads, models.index(row.cell.model)))
        return replace(self, rows=tuple(rows), kernels=tuple(sorted(self.kernels, key=lambda one: one.cpu)))

    def rows_of(self, board: str, threads: int | None = None) -> list[PeerRow]:
        """Return the rows of one board, on `threads` threads if given."""
        return [row for row in self.rows if row.cell.board == board and threads in (None, row.cell.threads)]


def best_peer(rows: Sequence[PeerRow]) -> PeerRow | None:
    """Return the peer with the least modelled time in a cell, None where no peer has one."""
    good = [row for row in rows if row.system not in OURS_KEYS and row.modelled_ms is not None]
    return min(good, key=lambda row: row.modelled_ms or 0.0, default=None)


def our_row(rows: Sequence[PeerRow]) -> PeerRow | None:
    """Return our row in a cell: the C library, or the network in TVM's VM if no C library was run, or None."""
    found = {row.system: row for row in rows}
    return next((found[key] for key in OURS_KEYS if key in found), None)


def our_ratio(rows: Sequence[PeerRow]) -> float | None:
    """Return our modelled time over the best peer's in a cell."""
    ours = our_row(rows)
    return None if ours is None else ratio(ours, best_peer(rows))


def ratio(row: PeerRow, best: PeerRow | None) -> float | None:
    """Return a system's modelled time over the best peer's."""
    if best is None or row.modelled_ms is None or best.modelled_ms is None:
        return None
    return row.modelled_ms / best.modelled_ms


def by_cell(rows: Sequence[PeerRow]) -> dict[GridCell, list[PeerRow]]:
    """Group rows by cell, in the rows' order."""
    found: dict[GridCell, list[PeerRow]] = {}
    for row in rows:
        found.setdefault(row.cell, []).append(row)
    return found


def hottest_kernels(context: BenchmarkContext, rows: Sequence[PeerRow]) -> tuple[PeerKernel, ...]:
    """Return each peer's hottest kernel on each core, on one thread: the one that takes most of the peer's time in all variants."""
    seen: dict[tuple[str, str], dict[str, list[tuple[float, PeerKernel]]]] = {}
    for row in rows:
        if row.system in OURS_KEYS or row.cell.threads > 1 or not row.runs or not (kernel := row.runs[0].hottest):
            continue
        cpu, title = context.boards[row.cell.board].cpu, context.origin(row.cell.board).titles[row.system]
        found = PeerKernel(cpu, row.system, title, row.cell.board, row.cell.variant, kernel)
        by_name = seen.setdefault((cpu, row.system), {})
        by_name.setdefault(kernel.name or kernel.loop, []).append((kernel.share * row.runs[0].core_cycles, found))
    members = (max(by_name.values(), key=lambda found: sum(cycles for cycles, _ in found)) for by_name in seen.values())
    return tuple(max(found, key=lambda one: one[0])[1] for found in members)


def merged(now: PeerComparison, earlier: PeerComparison) -> PeerComparison:
    """Add to a comparison the boards of an earlier one that it lacks, and the kernels on cores that it lacks."""
    if not now.context.boards:
        return earlier
    kept = [name for name in earlier.context.boards if name not in now.context.boards]
    before = {name: replace(earlier.context.boards[name], origin=earlier.context.origin(name)) for name in kept}
    order = dict.fromkeys((*earlier.context.boards, *now.context.boards))
    known = {**before, **now.context.boards}
    kernels = {(one.cpu, one.system): one for one in (*earlier.kernels, *now.kernels)}
    return PeerComparison(
        replace(now.context, boards={name: known[name] for name in order}, top1={**earlier.context.top1, **now.context.top1}),
        (*now.rows, *(row for row in earlier.rows if row.cell.board in before)),
        tuple(kernels.values()),
    )


def to_json(comparison: PeerComparison) -> dict[str, Any]:
    """Return all figures of every attempt, with the ratios: the content of `benchmarks.json`."""
    entries = []
    for cell, members in by_cell(comparison.rows).items():
        best = best_peer(members)
        for row in members:
            entry = asdict(cell) | {"system": row.system, "kind": "modelled", "modelled_ms": row.modelled_ms, "spread": row.spread}
            entry |= {"ratio_to_best_peer": ratio(row, best), "failure": row.failure or None, "untuned_kernels": row.untuned}
            entry |= {"shortcuts": row.shortcuts} if row.shortcuts else {}
            entries.append(entry | {"runs": [asdict(run) for run in row.runs]})
    kernels = [asdict(kernel) for kernel in comparison.kernels]
    return {"version": FORMAT, "context": asdict(comparison.context), "kernels": kernels, "benchmarks": entries}


def from_json(path: Path) -> PeerComparison:
    """Read the output of `to_json`, of this version or of the one without kernels."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        context = BenchmarkContext(**report["context"])
        kernels = tuple(PeerKernel(**entry) for entry in report.get("kernels", ()))
        rows = tuple(
            PeerRow(
                GridCell(entry["board"], entry["threads"], entry["alpha"], entry["resolution"], entry.get("model", GridCell.model)),
                entry["system"],
                tuple(Figures.read(run) for run in entry["runs"]),
                entry["failure"] or "",
                tuple(entry["untuned_kernels"]) if entry.get("untuned_kernels") else None,
                shortcuts=entry.get("shortcuts", {}),
            )
            for entry in report["benchmarks"]
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"--known {path} cannot be read: {reason}.", "Give the .json of an earlier comparison.") from error
    return PeerComparison(context, rows, kernels)
