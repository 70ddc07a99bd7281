"""Measures the noise that each int8 layer and each rounded tensor alone adds to a network's output."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from tvmmobile.graph.layers import Array, SumLayer
from tvmmobile.graph.network import by_number
from tvmmobile.quantisation.flow import Batch, Flow, FlowStep
from tvmmobile.quantisation.integers import IntegerNetwork, IntegerStep
from tvmmobile.quantisation.scales import Scale


@dataclass(frozen=True)
class AddedNoise:
    """Noise of a network's output, relative to the output's power, by the number of the only rounded step.

    Attributes:
        steps: noise of each integer step, due to its rounded weights, lookups and output.
        tensors: noise of rounding only an input, or the output of only one step that integer steps read.
        biases: noise of each integer step due to its rounded bias, if no later integer step corrects it (`Method.correct`).
    """

    steps: Mapping[int, float]
    tensors: Mapping[int, float]
    biases: Mapping[int, float] = field(default_factory=dict)


def added_noise(network: IntegerNetwork, batches: Iterable[Batch], correct: bool) -> AddedNoise:
    """Measure noise by running the float32 network with only one integer step, one bias or one tensor rounded at a time.

    Args:
        network: network with all possible layers in integers.
        batches: samples.
        correct: whether biases are corrected (`Method.correct`).
    """
    flow, scales = network.flow, _scales_read(network)
    steps, tensors, biases = (defaultdict[int, float](float) for _ in range(3))
    power = 0.0
    for batch in batches:
        exact = by_number(batch)
        for step in flow.steps:
            exact[step.number] = step.output(step.read(exact))
        expected = flow.joined(flow.outputs_in(exact), len(batch[0]))
        power += float(np.square(expected, dtype=np.float64).sum())

        def noise(number: int, value: Array, exact: dict[int, Array] = exact, expected: Array = expected) -> float:
            return float(np.square(_rerun(flow, exact, number, value).astype(np.float64) - expected).sum())

        for number, scale in scales.items():
            tensors[number] += noise(number, scale.rounded(exact[number]))
        for number, integers in network.steps.items():
            inputs = integers.step.read(exact)
            steps[number] += noise(number, _rounded(integers, inputs, correct, not correct))
            if correct and isinstance(integers.layer, SumLayer):
                biases[number] += noise(number, _rounded(integers, inputs, correct, True))
    for number, both in biases.items():
        biases[number] = max(0.0, both - steps[number])
    return AddedNoise(*({number: total / power if power else 0.0 for number, total in part.items()} for part in (steps, tensors, biases)))


def _scales_read(network: IntegerNetwork) -> dict[int, Scale]:
    """Return the scale of each tensor that integer steps read, by number."""
    scales: dict[int, Scale] = {}
    for integers in network.steps.values():
        sources = [source for source in integers.step.sources if isinstance(source, int)]
        scales |= dict(zip(sources, integers.scales, strict=True))
    return scales


def _rounded(integers: IntegerStep, inputs: tuple[Array, ...], correct: bool, bias_too: bool) -> Array:
    """Compute a step in float32 from exact inputs; round weights, table lookups, the output and, if `bias_too`, the bias as int8 does."""
    step = integers.step
    if isinstance(step.layer, SumLayer):
        assert step.parameters is not None
        weight = integers.parameters.weight.astype(np.float32) * integers.weight_scale
        parameters = replace(step.parameters, weight=weight)
        bias = parameters.bias.astype(np.float64)
        if correct:
            exact = step.sums(inputs)
            bias -= (replace(step, parameters=parameters).sums(inputs) - exact).mean(tuple(range(exact.ndim - 1)))
        if bias_too:
            unit = integers.read.step * integers.weight_scale.astype(np.float64)
            bias = np.rint(bias / unit) * unit
        parameters = replace(parameters, bias=bias.astype(np.float32))
        output = _looked_up(replace(step, parameters=parameters), inputs, integers.lookup_scale)
    else:
        output = step.output(inputs)
    return output if integers.written is None else integers.written.rounded(output)


def _looked_up(step: FlowStep, inputs: tuple[Array, ...], before: Scale | None) -> Array:
    """Compute a step's output, rounding its curve's argument to the scale `before`, if given."""
    if before is None:
        return step.output(inputs)
    return step.finished(before.rounded(step.sums(inputs)))


def _rerun(flow: Flow, exact: Mapping[int, Array], number: int, value: Array) -> Array:
    """Return the network's outputs, `Flow.joined`, after replacing one step's output by `value`.

    Args:
        exact: outputs of all steps, by number.
    """
    changed: dict[int, Array] = {number: value}
    for step in flow.steps:
        if step.number > number and any(isinstance(source, int) and source in changed for source in step.sources):
            changed[step.number] = step.output(step.read({**exact, **changed}))
            flow.release(changed, step.number)
    return flow.joined(flow.outputs_in({**exact, **changed}), len(exact[flow.inputs[0]]))
