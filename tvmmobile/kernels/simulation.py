"""Simulates a network layer by layer in PyTorch on the host, and finds layers whose values a precision cannot represent well enough."""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array, Layer, LayerParameters, SumLayer
from tvmmobile.graph.machine import ANY
from tvmmobile.graph.network import Float32Layer, Network, by_number, results_from, sources_of
from tvmmobile.graph.precision import BFLOAT16, FLOAT16, Precision
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.codegen import compile_kernel
from tvmmobile.kernels.reference import relative_error
from tvmmobile.schedules import all_templates
from tvmmobile.schedules.template import Algorithm

#: Root mean square of a relative rounding error, as a multiple of half the machine epsilon, for evenly spread mantissas.
_ROUNDED = 0.4
#: Precisions to which PyTorch rounds as NumPy does, but much faster.
_ROUNDED_BY_TORCH = (FLOAT16.name, BFLOAT16.name)
#: Largest error assumed for other inputs, as a multiple of the largest measured one.
_UNSEEN = 1.25


@dataclass(frozen=True)
class LayerRun:
    """One execution of a network's layer in float32.

    Attributes:
        node: number of the layer's node in the network.
        inputs: the layer's first input, then its side inputs.
    """

    node: int
    layer: Layer
    inputs: tuple[Array, ...]
    parameters: LayerParameters

    @cached_property
    def sums(self) -> Array:
        """The layer's sums before bounds and curves, with channels last; the output of a layer without sums."""
        compute = self.layer.sums if isinstance(self.layer, SumLayer) else self.layer.compute
        return compute(self.inputs[0], self.parameters, self._side(self.inputs[1:]))

    def output(self) -> Array:
        """Compute the layer's output from its sums."""
        if not isinstance(self.layer, SumLayer):
            return self.sums
        return self.layer.finished(self.sums, self.parameters, self._side(self.inputs[1:]))

    def rounded(self, precision: Precision) -> Array:
        """Compute the layer's output with inputs, constants and output rounded to a precision, and sums in float32."""
        stored, exact = partial(_stored, precision=precision), self.parameters
        constants = LayerParameters(stored(exact.weight), stored(exact.bias), tuple(map(stored, exact.operands)))
        data, *others = map(stored, self.inputs)
        return stored(self.layer.compute(data, constants, self._side(others)))

    def in_precision(self, precision: Precision, generator: np.random.Generator) -> Array:
        """Estimate the layer's output in a precision: `rounded`, with noise for the rounding of partial sums.

        A sum is computed as N chains of L terms each, whose results are then added. The partial sums of a chain are modelled as a random
        walk, and each of them is rounded, as are those of the N results. If total sums have variance v and one rounding has the relative
        error r, the variance of the error is v · (L + N) / 2 · r², plus b² / 3 · r² for each sum on the way from a bias b to the result.
        Algorithms that multiply sums of inputs have more of it (`Algorithm.noise`). Clamped outputs have no such noise.
        """
        output = self.rounded(precision)
        if not isinstance(self.layer, SumLayer):
            return output
        terms = math.prod(self.layer.weight_shape[:-1])
        chain = min(precision.chain or terms, terms)
        chains = -(-terms // chain)
        # In C order, as the last digits of a mean depend on the memory order.
        sums, bias = self.sums.astype(np.float64, order="C"), self.parameters.bias.astype(np.float64)
        power = np.square(sums - bias).mean(tuple(range(sums.ndim - 1))) * (chain + chains) / 2
        power += np.square(bias) * (terms if chains == 1 else chains) / 3
        share = _ROUNDED * float(np.finfo(precision.accumulator).eps) / 2
        share *= max((algorithm.noise for algorithm in _algorithms(self.layer, precision)), default=1.0)
        clamp = self.layer.clamp
        low, high = clamp if isinstance(clamp, tuple) else (None, None)
        inside = (output > (-np.inf if low is None else low)) & (output < (np.inf if high is None else high))
        noise = share * np.sqrt(power) * generator.normal(0.0, 1.0, output.shape) * inside
        return _stored((output + noise).astype(output.dtype), precision)

    def _side(self, others: Sequence[Array]) -> dict[str, Array]:
        return dict(zip(self.layer.side_shapes, others, strict=True))


def _stored(array: Array, precision: Precision) -> Array:
    """Round floating-point numbers to a precision, keeping their type; return integers unchanged."""
    if array.dtype.kind != "f":
        return array
    if precision.name in _ROUNDED_BY_TORCH:
        import torch

        wide = torch.from_numpy(array if array.flags.writeable else array.copy())
        rounded: Array = wide.to(getattr(torch, precision.name)).to(wide.dtype).numpy()
        return rounded
    with np.errstate(over="ignore"):
        return array.astype(precision.numpy).astype(array.dtype)


def network_outputs(network: Network, inputs: Sequence[Array]) -> tuple[Array, ...]:
    """Compute the outputs of a float32 network, with the shapes that its kernels write."""
    values: dict[int, Array] = {}
    for _ in run_layers(network, inputs, values=values):
        pass
    return tuple(values[result] if isinstance(result, int) else result for result in results_from(network.module))


def run_layers(
    network: Network,
    inputs: Sequence[Array],
    compute: Callable[[LayerRun], Array] = LayerRun.output,
    values: dict[int, Array] | None = None,
) -> Iterator[tuple[LayerRun, Array]]:
    """Compute a float32 network node by node; yield each layer with parameters and its output, in order.

    Args:
        inputs: the network's inputs, in order.
        compute: returns a layer's output.
        values: dictionary to which inputs and all outputs are added, by the number of the input or node.
    """
    values = {} if values is None else values
    values |= by_number(inputs)
    for number, (node, sources) in enumerate(zip(network.nodes, sources_of(network.module), strict=True)):
        arrays = (values[source] if isinstance(source, int) else source for source in sources)
        read = tuple(array.reshape(shape) for array, shape in zip(arrays, node.layer.read_shapes, strict=True))
        if node.parameters is None:
            values[number] = run_unscheduled(node.function, read)
            continue
        run = LayerRun(number, node.layer, read, node.parameters)
        values[number] = output = compute(run)
        yield run, output


def run_unscheduled(function: Any, inputs: Sequence[Array]) -> Array:
    """Compute an opaque function's output with its unscheduled loops, compiled for the host."""
    import tvm

    kind = list(function.params)[-1].ty
    output = tvm.runtime.tensor(np.zeros([int(extent) for extent in kind.shape], str(kind.dtype)))
    _unscheduled(function)(*[tvm.runtime.tensor(array) for array in inputs], output)
    result: Array = output.numpy()
    return result


@functools.lru_cache(maxsize=64)
def _unscheduled(function: Any) -> Any:
    """Compile a TIR function for the host; cached, as calibration calls it for each batch and method."""
    import tvm

    with tempfile.TemporaryDirectory(prefix="tvmmobile-host-") as folder:
        library = Path(folder) / "reference.so"
        compile_kernel(function.with_attr("global_symbol", "reference"), {"kind": "llvm"}, library)
        return tvm.runtime.load_module(str(library))["reference"]


def layers_to_keep(
    network: Network, inputs: Sequence[Sequence[Array]], precision: Precision, most_error: float | None = None
) -> tuple[Float32Layer, ...]:
    """Find the layers of a float32 network for which `precision` has too small a range or too coarse a rounding.

    Args:
        inputs: inputs of the network, for each run.
        most_error: largest error of the network's output, relative to its largest magnitude. To meet it, layers at the network's start,
            whose errors all later layers inherit, are kept in float32, too.
    """
    kept: dict[int, Float32Layer] = {}
    outputs = []
    for arrays in inputs:
        for run, output in run_layers(network, arrays):
            why = "" if run.node in kept else _unfit(run, output, precision)
            if why:
                kept[run.node] = Float32Layer(run.node, run.layer.name, why)
        outputs.append(output)
    if most_error is not None:
        error = partial(_error, network, inputs, outputs, precision)
        kept |= {layer.node: layer for layer in _first_layers(network, frozenset(kept), error, most_error)}
    return tuple(kept[node] for node in sorted(kept))


def _first_layers(
    network: Network, wide: frozenset[int], error: Callable[[frozenset[int]], float], most_error: float
) -> Iterator[Float32Layer]:
    """Yield the fewest layers at the network's start that have to be in float32, besides the nodes in `wide`, to meet `most_error`.

    Args:
        error: returns the error with the given nodes in float32.
    """
    layers = [node for node, entry in enumerate(network.nodes) if entry.parameters is not None and node not in wide]
    least = error(wide)
    if least <= most_error:
        return
    few, many, left = 0, len(layers), 0.0  # too few layers; enough layers, and the error with them
    while few + 1 < many:
        middle = (few + many) // 2
        remaining = error(wide.union(layers[:middle]))
        few, many, left = (few, middle, remaining) if remaining <= most_error else (middle, many, left)
    why = f"for an error of about {100 * left:.2g} %, not {100 * least:.2g} %"
    yield from (Float32Layer(node, network.nodes[node].layer.name, why) for node in layers[:many])


def _error(
    network: Network, inputs: Sequence[Sequence[Array]], outputs: Sequence[Array], precision: Precision, wide: frozenset[int]
) -> float:
    """Estimate the largest relative error of a network's last layer with all nodes in a precision but those in `wide`.

    Args:
        outputs: exact outputs of the last layer, for each run.
    """
    largest = 0.0
    for arrays, expected in zip(inputs, outputs, strict=True):
        generator = np.random.default_rng(0)

        def compute(run: LayerRun, generator: np.random.Generator = generator) -> Array:
            return run.output() if run.node in wide else run.in_precision(precision, generator)

        *_, (_, output) = run_layers(network, arrays, compute)
        largest = max(largest, relative_error(output, expected))
    return _UNSEEN * largest


def _algorithms(layer: Layer, precision: Precision) -> list[Algorithm]:
    """Return the algorithms with which a layer may be computed in a precision, other than the direct sum."""
    task = Task((layer,), precision.name, machine=ANY)
    return [one.algorithm for one in all_templates() if one.algorithm is not None and one.space(task) is not None]


def _largest(array: Array) -> float:
    return float(np.abs(array).max(initial=0.0))


def _unfit(run: LayerRun, output: Array, precision: Precision) -> str:
    """Return why a layer cannot be computed in a precision; "" if it can."""
    numbers = (*run.inputs, run.parameters.weight, run.parameters.bias, *run.parameters.operands, run.sums, output)
    limit, largest = float(precision.limits.max), max(map(_largest, numbers))
    if not largest <= limit:
        return f"values up to {largest:.2g}"
    read = _largest(run.inputs[0])
    for algorithm in _algorithms(run.layer, precision):
        if algorithm.growth * read > limit:
            return f"values up to {algorithm.growth * read:.2g} in {algorithm.name}"
    error = relative_error(run.rounded(precision), output)
    return "" if error <= precision.tolerance else f"an error of {100 * error:.2g} % by rounding what it reads and writes"
