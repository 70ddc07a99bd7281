"""Fully connected layers of one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from tvmmobile.graph.expressions import shape_of
from tvmmobile.graph.integers import IntegerParameters
from tvmmobile.graph.layers.integer import exact_floats
from tvmmobile.graph.layers.kind import Form, Parts
from tvmmobile.graph.layers.sum_forms import sum_forms
from tvmmobile.graph.layers.sums import NO_CLAMP, Clamp, SumLayer
from tvmmobile.graph.needs import SHAPE
from tvmmobile.graph.parameters import Array, LayerParameters


@dataclass(frozen=True)
class Dense(SumLayer):
    """A fully connected layer with bias: (1, in_features) → (1, out_features). Weights are (in_features, out_features).

    Attributes:
        clamp, then: see `Conv2d`.
        weights: see `SumLayer`.
    """

    in_features: int = field(metadata=SHAPE)
    out_features: int = field(metadata=SHAPE)
    clamp: Clamp = NO_CLAMP
    then: tuple[Clamp, ...] = ()
    weights: str = ""
    kind: ClassVar[str] = "fully connected"
    extents = ("in_features", "out_features")
    computes_batches = True

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(1, in_features)."""
        return (1, self.in_features)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """(1, out_features)."""
        return (1, self.out_features)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """(in_features, out_features)."""
        return (self.in_features, self.out_features)

    @property
    def macs(self) -> int:
        return self.in_features * self.out_features

    @property
    def name(self) -> str:
        return "_".join(
            ["dense", f"{self.in_features}x{self.out_features}", *self._stored_name(), *self._weights_name(), *self._steps_name()]
        )

    @classmethod
    def forms(cls) -> list[Form]:
        """Return a matrix product with its bias; `torch.nn.Linear` is imported as bias + product."""
        return [form for order in ("product, bias", "bias, product") for form in sum_forms("matmul", "", order, cls._of)]

    @classmethod
    def _of(cls, found: Parts, clamp: Clamp) -> Dense | None:
        """Return the fully connected layer of the parts, `None` for a batch of matrices."""
        shapes = [shape_of(found[part]) for part in ("weight", "product")]
        known = len(shape_of(found["product"].args[0])) == len(shapes[0]) == 2
        return cls(shapes[0][0], shapes[1][1], clamp) if known else None

    def sums(self, data: Array, constants: LayerParameters, side: Mapping[str, Array]) -> Array:
        import torch

        given, weight, bias = map(torch.from_numpy, (data, constants.weight, constants.bias))
        sums: Array = torch.nn.functional.linear(given, weight.T, bias).numpy()
        return sums

    def integer_products(self, data: npt.NDArray[np.int8], parameters: IntegerParameters) -> Array:
        floats = exact_floats(parameters.weight, direct=True)
        return np.asarray(data.astype(floats) @ parameters.weight.astype(floats))

    def takes_factors(self, channels: int) -> bool:
        return self.in_features == channels
