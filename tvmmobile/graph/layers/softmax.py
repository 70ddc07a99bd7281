"""Softmax outside of attention, or its logarithm."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from tvmmobile.graph.layers.kind import ConvertingLayer
from tvmmobile.graph.needs import SHAPE


@dataclass(frozen=True)
class Softmax(ConvertingLayer):
    """Exponential functions over their sum along one axis.

    Attributes:
        leading: dimensions in front of the axis.
        channels: extent of the axis.
        trailing: dimensions behind it.
        logarithm: whether the output is the logarithm of that, as of PyTorch's `log_softmax`.
    """

    leading: tuple[int, ...] = field(metadata=SHAPE)
    channels: int = field(metadata=SHAPE)
    trailing: tuple[int, ...] = ()
    logarithm: bool = False
    kind: ClassVar[str] = "softmax"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input tensor."""
        return (*self.leading, self.channels, *self.trailing)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output tensor, the same."""
        return self.input_shape

    @property
    def before(self) -> int:
        """Number of elements along the axes in front."""
        return math.prod(self.leading)

    @property
    def behind(self) -> int:
        """Number of elements along the axes behind: the distance from one channel to the next."""
        return math.prod(self.trailing)

    @property
    def name(self) -> str:
        """Canonical name."""
        around = ["x".join(map(str, extents)) for extents in (self.leading, self.trailing)]
        parts = [*around[:1] * bool(self.leading), f"c{self.channels}", *around[1:] * bool(self.trailing)]
        return "_".join(["logsoftmax" if self.logarithm else "softmax", *parts, *self._stored_name()])
