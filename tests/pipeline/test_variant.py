"""A network is prepared once for all stages of a run: what a later stage reads is what an earlier one prepared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tvmmobile
from tvmmobile.graph.precision import FLOAT16, FLOAT32, INT8, Precision
from tvmmobile.networks.preprocessing import Preprocessing
from tvmmobile.pipeline import variant
from tvmmobile.pipeline.cluster.parcel import accept, delivery, pack, unpack
from tvmmobile.pipeline.job import VariantJob, variant_job
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.planning import variant_tasks
from tvmmobile.pipeline.request import device_of
from tvmmobile.pipeline.variant import prepare_variant
from tvmmobile.quantisation.data import calibration_data

#: A slope, an operator that no template takes, and a softmax: layers with operands, opaque ones, and such that stay in float32.
NETWORK = """
from torch import nn

def make():
    first = nn.Conv2d(3, 16, 3, 2, 1), nn.PReLU(16), nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.Softplus()
    return nn.Sequential(*first, nn.Conv2d(16, 24, 1), nn.Softmax(1))
"""


def job_of(folder: Path, precision: Precision, **settings: Any) -> VariantJob:
    """Return a job of a small network, whose file for the prepared one is not there yet."""
    file = folder / "network.py"
    file.write_text(NETWORK)
    model = tvmmobile.load(f"{file}:make", resolution=16)
    data = calibration_data("noise:4", Preprocessing(16), generated=True) if precision.is_integer else None
    job = variant_job(
        model, device_of("pi5").profile, (), folder / "out", LibraryOptions(precision=precision, **settings), calibration=data
    )
    return replace(job, prepared=folder / "kept/network.npz")


@pytest.mark.parametrize(("precision", "settings"), [(FLOAT32, {}), (FLOAT16, {"max_error": 1e-3}), (INT8, {"keep": ("0",)})])
def test_a_later_stage_reads_what_an_earlier_one_prepared(
    precision: Precision, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tvm

    job = job_of(tmp_path, precision, **settings)
    fresh = prepare_variant(job)
    assert variant_tasks(replace(job, prepared=None)) == variant_tasks(job)
    monkeypatch.delattr("tvmmobile.pipeline.prepared.prepared")
    monkeypatch.delattr(variant, "import_variant")
    found = prepare_variant(job)
    tvm.ir.assert_structural_equal(found.network.module, fresh.network.module)
    assert (
        found.network.float32_layers == fresh.network.float32_layers
        and found.origin == fresh.origin
        and repr(found.details) == repr(fresh.details)
    )
    for one, other in zip(found.network.nodes, fresh.network.nodes, strict=True):
        assert (one.layer, one.dtype, one.alone, one.gated) == (other.layer, other.dtype, other.alone, other.gated)
        assert type(one.parameters) is type(other.parameters)
        np.testing.assert_equal(one.parameters and vars(one.parameters), other.parameters and vars(other.parameters))
    np.testing.assert_equal((found.reference, found.integers), (fresh.reference, fresh.integers))


def test_a_full_disk_does_not_matter(tmp_path: Path) -> None:
    """The network is prepared in every stage then."""
    (tmp_path / "kept").touch()
    assert prepare_variant(job_of(tmp_path, FLOAT32)).network.nodes


def test_what_a_machine_of_a_cluster_prepared_comes_back(tmp_path: Path) -> None:
    """Another machine gets it in place of the calibration data."""
    data = tmp_path / "data.npy"
    np.save(data, np.ones((1, 3, 16, 16), np.float32))
    job = job_of(tmp_path, INT8)
    assert job.calibration is not None and job.prepared is not None
    job = replace(job, calibration=replace(job.calibration, place=data))
    there = unpack(pack(variant_tasks, replace(job, returns_prepared=True)), tmp_path / "there")
    assert there.prepared.is_relative_to(tmp_path / "there") and "calibration/data.npy" in job.reads()
    there.prepared.parent.mkdir()
    there.prepared.write_bytes(b"prepared")
    assert accept(replace(job, returns_prepared=True), delivery(there, 0)) == 0 and job.prepared.read_bytes() == b"prepared"
    later = unpack(pack(variant_tasks, job), tmp_path / "later")
    assert later.prepared.read_bytes() == b"prepared" and not (tmp_path / "later/calibration").exists()
    assert not delivery(later, 0).files
