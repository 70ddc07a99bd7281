"""Rewrites sequences as images of one row, so that templates take their convolutions and pools.

Images of one column are sequences too: a tile of neighbouring pixels lies in a row. Operators between convolutions that treat all places
alike, or only cut and join, work on the same images; to all others nothing changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvmmobile.graph.bindings import bindings_of
from tvmmobile.graph.expressions import VIEW, constant_of, operator_of, shape_of
from tvmmobile.graph.operators import Trait, has
from tvmmobile.graph.passes.rewriting import MainRewriter

_VIEWS = {VIEW, "relax.squeeze", "relax.expand_dims"}
_WINDOWS = Trait.CONVOLUTION, Trait.TRANSPOSED_CONVOLUTION, Trait.MAX_POOL, Trait.AVERAGE_POOL


def sequences(module: Any) -> Any:
    """Rewrite every convolution and pool of one dimension in `main`, or along a column; channels come first."""
    if not any(has(binding.value, Trait.SEQUENTIAL) or _window_of_column(binding.value) > 1 for binding in bindings_of(module["main"])):
        return module
    return _SequenceToImage(module["main"]).in_module(module, canonical=True)


def _is_column(shape: Sequence[int]) -> bool:
    """Return whether images of this shape have one column of several pixels."""
    return len(shape) == 4 and shape[2] > 1 == shape[3]


def _is_sequence(shape: Sequence[int]) -> bool:
    """Return whether a tensor of this shape may be a sequence, or is a column."""
    return len(shape) == 3 or _is_column(shape)


def _forms_of(image: Any) -> list[list[int]]:
    """Return the shapes in which an image of one row occurs: its own, a sequence's and a column's."""
    batch, channels, _, length = shape_of(image)
    return [[batch, channels, 1, length], [batch, channels, length], [batch, channels, length, 1]]


def _window_of_column(value: Any) -> int:
    """Return the extent of a convolution's or pool's window along a column; 0 for all else."""
    if not any(has(value, kind) for kind in _WINDOWS) or not _is_column(shape_of(value)) or not _is_column(shape_of(value.args[0])):
        return 0
    attrs, pools = value.attrs, "pool" in value.op.name
    if (attrs.layout if pools else attrs.data_layout) != "NCHW":
        return 0
    height, width = attrs.pool_size if pools else shape_of(value.args[1])[2:]
    left, right = attrs.padding[1::2]
    return 0 if int(width) > 1 or int(left) or int(right) else int(height)


class _SequenceToImage(MainRewriter):
    """Rewrites `main` so that sequences become images."""

    def __init__(self, main: Any) -> None:
        super().__init__(main)
        #: Images (batch, channels, 1, length), or tuples with such, by the old variable.
        self.images: dict[Any, Any] = {}

    def value(self, variable: Any, value: Any) -> Any:
        """Return the image as a sequence, or the old value."""
        found = self._image(variable, value)
        if found is None:
            return self.rebuild(value)
        image = self.builder.emit(found)
        if isinstance(image.ty, relax.TupleType):  # which is read through its parts
            self.images[variable] = image
            return self.rebuild(value)
        if len(shape_of(image)) == 4:  # unlike a mean without its dimensions
            self.images[variable] = image
        return image if shape_of(image) == shape_of(variable) else relax.op.reshape(image, shape_of(variable))

    def _image(self, variable: Any, value: Any) -> Any:
        """Return an expression of the image that a variable shows; `None` where none is known."""
        if isinstance(value, relax.Var):
            return self.images.get(value)
        if isinstance(value, relax.TupleGetItem):
            whole = self.images.get(value.tuple_value)
            return None if whole is None else relax.TupleGetItem(whole, value.index)
        name = operator_of(value)
        if has(value, Trait.SEQUENTIAL) or _window_of_column(value):
            return self._pool(value) if "pool" in name else self._convolution(value)
        if name == "relax.concat":
            return self._concatenated(value)
        if has(value, Trait.ELEMENT_WISE):
            return self._by_element(value)
        if not name.startswith("relax.") or not value.args:
            return None
        image = self.images.get(value.args[0])
        if name in _VIEWS:
            return image if image is not None and shape_of(variable) in _forms_of(image) else self._seen(value.args[0], variable)
        if image is None or isinstance(image.ty, relax.TupleType):
            return None
        rank = len(shape_of(value.args[0]))
        if has(value, Trait.PER_CHANNEL) and int(value.attrs.axis) % rank == 1:
            return relax.Call(value.op, [image, *value.args[1:]], value.attrs)
        if name == "relax.split":
            sections = value.attrs.indices_or_sections
            parts = list(sections) if isinstance(sections, tvm.ir.Array) else int(sections)
            return relax.op.split(image, parts, _axis(value.attrs.axis, rank))
        if name == "relax.strided_slice":
            return self._slice(value, image)
        if name == "relax.mean" and sorted(int(axis) % rank for axis in value.attrs.axis or ()) == [*range(2, rank)]:
            return relax.op.mean(image, [2, 3], bool(value.attrs.keepdims))
        return None

    def _image_of(self, variable: Any) -> Any:
        """Return a sequence as an image."""
        if variable in self.images:
            return self.images[variable]
        batch, channels, length, *_ = shape_of(variable)
        return self.builder.emit(relax.op.reshape(self.replaced.get(variable, variable), [batch, channels, 1, length]))

    def _seen(self, source: Any, variable: Any) -> Any:
        """Return a tensor of four dimensions that a sequence is a view of, where it is an image of one row."""
        shape = shape_of(variable)
        seen = len(shape) == 3 and source in self.replaced and shape_of(source) == [*shape[:2], 1, shape[2]]
        return self.replaced[source] if seen else None

    def _convolution(self, call: Any) -> Any:
        attrs, weight = call.attrs, call.args[1]
        data, shape = self._image_of(call.args[0]), shape_of(weight)
        wide = [*shape[:2], 1, shape[2]]
        if isinstance(weight, tvm.ir.GenericConst):
            kernel = relax.const(weight.value.numpy().reshape(wide))
        else:
            kernel = self.builder.emit(relax.op.reshape(self.replaced[weight], wide))
        window = [1, attrs.strides[0]], _padding(attrs), *([[0, attrs.output_padding[0]]] if "transpose" in call.op.name else [])
        operator = relax.op.nn.conv2d_transpose if "transpose" in call.op.name else relax.op.nn.conv2d
        return operator(data, kernel, *window, [1, attrs.dilation[0]], int(attrs.groups))

    def _pool(self, call: Any) -> Any:
        attrs, operator = call.attrs, getattr(relax.op.nn, call.op.name.rpartition(".")[2].replace("1d", "2d"))
        window = [1, attrs.pool_size[0]], [1, attrs.strides[0]], _padding(attrs), [1, attrs.dilation[0]]
        return operator(self._image_of(call.args[0]), *window, bool(attrs.ceil_mode), bool(attrs.count_include_pad))

    def _concatenated(self, call: Any) -> Any:
        parts = getattr(call.args[0], "fields", ())
        known = any(part in self.images for part in parts) and _is_sequence(shape_of(call))
        return relax.op.concat([self._image_of(part) for part in parts], _axis(call.attrs.axis, len(shape_of(call)))) if known else None

    def _by_element(self, call: Any) -> Any:
        """Return an operator by element on images and constants; `None` if an operand is neither."""
        if not _is_sequence(shape_of(call)) or not any(operand in self.images for operand in call.args):
            return None
        operands = [self._operand(operand, shape_of(call)) for operand in call.args]
        return None if any(operand is None for operand in operands) else relax.Call(call.op, operands, call.attrs)

    def _operand(self, operand: Any, shape: Sequence[int]) -> Any:
        array = constant_of(operand, self.values)
        if array is not None:
            if array.ndim < 2:
                return relax.const(array)
            return relax.const(np.swapaxes(array, -1, -2) if len(shape) == 4 else array[..., None, :])
        if not isinstance(operand, relax.Var):  # a bound
            return operand
        own = shape_of(operand)
        return self._image_of(operand) if len(own) == len(shape) and own[0] == shape[0] and own[3:] in ([], [1]) else None

    def _slice(self, call: Any, image: Any) -> Any:
        axes, *places = [[int(number.value) for number in part.fields] for part in call.args[1:]]
        return relax.op.strided_slice(image, [_axis(axis, len(shape_of(call))) for axis in axes], *places)


def _axis(axis: Any, rank: int) -> int:
    """Map an axis of a sequence, or of a column, to that of its image."""
    return {2: 3, 3: 2}.get(found := int(axis) % rank, found)


def _padding(attrs: Any) -> list[int]:
    """Return the padding of an image, for a sequence's in front and behind."""
    widths = [int(width) for width in attrs.padding]
    return [0, widths[0], 0, widths[len(widths) // 2]]
