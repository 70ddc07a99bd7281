"""The virtual board beside a real one: whose records they are, what is tried first, and how well the model ranks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tvmmobile.devices.board.hardware import profile_of
from tvmmobile.devices.board.registered import Facts, LinuxCore, RegisteredBoard, SshAddress
from tvmmobile.devices.protocol import MEASURED, DeviceProfile, Origin
from tvmmobile.devices.registry import find_device
from tvmmobile.devices.similar_cores import suitability
from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.tasks import Task
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.pipeline.build import build
from tvmmobile.pipeline.job import variant_job
from tvmmobile.schedules import KnobSchedule, template_for
from tvmmobile.system.environment import SHIPPED_LOGS
from tvmmobile.system.errors import UserError
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Identity, Record
from tvmmobile.tuning.search.twin import FIRST_FROM_TWIN, best_of_twin, rank_correlation, twin_board, twin_database, twin_identity
from tvmmobile.virtual.board import Board, load_board
from tvmmobile.virtual.calibration.fit import calibrated_boards

VIRTUAL = find_device("pi4-virtual").profile
BOARD = replace(VIRTUAL, name="desk", origin=MEASURED)
TASK = Task((Conv2d(14, 14, 64, 64),))


def schedules(count: int) -> list[KnobSchedule]:
    template = template_for(TASK)
    assert template is not None
    space = template.space(TASK)
    assert space is not None
    return list(space)[:count]


def database(folder: Path, latencies: list[float | None], identity: Identity) -> Database:
    found = Database(identity, (), folder)
    found.append([Record(TASK, schedule, latency) for schedule, latency in zip(schedules(len(latencies)), latencies, strict=True)])
    return found


def test_the_board_with_the_same_core_and_the_nearest_clock() -> None:
    assert twin_identity(VIRTUAL) is None
    assert twin_identity(BOARD) == Identity("pi4-virtual", Origin("modelled", VIRTUAL.origin.model))
    slower = twin_identity(replace(BOARD, clock_hz=1.5e9))
    assert slower is not None and slower.device == "pi4-1500-virtual"
    middle = twin_identity(replace(BOARD, mcpu="cortex-a76", clock_hz=2.2e9))
    assert middle is not None and middle.device == "pi5-virtual"  # not the Helio G99, whose figures are assumed
    named = twin_identity(replace(BOARD, mcpu="cortex-a76", board="RK3588S evaluation board", clock_hz=2.4e9))
    assert named is not None and named.device == "rk3588-a76-virtual"  # a Raspberry Pi 5 has that clock, too
    assert twin_identity(replace(BOARD, mcpu="cortex-x1")) is None
    assert twin_database(replace(BOARD, mcpu="cortex-x1"), ()) is None


def registered_like(board: Board, product: str) -> DeviceProfile:
    """Return the profile of a real board with a virtual one's core and clock, as registration reads them."""
    return registered(LinuxCore(implementer=board.midr >> 24, part=board.midr >> 4 & 0xFFF, max_hz=board.clock_hz), product)


def registered(core: LinuxCore, product: str = "") -> DeviceProfile:
    """Return the profile of a board with one core."""
    facts = Facts(architecture="aarch64", model=product, cores=(core,), memory_bytes=1 << 30, system="", kernel="", libc="")
    address = SshAddress(destination="me@desk", host_key="ssh-ed25519 AAAA")
    return profile_of("desk", RegisteredBoard(address=address, directory="/home/me/x", facts=facts, added="today"))


@pytest.mark.parametrize("name", sorted(calibrated_boards()))
def test_every_calibrated_board_is_the_twin_of_the_real_one(name: str) -> None:
    board = load_board(name)
    assert twin_board(registered_like(board, board.board.split(",")[0])) == board
    other = twin_board(registered_like(board, "Somebody's board"))
    assert other is not None and other.mcpu == board.mcpu


