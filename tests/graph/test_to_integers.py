"""The pass that puts layers in integers: what is stored between them, and what they compute together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from quantised import decibels, flow_from, run, samples_of
from small_networks import Lambda, Residual, SqueezeExcite, seeded, unit
from torch import nn

from tvmmobile.graph.layers import NO_CLAMP, Array, Conv2d, Dense, Gating, Layer, LayerParameters, Opaque, Pool
from tvmmobile.graph.network import Network, read_network
from tvmmobile.graph.passes.pipeline import compose, lower_in_nhwc
from tvmmobile.graph.passes.rounded_outputs import rounded_output
from tvmmobile.graph.tasks import Task
from tvmmobile.networks.frontend import import_torch
from tvmmobile.quantisation.calibration import Method, quantise
from tvmmobile.quantisation.flow import flow_of
from tvmmobile.quantisation.integers import IntegerNetwork
from tvmmobile.quantisation.lowering import lower_quantised
from tvmmobile.schedules import template_for

SHAPE = (1, 3, 12, 12)
Refused = Callable[[Layer], bool]


def network() -> nn.Module:
    """MobileNet's layers, with a residual block, squeeze-and-excite and curves in between."""
    bent, linear = ({"activation": kind} for kind in (nn.Hardswish(), nn.Identity()))
    inner = Residual(nn.Sequential(*unit(8, 8, 3, groups=8, **bent), SqueezeExcite(8), *unit(8, 8, **linear)))
    return seeded(
        *unit(3, 8, 3, 2), inner, *unit(8, 16, activation=nn.Hardsigmoid()), nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(16, 5)
    )


def adds(layer: Layer) -> bool:
    return isinstance(layer, Conv2d) and layer.residual


def is_curved(layer: Layer) -> bool:
    return isinstance(layer, Conv2d) and isinstance(layer.clamp, str)


def is_pool(layer: Layer) -> bool:
    return isinstance(layer, Pool)


def composes(layer: Layer) -> bool:
    """Gates are layers of their own, which only integers have."""
    if isinstance(layer, Conv2d) and layer.scaled:
        return False
    return template_for(Task((layer,), "int8" if isinstance(layer, Gating) else "float32")) is not None


def accepts(layer: Layer) -> bool:
    return template_for(Task((layer,), "int8")) is not None


def quantised(
    refused: Refused = lambda layer: False, images: Array | None = None, module: nn.Module | None = None
) -> tuple[IntegerNetwork, Network]:
    """Return a network in integers, by default `network`, and the same as the planner reads it."""
    composed = compose(import_torch(module or network(), SHAPE), composes)
    wide = read_network(*lower_in_nhwc(composed))
    if images is None:
        images = np.random.default_rng(0).normal(0, 1, (8, *SHAPE[1:])).astype(np.float32)
    found = quantise(flow_of(wide), samples_of(images), Method("minimum and maximum"), lambda layer: not refused(layer))
    return found, lower_quantised(found, composed, wide, accepts).network


def is_gate(layer: Layer) -> bool:
    return isinstance(layer, Gating)


def is_convolution(layer: Layer) -> bool:
    return isinstance(layer, Conv2d)


def is_first(layer: Layer) -> bool:
    return isinstance(layer, Conv2d) and layer.in_channels == 3


def is_dense(layer: Layer) -> bool:
    return isinstance(layer, Dense)


@pytest.mark.parametrize(
    "refused",
    [
        lambda layer: False,
        is_pool,
        is_dense,
        is_convolution,
        adds,
        is_curved,
        is_first,
        is_gate,
        lambda layer: not is_gate(layer),
        lambda layer: True,
    ],
)
def test_the_module_computes_what_was_simulated(refused: Refused) -> None:
    """Whichever layers are refused: those stay in float32, with conversions beside them, and gates as products; input and output are
    float32."""
    found, read = quantised(refused)
    kinds = [node.dtype for node in read.nodes if not isinstance(node.layer, Opaque)]
    layers = [step for step in found.flow.steps if step.parameters is not None and not (is_gate(step.layer) and refused(step.layer))]
    assert kinds == ["int8" if step.number in found.steps else "float32" for step in layers]
    assert kinds == ["float32" if refused(node.layer) else "int8" for node in read.nodes if not isinstance(node.layer, Opaque)]
    main = read.module["main"]
    assert str(main.params[0].ty.dtype) == str(main.body.body.ty.dtype) == "float32"
    image = np.random.default_rng(1).normal(0, 1, SHAPE).astype(np.float32)
    output = run(read, image)
    assert np.abs(output - found.outputs(image)).max() < 1e-4
    with torch.no_grad():
        assert decibels(output, network()(torch.from_numpy(image)).numpy()) > 20


