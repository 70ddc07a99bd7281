"""Operators outside the other kinds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from tvmmobile.graph.layers.kind import Layer
from tvmmobile.graph.needs import SHAPE


@dataclass(frozen=True)
class Opaque(Layer):
    """Operators outside the other kinds of layers, fused by Relax into one TIR function.

    Attributes:
        operator: name of the fused operators, e.g. `mean`.
        fingerprint: hash of the function's structure and of its blocks' names, 12 hexadecimal digits: a trace fits what it agrees with.
        input_shapes: shapes of the arguments, constants included.
        result_shape: shape of the one result.
        staged: the function consists of stages, see `graph.stages`.
    """

    operator: str
    fingerprint: str
    input_shapes: tuple[tuple[int, ...], ...]
    result_shape: tuple[int, ...]
    staged: bool = field(default=False, compare=False, metadata=SHAPE)
    kind: ClassVar[str] = "other"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the first argument, or of the result without arguments."""
        return self.input_shapes[0] if self.input_shapes else self.result_shape

    @property
    def read_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of all arguments, constants included."""
        return self.input_shapes

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        return self.result_shape

    @property
    def constants(self) -> int:
        """Elements of the arguments after the first; they may be another kernel's output too."""
        return sum(map(math.prod, self.input_shapes[1:]))

    @property
    def name(self) -> str:
        return f"{self.operator}_{'x'.join(map(str, self.input_shape))}_{self.fingerprint}"
