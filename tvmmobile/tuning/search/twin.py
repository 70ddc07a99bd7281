"""The twin of a real board, its most similar virtual one, whose best schedules are tried first and whose ranking is compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from tvmmobile.devices.protocol import DeviceProfile
from tvmmobile.devices.registry import find_device
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import KnobSchedule, Template
from tvmmobile.system.environment import SHIPPED_LOGS
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Identity
from tvmmobile.virtual.board import Board
from tvmmobile.virtual.calibration.residuals import spearman

#: Makes a database; `Database` itself, or one that keeps those that it made.
Reads = Callable[[Identity, tuple[Path, ...], None], Database]
#: Number of the twin's best schedules that are measured first per kernel and template.
FIRST_FROM_TWIN = 8


def twin_identity(profile: DeviceProfile) -> Identity | None:
    """Return the identity of the records of a device's twin (`twin_board`); `None` for a virtual board, or if there is no twin."""
    from tvmmobile.virtual.board import VIRTUAL_SUFFIX

    board = None if profile.origin.modelled else twin_board(profile)
    return None if board is None else Identity.of(find_device(board.name + VIRTUAL_SUFFIX).profile)


def twin_board(profile: DeviceProfile) -> Board | None:
    """Return the calibrated virtual board most similar to a device; `None` if none has the same core.

    Of several with the core, the same product is preferred, then boards without assumed figures, then the nearest clock.
    """
    from tvmmobile.virtual.board import load_board
    from tvmmobile.virtual.calibration.fit import calibrated_boards

    def differs(board: Board) -> tuple[bool, bool, float, str]:
        other_product = not profile.board.startswith(board.board.split(",")[0])
        return other_product, bool(board.assumed), abs(board.clock_hz - profile.clock_hz), board.name

    return min(
        (board for name in calibrated_boards() if (board := load_board(name)).mcpu == profile.virtual_mcpu), key=differs, default=None
    )


def twin_database(profile: DeviceProfile, sources: Iterable[Path]) -> Database | None:
    """Return the records of a device's twin from the shipped logs and from `sources`; `None` if there is no twin."""
    identity = twin_identity(profile)
    return None if identity is None else records_of_twin(identity, sources)


def records_of_twin(identity: Identity, sources: Iterable[Path], read: Reads = Database) -> Database:
    """Return the records with a twin's identity from the shipped logs and from `sources`."""
    return read(identity, (SHIPPED_LOGS, *sources), None)


def best_of_twin(twin: Database, task: Task, template: Template) -> list[KnobSchedule]:
    """Return the twin's best schedules of a template for a task, best first."""
    good = [
        (record.latency_us, str(record.schedule), record.schedule)
        for record in twin.records(task)
        if record.latency_us is not None and isinstance(record.schedule, KnobSchedule) and record.schedule.template == template.name
    ]
    return [schedule for _, _, schedule in sorted(good)[:FIRST_FROM_TWIN]]


def rank_correlation(measured: Database, twin: Database, task: Task) -> float | None:
    """Return Spearman's rank correlation of the modelled and measured latencies of a task's schedules; `None` if too few have both."""
    modelled = {record.schedule: record.latency_us for record in twin.records(task) if record.latency_us is not None}
    pairs = [
        (modelled[record.schedule], record.latency_us)
        for record in measured.records(task)
        if record.latency_us is not None and record.schedule in modelled
    ]
    return spearman(pairs)
