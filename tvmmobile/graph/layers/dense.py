"""Fully connected layers of one image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from tvmmobile.graph.layers.kind import ConvertingLayer
from tvmmobile.graph.layers.sums import NO_CLAMP, Clamp, SumLayer
from tvmmobile.graph.needs import SHAPE


@dataclass(frozen=True)
class Dense(ConvertingLayer, SumLayer):
    """A fully connected layer with bias: (1, in_features) → (1, out_features). Weights are (in_features, out_features).

    Attributes:
        clamp, then: see `Conv2d`.
    """

    in_features: int = field(metadata=SHAPE)
    out_features: int = field(metadata=SHAPE)
    clamp: Clamp = NO_CLAMP
    then: tuple[Clamp, ...] = ()
    kind: ClassVar[str] = "fully connected"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(1, in_features)."""
        return (1, self.in_features)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """(1, out_features)."""
        return (1, self.out_features)

    @property
    def plain_shape(self) -> tuple[int, ...]:
        """(1, out_features)."""
        return self.output_shape

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """(in_features, out_features)."""
        return (self.in_features, self.out_features)

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return self.in_features * self.out_features

    @property
    def name(self) -> str:
        """Canonical name."""
        return "_".join(["dense", f"{self.in_features}x{self.out_features}", *self._stored_name(), *self._steps_name()])
