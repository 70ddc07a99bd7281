"""Networks whose outputs depend on the last bits of their weights: right libraries pass, wrong ones do not."""

from __future__ import annotations

import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from deployed import make_library
from network_files import Graph, write_model
from onnx import helper

import tvmmobile as tm
from tvmmobile.devices.registry import find_device
from tvmmobile.networks.own.onnx import importer
from tvmmobile.pipeline.job import VariantJob, variant_job
from tvmmobile.pipeline.movement import _changed, movement, note_rounding
from tvmmobile.pipeline.stages import explaining
from tvmmobile.pipeline.stages.building import build_libraries
from tvmmobile.pipeline.variant import import_variant
from tvmmobile.running.library import find_libraries
from tvmmobile.system.errors import Disagreement

SHAPE = (1, 3, 8, 8)


def cancelling(folder: Path, factor: float) -> VariantJob:
    """Compile a network whose second convolution gets nothing from the first but its roundings, times a factor."""
    generator = np.random.default_rng(0)
    first = generator.normal(size=(6, 3, 1, 1))
    nothing = np.linalg.svd(first[:, :, 0, 0])[0][:, 3:].T
    second = factor * nothing[..., None, None] * generator.normal(size=(3, 3))
    constants = {"v": first.astype(np.float32), "w": second.astype(np.float32), "b": np.array([-1, 1, 0.5], np.float32)}
    nodes = [helper.make_node(*node) for node in (("Conv", ["x", "v"], ["d"]), ("Conv", ["d", "w", "b"], ["e"]), ("Sigmoid", ["e"], ["y"]))]
    model = tm.load(write_model(folder / "net.onnx", Graph(nodes, constants), SHAPE))
    return replace(variant_job(model, find_device("pi4-virtual").profile, (), folder), unchecked="")


class Here:
    """Workers in this process."""

    def run(self, function: Any, jobs: Any, _timeout_s: float) -> Any:
        return ((job, function(job)) for job in jobs)


def test_outputs_move_in_proportion(tmp_path: Path) -> None:
    inputs = (np.random.default_rng(1).normal(size=SHAPE).astype(np.float32),)
    little, much = (movement(import_variant(cancelling(tmp_path, factor)).module, inputs) for factor in (100, 1000))
    assert 5 < much / little < 20 and 1e-4 < much < 5e-4


def test_what_does_not_change() -> None:
    numbers = np.array([0, 1, -2.5, np.inf, -np.inf, 3], np.float32)
    drawn = [_changed(numbers, np.random.default_rng(seed)) for seed in range(8)]
    np.testing.assert_array_equal(np.stack(drawn)[:, [0, 3, 4]], np.broadcast_to(numbers[[0, 3, 4]], (8, 3)))
    differences = np.abs(np.stack(drawn)[:, [1, 2, 5]] / numbers[[1, 2, 5]] - 1)
    assert differences.any(0).all() and differences.max() < 2**-22
    whole = np.arange(3)
    assert _changed(whole, np.random.default_rng(0)) is whole


@pytest.mark.virtual
def test_a_right_library_passes_and_a_wrong_one_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tvm import relax

    heard: list[str] = []
    job = cancelling(tmp_path, 5000)
    build_libraries(Here(), [job], heard.append, heard.append)  # type: ignore[arg-type]
    [library] = find_libraries([tmp_path])
    error, most = library.facts.check.error, library.facts.rounding
    assert error is not None and 1e-4 < error <= most == library.tolerance < 0.02
    assert heard == [
        "net_1.0_8",
        (
            f"net_1.0_8 is compared within {most:g}: a change of its weights' last bits moves its outputs by up to {most / 2:.2g}, and the "
            "reference rounds too."
        ),
    ]
    wrong = {"Sigmoid": lambda inputs, _attrs, _opset: relax.op.multiply(relax.op.sigmoid(inputs[0]), relax.const(0.98))}
    monkeypatch.setattr(importer, "CONVERTERS", importer.CONVERTERS | wrong)
    with pytest.raises(Disagreement) as refused:
        build_libraries(Here(), [job], heard.append)  # type: ignore[arg-type]
    assert re.search(
        r"error 0\.02\d* of the output's largest magnitude, more than 0\.00\d+; the first value that differs is that of Sigmoid \S+ "
        r"as it is imported \(error 0\.02\d*\), but a change of its weights' last bits moves its outputs by up to 0\.00\d+\.$",
        refused.value.message,
    ), refused.value.message


def test_on_a_device_a_tolerance_is_widened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, heard = make_library(tmp_path), list[str]()
    jobs: Any = [SimpleNamespace(library=library) for library in find_libraries([path])]
    monkeypatch.setattr(explaining, "rounding_of", lambda _job: 0.0004)
    monkeypatch.setattr(explaining, "explain", lambda _job, **_given: None)
    monkeypatch.setattr(explaining, "build_timeout_s", lambda _jobs: 1.0)
    workers: Any = Here()
    for name, wider in (("another.so", False), (path.name, True), (path.name, False)):
        error = Disagreement(f"{name} disagrees with PyTorch on pi4: error 0.0003.", library=name)
        with nullcontext() if wider else pytest.raises(Disagreement):
            explaining.accept_roundings(error, workers, jobs, heard.append)
    assert len(heard) == 1 and " is compared within 0.0004: " in heard[0]


@pytest.mark.parametrize(("most", "tolerance"), [(1e-5, 1e-4), (0.0, 1e-4), (3e-4, 3e-4), (0.03, 1e-4), (float("inf"), 1e-4)])
def test_how_wide_a_tolerance_may_be(tmp_path: Path, most: float, tolerance: float) -> None:
    [library] = find_libraries([make_library(tmp_path)])
    assert note_rounding(library, most) == (tolerance > 1e-4)
    assert library.tolerance == tolerance
