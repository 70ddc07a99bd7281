"""Rewrites steps of images in NHWC, the layout in which images are stored.

Layout conversion does not convert a step if one of its images comes from operators that it does not know, such as the shuffle after a
transposed convolution, or attention whose tokens become an image again. Every image would be transposed before the step, and the result
after it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import tvm
from tvm import relax

from tvmmobile.graph.bindings import values_of
from tvmmobile.graph.expressions import TO_FIRST, TO_LAST, VIEW, constant, numbers_of, operator_of, permutation_source, shape_of, swaps_last
from tvmmobile.graph.operators import Trait, operators_with
from tvmmobile.graph.passes.channel_order import MOST_PIECES
from tvmmobile.graph.passes.channel_trace import slice_of
from tvmmobile.graph.passes.input_steps import input_steps
from tvmmobile.graph.passes.rewriting import rebound_main, with_main

_STEPS = operators_with(Trait.ELEMENT_WISE)


def channels_last(module: Any) -> Any:
    """Rewrite element-wise steps, moves (slices, choices of rows or channels, pads), max pools and concatenations of images in `main` that
    were NHWC before.

    Readers that need NCHW get the result transposed. Values computed from an input alone stay as they are.
    """
    images = _ImageRewriter(module["main"])
    main = rebound_main(module["main"], images.value)
    return with_main(module, main, canonical=True) if images.changed else module


class _ImageRewriter:
    """The images of `main`, one binding after another.

    Attributes:
        last: variable of an image in NHWC, by the variable of the same image in NCHW.
        changed: true if a value of `main` was replaced.
    """

    def __init__(self, main: Any) -> None:
        self.values: Mapping[Any, Any] = values_of(main)
        self.made_of_input: Collection[Any] = input_steps(main)
        self.last: dict[Any, Any] = {}
        self.changed = False

    def value(self, builder: Any, binding: Any) -> Any:
        """Return the new value of a binding."""
        variable, value = binding.var, binding.value
        if (member := self._member(value)) in self.last:
            self.last[variable] = self.last[member]
        if variable in self.made_of_input or not _is_image(value):
            return value
        if (known := self.last.get(permutation_source(value, TO_LAST))) is not None:
            self.changed = True
            return known
        image = _shown(value, self.values)
        image = self._part_of_heads(value) if image is None else image
        if image is not None:
            self.last[variable] = builder.emit(image)
            return value
        step = self._step(value)
        if step is None:
            return value
        self.changed = True
        self.last[variable] = builder.emit(step)
        return builder.normalize(_first(self.last[variable]))

    def _part_of_heads(self, value: Any) -> Any:
        """Return the image NHWC of the same slice of each head's channels, such as values of attention; `None` for other values."""
        sliced: Any = self.values.get(value.args[0]) if operator_of(value) == VIEW else None
        found = slice_of(sliced) if operator_of(sliced) == "relax.strided_slice" else None
        heads: Any = self.values.get(sliced.args[0]) if found else None
        image = self.last.get(heads.args[0]) if operator_of(heads) == VIEW else None
        if found is None or image is None or shape_of(image)[0] > 1 or len(shape_of(heads)) != 4 or found[0] != 2:
            return None
        count, channels, pixels = shape_of(heads)[1:]
        height, width = shape_of(image)[1:3]
        size = found[2] - found[1]
        if pixels != height * width or shape_of(value) != [1, count * size, height, width] or count > MOST_PIECES:
            return None
        starts = [head * channels + found[1] for head in range(count)]
        return relax.op.concat([relax.op.strided_slice(image, [3], [start], [start + size]) for start in starts], 3)

    def _member(self, value: Any) -> Any:
        """Return the variable that a value takes from a tuple, such as a max pool's values and indices; `None` for other values."""
        source = self.values.get(value.tuple_value) if isinstance(value, relax.TupleGetItem) else None
        return source.fields[value.index] if isinstance(source, relax.Tuple) else None

    def _step(self, value: Any) -> Any:
        """Return a step of images NHWC; `None` for other values."""
        name = operator_of(value)
        if name == "relax.concat":
            parts = [self.last.get(part) for part in getattr(value.args[0], "fields", ())]
            is_known = value.attrs.axis is not None and parts and all(part is not None for part in parts)
            return relax.op.concat(parts, _axis(value.attrs.axis)) if is_known else None
        if name == "relax.strided_slice" and value.args[0] in self.last:
            axes, *rest = ([int(number.value) for number in part.fields] for part in value.args[1:])
            return relax.op.strided_slice(self.last[value.args[0]], [_axis(axis) for axis in axes], *rest)
        if name == "relax.nn.pad" and value.args[0] in self.last:
            widths = [int(value.attrs.pad_width[2 * axis + side]) for axis in TO_LAST for side in (0, 1)]
            return relax.op.nn.pad(self.last[value.args[0]], widths, value.attrs.pad_mode, float(value.attrs.pad_value))
        if name == "relax.take" and value.args[0] in self.last and value.attrs.axis is not None and numbers_of(value.args[1]) is not None:
            return relax.op.take(self.last[value.args[0]], value.args[1], _axis(value.attrs.axis), value.attrs.mode)
        if name == "relax.flip" and value.args[0] in self.last:
            return relax.op.flip(self.last[value.args[0]], _axis(value.attrs.axis))
        if name == "relax.nn.max_pool2d" and value.args[0] in self.last and value.attrs.layout == value.attrs.out_layout == "NCHW":
            numbers = ([int(number) for number in getattr(value.attrs, part)] for part in ("pool_size", "strides", "padding", "dilation"))
            return relax.op.nn.max_pool2d(self.last[value.args[0]], *numbers, ceil_mode=value.attrs.ceil_mode, layout="NHWC")
        if name not in _STEPS or not any(operand in self.last for operand in value.args):
            return None
        operands = [self._operand(operand) for operand in value.args]
        return None if any(operand is None for operand in operands) else relax.Call(value.op, operands, value.attrs)

    def _operand(self, operand: Any) -> Any:
        """Return the image or constant in NHWC that a step reads in place of an operand; `None` if the operand is neither."""
        if isinstance(operand, relax.Var):
            return self.last.get(operand)
        if not isinstance(operand, tvm.ir.GenericConst):
            return operand
        numbers = operand.value.numpy()
        if numbers.size == 1:
            return operand
        return constant(numbers.reshape([1] * (4 - numbers.ndim) + [*numbers.shape]).transpose(TO_LAST))


