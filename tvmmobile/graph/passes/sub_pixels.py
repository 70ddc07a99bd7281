"""Rewrites transposed convolutions as convolutions: outputs that share an input pixel become its channels, shuffled at the end.
With a stride of 1, nothing is shuffled.

W. Shi et al., "Is the deconvolution layer the same as a convolutional layer?", arXiv 1609.07009. Taps that an output lacks are zeros.
Channel-wise operators behind it (bias, batch norm, activation) are applied before the shuffle, so that they become part of the layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvmmobile.graph.bindings import bindings_of
from tvmmobile.graph.expressions import TO_FIRST, TO_LAST, constant_of, operator_of, shape_of
from tvmmobile.graph.layers import Array
from tvmmobile.graph.operators import Trait, operators_with
from tvmmobile.graph.passes.rewriting import MainRewriter

_TRANSPOSED = "relax.nn.conv2d_transpose"
_NORM = "relax.nn.batch_norm"
#: Operators that treat all pixels alike.
_ALIKE = operators_with(Trait.ARITHMETIC) | operators_with(Trait.UNARY) | {_NORM}


def sub_pixels(module: Any) -> Any:
    """Rewrite every `conv2d_transpose` with constant weights; NCHW."""
    if not any(operator_of(binding.value) == _TRANSPOSED for binding in bindings_of(module["main"])):
        return module
    return _TransposedConvRewriter(module["main"]).in_module(module)


@dataclass(frozen=True)
class _PendingShuffle:
    """A result that is still to be shuffled.

    Attributes:
        source: a variable, whose channels are those of a group for each pixel of a place, pixel by pixel, and so group by group.
        strides: pixels of a place, (vertical, horizontal).
        shape: shape of the result.
    """

    source: Any
    strides: tuple[int, int]
    shape: tuple[int, ...]
    groups: int

    def expression(self) -> Any:
        """Return the result, written for channels last as convolutions leave them: a single copy of whole groups of channels."""
        _, _, height, width = shape_of(self.source)
        batch, channels, rows, columns = self.shape
        down, right = self.strides
        last = relax.op.permute_dims(self.source, TO_LAST)
        parts = relax.op.reshape(last, [batch, height, width, self.groups, down, right, channels // self.groups])
        whole = relax.op.permute_dims(parts, [0, 1, 4, 2, 5, 3, 6])
        image = relax.op.permute_dims(relax.op.reshape(whole, [batch, down * height, right * width, channels]), TO_FIRST)
        if (rows, columns) == (down * height, right * width):
            return image
        return relax.op.strided_slice(image, [2, 3], [0, 0], [rows, columns])

    def spread(self, numbers: Array, axis: int) -> Array:
        """Convert one number per channel of the result to one per channel of the source."""
        groups = numbers.reshape(self.groups, 1, -1)
        shape = [-1 if place == axis else 1 for place in range(numbers.ndim)]
        return np.tile(groups, (1, math.prod(self.strides), 1)).reshape(shape)


class _TransposedConvRewriter(MainRewriter):
    """Rewrites `main` so that transposed convolutions become convolutions and shuffles."""

    def __init__(self, main: Any) -> None:
        super().__init__(main)
        #: New values by the old variable; a batch norm's are tuples.
        self.shuffled: dict[Any, _PendingShuffle] = {}

    def value(self, variable: Any, value: Any) -> Any:
        """Return a convolution, an operator on its channels before they are shuffled, or the old value."""
        found = _unfolded(value, self.rebuild) if operator_of(value) == _TRANSPOSED else self._before_the_shuffle(value)
        if found is None:
            return self.rebuild(value)
        if found.strides == (1, 1):
            return found.source
        emitted = self.builder.emit(found.source)
        self.shuffled[variable] = found = replace(found, source=emitted)
        # A batch norm is read through its parts.
        return self.rebuild(value) if operator_of(value) == _NORM else found.expression()

    def _before_the_shuffle(self, value: Any) -> _PendingShuffle | None:
        """Return an operator applied before the shuffle; `None` if it does not treat all pixels alike."""
        if isinstance(value, relax.TupleGetItem):
            before = self.shuffled.get(value.tuple_value)
            return None if before is None or value.index else replace(before, source=relax.TupleGetItem(before.source, 0))
        name, arguments = operator_of(value), list(getattr(value, "args", ()))
        found = [self.shuffled[argument] for argument in arguments if isinstance(argument, relax.Var) and argument in self.shuffled]
        if not found or name not in _ALIKE or len({(one.strides, one.shape, one.groups) for one in found}) > 1:
            return None
        operands = [
            self.shuffled[argument].source if argument in self.shuffled else self._spread(name, argument, found[0])
            for argument in arguments
        ]
        if any(operand is None for operand in operands):
            return None
        return replace(found[0], source=relax.Call(value.op, operands, value.attrs))

    def _spread(self, operator: str, operand: Any, pending: _PendingShuffle) -> Any:
        """Return an operand spread per channel, or a single number unchanged; `None` for computed values and those with pixels."""
        if isinstance(operand, tvm.tirx.FloatImm | tvm.tirx.IntImm):
            return operand
        numbers = constant_of(operand, self.values)
        if numbers is None:
            return None
        if numbers.size == 1 and (pending.shape[1] > 1 or not (numbers.ndim == 4 or operator == _NORM)):
            return relax.const(numbers)
        axis = 0 if operator == _NORM else numbers.ndim - 3
        return relax.const(pending.spread(numbers, axis)) if axis >= 0 and numbers.shape[axis] == numbers.size else None


def _unfolded(call: Any, new: Any) -> _PendingShuffle | None:
    """Return a transposed convolution as one with a shuffle to follow; `None` for other layouts or computed weights."""
    attrs, weight = call.attrs, call.args[1]
    strides = [int(step) for step in attrs.strides]
    plain = (attrs.data_layout, attrs.kernel_layout, attrs.out_layout) == ("NCHW", "IOHW", "NCHW")
    if not plain or not isinstance(weight, tvm.ir.GenericConst):
        return None
    shape, given = (shape_of(one) for one in (call, call.args[0]))
    padding, dilation = [int(amount) for amount in attrs.padding], [int(step) for step in attrs.dilation]
    axes = [
        _Axis.of(given[2 + axis], shape[2 + axis], weight.value.numpy().shape[2 + axis], strides[axis], padding[axis], dilation[axis])
        for axis in (0, 1)
    ]
    unfolded = relax.const(_weights(weight.value.numpy(), axes, int(attrs.groups)))
    ends = [axes[0].before, axes[1].before, axes[0].after, axes[1].after]
    convolution = relax.op.nn.conv2d(new(call.args[0]), unfolded, 1, ends, 1, int(attrs.groups))
    return _PendingShuffle(convolution, (strides[0], strides[1]), tuple(shape), int(attrs.groups))


@dataclass(frozen=True)
class _Axis:
    """One dimension of a transposed convolution: taps that outputs need, relative to the place of the input that they share.

    Attributes:
        taps: pairs (tap of the transposed convolution, tap of the convolution) for each output of a place.
        count: taps of the convolution.
        before, after: padding of the convolution.
    """

    taps: tuple[tuple[tuple[int, int], ...], ...]
    count: int
    before: int
    after: int

    @classmethod
    def of(cls, inputs: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> _Axis:
        """The output stride · m + a is the sum over taps k of input m + (a + padding - k · dilation) / stride, where that is whole."""
        offsets = [
            [
                (tap, (output + padding - tap * dilation) // stride)
                for tap in range(kernel)
                if (output + padding - tap * dilation) % stride == 0
            ]
            for output in range(stride)
        ]
        places = [offset for found in offsets for _, offset in found]
        extra = -(-outputs // stride) - inputs
        first, last = min([0, *places]), max([-extra, *places])
        taps = tuple(tuple((tap, offset - first) for tap, offset in found) for found in offsets)
        return cls(taps, last - first + 1, -first, last + extra)


def _weights(weight: Array, axes: list[_Axis], groups: int) -> Array:
    """Return IOHW weights of a transposed convolution as OIHW ones, of channels as `_PendingShuffle` has them."""
    inputs, channels = weight.shape[0] // groups, weight.shape[1]
    down, right = (len(axis.taps) for axis in axes)
    found = np.zeros((groups, down, right, channels, inputs, axes[0].count, axes[1].count), weight.dtype)
    grouped = weight.reshape(groups, inputs, channels, *weight.shape[2:]).transpose(0, 2, 1, 3, 4)
    for i, rows in enumerate(axes[0].taps):
        for j, columns in enumerate(axes[1].taps):
            for tap_y, y in rows:
                for tap_x, x in columns:
                    found[:, i, j, :, :, y, x] = grouped[..., tap_y, tap_x]
    return found.reshape(groups * channels * down * right, inputs, axes[0].count, axes[1].count)
