"""A detector's heads: C libraries have no kernel for the concatenation of their rows, nor have its plan, tasks and manifest; others do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tvmmobile
from tvmmobile.pipeline.diagnosis import _kernels, _outputs
from tvmmobile.pipeline.job import VariantJob, variant_job
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.planning import plan_variant, variant_tasks
from tvmmobile.pipeline.request import device_of
from tvmmobile.running.formats import FORMS, C
from tvmmobile.running.manifest import read_manifest
from tvmmobile.system.errors import UserError

#: The rows of one pixel come first: those of the image behind them begin at a multiple of 12 bytes, or of 3 in int8.
NETWORK = """
import torch
from torch import nn

class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.large, self.small = nn.Conv2d(3, 16, 3, 4, 1), nn.Conv2d(16, 3, 1), nn.Conv2d(16, 3, 1)
        self.last = nn.Linear(3, 5)

    def forward(self, image):
        image = self.first(image).relu()
        heads = self.small(image.mean((2, 3), keepdim=True)), self.large(image)
        return self.last(torch.cat([head.permute(0, 2, 3, 1).reshape(1, -1, 3) for head in heads], 1))

class TwoHeads(Detector):
    def forward(self, image):
        image = self.first(image).relu()
        return self.small(image).sigmoid(), 40 * self.large(image)
"""


def model_of(folder: Path, name: str = "Detector") -> Any:
    file = folder / "network.py"
    file.write_text(NETWORK)
    return tvmmobile.load(f"{file}:{name}", resolution=32)


def job_of(folder: Path, form: str) -> VariantJob:
    job = variant_job(model_of(folder), device_of("pi5").profile, (), folder / "out", LibraryOptions(format=form))
    return replace(job, prepared=folder / "prepared.npz")


def test_only_other_formats_have_a_task_for_it(tmp_path: Path) -> None:
    """The host's results for the plan, which explain a disagreement, are right without it."""
    ours, theirs = (variant_tasks(job_of(tmp_path, form)) for form in FORMS)
    names = [region.task.name for region in theirs.regions]
    (one,) = [name for name in names if name.startswith("concatenate_1x1x3_")]
    assert [region.task.name for region in ours.regions] == [name for name in names if name != one]
    assert ours.nodes == theirs.nodes and len(ours.sources) == len(theirs.sources) - 1
    planned = plan_variant(job := job_of(tmp_path, C))
    inputs, outputs = planned.prepared.reference
    computed = [kernel.computed for kernel in _kernels(planned, inputs, None)]
    for found, expected in zip(_outputs(planned, job.spec.returns, inputs, computed), outputs, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


def images_in(folder: Path) -> Path:
    np.save(folder / "images.npy", np.random.default_rng(0).uniform(-1, 1, (4, 3, 32, 32)).astype(np.float32))
    return folder / "images.npy"


@pytest.mark.virtual
def test_calibrated_networks_may_have_several_outputs(tmp_path: Path) -> None:
    options = {"dtype": "int8", "calibrate": images_in(tmp_path), "out": tmp_path / "out", "logs": tmp_path}
    library = tvmmobile.compile(model_of(tmp_path, "TwoHeads"), "pi5", **options)
    manifest = read_manifest(library.manifest_path)
    assert library.facts.checked and len(manifest.spec.returns) == 2 and len(manifest.quantisation["layers"]) == 3
    with pytest.raises(UserError, match=r"returns no scores of classes, but output0: float32 \[1, 3, 8, 8\], output1"):
        tvmmobile.compile(model_of(tmp_path, "TwoHeads"), "pi5", max_drop="1%", **options)


@pytest.mark.virtual
@pytest.mark.parametrize(("dtype", "threads"), [("float32", 2), ("int8", 1)])
def test_libraries_compute_it(dtype: str, threads: int, tmp_path: Path) -> None:
    """`compile` compares their outputs with PyTorch's."""
    images, model = images_in(tmp_path), model_of(tmp_path)
    data = images if dtype == "int8" else None
    library = tvmmobile.compile(model, "pi5", dtype=dtype, calibrate=data, threads=threads, out=tmp_path / "out", logs=tmp_path)
    manifest = read_manifest(library.manifest_path)
    assert library.facts.checked and not any("concatenate" in kernel.name for kernel in manifest.kernels)
