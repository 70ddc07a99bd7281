"""Factors for the channels of an image."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from tvmmobile.graph.expressions import is_float32, shape_of
from tvmmobile.graph.integers import IntegerParameters
from tvmmobile.graph.layers.image import ImageLayer
from tvmmobile.graph.layers.integer import IntegerLayer
from tvmmobile.graph.layers.kind import Form, Parts
from tvmmobile.graph.parameters import Array, LayerParameters
from tvmmobile.graph.precision import Precision


@dataclass(frozen=True)
class Gating(ImageLayer, IntegerLayer):
    """Multiplies each NHWC channel by a factor from another input: `Conv2d.scaled`, for kernels that cannot scale what they load."""

    kind: ClassVar[str] = "gate"
    terms: ClassVar[int] = 1
    has_gate = True

    @property
    def side_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of the factors."""
        return {"gate": (1, 1, 1, self.channels)}

    @property
    def name(self) -> str:
        return "_".join(["gate", f"{self.height}x{self.width}", f"{self.channels}", *self._stored_name()])

    @classmethod
    def forms(cls) -> list[Form]:
        from tvm.relax.dpl import is_op, wildcard

        product = is_op("relax.multiply")(wildcard(), wildcard())
        return [Form(product, {"scaled": product}, cls._of, gated_operands)]

    @classmethod
    def _of(cls, found: Parts) -> Gating | None:
        shape = shape_of(found["scaled"])
        return cls(*shape[1:]) if gated_operands(found) and shape[0] == 1 and is_float32(found["scaled"]) else None

    def compute(self, data: Array, constants: LayerParameters, side: Mapping[str, Array]) -> Array:
        return np.asarray(data * side["gate"])

    def composed_as(self, precision: Precision) -> Precision | None:
        """Return the precision in which a template must take the layer; only integer networks have it."""
        return precision if precision.is_integer else None

    def as_integers(self, reads: str, writes: str) -> Self:
        """Return the layer itself: its kernels read and write only integers."""
        return self

    def term_scale(self, side: float) -> float:
        return side

    def integer_products(self, data: npt.NDArray[np.int8], parameters: IntegerParameters) -> Array:
        return data


def gated_operands(found: Parts) -> tuple[Any, ...]:
    """Return the scaled tensor and its gate with one factor per channel; empty without such a gate."""
    import tvm

    if "scaled" not in found or any(isinstance(operand, tvm.ir.GenericConst) for operand in found["scaled"].args):
        return ()
    shape = shape_of(found["scaled"])
    for data, gate in itertools.permutations(found["scaled"].args):
        shapes = [shape_of(operand) for operand in (data, gate)]
        if shape and shapes == [shape, [1, 1, 1, shape[-1]]]:
            return data, gate
    return ()
