"""Equal networks have equal lines; another weight or another wiring shows in the line of the node it belongs to."""

from __future__ import annotations

import numpy as np
import pytest

from studies.checks.network_digests import digest_of, digests
from tvmmobile.graph.layers import LayerParameters
from tvmmobile.networks.model import Model
from tvmmobile.pipeline.load import load


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return list(digests([load("squeezenet1_1", resolution=32)], "pi4-virtual", "float32"))


def test_nodes_kernels_and_results_have_a_line(lines: list[str]) -> None:
    network = "squeezenet1_1_1.0_32 pi4-virtual float32: "
    assert all(line.startswith(network) for line in lines)
    words = [line.removeprefix(network).split()[0] for line in lines]
    assert words.count("returns") == 1 and words.count("node") > 20 and words.count("kernel") > 20


def test_other_weights_differ_in_the_constants_alone(lines: list[str]) -> None:
    others = list(digests([Model(load("squeezenet1_1", resolution=32).spec, seed=1)], "pi4-virtual", "float32"))
    different = [(one, other) for one, other in zip(lines, others, strict=True) if one != other]
    assert different and all(" constants " in line for pair in different for line in pair)
    assert [one.split(" constants ")[0] for one, _ in different] == [other.split(" constants ")[0] for _, other in different]


def test_every_part_of_a_value_is_in_its_digest() -> None:
    weight, bias = np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros(3, np.float32)
    values = [
        LayerParameters(weight, bias),
        LayerParameters(weight.reshape(3, 2), bias),
        LayerParameters(weight, bias, (bias,)),
        LayerParameters(weight.astype(np.float16), bias),
        None,
    ]
    assert len({digest_of(value) for value in values}) == len(values)


def test_a_network_that_cannot_be_compiled_says_why() -> None:
    [line] = digests([load("mobilenet_v1", alpha=0.25, resolution=32)], "pi4-virtual", "float16")
    assert " float16: refused: " in line
