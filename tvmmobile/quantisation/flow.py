"""A composed float32 network as a list of steps whose weights can be changed, and which PyTorch runs on the host in batches."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from tvmmobile.graph.curves import CURVES
from tvmmobile.graph.layers import NO_CLAMP, Array, Layer, LayerParameters, SumLayer
from tvmmobile.graph.network import INPUT, Network, by_number, results_from, sources_of
from tvmmobile.kernels.simulation import run_unscheduled

#: An array for each input of a network, in order, with samples along the first dimension; float32, images in NCHW.
Batch = tuple[Array, ...]


@dataclass(frozen=True, eq=False)
class FlowStep:
    """One step of a network, the work of one kernel.

    Attributes:
        number: number of the step's node in the network.
        layer: layer that the step computes.
        parameters: constants of the layer in float32; `None` for an opaque layer.
        sources: sources of the step's inputs: the number of a step or of a network input, or a constant.
        most: upper bound per channel, in place of the clamp's; `None` if the clamp's bound applies.
        function: TIR function of an opaque layer.
    """

    number: int
    layer: Layer
    parameters: LayerParameters | None
    sources: tuple[int | Array, ...]
    most: Array | None = None
    function: Any = None

    @property
    def summing(self) -> bool:
        """True for a convolution or matrix product whose sums are only clamped."""
        return self.layer.sum_bounds is not None

    @property
    def curve(self) -> str:
        """The curve after a convolution or matrix product for which int8 kernels use a lookup table; "" if there is none."""
        return self.layer.looked_up_curve

    @property
    def finishes(self) -> bool:
        """True if `finished` can compute the step's output from its `sums`."""
        return self.summing or bool(self.curve)

    @property
    def bounds(self) -> tuple[float, float | Array]:
        """Lower and upper bound of a `summing` step; infinite if it has none."""
        assert self.layer.sum_bounds is not None
        low, high = self.layer.sum_bounds
        return low, high if self.most is None else self.most

    def read(self, values: Mapping[int, Array]) -> tuple[Array, ...]:
        """Return the step's inputs, given the outputs of earlier steps."""
        return tuple(values[source] if isinstance(source, int) else source for source in self.sources)

    def sums(self, inputs: tuple[Array, ...]) -> Array:
        """Compute the sums of a convolution or matrix product, residual included, before its bounds or curve."""
        assert isinstance(self.layer, SumLayer)
        return self._computed(self.layer.with_clamp(NO_CLAMP), inputs)

    def output(self, inputs: tuple[Array, ...]) -> Array:
        """Compute the output of a batch, with samples along the first dimension; constants apply to all samples."""
        if self.finishes:
            return self.finished(self.sums(inputs))
        if self.layer.computes_batches:
            return self._computed(self.layer, inputs)
        return np.concatenate([np.atleast_1d(self._of_one(*sample)) for sample in self._each(inputs)])

    def finished(self, sums: Array) -> Array:
        """Compute the output from the `sums` of a step that `finishes` them, by its curve or bounds."""
        if self.curve:
            return CURVES[self.curve].exact(sums.astype(np.float64)).astype(sums.dtype)
        return np.asarray(np.clip(sums, *self.bounds))

    def _computed(self, layer: Layer, inputs: tuple[Array, ...]) -> Array:
        assert self.parameters is not None
        data, *others = (array.reshape(-1, *shape[1:]) for array, shape in zip(inputs, layer.read_shapes, strict=True))
        return layer.compute(data, self.parameters, dict(zip(layer.side_shapes, others, strict=True)))

    def _each(self, inputs: tuple[Array, ...]) -> Iterator[tuple[Array, ...]]:
        """Yield the inputs of each sample of a batch, for layers without a batch dimension, such as attention."""
        shapes = self.layer.read_shapes
        shaped = [array.reshape(-1, *shape) for array, shape in zip(inputs, shapes, strict=True)]
        for place in range(max(map(len, shaped))):
            yield tuple(np.asarray(array[place if len(array) > 1 else 0], order="C") for array in shaped)

    def _of_one(self, data: Array, *others: Array) -> Array:
        if self.parameters is None:
            return run_unscheduled(self.function, [data, *others])
        return self.layer.compute(data, self.parameters, dict(zip(self.layer.side_shapes, others, strict=True)))


