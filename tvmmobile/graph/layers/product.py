"""Matrix products of activations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from tvmmobile.graph.expressions import is_float32, shape_of, swaps_last
from tvmmobile.graph.layers.kind import ConvertingLayer, Form, Parts
from tvmmobile.graph.needs import SHAPE
from tvmmobile.graph.parameters import Array, LayerParameters

#: Parts of a product: operands whose last dimensions are swapped.
_SIDES = ("left", "right")


@dataclass(frozen=True)
class Product(ConvertingLayer):
    """A batch of products of two computed matrices, (rows, terms) × (terms, columns).

    Attributes:
        leading: dimensions in front of the matrices.
        rows, terms, columns: extents of a product; `terms` is the length of its sums.
        turned: one flag for each of the two matrices, true if it is stored transposed.
    """

    leading: tuple[int, ...] = field(metadata=SHAPE)
    rows: int = field(metadata=SHAPE)
    terms: int = field(metadata=SHAPE)
    columns: int = field(metadata=SHAPE)
    turned: tuple[bool, bool] = field(default=(False, False), metadata=SHAPE)
    kind: ClassVar[str] = "product"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the tensor with the first matrices."""
        return (*self.leading, *_swapped((self.rows, self.terms), self.turned[0]))

    @property
    def side_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of the tensor with the second matrices."""
        return {"other": (*self.leading, *_swapped((self.terms, self.columns), self.turned[1]))}

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the tensor with the products."""
        return (*self.leading, self.rows, self.columns)

    @property
    def count(self) -> int:
        """Number of products."""
        return math.prod(self.leading)

    @property
    def macs(self) -> int:
        return self.count * self.rows * self.terms * self.columns

    @property
    def name(self) -> str:
        turned = "".join(name for name, is_turned in zip("ab", self.turned, strict=True) if is_turned)
        parts = ["x".join(map(str, self.leading)), f"{self.rows}x{self.terms}x{self.columns}", *[f"turned{turned}"] * bool(turned)]
        return "_".join(["product", *parts, *self._stored_name()])

    @classmethod
    def forms(cls) -> list[Form]:
        """Return a product of matrices, whose last dimensions may be swapped before."""
        from tvm.relax.dpl import is_op, wildcard

        found = []
        for turned in itertools.product((True, False), repeat=2):
            parts = {name: is_op("relax.permute_dims")(wildcard()) for name, is_turned in zip(_SIDES, turned, strict=True) if is_turned}
            pair = is_op("relax.matmul")(*(parts[name] if name in parts else wildcard() for name in _SIDES))
            found.append(Form(pair, {**parts, "pair": pair}, cls._of, _matrices_of))
        return found

    @classmethod
    def _of(cls, found: Parts) -> Product | None:
        """Return the layer of a product, `None` where matrices are repeated, or other dimensions swapped."""
        shapes = [shape_of(operand) for operand in found["pair"].args]
        if len(shapes[0]) < 3 or shapes[0][:-2] != shapes[1][:-2] or not is_float32(found["pair"]):
            return None
        if not all(swaps_last(found[name]) for name in _SIDES if name in found):
            return None
        return cls(tuple(shapes[0][:-2]), shapes[0][-2], shapes[0][-1], shapes[1][-1], ("left" in found, "right" in found))

    def compute(self, data: Array, constants: LayerParameters, side: Mapping[str, Array]) -> Array:
        first, second = (
            array.swapaxes(-1, -2) if turned else array for array, turned in zip((data, side["other"]), self.turned, strict=True)
        )
        return np.asarray(first @ second)


def _matrices_of(found: Parts) -> list[Any]:
    return [found[name].args[0] if name in found else operand for name, operand in zip(_SIDES, found["pair"].args, strict=True)]


def _swapped(shape: tuple[int, int], is_turned: bool) -> tuple[int, int]:
    return (shape[1], shape[0]) if is_turned else shape
