"""Tests of a manifest's entry on kernels that leave zeros out, from made-up records, and of what its result keeps of that."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tvmmobile
from tvmmobile.graph.layers import Conv2d
from tvmmobile.pipeline.build import build
from tvmmobile.pipeline.job import VariantJob, variant_job
from tvmmobile.pipeline.manifest import sparse_entry
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.outcome import result_of
from tvmmobile.pipeline.planning import PlannedVariant, plan_variant, variant_tasks
from tvmmobile.pipeline.request import device_of
from tvmmobile.running.measure import Latency, NetworkRun
from tvmmobile.schedules import template_for
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.plan import Price
from tvmmobile.tuning.records import Record
from tvmmobile.tuning.zeros import is_sparse

PROFILE = device_of("pi4").profile
#: Two blocks of a MobileNet v1 with a share of zeros in their 1×1 layers.
NETWORK = """
import torch
from torch import nn

class Blocks(nn.Sequential):
    def __init__(self):
        torch.manual_seed(0)
        body = [nn.Conv2d(3, 12, 3, 2, 1), nn.ReLU()]
        for inputs, outputs in (12, 24), (24, 32):
            product = nn.Conv2d(inputs, outputs, 1)
            product.weight.data *= torch.rand_like(product.weight) >= SHARE
            body += [nn.Conv2d(inputs, inputs, 3, 1, 1, groups=inputs), nn.ReLU(), product, nn.ReLU()]
        super().__init__(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5))
"""


def job_of(folder: Path, share: float, sparse_us: float = 100.0) -> VariantJob:
    """Return a job whose logs have a record for each kernel of a layer: of those that leave zeros out that long, 1 ms of the others."""
    file = folder / "network.py"
    file.write_text(NETWORK.replace("SHARE", str(share)))
    model = tvmmobile.load(f"{file}:Blocks", resolution=24)
    job = replace(variant_job(model, PROFILE, (folder / "logs",), folder / "out", LibraryOptions()), prepared=folder / "prepared.npz")
    records = {}
    for task in dict.fromkeys(region.task for region in variant_tasks(job).regions if region.first == region.last):
        template = template_for(task)
        space = template.space(task) if template else None
        assert space is not None
        latency_us = sparse_us if is_sparse(task) else 1000.0
        records[task] = Record(task, space.default, latency_us, cycles=round(1800 * latency_us))
    Database(job.identity, (), folder / "logs").append(list(records.values()))
    return job


def zeros_in(planned: PlannedVariant) -> list[float | None]:
    """Return the share of zeros in each 1×1 convolution's weights, by kernel."""
    found: list[float | None] = []
    for step in planned.steps:
        node = planned.network.nodes[step.first]
        pointwise = isinstance(node.layer, Conv2d) and node.layer.is_pointwise
        found.append(float(np.mean(node.parameters.weight == 0)) if pointwise and node.parameters else None)
    return found


def run_of() -> NetworkRun:
    return NetworkRun(Latency("modelled", 1e-4), (), 1 << 20, ())


def test_a_manifest_and_a_result_say_what_zeros_gain(tmp_path: Path) -> None:
    job = job_of(tmp_path, 0.8)
    planned = plan_variant(job)
    manifest = build(job).library.facts
    shares = [kernel.zeros for kernel in manifest.kernels]
    assert shares == [None if share is None else pytest.approx(share, abs=1e-4) for share in zeros_in(planned)]
    assert [share for share in shares if share is not None and 0.7 < share < 0.9] and manifest.sparse is not None
    records_us = math.fsum(kernel.latency_us or 0.0 for kernel in manifest.kernels)
    assert manifest.sparse.dense_us == 1000.0 * len(manifest.kernels) and manifest.sparse.gained_us == manifest.sparse.dense_us - records_us
    variant = result_of(job.library, run_of(), 0.0, PROFILE)
    assert [kernel.zeros for kernel in variant.kernels] == shares and variant.dense_us == manifest.sparse.dense_us
    elsewhere = result_of(job.library, run_of(), 0.0, device_of("pi5").profile)
    assert [kernel.zeros for kernel in elsewhere.kernels] == shares and elsewhere.dense_us is None


@pytest.mark.parametrize(("share", "sparse_us"), [(0.0, 100.0), (0.8, 2000.0)], ids=["no zeros", "dense kernels are faster"])
def test_dense_kernels_have_no_entries_on_zeros(tmp_path: Path, share: float, sparse_us: float) -> None:
    job = job_of(tmp_path, share, sparse_us)
    text = build(job).library.manifest_path.read_text()
    assert "zeros" not in text and "sparse" not in text and "dense_us" not in text
    assert result_of(job.library, run_of(), 0.0, PROFILE).dense_us is None


def test_what_has_no_records_is_not_compared(tmp_path: Path) -> None:
    """A kernel of the plan, or one of the best dense plan; and a sum that another's rounding made smaller is no loss."""
    planned = plan_variant(job_of(tmp_path, 0.8))
    unmeasured = (replace(planned.steps[0], price=Price(None, "never")), *planned.steps[1:])
    assert sparse_entry(planned.steps, planned.dense_us) and planned.dense_us
    assert sparse_entry(unmeasured, planned.dense_us) == sparse_entry(planned.steps, None) == {}
    assert sparse_entry(planned.steps, planned.dense_us / 1000) == {"sparse": {"dense_us": planned.dense_us / 1000, "gained_us": 0.0}}
