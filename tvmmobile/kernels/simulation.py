"""A network's values on the host, layer by layer in PyTorch, and which layers need more digits than a precision has."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tvmmobile.graph.layers import NO_CLAMP, Array, Layer, LayerParameters, Opaque, SumLayer
from tvmmobile.graph.network import KeptLayer, Network, kernel_bindings
from tvmmobile.graph.passes.rewriting import bindings_of
from tvmmobile.graph.precision import Precision
from tvmmobile.kernels.codegen import compile_kernel
from tvmmobile.kernels.reference import compute_layer, relative_error


@dataclass(frozen=True)
class LayerRun:
    """One layer of a network at work, in float32.

    Attributes:
        node: its number.
        inputs: its first input, then what else it reads.
        output: its result.
    """

    node: int
    layer: Layer
    inputs: tuple[Array, ...]
    parameters: LayerParameters
    output: Array

    def again(self, layer: Layer, round_to: np.dtype[Any] | None = None) -> Array:
        """What another layer computes from the same numbers, or from these as a narrower type stores them."""

        def stored(array: Array) -> Array:
            with np.errstate(over="ignore"):
                return array if round_to is None else array.astype(round_to).astype(array.dtype)

        given = self.parameters
        constants = LayerParameters(stored(given.weight), stored(given.bias), tuple(map(stored, given.operands)))
        data, *others = map(stored, self.inputs)
        return stored(compute_layer(layer, data, constants, dict(zip(self.layer.side_shapes, others, strict=True))))


def run_layers(network: Network, image: Array) -> Iterator[LayerRun]:
    """Compute a float32 network node by node; yields the layers that templates take."""
    from tvm import relax

    main = network.module["main"]
    number_of = {binding.var: number for number, binding in enumerate(kernel_bindings(network.module))}
    values: dict[Any, Array] = {main.params[0]: image}

    def value_of(expression: Any) -> Array:
        return values[expression] if isinstance(expression, relax.Var) else expression.value.numpy()

    for binding in bindings_of(main):
        value, number = binding.value, number_of.get(binding.var)
        if number is None:
            source = value_of(value.args[0] if isinstance(value, relax.Call) else value)
            values[binding.var] = source.reshape([int(extent) for extent in binding.var.ty.shape])
            continue
        node = network.nodes[number]
        inputs = tuple(map(value_of, value.args[1].fields))
        if isinstance(node.layer, Opaque) or node.parameters is None:
            values[binding.var] = run_unscheduled(node.function, inputs)
            continue
        side = dict(zip(node.layer.side_shapes, inputs[1:], strict=True))
        values[binding.var] = output = compute_layer(node.layer, inputs[0], node.parameters, side)
        yield LayerRun(number, node.layer, inputs, node.parameters, output)


def run_unscheduled(function: Any, inputs: Sequence[Array]) -> Array:
    """An opaque function's output, from its unscheduled loops compiled for the host."""
    import tvm

    kind = list(function.params)[-1].ty
    output = tvm.runtime.tensor(np.zeros([int(extent) for extent in kind.shape], str(kind.dtype)))
    with tempfile.TemporaryDirectory(prefix="tvmmobile-host-") as folder:
        library = Path(folder) / "reference.so"
        compile_kernel(function.with_attr("global_symbol", "reference"), {"kind": "llvm"}, library)
        tvm.runtime.load_module(str(library))["reference"](*[tvm.runtime.tensor(array) for array in inputs], output)
    result: Array = output.numpy()
    return result


def layers_to_keep(network: Network, images: Sequence[Array], precision: Precision) -> tuple[KeptLayer, ...]:
    """Layers of a float32 network that `precision` is too small or too coarse for, by what they compute of some images."""
    found: dict[int, KeptLayer] = {}
    for image in images:
        for run in run_layers(network, image):
            why = "" if run.node in found else _unfit(run, precision)
            if why:
                found[run.node] = KeptLayer(run.node, run.layer.name, why)
    return tuple(found[node] for node in sorted(found))


def _unfit(run: LayerRun, precision: Precision) -> str:
    """Why a layer cannot be computed in a precision; "" where it can."""
    layer, kind = run.layer, precision.numpy
    sums = run.again(replace(layer, clamp=NO_CLAMP, then=())) if isinstance(layer, SumLayer) else run.output
    numbers = (*run.inputs, run.parameters.weight, run.parameters.bias, *run.parameters.operands, sums, run.output)
    largest = max(float(np.abs(array).max(initial=0.0)) for array in numbers)
    if not largest <= float(np.finfo(kind).max):
        return f"values up to {largest:.2g}"
    error = relative_error(run.again(layer, kind), run.output)
    return "" if error <= precision.tolerance else f"an error of {100 * error:.2g} % by rounding what it reads and writes"
