"""LiteRT's LSTM over a sequence beside LiteRT's own runtime, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from litert_files import LiteRtFile, agrees, by_litert, network_in, refused
from own_networks import load, network_of

from tvmmobile.graph.layers import Recurrent
from tvmmobile.networks.own.litert.file import start_litert


def network(seed: int, form: str = "", more: int = 0, **values: Any) -> tuple[bytes, list[np.ndarray[Any, Any]]]:
    """Return a file of one LSTM with random extents and `more` steps, and its input."""
    random, file = np.random.default_rng(seed), LiteRtFile()
    steps, batch, inputs, units = (int(n) for n in random.integers(1, 7, 4))
    steps += more
    time_major = bool(random.integers(2))
    first, second = (steps, batch) if time_major else (batch, steps)

    def constant(*shape: int) -> int:
        return file.tensor(shape, value=random.normal(0.0, 0.6, shape))

    data, out = file.tensor((first, second, inputs)), file.tensor((first, second, units))
    weights = [constant(units, inputs) for _ in range(4)] + [constant(units, units) for _ in range(4)]
    if form == "coupled":
        weights[0] = weights[4] = -1
    holes = [constant(units) if form == "peepholes" else -1 for _ in range(3)]
    biases = [constant(units) for _ in range(4)]
    states = [file.tensor((batch, units)) for _ in range(2)]
    for state in states:
        file.graph.tensors[state].isVariable = True
    options = {"fusedActivationFunction": 4, "timeMajor": time_major} | values
    file.operator(
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        [data, *weights, *holes, *biases, -1, -1, *states, -1, -1, -1, -1],
        [out],
        "UnidirectionalSequenceLSTMOptions",
        **options,
    )
    return file.ends([data], [out]), [random.standard_normal((first, second, inputs), np.float32)]


@pytest.mark.parametrize("seed", range(6))
def test_an_lstm_agrees(seed: int) -> None:
    agrees(*network(seed))


def test_peepholes_agree() -> None:
    agrees(*network(1, "peepholes"))


@pytest.mark.parametrize(("bound", "more"), [(10.0, 0), (10.0, 12), (6.0, 0)])
def test_bounds_that_memories_do_not_reach(bound: float, more: int) -> None:
    """TensorFlow's converter sets 10 for each LSTM of Keras."""
    agrees(*network(1, more=more, cellClip=bound))


@pytest.mark.parametrize(
    ("form", "values", "fault"),
    [("coupled", {}, "coupled gates"), ("", {"cellClip": 1.0}, "bounds"), ("", {"fusedActivationFunction": 1}, "activation 1")],
)
def test_other_forms_are_refused(form: str, values: dict[str, Any], fault: str) -> None:
    assert f"UNIDIRECTIONAL_SEQUENCE_LSTM with {fault}" in refused(network(0, form, **values)[0])


def test_the_reference_begins_with_zeros_in_each_call() -> None:
    content, inputs = network(3)
    _, compute = start_litert(content, network_in(content))
    first, second = (compute(inputs)[0].copy() for _ in range(2))
    assert np.array_equal(first, second) and np.array_equal(first, by_litert(content, inputs)[0])


def test_it_is_one_kernel(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(network(2, cellClip=10.0)[0])
    found = [node.layer for node in network_of(load(path)).nodes if isinstance(node.layer, Recurrent)]
    assert [layer.cell for layer in found] == ["lstm"] and not found[0].initial
