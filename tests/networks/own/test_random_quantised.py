"""Random quantised networks: whatever a tool wrote compiles, in integers where kernels have them, and computes what ONNX Runtime does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from quantised import run
from quantised_files import in_integers, smallest_step
from random_quantised import TOOLS, Tool, image_of, quantised_by, random_network

from tvmmobile.graph.layers import Conv2d
from tvmmobile.networks.own.onnx_runtime import start_onnx_runtime

pytestmark = pytest.mark.filterwarnings("ignore")
#: Share of the largest magnitude by which float32 may differ.
_FLOATS = 1e-4


def check(folder: Path, seed: int, tool: Tool, most: int = 4) -> None:
    """A library's kernels on the host are at most a step off, which behind one another may become two; and the integers of a simulation."""
    model, shape = random_network(seed, most)
    path = quantised_by(tool, model, shape, folder / "net.onnx")
    ready, image = in_integers(path), image_of(shape, 9)
    _, compute = start_onnx_runtime(onnx.load(path), ["x"])
    (expected,) = compute([image])
    output = run(ready.network, image).reshape(expected.shape)
    largest = np.abs(expected).max()
    if ready.integers is not None and most > 1:
        assert np.abs(ready.integers.outputs(image).reshape(expected.shape) - output).max() <= _FLOATS * largest
    # Numbers that are not rounded at the end have no step of their own: they carry those of the layers in front.
    step = smallest_step(expected) if tool.form in ("QDQ", "operators") else 0.02 * largest
    off = np.abs(output - expected)
    assert off.max() <= 2.01 * step and np.median(off) <= _FLOATS * largest, f"{seed} {tool}: {off.max() / step} steps"
    if tool.form in ("QDQ", "operators") and "16" not in tool.activations:
        assert any(node.dtype == "int8" for node in ready.network.nodes if isinstance(node.layer, Conv2d))


@pytest.mark.parametrize("form", [form if form != "16 bits" else pytest.param(form, marks=pytest.mark.long) for form in TOOLS])
def test_a_random_network(tmp_path: Path, form: str) -> None:
    check(tmp_path, 1, TOOLS[form][-1], 1)


@pytest.mark.long
@pytest.mark.parametrize("form", TOOLS)
def test_many_random_networks(tmp_path: Path, form: str) -> None:
    for seed in range(100, 160):
        check(tmp_path, seed, TOOLS[form][seed % len(TOOLS[form])])
