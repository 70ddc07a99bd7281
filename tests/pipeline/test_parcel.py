"""Jobs that travel to another machine: what goes with them, where it lies there, and what comes back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tvmmobile.devices.protocol import Endpoint
from tvmmobile.devices.registry import find_device
from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.tasks import Task
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.networks.preprocessing import Preprocessing
from tvmmobile.pipeline.cluster.parcel import Delivery, UsesBoard, UsesFiles, accept, delivery, pack, unpack
from tvmmobile.pipeline.job import VariantJob
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.stages.timing import BenchJob
from tvmmobile.quantisation.data import calibration_data
from tvmmobile.running.library import Library
from tvmmobile.running.measure import Agents, Timing
from tvmmobile.schedules import template_for
from tvmmobile.system.errors import UserError
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Identity, Record
from tvmmobile.tuning.search.trial import TrialJob

PROFILE = find_device("pi4-virtual").profile
AGENTS = Agents(PROFILE, Endpoint("127.0.0.1", 7, "pi4", "the secret"))
TASK = Task((Conv2d(7, 7, 16, 16),))


def done(job: Any) -> None:
    """Stands for what is done with a job."""


def schedule() -> Any:
    template = template_for(TASK)
    space = template.space(TASK) if template else None
    assert space is not None
    return space.default


@pytest.fixture
def variant(tmp_path: Path) -> VariantJob:
    """One with a checkpoint, a log of its device in one of two directories, and a folder for the modules."""
    checkpoint = tmp_path / "here" / "weights.pt"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"weights")
    identity = Identity.of(PROFILE)
    for name in (PROFILE.name, "another-board"):
        Database(replace(identity, device=name), (), tmp_path / "logs").append([Record(TASK, schedule(), 500.0, cycles=7)])
    logs = (tmp_path / "none", tmp_path / "logs")
    return VariantJob(Model(ModelSpec(), checkpoint), LibraryOptions(), PROFILE, logs, tmp_path / "out", tmp_path / "dump")


def test_a_file_that_has_gone_since_it_was_listed(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").touch()
    data = calibration_data(str(tmp_path / "images"), Preprocessing(8), generated=True)
    job = VariantJob(Model(ModelSpec()), LibraryOptions(), PROFILE, (), tmp_path, calibration=data)
    assert "calibration/images/a.png" in pack(done, job).files
    (tmp_path / "images/a.png").unlink()
    with pytest.raises(UserError, match=r"a\.png cannot be read: No such file"):
        pack(done, job)


def test_a_variant_travels_with_its_checkpoint_and_its_devices_logs(variant: VariantJob, tmp_path: Path) -> None:
    parcel = pack(done, variant)
    assert isinstance(variant, UsesFiles) and parcel.profile is None
    assert set(parcel.files) == {"checkpoint/weights.pt", f"logs/1/{PROFILE.name}/float32_t1.jsonl"}
    there = tmp_path / "there"
    job = unpack(parcel, there)
    assert job.model.checkpoint.read_bytes() == b"weights" and job.model.checkpoint.is_relative_to(there)
    assert len(Database(job.identity, job.logs, None)) == 1
    assert {job.out, job.dump_dir} == {there / "out", there / "dump"} and job.spec == variant.spec


def test_what_a_variant_wrote_comes_back(variant: VariantJob, tmp_path: Path) -> None:
    job = unpack(pack(done, variant), tmp_path / "there")
    for path in (job.library.path, job.dump_dir / "00.txt"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(path.name)
    (job.out / "folder").mkdir()
    assert accept(variant, delivery(job, "the result")) == "the result"
    assert variant.library.path.read_text() == f"{variant.stem}.so"
    assert [path.name for path in (tmp_path / "dump").iterdir()] == ["00.txt"] and len(list(variant.out.iterdir())) == 1


def test_nothing_is_written_outside_the_folders_of_a_job(variant: VariantJob, tmp_path: Path) -> None:
    accept(variant, Delivery(None, {"out/../../escaped": b"x\x9c\x03\x00\x00\x00\x00\x01"}))
    assert (variant.out / "escaped").is_file() and not (tmp_path / "escaped").exists()
    with pytest.raises(KeyError):
        accept(variant, Delivery(None, {"logs/file": b""}))


def test_a_library_travels_with_its_companions(tmp_path: Path) -> None:
    library = Library(ModelSpec(), "float32", 1, tmp_path / "net.so")
    for path in (library.path, library.manifest_path, library.reference_path):
        path.write_text(path.name)
    parcel = pack(done, BenchJob(library, AGENTS, Timing()))
    assert parcel.profile == PROFILE and "the secret" not in str(vars(parcel.job.agents.endpoint))
    there = unpack(parcel, tmp_path / "there").library
    assert [path.read_text() for path in (there.path, there.manifest_path, there.reference_path)] == [
        "net.so",
        "net.json",
        "net.reference.npz",
    ]
    assert delivery(parcel.job, "result").files == {}


def test_a_candidate_needs_a_board_unless_it_is_only_built(tmp_path: Path) -> None:
    job = TrialJob(TASK, schedule(), None, AGENTS)
    assert isinstance(job, UsesBoard) and not isinstance(job, UsesFiles)
    assert pack(done, job).profile == PROFILE and pack(done, job, builds=True).profile is None
    for builds in (False, True):
        sent = unpack(pack(done, job, builds), tmp_path)
        assert sent.agents.endpoint.secret == "" and (sent.task, sent.schedule) == (job.task, job.schedule)


def test_a_board_of_the_users_own_travels_with_its_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("a board")
    agents = replace(AGENTS, profile=replace(PROFILE, board_file=str(file)))
    assert pack(done, TrialJob(TASK, schedule(), None, agents)).board_file == ("mine.toml", "a board")
    assert pack(done, TrialJob(TASK, schedule(), None, AGENTS)).board_file is None


def test_any_other_job_travels_as_it_is(tmp_path: Path) -> None:
    parcel = pack(done, "anything")
    assert (parcel.files, parcel.profile, unpack(parcel, tmp_path)) == ({}, None, "anything")
    assert accept("anything", delivery("anything", 5)) == 5