@dataclass(frozen=True, eq=False)
class Flow:
    """The steps of a network in execution order.

    Attributes:
        results: sources of the network's outputs: the number of a step or of an input, or a constant.
        inputs: number of each input of the network, in order.
        weights: factor of each output in `joined`, such that all outputs have a say; empty for a network with one output.
    """

    steps: tuple[FlowStep, ...]
    results: tuple[int | Array, ...]
    inputs: tuple[int, ...] = (INPUT,)
    weights: tuple[float, ...] = ()

    @cached_property
    def readers(self) -> Mapping[int, tuple[int, ...]]:
        """Numbers of the steps that read each input and each step's output, by number; repeated for each read."""
        by_source: dict[int, list[int]] = defaultdict(list)
        for step in self.steps:
            for source in step.sources:
                if isinstance(source, int):
                    by_source[source].append(step.number)
        return {number: tuple(readers) for number, readers in by_source.items()}

    def changed(self, *steps: FlowStep) -> Flow:
        """Return the flow with these steps in place of those with the same numbers."""
        new = {step.number: step for step in steps}
        return replace(self, steps=tuple(new.get(step.number, step) for step in self.steps))

    def run(self, *inputs: Array) -> Iterator[tuple[FlowStep, Array, Array]]:
        """Compute a batch; yield each step with its sums (its output, unless it `finishes` sums) and its output.

        Values are released after their last reader.

        Args:
            inputs: the network's inputs, images in NCHW.
        """
        values = by_number(inputs)
        for step in self.steps:
            read = step.read(values)
            sums = step.sums(read) if step.finishes else step.output(read)
            output = step.finished(sums) if step.finishes else sums
            yield step, sums, output
            values[step.number] = output
            self.release(values, step.number)

    def release(self, values: dict[int, Any], done: int) -> None:
        """Delete the values that no step after `done` reads and that are not outputs of the network."""
        for number in [number for number in values if max(self.readers.get(number, (number,))) <= done and number != done]:
            if number not in self._returned:
                del values[number]

    @cached_property
    def _returned(self) -> frozenset[int]:
        return frozenset(result for result in self.results if isinstance(result, int))

    def outputs(self, *inputs: Array) -> Array:
        """Return the network's outputs for a batch, `joined`."""
        return self.joined(self.separate_outputs(*inputs), len(inputs[0]))

    def joined(self, results: Sequence[Array], count: int) -> Array:
        """Return the outputs for `count` samples as one array: an only one as it is, several of them weighted, in one row per sample."""
        if not self.weights:
            (result,) = results
            return result
        return np.concatenate([array.reshape(count, -1) * weight for array, weight in zip(results, self.weights, strict=True) if weight], 1)

    @property
    def output_elements(self) -> int:
        """Number of elements of all outputs for one sample."""
        return sum(math.prod(step.layer.output_shape) for step in self.steps if step.number in self._returned)

    def weighted(self, *inputs: Array) -> Flow:
        """Return the flow with weights that give all outputs the same power on a batch, if there are several that depend on the inputs."""
        if len(self.results) == 1:
            return self
        varying = set(self.inputs)
        for step in self.steps:
            if not varying.isdisjoint(source for source in step.sources if isinstance(source, int)):
                varying.add(step.number)
        powers = [
            float(np.square(array, dtype=np.float64).mean()) if isinstance(result, int) and result in varying else 0.0
            for result, array in zip(self.results, self.separate_outputs(*inputs), strict=True)
        ]
        return replace(self, weights=tuple(1 / math.sqrt(power) if power else 0.0 for power in powers))

    def outputs_in(self, values: Mapping[int, Array]) -> tuple[Array, ...]:
        """Return the network's outputs, given its inputs and the outputs of steps."""
        return tuple(values[result] if isinstance(result, int) else result for result in self.results)

    def separate_outputs(self, *inputs: Array) -> tuple[Array, ...]:
        """Return the network's outputs, each by itself, for a batch."""
        values = by_number(inputs)
        values |= {step.number: output for step, _, output in self.run(*inputs) if step.number in self._returned}
        return self.outputs_in(values)


def flow_of(network: Network) -> Flow:
    """Return the flow of a float32 network that `passes.pipeline.lower_to_kernels` returned."""
    wired = zip(network.nodes, sources_of(network.module), strict=True)
    steps = (FlowStep(number, node.layer, node.parameters, read, None, node.function) for number, (node, read) in enumerate(wired))
    inputs = tuple(INPUT - place for place in range(len(network.module["main"].params)))
    return Flow(tuple(steps), tuple(results_from(network.module)), inputs)
