"""Attention, softmax and both products in one layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tvmmobile.graph.storage import ConvertingLayer

#: The first element in a tensor, and elements from one group, head and token to the next; those of a token's head follow each other.
Place = tuple[int, int, int, int]


@dataclass(frozen=True)
class Attention(ConvertingLayer):
    """For each head and query the mean of values, weighted by the softmax of the query's products with the keys (arXiv 1706.03762).

    Attributes:
        groups: tokens that have nothing to do with each other, as those of several images.
        heads, queries, keys: how many of each group.
        depth, width: elements of a query or key, and of a value.
        scale: what products are multiplied by.
        shapes: of the tensors with queries, keys and values; these may be one.
        query_place, key_place, value_place: where they are there.
        merged: the output has a token's heads one behind the other, (groups, queries, heads · width); else it is (groups, heads, queries,
            width).
    """

    groups: int
    heads: int
    queries: int
    keys: int
    depth: int
    width: int
    scale: float
    shapes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    query_place: Place
    key_place: Place
    value_place: Place
    merged: bool
    kind: ClassVar[str] = "attention"
    constants: ClassVar[int] = 0

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the tensor with queries."""
        return self.shapes[0]

    @property
    def output_shape(self) -> tuple[int, ...]:
        """See `merged`."""
        each = (self.queries, self.heads * self.width) if self.merged else (self.heads, self.queries, self.width)
        return (self.groups, *each)

    @property
    def out_place(self) -> Place:
        """Where results are in the output."""
        head, token = (self.width, self.heads * self.width) if self.merged else (self.queries * self.width, self.width)
        return (0, self.heads * self.queries * self.width, head, token)

    @property
    def side_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors with keys and values."""
        return {"key": self.shapes[1], "value": self.shapes[2]}

    @property
    def macs(self) -> int:
        """Multiply-adds of both products."""
        return self.groups * self.heads * self.queries * self.keys * (self.depth + self.width)

    @property
    def name(self) -> str:
        """Canonical name."""
        parts = [f"{self.groups}x{self.heads}x{self.queries}x{self.keys}", f"{self.depth}", f"{self.width}", f"s{self.scale:g}"]
        shapes = "-".join("x".join(map(str, shape)) for shape in self.shapes)
        places = "-".join(".".join(map(str, place)) for place in (self.query_place, self.key_place, self.value_place))
        return "_".join(["attention", *parts, f"of{shapes}", f"at{places}", *["merged"] * self.merged, *self._stored_name()])
