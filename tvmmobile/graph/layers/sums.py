"""Steps on a complete sum: a bound or an activation, and further ones, which may read other tensors."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from tvmmobile.graph.curves import CHANNEL, CURVES, GATE, TENSOR
from tvmmobile.graph.layers.kind import Layer
from tvmmobile.graph.parameters import Array, LayerParameters
from tvmmobile.graph.small_weights import rounded

#: Applied to the output: lower and upper bound, `None` if unbounded; or the name of one of `curves.CURVES`.
Clamp = tuple[float | None, float | None] | str
NO_CLAMP: Clamp = (None, None)

_CLAMP_NAMES: dict[Clamp, str] = {(None, None): "linear", (0.0, None): "relu", (0.0, 6.0): "relu6"}


def clamp_name(clamp: Clamp) -> str:
    """Return `relu6` for (0, 6), `relu`, `linear`, the name of a curve, else both bounds."""
    if isinstance(clamp, str):
        return clamp
    known = _CLAMP_NAMES.get(clamp)
    return known or "clamp" + "_".join("inf" if bound is None else f"{bound:g}" for bound in clamp)


class SumLayer(Layer):
    """A layer whose results are sums that begin with a bias and pass through steps once complete.

    Attributes:
        weights: name of the precision in which the kernel's weights are stored, see `graph.small_weights`; "" for the kernel's own.
    """

    clamp: Clamp
    then: tuple[Clamp, ...]
    #: See `Conv2d`.
    added: tuple[int, ...] = ()

    @property
    @abstractmethod
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weights, output channels last."""

    @property
    def plain_shape(self) -> tuple[int, ...]:
        """Shape of the output with channels last."""
        return self.output_shape

    @property
    def steps(self) -> tuple[Clamp, ...]:
        """The steps of a complete sum, in order."""
        return tuple(step for step in (self.clamp, *self.then) if step != NO_CLAMP)

    @property
    def operands(self) -> tuple[str, ...]:
        """Kinds of the steps' operands besides the sum, in order: see `Curve.operands`."""
        return tuple(kind for step in self.steps if isinstance(step, str) and step in CURVES for kind in CURVES[step].operands)

    @property
    def constants(self) -> int:
        """Number of weights, biases, and per-channel operands of steps."""
        return math.prod(self.weight_shape) + (1 + self.operands.count(CHANNEL)) * self.weight_shape[-1]

    @property
    def side_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors that steps read."""
        shape = self.plain_shape
        shapes = {TENSOR: shape, GATE: (*[1] * (len(shape) - 1), shape[-1])}
        return {f"operand{number}": shapes[kind] for number, kind in enumerate(kind for kind in self.operands if kind != CHANNEL)}

    def _weights_name(self) -> list[str]:
        return [f"{self.weights}weights"] * bool(self.weights)

    def _steps_name(self) -> list[str]:
        return [clamp_name(self.clamp), *map(clamp_name, self.then)]

    def random_parameters(self, generator: np.random.Generator, dtype: np.dtype[Any]) -> LayerParameters:
        """Draw weights and biases with which sums are spread over the range of the clamp and partly beyond it."""
        fan_in = int(np.prod(self.weight_shape[:-1]))
        weight = generator.normal(0.0, 1.8 / np.sqrt(fan_in), self.weight_shape).astype(dtype)
        weight = rounded(weight, self.weights) if self.weights else weight
        bias, *operands = (generator.normal(0.5, 1.0, self.weight_shape[-1]).astype(dtype) for _ in range(1 + self.operands.count(CHANNEL)))
        return LayerParameters(weight, bias, tuple(operands))

    @abstractmethod
    def sums(self, data: Array, constants: LayerParameters, side: Mapping[str, Array]) -> Array:
        """Compute the complete sums, bias and residual included, of which `finished` makes the output; channels are last."""

    def finished(self, sums: Array, constants: LayerParameters, side: Mapping[str, Array]) -> Array:
        """Compute the output by applying the steps to `sums`; `side` is that of `compute`."""
        return self._stepped(sums, constants, side)

    def compute(self, data: Array, constants: LayerParameters, side: Mapping[str, Array]) -> Array:
        return self.finished(self.sums(data, constants, side), constants, side)

    def _stepped(self, values: Array, constants: LayerParameters, side: Mapping[str, Array]) -> Array:
        """Apply the steps; channels are last, those of the tensors in `side` too."""
        tensors = [array for name, array in side.items() if name.startswith("operand")]
        operands = {CHANNEL: list(constants.operands), TENSOR: tensors, GATE: tensors}
        for step in self.steps:
            if isinstance(step, str):
                read = (operands[kind].pop(0).astype(np.float64) for kind in CURVES[step].operands)
                values = CURVES[step].exact(values.astype(np.float64), *read).astype(values.dtype)
            else:
                values = np.clip(values, *step)
        return values
