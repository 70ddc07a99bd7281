"""The Relax operators that passes know, and their traits: a new trait is a line of `Trait`, a new operator a word of the table."""

from __future__ import annotations

import math
from enum import Flag, auto
from functools import cache
from typing import Any

from tvmmobile.graph.expressions import numbers_of, operator_of, shape_of

#: The attribute of TIR functions that put the elements of a tensor in order and return where they are.
ORDERS = "tvmmobile.orders"
#: Values of TVM's attribute `op_pattern`: functions whose elements are some of the input's, each perhaps changed, and functions that are
#: never fused.
INJECTIVE, NEVER_FUSED = 2, 8


class Trait(Flag):
    """A property of an operator that passes rely on."""

    #: Each element of the result depends on the same element of the operands, which are broadcast.
    ELEMENT_WISE = auto()
    #: It computes a tensor from two of the same type.
    ARITHMETIC = auto()
    #: Its two operands may be swapped.
    COMMUTATIVE = auto()
    #: It computes a tensor from one of the same type.
    UNARY = auto()
    #: No element of the result is negative.
    NON_NEGATIVE = auto()
    #: The result has the elements of the first argument in the same order; for `broadcast_to` only if it repeats none (see `is_view`).
    RESHAPE = auto()
    #: Every element of the result is one of the first argument (see `graph.access`).
    MOVE = auto()
    #: It works along the axes in its attribute `axis`.
    ALONG_AXIS = auto()
    #: It works along the axes in its attribute `axes`.
    ALONG_AXES = auto()
    #: It computes each image of the first argument by itself; its other arguments are the same for all images.
    PER_IMAGE = auto()
    #: Its other arguments have one number for each channel, along the axis in its attribute `axis`.
    PER_CHANNEL = auto()
    CONVOLUTION = auto()
    TRANSPOSED_CONVOLUTION = auto()
    MAX_POOL = auto()
    AVERAGE_POOL = auto()
    #: It adds up elements, of which there may be thousands.
    SUM = auto()
    #: It has one spatial dimension.
    SEQUENTIAL = auto()


_TRAITS: tuple[tuple[str, Trait], ...] = (
    ("add multiply maximum minimum", Trait.ELEMENT_WISE | Trait.ARITHMETIC | Trait.COMMUTATIVE),
    ("subtract divide", Trait.ELEMENT_WISE | Trait.ARITHMETIC),
    ("power where astype", Trait.ELEMENT_WISE),
    ("equal not_equal greater greater_equal less less_equal logical_and logical_or logical_not", Trait.ELEMENT_WISE),
    ("negative log sqrt rsqrt square tanh sin cos erf clip round floor ceil sign", Trait.ELEMENT_WISE | Trait.UNARY),
    ("nn.leakyrelu nn.silu nn.gelu nn.gelu_tanh nn.softplus nn.selu", Trait.ELEMENT_WISE | Trait.UNARY),
    ("abs exp sigmoid nn.relu", Trait.ELEMENT_WISE | Trait.UNARY | Trait.NON_NEGATIVE),
    ("reshape expand_dims flatten broadcast_to", Trait.MOVE | Trait.RESHAPE),
    ("squeeze", Trait.MOVE | Trait.RESHAPE | Trait.ALONG_AXIS),
    ("permute_dims strided_slice", Trait.MOVE),
    ("mean sum variance std", Trait.ALONG_AXIS | Trait.SUM),
    ("max min prod argmax argmin nn.softmax nn.log_softmax split", Trait.ALONG_AXIS),
    ("nn.layer_norm nn.rms_norm nn.instance_norm", Trait.ALONG_AXES),
    ("nn.group_norm", Trait.ALONG_AXES | Trait.PER_IMAGE),
    ("nn.batch_norm nn.prelu", Trait.PER_CHANNEL | Trait.PER_IMAGE),
    ("nn.adaptive_avg_pool2d", Trait.PER_IMAGE | Trait.SUM),
    ("nn.pixel_shuffle image.resize2d", Trait.PER_IMAGE),
    ("nn.conv1d", Trait.CONVOLUTION | Trait.SEQUENTIAL | Trait.PER_IMAGE),
    ("nn.conv2d", Trait.CONVOLUTION | Trait.PER_IMAGE),
    ("nn.conv1d_transpose", Trait.TRANSPOSED_CONVOLUTION | Trait.SEQUENTIAL | Trait.PER_IMAGE),
    ("nn.conv2d_transpose", Trait.TRANSPOSED_CONVOLUTION | Trait.PER_IMAGE),
    ("nn.max_pool1d", Trait.MAX_POOL | Trait.SEQUENTIAL | Trait.PER_IMAGE),
    ("nn.max_pool2d", Trait.MAX_POOL | Trait.PER_IMAGE),
    ("nn.avg_pool1d", Trait.AVERAGE_POOL | Trait.SEQUENTIAL | Trait.PER_IMAGE | Trait.SUM),
    ("nn.avg_pool2d", Trait.AVERAGE_POOL | Trait.PER_IMAGE | Trait.SUM),
)
_TRAITS_OF = {f"relax.{name}": traits for names, traits in _TRAITS for name in names.split()}


@cache
def operators_with(traits: Trait) -> frozenset[str]:
    """Return the names of the operators that have all of the given traits, such as `relax.add`."""
    return frozenset(name for name, own in _TRAITS_OF.items() if traits in own)


def has(value: Any, traits: Trait) -> bool:
    """Return whether an expression is a call of an operator with all of the given traits."""
    return operator_of(value) in operators_with(traits)


def constant_operand(value: Any) -> tuple[Any, Any] | None:
    """Return the computed and the constant operand of an arithmetic operator, whose constant is second or may be swapped there; `None` for
    other values.
    """
    operands = list(value.args) if has(value, Trait.ARITHMETIC) else []
    if has(value, Trait.COMMUTATIVE) and numbers_of(operands[0]) is not None:
        operands.reverse()
    known = [numbers_of(operand) is not None for operand in operands]
    return (operands[0], operands[1]) if known == [False, True] else None


def is_view(value: Any) -> bool:
    """Return whether an expression has the elements of its first argument in the same order, each of them once."""
    return has(value, Trait.RESHAPE) and math.prod(shape_of(value)) == math.prod(shape_of(value.args[0]))
