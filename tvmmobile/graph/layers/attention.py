"""Attention: a softmax and both products in one layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from tvmmobile.graph.layers.kind import ConvertingLayer
from tvmmobile.graph.needs import SHAPE
from tvmmobile.graph.parameters import NO_PARAMETERS, Array, LayerParameters

#: Index of the first element in a tensor, and strides of groups, heads and tokens; the elements of one head of a token are contiguous.
HeadView = tuple[int, int, int, int]


@dataclass(frozen=True)
class Attention(ConvertingLayer):
    """Attention (arXiv 1706.03762): each query's mean of the values, weighted by the softmax of its products with the keys.

    Attributes:
        groups: independent sets of tokens, such as those of several images.
        heads, queries, keys: number of each per group.
        depth, width: elements of a query or key, and of a value.
        scale: factor of the products.
        shapes: shapes of the tensors with queries, keys and values, which may be one tensor.
        query_place, key_place, value_place: positions of queries, keys and values in these tensors.
        merged: true if the output concatenates a token's heads, (groups, queries, heads · width); otherwise it is (groups, heads, queries,
            width).
        bias: numbers of groups and heads with constants that are added to the scaled products, (groups or 1, heads or 1, queries,
            keys), such as relative positions (arXiv 2103.14030) and masks; (0, 0) for none.
    """

    groups: int = field(metadata=SHAPE)
    heads: int = field(metadata=SHAPE)
    queries: int = field(metadata=SHAPE)
    keys: int = field(metadata=SHAPE)
    depth: int = field(metadata=SHAPE)
    width: int = field(metadata=SHAPE)
    scale: float = field(metadata=SHAPE)
    shapes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] = field(metadata=SHAPE)
    query_place: HeadView = field(metadata=SHAPE)
    key_place: HeadView = field(metadata=SHAPE)
    value_place: HeadView = field(metadata=SHAPE)
    merged: bool = field(metadata=SHAPE)
    bias: tuple[int, int] = field(default=(0, 0), metadata=SHAPE)
    kind: ClassVar[str] = "attention"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the tensor with queries."""
        return self.shapes[0]

    @property
    def output_shape(self) -> tuple[int, ...]:
        each = (self.queries, self.heads * self.width) if self.merged else (self.heads, self.queries, self.width)
        return (self.groups, *each)

    @property
    def out_place(self) -> HeadView:
        """Position of the results in the output."""
        head, token = (self.width, self.heads * self.width) if self.merged else (self.queries * self.width, self.width)
        return (0, self.heads * self.queries * self.width, head, token)

    @property
    def side_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors with keys and values."""
        return {"key": self.shapes[1], "value": self.shapes[2]}

    @property
    def bias_shape(self) -> tuple[int, int, int, int]:
        """Shape of the constants that are added to the scaled products; it has a 0 if there are none."""
        return (*self.bias, self.queries, self.keys)

    @property
    def constants(self) -> int:
        """Number of biases."""
        return math.prod(self.bias_shape)

    @property
    def macs(self) -> int:
        """Multiply-adds of both products."""
        return self.groups * self.heads * self.queries * self.keys * (self.depth + self.width)

    @property
    def name(self) -> str:
        parts = [f"{self.groups}x{self.heads}x{self.queries}x{self.keys}", f"{self.depth}", f"{self.width}", f"s{self.scale:g}"]
        shapes = "-".join("x".join(map(str, shape)) for shape in self.shapes)
        biased = [f"bias{'x'.join(map(str, self.bias))}"] * (self.bias != (0, 0))
        places = "-".join(".".join(map(str, place)) for place in (self.query_place, self.key_place, self.value_place))
        return "_".join(["attention", *parts, f"of{shapes}", f"at{places}", *["merged"] * self.merged, *biased, *self._stored_name()])

    def random_parameters(self, generator: np.random.Generator, dtype: np.dtype[Any]) -> LayerParameters:
        """Draw biases, if there are any."""
        drawn = LayerParameters(NO_PARAMETERS.weight, generator.normal(0.0, 1.0, self.bias_shape).astype(dtype))
        return drawn if self.constants else NO_PARAMETERS

    def compute(self, data: Array, constants: LayerParameters, side: Mapping[str, Array]) -> Array:
        import torch

        def part(tensor: Array, place: HeadView, tokens: int, extent: int) -> torch.Tensor:
            first, group, head, token = place
            groups, heads, rows, columns = np.ogrid[: self.groups, : self.heads, :tokens, :extent]
            return torch.from_numpy(tensor.reshape(-1)[first + group * groups + head * heads + token * rows + columns])

        query = part(data, self.query_place, self.queries, self.depth)
        key = part(side["key"], self.key_place, self.keys, self.depth)
        value = part(side["value"], self.value_place, self.keys, self.width)
        bias = torch.from_numpy(constants.bias) if self.constants else None
        means = torch.nn.functional.scaled_dot_product_attention(query, key, value, bias, scale=self.scale)
        return np.ascontiguousarray((means.transpose(1, 2) if self.merged else means).numpy()).reshape(self.output_shape)