def test_constants_that_integers_are_joined_with() -> None:
    """Such constants, for example coordinates, are on no grid."""
    rows = torch.linspace(-9, 9, 12).reshape(1, 1, 12, 1).expand(1, 2, 12, 12)
    joined = Lambda(lambda image: torch.cat([image, rows], 1))
    module = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(), joined, nn.Conv2d(10, 4, 1)).eval()
    image = np.random.default_rng(1).normal(0, 1, SHAPE).astype(np.float32)
    found, read = quantised(images=image, module=module)
    assert len(found.steps) == 3 and np.abs(run(read, image) - found.outputs(image)).max() < 1e-4


def test_ends_convert_and_conversions_are_shared() -> None:
    """The first layer rounds the image, the last returns real numbers; in between are no floats but those of a layer without integers."""
    found, read = quantised()
    assert len(found.steps) == len(read.nodes) == len(found.flow.steps)
    found, read = quantised(adds)
    layers = [node.layer for node in read.nodes]
    assert layers[0].reads == layers[-1].writes == "float32" and layers[0].writes == layers[-1].reads == ""  # type: ignore[union-attr]
    opaque = [node.layer.operator for node in read.nodes if isinstance(node.layer, Opaque)]
    assert len(opaque) == 2  # behind the first layer, and behind the depthwise one
    assert len(found.steps) == len(found.flow.steps) - 1
    assert decibels(flow_from(network(), SHAPE).outputs(np.ones(SHAPE, np.float32)), found.flow.outputs(np.ones(SHAPE, np.float32))) > 80


def test_a_layer_in_float32_stores_what_integer_layers_read() -> None:
    """Its bounds are those of int8, and its weights in steps of its output: nothing is left between it and its two readers."""
    found, read = quantised(is_first)
    layers = [node.layer for node in read.nodes]
    assert len(found.steps) == len(read.nodes) - 1 and not any(isinstance(layer, Opaque) for layer in layers)
    first = layers[0]
    assert isinstance(first, Conv2d) and (first.reads, first.writes, first.clamp) == ("", "int8", NO_CLAMP)


CONVOLUTION = Conv2d(6, 6, 3, 4, clamp=(0.0, 6.0))
PARAMETERS = LayerParameters(np.ones((1, 1, 3, 4), np.float32), np.full(4, 0.5, np.float32))


def test_weights_are_in_steps_where_bounds_are_those_of_int8() -> None:
    """ReLU6 from -128 to 127 or more; not where it ends before, nor with anything but bounds behind the sums: results are scaled there."""
    found = rounded_output(CONVOLUTION, PARAMETERS, 255 / 6, -128)
    assert found is not None and found.layer == replace(CONVOLUTION, clamp=NO_CLAMP, writes="int8")
    assert (found.parameters.weight == np.float32(255 / 6)).all() and (found.parameters.bias == np.float32(255 / 12 - 128)).all()
    unbounded = replace(CONVOLUTION, clamp=NO_CLAMP)
    found = rounded_output(unbounded, PARAMETERS, 1.0, 0)
    assert found is not None and not found.layer.operands
    for layer, per_step, zero in (
        (CONVOLUTION, 254.4 / 6, -128),
        (CONVOLUTION, 100.0, -126),
        (replace(unbounded, clamp="hswish"), 1.0, 0),
        (replace(unbounded, then=("silu",)), 1.0, 0),
        (replace(unbounded, residual=True), 1.0, 0),
    ):
        found = rounded_output(layer, PARAMETERS, per_step, zero)
        assert found is not None and found.layer == replace(layer, then=(*layer.then, "scaled"), writes="int8")
        assert found.parameters.weight is PARAMETERS.weight
        assert [set(operand.tolist()) for operand in found.parameters.operands] == [{np.float32(per_step)}, {zero}]
    assert rounded_output(Pool(4, 4, 8), PARAMETERS, 1.0, 0) is None


def test_conversions_of_one_shape_are_one_task() -> None:
    """Whatever the scales: what is tuned for one network holds for another."""
    names = set()
    for seed in (0, 1):
        images = np.random.default_rng(seed).normal(0, 1 + seed, (4, *SHAPE[1:])).astype(np.float32)
        _, read = quantised(lambda layer: adds(layer) or is_pool(layer), images)
        found = [node.layer.name for node in read.nodes if isinstance(node.layer, Opaque)]
        assert len(found) == 6 > len(set(found))  # those of the residual block's end, and those beside each pool
        names.add(tuple(found))
    assert len(names) == 1
