"""Merges sums and differences of convolutions of one tensor into one convolution, whose kernel is the sum or difference of theirs.

RepVGG (arXiv 2101.03697), MobileOne, FastViT and others are trained with such branches, some of which are only a batch norm, and are
exported with them where nobody merges these before. Two are merged where the kernel of one covers the other's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tvm import relax

from tvmmobile.graph.bindings import readers_of, values_of
from tvmmobile.graph.expressions import constant_of, is_float32, operator_of, shape_of
from tvmmobile.graph.layers import Array
from tvmmobile.graph.passes.rewriting import replace_variables


def parallel_branches(module: Any) -> Any:
    """Rewrite every sum or difference of two such branches in `main`, NCHW.

    Batch norms are folded into convolutions already, or factors and summands.
    """
    main = module["main"]
    values = values_of(main)
    single = {variable for variable, found in readers_of(main).items() if len(found) == 1}
    branches: dict[Any, _Branch] = {}
    merged: dict[Any, _Branch] = {}
    for variable, value in values.items():
        found = _branch(value, values, branches, single)
        if found is None and operator_of(value) in ("relax.add", "relax.subtract"):
            one, other = (branches.get(operand) if operand in single else None for operand in value.args)
            if other and operator_of(value) == "relax.subtract":
                other = other.times(np.array(-1.0))
            same = shape_of(value.args[0]) == shape_of(value.args[1])
            found = _sum(one, other, shape_of(variable)) if one and other and same else None
            if found is not None:
                merged[variable] = found
        if found is not None:
            branches[variable] = found
    return replace_variables(module, {variable: branch.expression() for variable, branch in merged.items()})


@dataclass(frozen=True)
class _Branch:
    """A convolution of a tensor.

    Attributes:
        weight: OIHW.
        bias: one number for each output channel.
        padding: (top, left, bottom, right).
        is_scale: a factor for each channel, which is one of any number of groups.
    """

    source: Any
    weight: Array
    bias: Array
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1
    is_scale: bool = False

    def times(self, factors: Array) -> _Branch:
        """Return the branch multiplied by one number, or by one for each output channel."""
        return replace(self, weight=self.weight * factors.reshape(-1, 1, 1, 1), bias=self.bias * factors)

    def in_groups(self, groups: int) -> _Branch:
        """Return a factor for each channel as a convolution of so many groups."""
        channels = len(self.bias)
        weight = np.zeros((channels, channels // groups, 1, 1), self.weight.dtype)
        weight[np.arange(channels), np.arange(channels) % (channels // groups)] = self.weight[:, 0]
        return replace(self, weight=weight, groups=groups, is_scale=False)

    def spread(self, top: int, left: int, kernel: tuple[int, int]) -> Array:
        """Return the weights in a kernel that begins so many pixels before the image."""
        y, x = top - self.padding[0], left - self.padding[1]
        wide = np.zeros((*self.weight.shape[:2], *kernel), self.weight.dtype)
        wide[..., y : y + self.weight.shape[2], x : x + self.weight.shape[3]] = self.weight
        return wide

    def expression(self) -> Any:
        """Return the convolution and its bias."""
        weight, bias = (relax.const(array.astype(np.float32)) for array in (self.weight, self.bias.reshape(1, -1, 1, 1)))
        convolution = relax.op.nn.conv2d(self.source, weight, self.stride, self.padding, 1, self.groups)
        return relax.op.add(convolution, bias)


def _branch(value: Any, values: Mapping[Any, Any], branches: Mapping[Any, _Branch], single: set[Any]) -> _Branch | None:
    """Return the branch that an operator on one variable and constants continues or begins; `None` for others."""
    name = operator_of(value)
    if name == "relax.nn.conv2d":
        return _convolution(value, values)
    if name not in ("relax.add", "relax.multiply") or len(shape_of(value)) != 4 or not is_float32(value):
        return None
    constants = [constant_of(operand, values) for operand in value.args]
    known = [array for array in constants if array is not None]
    if len(known) != 1:
        return None
    channels, data = shape_of(value)[1], value.args[constants[0] is not None]
    if (known[0].size != 1 and known[0].shape[-3:] != (channels, 1, 1)) or shape_of(data) != shape_of(value):
        return None
    numbers = np.broadcast_to(known[0].reshape(-1), channels).astype(np.float64)
    before = branches.get(data) if data in single else None
    if name == "relax.add":
        return replace(before, bias=before.bias + numbers) if before else None
    if before:
        return before.times(numbers)
    return _Branch(data, numbers.reshape(-1, 1, 1, 1), np.zeros(channels), groups=channels, is_scale=True)


def _convolution(call: Any, values: Mapping[Any, Any]) -> _Branch | None:
    attrs, weight = call.attrs, constant_of(call.args[1], values)
    plain = (attrs.data_layout, attrs.kernel_layout) == ("NCHW", "OIHW") and all(int(step) == 1 for step in attrs.dilation)
    if weight is None or not plain or not is_float32(call):
        return None
    stride, padding = (tuple(int(extent) for extent in extents) for extents in (attrs.strides, attrs.padding))
    bias = np.zeros(weight.shape[0])
    return _Branch(call.args[0], weight.astype(np.float64), bias, stride, padding, int(attrs.groups))  # type: ignore[arg-type]


def _sum(one: _Branch, other: _Branch, shape: list[int]) -> _Branch | None:
    """Return two branches as one; `None` where they do not fit together, or neither kernel covers the other."""
    if one.is_scale and other.is_scale:
        return replace(one, weight=one.weight + other.weight, bias=one.bias + other.bias) if one.source.same_as(other.source) else None
    if one.is_scale:
        one, other = other, one
    if other.is_scale and shape_of(one.source) == shape and other.weight.shape[0] % one.groups == 0:
        other = other.in_groups(one.groups)
    if not one.source.same_as(other.source) or (one.stride, one.groups) != (other.stride, other.groups):
        return None
    top, left = (max(one.padding[axis], other.padding[axis]) for axis in (0, 1))
    reach = [(top - each.padding[0] + each.weight.shape[2], left - each.padding[1] + each.weight.shape[3]) for each in (one, other)]
    kernel = max(reach[0][0], reach[1][0]), max(reach[0][1], reach[1][1])
    # A larger kernel around the other one keeps its own padding.
    around = next((each.padding for each in (one, other) if each.padding[:2] == (top, left) and each.weight.shape[2:] == kernel), None)
    if around is None:
        return None
    weight = one.spread(top, left, kernel) + other.spread(top, left, kernel)
    return replace(one, weight=weight, bias=one.bias + other.bias, padding=around)
