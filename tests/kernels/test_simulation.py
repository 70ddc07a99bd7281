"""Networks' values on the host."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from small_networks import Residual, prepared, seeded, unit
from torch import nn

from tvmmobile.graph.layers import NO_CLAMP, Array, Conv2d, Layer, LayerParameters, SumLayer
from tvmmobile.graph.precision import BFLOAT16, FLOAT16, Precision
from tvmmobile.kernels import simulation
from tvmmobile.kernels.simulation import LayerRun, layers_to_keep, run_layers, run_unscheduled


def test_a_function_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibration runs it for every input and choice of scales."""
    import tvm
    from tvm import te

    read = te.placeholder((3, 4), name="read")
    function = te.create_prim_func([read, te.compute((3, 4), lambda row, column: read[row, column] * 2.0)])
    compiled = []
    compile_kernel = simulation.compile_kernel
    monkeypatch.setattr(simulation, "compile_kernel", lambda *given: (compiled.append(given), compile_kernel(*given)))
    generator = np.random.default_rng(0)
    for _ in range(3):
        data = generator.normal(size=(3, 4)).astype(np.float32)
        again = tvm.IRModule({"main": function})["main"]  # the same function, held by another object of Python's
        assert (run_unscheduled(again, [data]) == 2 * data).all()
    assert len(compiled) == 1


@pytest.mark.parametrize("precision", [FLOAT16, BFLOAT16], ids=lambda precision: precision.name)
def test_numbers_are_rounded_as_numpy_does(precision: Precision) -> None:
    """Every number that the precision has, and those around every middle of two, where rounding changes; beyond the largest, too."""
    with np.errstate(invalid="ignore"):  # NaNs
        held = np.arange(1 << 16, dtype=np.uint16).view(precision.numpy).astype(np.float64)
    held = np.unique(held[np.isfinite(held)])
    middles = (held[1:] + held[:-1]) / 2
    beyond = held[-1] + (held[-1] - held[-2]) / 2
    changes = np.concatenate([middles, [beyond, -beyond]]).astype(np.float32)
    numbers = np.concatenate([held, changes, np.nextafter(changes, np.inf), np.nextafter(changes, -np.inf), [np.inf, -np.inf]])
    numbers = numbers.astype(np.float32)
    with np.errstate(over="ignore"):
        expected = numbers.astype(precision.numpy).astype(np.float32)
    assert len(numbers) > 200_000 and _same(simulation._stored(numbers, precision), expected)
    assert np.isnan(simulation._stored(np.array([np.nan], np.float32), precision)).all()


def test_each_product_is_computed_once_and_once_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs follow from sums, and are what layers compute by themselves, to the last bit."""
    inner = Residual(nn.Sequential(*unit(8, 8, 3, groups=8), *unit(8, 8, activation=nn.Hardswish())))
    network = seeded(*unit(3, 8, 3, 2), inner, nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(8, 5))
    image = np.random.default_rng(3).normal(0.0, 1.0, (1, 3, 10, 10)).astype(np.float32)
    read = prepared(network, image.shape)
    runs = list(run_layers(read, [image], _bare_output))
    assert {run.layer.clamp for run, _ in runs if isinstance(run.layer, SumLayer)} >= {NO_CLAMP, (0.0, 6.0), "hswish"}
    for run, output in runs:
        assert _same(run.output(), output) and _same(run.output(), run.output())
        bare: Any = replace(run.layer, clamp=NO_CLAMP, then=()) if isinstance(run.layer, SumLayer) else run.layer
        assert _same(np.ascontiguousarray(run.sums), _computed(run, bare))
    counts = dict.fromkeys((run.node for run, _ in runs if isinstance(run.layer, Conv2d)), 0)
    nodes = {id(node.parameters.weight): number for number, node in enumerate(read.nodes) if node.parameters is not None}
    compute = Conv2d.sums

    def counted(layer: Conv2d, data: Array, constants: LayerParameters, side: Any) -> Array:
        if id(constants.weight) in nodes:  # not rounded
            counts[nodes[id(constants.weight)]] += 1
        return compute(layer, data, constants, side)

    monkeypatch.setattr(Conv2d, "sums", counted)
    assert layers_to_keep(read, [[image]], FLOAT16) == () and set(counts.values()) == {1}


def _bare_output(run: LayerRun) -> Array:
    return _computed(run, run.layer)


def _computed(run: LayerRun, layer: Layer) -> Array:
    data, *others = run.inputs
    return layer.compute(data, run.parameters, dict(zip(run.layer.side_shapes, others, strict=True)))


def _same(one: Array, other: Array) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()
