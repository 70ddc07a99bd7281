"""MobileNet v1 0.25-128 in double precision on the virtual Pi 4: kernels of every template involved are tuned, and the library
agrees with PyTorch. The precision is the one value in `float64.py`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from float64 import FLOAT64
from quiet_listener import Quiet

from tvmmobile.devices.registry import find_device
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.pipeline.job import variant_job
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.stages.building import build_libraries
from tvmmobile.pipeline.stages.preparing import collect_variants
from tvmmobile.pipeline.stages.timing import bench_libraries
from tvmmobile.running.bench import started_bench
from tvmmobile.system.workers import Workers
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.regions import distinct_tasks
from tvmmobile.tuning.search.tuner import assign, tune

pytestmark = [pytest.mark.virtual, pytest.mark.long]
#: Strassen's algorithm pays for many channels; no layer of the others has any that are left.
TUNED = {"pointwise", "depthwise", "image_conv", "dense", "separable", "strassen", "chain", "pool"}


def ignore(_: str) -> None:
    """Nobody listens."""


def test_a_network_in_double_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVMMOBILE_PLUGINS", "float64")
    device, logs = find_device("pi4"), tmp_path / "logs"
    job = variant_job(Model(ModelSpec("mobilenet_v1", 0.25, 128)), device.profile, (logs,), tmp_path, LibraryOptions(precision=FLOAT64))
    with Workers(2) as workers, started_bench(device, workers) as bench:
        (variant,) = collect_variants(workers, [job], ignore)
        database = Database(job.identity, (), logs)
        wanted = {each.template.name: each for each in assign(distinct_tasks([variant]), database, 1, job.profile.target) if each.template}
        assert set(wanted) == TUNED
        tune([replace(each, missing=1) for each in wanted.values()], database, bench, Quiet())
        (library,) = build_libraries(workers, [job], ignore)
        results = bench_libraries(bench, [library], ignore)
    assert library.path.name == "mobilenet_v1_0.25_128_float64_t1.so"
    (log,) = logs.glob("*/*.jsonl")
    tried = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert log.name == "float64_t1.jsonl" and len(tried) == len(TUNED) and all(record.get("latency_us") for record in tried), tried
    (result,) = results.variants
    assert result.dtype == "float64" and 0 < result.max_error < FLOAT64.network_tolerance
    manifest = library.manifest()
    kernels = {kernel["name"]: kernel for kernel in manifest["kernels"]}
    assert all(name.endswith("_float64_t1") for name in kernels) and manifest["input"]["dtype"] == manifest["output"]["dtype"] == "float32"
    made = [name for name, kernel in kernels.items() if "trace" in kernel["schedule"]]
    assert not made  # the first and the last kernel convert the input and the output
    assert {array.dtype for arrays in library.reference() for array in arrays} == {np.dtype("float32")}
    assert result.peak_share(results.context) == 2 * replace(result, dtype="float32").peak_share(results.context)
