"""Keeps layers in float32: those that the user names, and the fewest others with which an accuracy limit holds."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np

from tvmmobile.graph.layers import Array, Gating, Rounding
from tvmmobile.graph.network import INPUT
from tvmmobile.quantisation.calibration import Accepts, Images, Method, Observed, observe, quantised
from tvmmobile.quantisation.flow import Flow, Step
from tvmmobile.quantisation.integers import IntegerNetwork
from tvmmobile.system.errors import UserError

#: Images on which networks are compared, at most.
_COMPARED = 128
_LIMIT = re.compile(r"(\d{1,3}(?:\.\d{1,9})?)(dB|%)")


@dataclass(frozen=True)
class Limit:
    """The limit of an integer network's error against float32 on calibration data.

    Attributes:
        value: the least signal-to-noise ratio; or the most top-1 that may be lost, in points, where classes are known, or else the most
            inputs that may get another class, in percent.
        unit: `dB` or `%`.
    """

    value: float
    unit: str

    def __str__(self) -> str:
        return f"{self.value:g}{self.unit}"

    def holds(self, outputs: Array, expected: Array, labels: Sequence[int] = ()) -> bool:
        """Return whether the outputs of a batch are close enough.

        Args:
            labels: the class of each input, if that is known.
        """
        if self.unit == "%":
            count = len(expected)
            ours, theirs = (some.reshape(count, -1).argmax(1) for some in (outputs, expected))
            worse = int((theirs == labels).sum()) - int((ours == labels).sum()) if labels else int((ours != theirs).sum())
            return 100 * worse / count <= self.value
        noise = float(np.square(outputs.astype(np.float64) - expected).sum())
        return noise * 10 ** (self.value / 10) <= float(np.square(expected, dtype=np.float64).sum())


def limit_of(given: str) -> Limit:
    """Parse `--max-drop`, such as `30dB` or `1%`; raises `UserError` for anything else."""
    found = _LIMIT.fullmatch(given)
    if found is None:
        raise UserError(
            f"--max-drop {given} is neither a signal-to-noise ratio nor a share of the data.",
            "Give it as 30dB; or as 1%, which top-1 may lose on calibration data in class folders, or which may get another class.",
        )
    return Limit(float(found[1]), found[2])


def chosen_layers(flow: Flow, patterns: Collection[str]) -> dict[int, str]:
    """Find the layers that `--keep` names: by their number or their name in the float32 network, in which `*` stands for anything.

    Returns:
        For the number of each layer the reason to keep it.

    Raises:
        UserError: a pattern fits none.
    """
    found: dict[int, str] = {}
    for pattern in patterns:
        fitting = [step for step in _keepable(flow) if pattern == str(step.number) or fnmatchcase(step.layer.name, pattern)]
        if not fitting:
            first = next(_keepable(flow), None)
            example = f" Its first layer is {first.number}, {first.layer.name}." if first else ""
            raise UserError(f"--keep {pattern} fits no layer of the network.", f"Give a layer's number or name; * fits anything.{example}")
        found |= {step.number: f"--keep {pattern}" for step in fitting}
    return found


def _keepable(flow: Flow) -> Iterator[Step]:
    """Return the steps that have a kernel in float32; gates do not, because other kernels apply them."""
    return (step for step in flow.steps if step.parameters is not None and not isinstance(step.layer, Gating | Rounding))


@dataclass(frozen=True)
class Decision:
    """The results of quantisation that take long to find.

    Attributes:
        method: how it is quantised.
        kept: for the number of each layer that was chosen for float32 the reason.
    """

    method: Method
    kept: Mapping[int, str]


@dataclass(frozen=True, eq=False)
class Mixed:
    """A network in integers and float32, with the decision that made it."""

    network: IntegerNetwork
    decision: Decision


def quantise_within(flow: Flow, images: Images, method: Method, accepts: Accepts, kept: dict[int, str], limit: Limit | None) -> Mixed:
    """Quantise a network but for the layers in `kept`, those that are not accepted, and the fewest others with which the limit holds:
    those whose own rounding adds most noise to their output come first. Before that, weights get all their bits.

    Raises:
        UserError: the limit takes more than all layers that can be in float32.
    """
    observed = observe(flow, images, method.equalise)
    network = quantised(observed, method, accepts, kept)
    if limit is None:
        return Mixed(network, Decision(method, kept))
    data = images.some(_COMPARED)

    def fits(tried: IntegerNetwork) -> bool:
        outputs, expected = zip(*((tried.outputs(batch), flow.outputs(batch)) for batch in data.batches()), strict=True)
        return limit.holds(np.concatenate(outputs), np.concatenate(expected), data.labels)

    if fits(network):
        return Mixed(network, Decision(method, kept))
    if method.narrow:
        return quantise_within(flow, images, replace(method, narrow=frozenset()), accepts, kept, limit)
    noise = layer_noise(observed, network)
    order = sorted((step.number for step in _keepable(flow) if step.number in noise), key=lambda number: -noise[number])
    few, many = 0, len(order)
    found = quantised(observed, method, accepts, [*kept, *order])
    while few + 1 < many:
        middle = (few + many) // 2
        tried = quantised(observed, method, accepts, [*kept, *order[:middle]])
        if fits(tried):
            many, found = middle, tried
        else:
            few = middle
    if many == len(order) and not fits(found):
        raise UserError(
            f"--max-drop {limit} cannot be met: what stays in int8 with every layer in float32 that can be, such as gates, costs more.",
            "Give another limit, or leave out --dtype int8.",
        )
    return Mixed(found, Decision(method, kept | dict.fromkeys(order[:many], f"--max-drop {limit}")))


def layer_noise(observed: Observed, network: IntegerNetwork) -> dict[int, float]:
    """Return the noise that each integer step adds to float32 inputs, as a share of its output's power."""
    values: dict[int, Array] = {INPUT: observed.some}
    found: dict[int, float] = {}
    for step in network.flow.steps:
        inputs = step.read(values)
        values[step.number] = exact = step.output(inputs)
        integers = network.steps.get(step.number)
        if integers is not None:
            added = network.real(step.number, integers.output(inputs)).astype(np.float64) - exact
            power = float(np.square(exact, dtype=np.float64).sum())
            found[step.number] = float(np.square(added).sum()) / power if power else math.inf
        network.flow.release(values, step.number)
    return found
