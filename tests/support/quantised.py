"""Small float32 networks as steps, and the trained one, for tests of quantisation; what a network in integers computes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from lowered_networks import prepare
from trained import trained

from studies.trained.digits import SIDE, digits, inputs_of
from tvmmobile.graph.bindings import bindings_of, results_of
from tvmmobile.graph.integers import HIGHEST, LOWEST, IntegerParameters
from tvmmobile.graph.layers import Array, Layer
from tvmmobile.graph.network import Network, kernel_bindings, read_network
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.integer_reference import compute_integers
from tvmmobile.kernels.simulation import run_unscheduled
from tvmmobile.networks.frontend import import_torch
from tvmmobile.quantisation.calibration import CalibrationSamples
from tvmmobile.quantisation.equalisation import pairs_of, scaled
from tvmmobile.quantisation.flow import Flow, flow_of
from tvmmobile.schedules import template_for


def flow_from(module: torch.nn.Module, shape: tuple[int, ...], apart: type[Layer] | tuple[()] = ()) -> Flow:
    """Return the steps of a network in PyTorch, in eval mode; layers `apart` have no template."""

    def accepts(layer: Layer) -> bool:
        return not isinstance(layer, apart) and template_for(Task((layer,))) is not None

    return flow_of(read_network(*prepare(import_torch(module, shape), accepts)))


def samples_of(*arrays: Array) -> CalibrationSamples:
    """Wrap calibration data in memory, an array for each input of the network; images in NCHW."""
    return CalibrationSamples(len(arrays[0]), lambda numbers: tuple(array[list(numbers)] for array in arrays))


@cache
def trained_flow() -> Flow:
    """Return the steps of the trained MobileNet v1 0.25-32."""
    return flow_from(trained(), (1, 3, SIDE, SIDE))


@cache
def digit_inputs(count: int, seed: int) -> Array:
    """Digits as the trained network takes them; not to be changed."""
    return inputs_of(digits(count, seed)[0])


def rescaled(flow: Flow, seed: int, octaves: float = 3.0) -> Flow:
    """Return the same network with each channel between layers divided by a factor of its own, log-uniform over 2^±octaves."""
    generator = np.random.default_rng(seed)
    for pair in pairs_of(flow):
        channels = flow.steps[pair.first].layer.output_shape[-1]
        flow = scaled(flow, pair, np.exp2(generator.uniform(-octaves, octaves, channels)))
    return flow


def decibels(output: Array, expected: Array) -> float:
    """Signal to noise of an output."""
    noise = np.square(output.astype(np.float64) - expected).sum()
    return float(10 * np.log10(np.square(expected, dtype=np.float64).sum() / noise)) if noise else np.inf


def run(read: Network, image: Array) -> Array:
    """Return the result of `main` for its only input, each layer by its reference."""
    (output,) = run_all(read, [image])
    return output


def run_all(read: Network, images: Sequence[Array]) -> tuple[Array, ...]:
    """Return the results of `main`, each layer by its reference."""
    from tvm import relax

    main, number_of = read.module["main"], {binding.var: number for number, binding in enumerate(kernel_bindings(read.module))}
    values = dict(zip(main.params, images, strict=True))
    for binding in bindings_of(main):
        value = binding.value
        if binding.var not in number_of:
            source = values[value.args[0] if isinstance(value, relax.Call) else value]
            values[binding.var] = source.reshape([int(extent) for extent in binding.var.ty.shape])
            continue
        node = read.nodes[number_of[binding.var]]
        data, *others = [values[field] if isinstance(field, relax.Var) else field.value.numpy() for field in value.args[1].fields]
        written = getattr(node.layer, "writes", "") or node.dtype
        assert str(binding.var.ty.dtype) == written or not node.dtype
        if isinstance(node.parameters, IntegerParameters):
            values[binding.var] = compute_integers(
                node.layer, data, node.parameters, dict(zip(node.layer.side_shapes, others, strict=True))
            )
        elif node.parameters is None:
            values[binding.var] = run_unscheduled(node.function, [data, *others])
        else:
            found = node.layer.compute(data, node.parameters, dict(zip(node.layer.side_shapes, others, strict=True)))
            values[binding.var] = np.rint(found).clip(LOWEST, HIGHEST).astype(np.int8) if written == "int8" else found
    return tuple(values[result] for result in results_of(main))
