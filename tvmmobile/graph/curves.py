"""Element-wise functions, other than bounds, that kernels apply to sums: a new one is a single entry of `CURVES`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

#: Kinds of operands, see `Curve.operands`.
CHANNEL, TENSOR, GATE = "channel", "tensor", "gate"
#: The curve that scales and shifts each channel; only our own passes add it to a layer.
SCALED = "scaled"
#: The curve that adds a tensor after another step.
PLUS = "plus"
Float64 = npt.NDArray[np.float64]
#: Takes a Relax pattern, a function that returns the pattern of a constant with a given value, and the operands' patterns; returns the
#: pattern of one form in which networks contain the curve.
Spelling = Callable[..., Any]


@dataclass(frozen=True)
class Curve:
    """A function of a number, and perhaps of operands.

    Attributes:
        exact: computes its values in float64; channels are the last axis. Operands follow the number.
        emit: emits the vector of its values, from vector arithmetic (`schedules.vectors.Vectors`), a vector and the operands' vectors.
        max_error: error of the code emitted in float32, over max(1, |x|, |value|), for every x with a finite value.
        spellings: the forms in which `layers.sum_forms` looks for it; earlier passes may rewrite other forms to these.
        operands: other inputs: `CHANNEL`, a constant for each channel of the output, `TENSOR`, another tensor with the
            output's extents, NHWC, or `GATE`, a tensor with one number for each channel of the output.
        long: true if its registers suffice only for a few vectors of a register tile at a time.
    """

    exact: Callable[..., Float64]
    emit: Callable[..., Any]
    max_error: float
    spellings: tuple[Spelling, ...] = ()
    operands: tuple[str, ...] = ()
    long: bool = False


def _sigmoid(x: Float64) -> Float64:
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * x))


def _gelu(x: Float64) -> Float64:
    return np.asarray(0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))))


def _gelu_tanh(x: Float64) -> Float64:
    bound = np.clip(x, -50, 50)
    return x * _sigmoid(2 * math.sqrt(2 / math.pi) * (bound + 0.044715 * bound**3))


def _hsigmoid(x: Float64) -> Float64:
    return np.clip(x + 3, 0, 6) / 6


def _emit_hsigmoid(v: Any, x: Any) -> Any:
    return v.limited(x + v.number(3.0), 0.0, 6.0) * v.number(1 / 6)


def _emit_hswish(v: Any, x: Any) -> Any:
    return x * (v.bounded(x + v.number(3.0), 0.0, 6.0) * v.number(1 / 6))


def _elu_form(x: Any, number: Callable[[float], Any]) -> Any:
    """Return the form in which importers leave ELU, -max(1 - exp(x), 0) + max(x, 0)."""
    above = _op("maximum")(x, number(0.0))
    return _op("add")(_op("multiply")(number(-1.0), _op("maximum")(_op("subtract")(number(1.0), _op("exp")(x)), number(0.0))), above)


def _squared(x: Any) -> Any:
    return _op("multiply")(x, x)


def _op(name: str) -> Any:
    from tvm.relax.dpl import is_op

    return is_op(f"relax.{name}")


def _product_with_itself(v: Any, x: Any) -> Any:
    bound = v.bind(x)
    return bound * bound


def _clipped(x: Any, number: Callable[[float], Any]) -> Any:
    """Return clip(x + 3, 0, 6)."""
    return _op("minimum")(_op("maximum")(_op("add")(x, number(3.0)), number(0.0)), number(6.0))


#: By name, in the order in which they are looked for; h-swish and h-sigmoid are MobileNet v3's (arXiv 1905.02244, section 5.2).
CURVES: dict[str, Curve] = {
    "hswish": Curve(
        lambda x: x * _hsigmoid(x),
        _emit_hswish,
        2e-7,
        (
            lambda x, number: _op("divide")(_op("multiply")(x, _clipped(x, number)), number(6.0)),
            lambda x, number: _op("divide")(_op("multiply")(_clipped(x, number), x), number(6.0)),
        ),
    ),
    "hsigmoid": Curve(_hsigmoid, _emit_hsigmoid, 2e-7, (lambda x, number: _op("divide")(_clipped(x, number), number(6.0)),)),
    "silu": Curve(lambda x: x * _sigmoid(x), lambda v, x: v.silu(x), 3e-7, (lambda x, number: _op("nn.silu")(x),), long=True),
    "sigmoid": Curve(_sigmoid, lambda v, x: v.sigmoid(x), 2e-7, (lambda x, number: _op("sigmoid")(x),), long=True),
    # D. Hendrycks, K. Gimpel, "Gaussian error linear units", arXiv 1606.08415.
    "gelu": Curve(_gelu, lambda v, x: v.gelu(x), 3.5e-7, (lambda x, number: _op("nn.gelu")(x),), long=True),
    "gelu_tanh": Curve(
        _gelu_tanh,
        lambda v, x: v.gelu_tanh(x),
        4e-7,
        (lambda x, number: _op("nn.gelu_tanh")(x),),
        long=True,
    ),
    "tanh": Curve(
        lambda x: np.asarray(np.tanh(x)),
        lambda v, x: v.sigmoid(x + x) * v.number(2.0) - v.number(1.0),
        4e-7,
        (lambda x, number: _op("tanh")(x),),
        long=True,
    ),
    # D. Clevert et al., "Exponential linear units", arXiv 1511.07289, with α = 1.
    "elu": Curve(
        lambda x: np.maximum(x, 0) + np.expm1(np.minimum(x, 0)),
        lambda v, x: v.limited(x, 0.0, None) + v.expm1_below(x),
        3e-7,
        (_elu_form,),
        long=True,
    ),
    # One slope per channel; leaky ReLUs have one slope for all channels.
    "prelu": Curve(
        lambda x, slope: np.maximum(x, 0) + slope * np.minimum(x, 0),
        lambda v, x, slope: v.bounded(x, 0.0, None) + slope * v.limited(x, None, 0.0),
        6e-8,
        (lambda x, number, slope: _op("add")(_op("maximum")(x, number(0.0)), _op("multiply")(_op("minimum")(x, number(0.0)), slope)),),
        operands=(CHANNEL,),
    ),
    # D. So et al., "Primer", arXiv 2109.08668; PoolFormer v2 and others scale and shift it (arXiv 2210.13452).
    "relu_square": Curve(
        lambda x: np.square(np.maximum(x, 0)),
        lambda v, x: _product_with_itself(v, v.limited(x, 0.0, None)),
        6e-8,
        (lambda x, number: _squared(_op("maximum")(x, number(0.0))),),
    ),
    "square": Curve(np.square, _product_with_itself, 6e-8, (lambda x, number: _squared(x),)),
    # Gates of pixels, and products of branches.
    "times": Curve(
        lambda x, other: x * other,
        lambda v, x, other: x * other,
        6e-8,
        (lambda x, number, other: _op("multiply")(x, other), lambda x, number, other: _op("multiply")(other, x)),
        operands=(TENSOR,),
    ),
    # The steps of integers that are stored, and their zero point.
    SCALED: Curve(
        lambda x, scale, shift: x * scale + shift, lambda v, x, scale, shift: x * scale + shift, 1.2e-7, operands=(CHANNEL, CHANNEL)
    ),
    PLUS: Curve(lambda x, other: x + other, lambda v, x, other: x + other, 6e-8, operands=(TENSOR,)),
    # Squeeze and excite, where no layer can apply the factors to its input.
    "gated": Curve(
        lambda x, gate: x * gate,
        lambda v, x, gate: x * gate,
        6e-8,
        (lambda x, number, gate: _op("multiply")(x, gate), lambda x, number, gate: _op("multiply")(gate, x)),
        operands=(GATE,),
    ),
}
