"""Matrix products of activations."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from tvmmobile.graph.layers.kind import ConvertingLayer
from tvmmobile.graph.needs import SHAPE


@dataclass(frozen=True)
class Product(ConvertingLayer):
    """A batch of products of a matrix (rows, terms) with another one (terms, columns), both computed by layers.

    Attributes:
        leading: dimensions in front of the matrices.
        rows, terms, columns: of a product; `terms` is the length of its sums.
        turned: whether the first and the second matrix are stored transposed.
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
        """Multiply-adds."""
        return self.count * self.rows * self.terms * self.columns

    @property
    def name(self) -> str:
        """Canonical name."""
        turned = "".join(name for name, is_turned in zip("ab", self.turned, strict=True) if is_turned)
        parts = ["x".join(map(str, self.leading)), f"{self.rows}x{self.terms}x{self.columns}", *[f"turned{turned}"] * bool(turned)]
        return "_".join(["product", *parts, *self._stored_name()])


def _swapped(shape: tuple[int, int], is_turned: bool) -> tuple[int, int]:
    return (shape[1], shape[0]) if is_turned else shape
