"""`tm.tune` and `tm.tune_together` return latencies with libraries that can be run, also where no folder was named for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import tvmmobile as tm
from tvmmobile.devices.registry import find_device
from tvmmobile.pipeline.known_tasks import read_tasks
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.request import jobs_of
from tvmmobile.tuning.logs.directories import LogDirs

pytestmark = pytest.mark.virtual
IMAGE = np.random.default_rng(0).normal(size=(1, 3, 16, 16)).astype("float32")


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def check_they_run(libraries: Sequence[tm.CompiledLibrary], module: nn.Module, *devices: str) -> None:
    """Each computes what the module computes, on each device."""
    expected = module(torch.from_numpy(IMAGE)).detach().numpy()
    for library in libraries:
        for device in devices:
            np.testing.assert_allclose(library.run(IMAGE, device), expected, atol=1e-4)


def test_tuning_gives_the_libraries_that_were_timed(module: nn.Module, tmp_path: Path) -> None:
    networks = [tm.load(module, torch.from_numpy(IMAGE), name=name) for name in ("first", "second")]
    results = tm.tune(networks, "pi4-virtual", trials=0, logs=tmp_path)
    assert [library.path.stem for library in results.libraries] == [variant.name for variant in results.variants]
    check_they_run(results.libraries, module, "pi4-virtual")
    # `choose` prices them without another import.
    profile, logs = find_device("pi4").profile, LogDirs((), tmp_path)
    assert all(read_tasks(job) for job in jobs_of(networks, profile, LibraryOptions.of({"threads": 1}), tmp_path, logs, None))
    tm.report(results, tmp_path)
    read = tm.read_results(tmp_path / "report.json")
    assert (read.context, read.variants) == (results.context, results.variants)


def test_tuning_for_several_devices_gives_their_libraries_and_those_for_all(module: nn.Module, tmp_path: Path) -> None:
    network, devices = tm.load(module, torch.from_numpy(IMAGE), name="small"), ["pi4-virtual", "pi5-virtual"]
    both = tm.tune_together(network, devices, trials=0, logs=tmp_path)
    assert [results.context.device for results in both.results] == devices
    for results in both.results:
        check_they_run(results.libraries, module, results.context.device)
    (library,) = both.libraries
    assert list(library.kernels_by_device) == devices
    check_they_run([library], module, *devices)
    alone = tm.tune_together(network, devices[:1], trials=0, logs=tmp_path)
    assert alone.libraries == alone.results[0].libraries
