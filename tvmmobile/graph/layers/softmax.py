"""Softmax outside of attention, or its logarithm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from tvmmobile.graph.expressions import is_float32, shape_of
from tvmmobile.graph.layers.kind import ConvertingLayer, Form, Parts, form_of_operator
from tvmmobile.graph.needs import SHAPE
from tvmmobile.graph.parameters import Array, LayerParameters


@dataclass(frozen=True)
class Softmax(ConvertingLayer):
    """Exponentials divided by their sum along one axis.

    Attributes:
        leading: dimensions before the axis.
        channels: extent of the axis.
        trailing: dimensions after it.
        logarithm: true if the output is the logarithm, as of PyTorch's `log_softmax`.
    """

    leading: tuple[int, ...] = field(metadata=SHAPE)
    channels: int = field(metadata=SHAPE)
    trailing: tuple[int, ...] = ()
    logarithm: bool = False
    kind: ClassVar[str] = "softmax"

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (*self.leading, self.channels, *self.trailing)

    @property
    def before(self) -> int:
        """Number of elements of the leading dimensions."""
        return math.prod(self.leading)

    @property
    def behind(self) -> int:
        """Number of elements of the trailing dimensions: the distance between channels."""
        return math.prod(self.trailing)

    @property
    def name(self) -> str:
        around = ["x".join(map(str, extents)) for extents in (self.leading, self.trailing)]
        parts = [*around[:1] * bool(self.leading), f"c{self.channels}", *around[1:] * bool(self.trailing)]
        return "_".join(["logsoftmax" if self.logarithm else "softmax", *parts, *self._stored_name()])

    @classmethod
    def forms(cls) -> list[Form]:
        from tvm.relax.dpl import is_op

        form = form_of_operator("nn.softmax", cls._of)
        logarithm = is_op("relax.log")(form.pattern)
        return [Form(logarithm, {**form.parts, "logarithm": logarithm}, cls._of), form]

    @classmethod
    def _of(cls, found: Parts) -> Softmax | None:
        call = found["call"]
        shape = shape_of(call)
        axis = int(call.attrs.axis) % max(len(shape), 1)
        known = shape and is_float32(call)
        return cls(tuple(shape[:axis]), shape[axis], tuple(shape[axis + 1 :]), "logarithm" in found) if known else None

    def compute(self, data: Array, constants: LayerParameters, side: Mapping[str, Array]) -> Array:
        import torch

        function = torch.nn.functional.log_softmax if self.logarithm else torch.nn.functional.softmax
        return np.asarray(function(torch.from_numpy(data), len(self.leading)))
