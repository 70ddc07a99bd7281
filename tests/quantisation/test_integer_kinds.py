"""An integer kind is one file: the one in docs/layer-kinds.md is quantised, computed and given constants like the compiler's own."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tvmmobile.graph.integers import short_multipliers
from tvmmobile.graph.layers import NO_PARAMETERS, Conv2d, Dense, Gating, IntegerLayer, LayerParameters, MaxPool, MeanPool, Pool, Resize
from tvmmobile.graph.network import INPUT
from tvmmobile.graph.precision import FLOAT16, FLOAT32, INT8
from tvmmobile.kernels.integer_reference import compute_integers, random_integers
from tvmmobile.quantisation.flow import Flow, FlowStep
from tvmmobile.quantisation.integers import IntegerNetwork, has_floats, has_integers, integer_step
from tvmmobile.quantisation.scales import scale_of

GUIDE = Path(__file__).parents[2] / "docs/layer-kinds.md"
WINDOW = Conv2d(8, 8, 16, 16, (3, 3), (1, 1), (1, 1, 1, 1))


@pytest.fixture
def written(tmp_path: Path) -> Iterator[ModuleType]:
    """The module of the guide's integer kind."""
    (text,) = re.findall(r"## An integer kind\n.*?```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path / "total.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("kind_of_the_guide", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_a_new_kind_is_quantised_by_its_own_file(written: ModuleType) -> None:
    layer = written.Total(5, 7, 8)
    data = np.random.default_rng(3).uniform(-1, 2, (1, 5, 7, 8)).astype(np.float32)
    step = FlowStep(0, layer, NO_PARAMETERS, (INPUT,))
    assert has_integers(step) and not has_floats(step)
    exact = step.output((data,))
    read, wide = scale_of(-1, 2), scale_of(float(exact.min()), float(exact.max()))
    found = integer_step(step, read, wide)
    network = IntegerNetwork(Flow((step,), (0,)), {0: found}, {0: wide})
    steps_of_the_input = 0.5 * read.step * layer.terms**0.5 * 4  # errors of rounding are independent: four times their deviation at most
    assert np.abs(network.outputs(data) - exact).max() <= steps_of_the_input + wide.step
    assert found.sums([data]).shape == (1, 1, 1, 8)


def test_channels_of_tiny_weights_keep_their_biases() -> None:
    """Batch norms make such channels: their multipliers are too small to be rounded to short ones, the others' are short as ever."""
    layer = Conv2d(8, 8, 8, 8, (3, 3), (1, 1), (1, 1, 1, 1), 8, clamp=(0.0, 6.0))
    generator, scale = np.random.default_rng(0), scale_of(0, 6)
    weight = generator.normal(0, 0.3, layer.weight_shape).astype(np.float32)
    weight[..., 1:4] *= np.float32([0, 1e-6, 1e-4])
    step = FlowStep(5, layer, LayerParameters(weight, np.full(8, 1.2, np.float32), ()), (3,))
    found = integer_step(step, scale, scale)
    data = scale.quantised(generator.uniform(0, 6, (1, 8, 8, 8)).astype(np.float32))
    assert np.abs(scale.real(found.output([data])) - step.output((scale.real(data),))).max() <= 2 * scale.step
    multiplier = found.parameters.multiplier
    assert found.layer.integers.wide and (multiplier == short_multipliers(multiplier)).tolist() == [True, False, False, False, *[True] * 4]


def test_constants_of_a_new_kind_are_drawn_and_reach_the_bounds(written: ModuleType) -> None:
    layer = written.Total(9, 9, 256)
    given = random_integers(layer, np.random.default_rng(1))
    assert isinstance(layer, IntegerLayer) and not given.weight.size and not layer.is_wide(given) and not layer.converts_sums
    output = compute_integers(layer, np.random.default_rng(2).integers(-128, 128, (1, 9, 9, 256)).astype(np.int8), given)
    assert output.shape == (1, 1, 1, 256) and output.dtype == np.int8 and {-128, 127} <= set(output.ravel())


def test_layers_say_in_which_networks_they_are() -> None:
    scaled = Conv2d(8, 8, 16, 16, scaled=True)
    assert [layer.composed_as(INT8) for layer in (WINDOW, scaled, Gating(8, 8, 16))] == [FLOAT32, None, INT8]
    assert [layer.composed_as(FLOAT16) for layer in (WINDOW, scaled, Gating(8, 8, 16))] == [FLOAT16, FLOAT16, None]
    joined = Conv2d(8, 8, 16, 16, sources=(8, 8), pieces=((0, 0, 8), (1, 0, 8)))
    apart = (joined, Dense(8, 8, "prelu"), MaxPool(8, 8, 16, (2, 2)), Resize(4, 4, 8, 8, 8, "nearest", "half_pixel"))
    together = (WINDOW, Dense(8, 8, "hswish"), MeanPool(8, 8, 16, (2, 2)), Resize(4, 4, 8, 8, 8, "linear", "half_pixel"))
    assert all(layer.apart_in_integers for layer in apart) and not any(layer.apart_in_integers for layer in together)
    assert not Dense(8, 8, "prelu", writes="int8").apart_in_integers


def test_layers_say_whether_integers_have_them() -> None:
    curves = {"hswish"}
    accepted = (WINDOW, Dense(8, 8, "hswish"), Conv2d(8, 8, 16, 16, residual=True), Pool(8, 8, 16), Gating(8, 8, 16))
    refused = (Dense(8, 8, "silu"), Dense(8, 8, then=("hswish",)), MeanPool(8, 8, 16, (2, 2)), Conv2d(8, 8, 16, 16, sources=(16,)))
    assert all(layer.has_integer_form(curves) for layer in accepted) and not any(layer.has_integer_form(curves) for layer in refused)
    assert [layer.can_write_floats for layer in accepted if isinstance(layer, IntegerLayer)] == [True, False, False, True, False]