@pytest.mark.parametrize(
    ("part", "has", "name", "like", "without"),
    [
        (0x804, ("half", "dot"), "Kryo 4xx Gold", "Cortex-A76", None),  # Snapdragon 855
        (0x804, None, "Kryo 4xx Gold", "Cortex-A76", None),
        (0x802, ("half",), "Kryo 3xx Gold", "", ["-dotprod"]),  # Snapdragon 845
        (0x800, (), "Kryo 2xx Gold", "Cortex-A73", None),  # Snapdragon 660
    ],
)
def test_makers_own_cores_are_taken_for_what_they_are_like(
    part: int, has: tuple[str, ...] | None, name: str, like: str, without: list[str] | None
) -> None:
    profile = registered(LinuxCore(implementer=0x51, part=part, max_hz=2.8e9, has=has))
    twin = twin_board(profile)
    assert profile.cpu == name and (twin.cpu if twin else "") == like
    assert profile.target.get("mattr") == without and (has is None or profile.machine.has == has)
    pi5 = find_device("pi5-virtual").profile
    if like == pi5.cpu:
        with pytest.raises(UserError, match="both have"):
            suitability([profile, pi5])
    else:
        assert suitability([profile, pi5]).cores


@pytest.mark.long
@pytest.mark.virtual
def test_a_board_without_records_is_compiled_for_as_its_twin_is(tmp_path: Path) -> None:
    spec = ModelSpec(alpha=0.25, resolution=128)
    job = variant_job(Model(spec), BOARD, (), tmp_path / "board")
    assert job.twin == twin_identity(BOARD)
    virtual = variant_job(Model(spec), replace(VIRTUAL, target=BOARD.target), (SHIPPED_LOGS,), tmp_path)
    kernels = build(job).library.manifest()["kernels"]
    twins = build(virtual).library.manifest()["kernels"]
    assert [(kernel["name"], kernel["schedule"]) for kernel in kernels] == [(kernel["name"], kernel["schedule"]) for kernel in twins]
    assert all(kernel["course"] == [] and kernel["why"].startswith("by records modelled on pi4-virtual: ") for kernel in kernels)
    assert all(kernel["latency_us"] is None and "modelled on pi4-virtual; never measured here" in kernel["record"] for kernel in kernels)


def test_shipped_records_are_found() -> None:
    twin = twin_database(BOARD, ())
    assert twin is not None and sum(map(len, twin._unread.values())) > 1000  # none is decoded for this


def test_a_lie_about_the_twin_is_refused(tmp_path: Path) -> None:
    """A real board without records is compiled by the twin's."""
    identity = twin_identity(BOARD)
    assert identity is not None
    database(tmp_path, [1.0], identity)
    twin = twin_database(BOARD, (tmp_path,))
    assert twin is not None and [line.path.parent.parent for line in twin.refused] == [tmp_path]


def test_the_best_come_first_and_failures_never(tmp_path: Path) -> None:
    template = template_for(TASK)
    assert template is not None
    latencies: list[float | None] = [float(100 - index) for index in range(12)]
    latencies[11] = None
    best = best_of_twin(database(tmp_path, latencies, Identity("pi4-virtual", Origin("modelled", "x"))), TASK, template)
    assert best == [schedules(12)[index] for index in range(10, 10 - FIRST_FROM_TWIN, -1)]


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ([2.0, 4.0, 6.0, 9.0, 11.0], 1.0),
        ([9.0, 7.0, 5.0, 3.0, 1.0], -1.0),
        ([1.0, 2.0, 3.0], None),
        ([5.0] * 5, None),
        ([1.0, None, 2.0, 4.0, 3.0], 0.8),
    ],
)
def test_rank_correlation(tmp_path: Path, measured: list[float | None], expected: float | None) -> None:
    modelled = database(tmp_path / "model", [1.0, 2.0, 3.0, 4.0, 5.0], Identity("pi4-virtual", Origin("modelled", "x")))
    found = rank_correlation(database(tmp_path / "board", measured, Identity("desk", MEASURED)), modelled, TASK)
    assert found == (None if expected is None else pytest.approx(expected))
