"""Steps on a complete sum: a bound or an activation, and further ones, which may read other tensors."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from tvmmobile.graph.curves import CHANNEL, CURVES, GATE, TENSOR
from tvmmobile.graph.integers import LOOKED_UP, LOOKUP
from tvmmobile.graph.layers.integer import IntegerLayer
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


class SumLayer(IntegerLayer):
    """A layer whose results are sums that begin with a bias and pass through steps once complete.

    Attributes:
        weights: name of the precision in which the kernel's weights are stored, see `graph.small_weights`; "" for the kernel's own.
    """

    clamp: Clamp
    then: tuple[Clamp, ...]
    unlike: ClassVar[Mapping[str, float]] = {**IntegerLayer.unlike, "clamp": 0.1}
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

    @property
    def terms(self) -> int:
        return math.prod(self.weight_shape[:-1])

    @property
    def curve(self) -> str:
        return self.clamp if isinstance(self.clamp, str) and self.clamp != LOOKUP else ""

    @property
    def looks_up(self) -> bool:
        return self.clamp == LOOKUP

    @property
    def sum_bounds(self) -> tuple[float, float] | None:
        if isinstance(self.clamp, str) or self.then:
            return None
        low, high = self.clamp
        return -math.inf if low is None else low, math.inf if high is None else high

    @property
    def looked_up_curve(self) -> str:
        return self.clamp if isinstance(self.clamp, str) and self.clamp in LOOKED_UP and not self.then else ""

    @property
    def can_write_floats(self) -> bool:
        """True if the layer returns plain sums, without bounds, curve or residual."""
        return self.sum_bounds == (-math.inf, math.inf) and not self.side_shapes

    def has_integer_form(self, curves: Collection[str]) -> bool:
        supported = self.sum_bounds is not None or self.clamp in curves
        return supported and not (self.then or self.added) and self.side_shapes.keys() <= {"residual"}

    @property
    def apart_in_integers(self) -> bool:
        """True if steps read other tensors, which integer networks apply in later layers, unless the layer writes another type."""
        return bool(self.operands or self.added) and not self.writes

    def as_integers(self, reads: str, writes: str) -> Self:
        """Return the integer kernel's layer: its bounds become values, and all looked-up curves count as one."""
        clamp = LOOKUP if self.clamp in LOOKED_UP else self.clamp if isinstance(self.clamp, str) else NO_CLAMP
        return super().as_integers(reads, writes).with_clamp(clamp)

    def with_clamp(self, clamp: Clamp) -> Self:
        """Return the layer with another clamp."""
        given: Any = {"clamp": clamp}
        return replace(self, **given)

    def with_weights(self, weights: str) -> Self:
        """Return the layer with weights that are stored in another precision."""
        given: Any = {"weights": weights}
        return replace(self, **given)

    def weight_sums(self, weight: Array) -> npt.NDArray[np.int64]:
        sums: npt.NDArray[np.int64] = weight.astype(np.int64).reshape(-1, weight.shape[-1]).sum(0)
        return sums

    def _weights_name(self) -> list[str]:
        return [f"{self.weights}weights"] * bool(self.weights)

    def _steps_name(self) -> list[str]:
        return [clamp_name(self.clamp), *map(clamp_name, self.then)]

    def random_parameters(self, generator: np.random.Generator, dtype: np.dtype[Any]) -> LayerParameters:
        """Draw weights and biases whose sums spread over the clamp's range and partly beyond it."""
        fan_in = int(np.prod(self.weight_shape[:-1]))
        weight = generator.normal(0.0, 1.8 / np.sqrt(fan_in), self.weight_shape).astype(dtype)
        weight = rounded(weight, self.weights) if self.weights else weight
        bias, *operands = (generator.normal(0.5, 1.0, self.weight_shape[-1]).astype(dtype) for _ in range(1 + self.operands.count(CHANNEL)))
        return LayerParameters(weight, bias, tuple(operands))

    @abstractmethod
    def sums(self, data: Array, constants: LayerParameters, side: Mapping[str, Array]) -> Array:
        """Compute the complete sums for `finished`, bias and residual included; channels are last."""

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