def _is_image(value: Any) -> bool:
    """Return whether a value is an operator's result with four dimensions."""
    return operator_of(value) != "" and len(getattr(value.ty, "shape", None) or ()) == len(TO_LAST)


def _shown(value: Any, values: Mapping[Any, Any]) -> Any:
    """Return the NHWC image of which a value is the NCHW view; `None` for other values."""
    image = permutation_source(value, TO_FIRST)
    if image is not None or operator_of(value) != VIEW:
        return image
    shape, source = [shape_of(value)[axis] for axis in TO_LAST], value.args[0]
    if shape_of(source) == shape and _same_order(shape):
        return source
    swap: Any = values.get(source)
    if operator_of(swap) != "relax.permute_dims" or not swaps_last(swap):
        return None
    tokens = swap.args[0]
    *leading, pixels, channels = shape_of(tokens)
    if pixels != shape[1] * shape[2] or channels > shape[3] or (channels < shape[3] and shape[0] > 1):
        return None
    if channels < shape[3]:
        heads = relax.op.reshape(tokens, [1, math.prod(leading), pixels, channels])
        tokens = relax.op.permute_dims(heads, (0, 2, 1, 3))
    return relax.op.reshape(tokens, shape)


def _first(image: Any) -> Any:
    """Permute an NHWC image to NCHW."""
    shape = shape_of(image)
    return relax.op.reshape(image, [shape[axis] for axis in TO_FIRST]) if _same_order(shape) else relax.op.permute_dims(image, TO_FIRST)


def _axis(first: Any) -> int:
    """Map an axis of NCHW, which may be negative, to NHWC."""
    return TO_LAST.index(int(first) % len(TO_LAST))


def _same_order(shape: Sequence[int]) -> bool:
    """Return whether an NHWC image of that shape has its elements in the order of NCHW."""
    return shape[1] * shape[2] == 1 or shape[3] == 1
