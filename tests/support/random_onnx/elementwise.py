"""Operators that compute each element by itself."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from random_onnx.draw import Draw, Values, halves, nonzero, normal, positive, unit
from random_onnx.registry import draws

KIND = "elementwise"
draw_kind = partial(draws, KIND)
_DOMAINS: dict[str, Values] = {
    **dict.fromkeys(("Log", "Sqrt"), positive),
    **dict.fromkeys(("Acos", "Asin", "Atanh"), unit),
    "Acosh": lambda random, shape: random.uniform(1.1, 5.0, shape),
    "Reciprocal": nonzero,
    "Tan": unit,
    "Round": halves,
}


@draw_kind(
    *("Abs", "Neg", "Exp", "Log", "Sqrt", "Reciprocal", "Floor", "Ceil", "Round", "Sign", "Erf", "Sigmoid", "Tanh", "Relu", "Sin", "Cos"),
    *("Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Identity", "HardSwish", "Mish", "Softplus", "Softsign"),
)
def unary(draw: Draw) -> None:
    draw.apply([draw.data(draw.shape(), _DOMAINS.get(draw.operator, normal))])


_ATTRIBUTES: dict[str, dict[str, tuple[float, float]]] = {
    "LeakyRelu": {"alpha": (-0.5, 1.5)},
    "Elu": {"alpha": (0.2, 2.0)},
    "Selu": {"alpha": (0.5, 2.0), "gamma": (0.5, 2.0)},
    "HardSigmoid": {"alpha": (0.1, 0.4), "beta": (0.2, 0.8)},
    "ThresholdedRelu": {"alpha": (-0.5, 1.5)},
    "Celu": {"alpha": (0.3, 2.0)},
    "Shrink": {"lambd": (0.1, 1.0), "bias": (-0.5, 0.5)},
    "Swish": {"alpha": (0.3, 2.0)},
}


@draw_kind(*_ATTRIBUTES)
def activation(draw: Draw) -> None:
    given = {name: draw.uniform(*bounds) for name, bounds in _ATTRIBUTES[draw.operator].items() if draw.chance(0.7)}
    draw.apply([draw.data(draw.shape())], **given)


@draw_kind("Gelu")
def gelu(draw: Draw) -> None:
    draw.apply([draw.data(draw.shape())], approximate=draw.pick([None, "none", "tanh"]))


@draw_kind("PRelu")
def prelu(draw: Draw) -> None:
    shape = draw.shape(1, 5)
    options = [[1], shape, shape[-1:], [1] * len(shape)]
    if len(shape) >= 2:
        options += [[shape[1], *[1] * (len(shape) - 2)]] * 3
    draw.apply([draw.data(shape), draw.constant(draw.random.uniform(-0.5, 1.5, draw.pick(options)))])


@draw_kind("Clip")
def clip(draw: Draw) -> None:
    low, high = draw.uniform(-1.5, 0.0), draw.uniform(0.1, 1.5)
    data = draw.data(draw.shape())
    if draw.since < 11:
        draw.apply([data], min=low if draw.chance(0.7) else None, max=high if draw.chance(0.7) else None)
        return
    bounds = [draw.constant(bound) if draw.chance(0.7) else "" for bound in (low, high)]
    if draw.chance(0.15):
        bounds[0] = draw.node("Reshape", [draw.input([1], lambda random, shape: -positive(random, shape)), draw.integers(np.zeros(0))])
    inputs = [data, *bounds]
    while not inputs[-1]:
        inputs.pop()
    draw.apply(inputs)


@draw_kind("Add", "Sub", "Mul", "Div", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Equal")
def binary(draw: Draw) -> None:
    shape = draw.shape(0, 5)
    kind = draw.pick(["float", "float", "float", "int"])
    shapes = [shape, draw.broadcast(shape)]
    if draw.chance():
        shapes.reverse()
    if kind == "int" or draw.operator == "Equal":
        target = draw.pick([TensorProto.INT32, TensorProto.INT64])
        values = [lambda random, extents: random.integers(-4, 5, extents), lambda random, extents: random.integers(1, 4, extents)]
        draw.apply([draw.whole(extents, target, value) for extents, value in zip(shapes, values, strict=True)])
        return
    divisor = nonzero if draw.operator == "Div" else normal
    draw.apply([draw.data(shapes[0]), draw.data(shapes[1], divisor, constant=0.5)])


@draw_kind("Mod")
def modulo(draw: Draw) -> None:
    shape = draw.shape(1, 4)
    if draw.chance(0.6):
        constant = draw.chance()
        draw.apply([draw.data(shape), draw.data(draw.broadcast(shape), nonzero, constant=float(constant))], fmod=1)
        return
    kind = draw.pick([TensorProto.INT32, TensorProto.INT64])
    divisor = draw.whole(draw.broadcast(shape), kind, lambda random, extents: random.choice([-3, -2, 2, 3, 5], extents))
    draw.apply([draw.whole(shape, kind), divisor], fmod=draw.pick([None, 0, 1]))


@draw_kind("Pow")
def power(draw: Draw) -> None:
    shape = draw.shape(0, 5)
    if draw.chance(0.4):  # of any base by a whole exponent
        exponent = draw.constant(draw.pick([2.0, 3.0, 1.0, 0.0, -1.0, -2.0]))
        draw.apply([draw.data(shape, nonzero), exponent])
    elif draw.chance(0.4) and draw.since >= 12:
        kind = draw.pick([np.int32, np.int64])
        draw.apply([draw.data(shape, nonzero), draw.constant(draw.random.integers(-2, 4, draw.broadcast(shape)), kind)])
    elif draw.chance(0.3) and draw.since >= 12:
        exponent = draw.constant(draw.random.integers(0, 4, draw.broadcast(shape)), np.int64)
        draw.apply([draw.whole(shape, TensorProto.INT32), exponent])
    else:
        draw.apply([draw.data(shape, positive), draw.data(draw.broadcast(shape), constant=0.6)])


@draw_kind("Sum", "Mean", "Max", "Min")
def variadic(draw: Draw) -> None:
    shape, count = draw.shape(1, 5), draw.integer(1, 4)
    shapes = [shape if place == 0 else draw.broadcast(shape) for place in range(count)]
    draw.random.shuffle(shapes)
    if draw.operator in ("Max", "Min") and draw.since >= 12 and draw.chance(0.25):
        draw.apply([draw.whole(extents, TensorProto.INT32) for extents in shapes])
        return
    draw.apply([draw.data(extents, constant=0.3 * bool(place)) for place, extents in enumerate(shapes)])


@draw_kind("And", "Or", "Xor")
def logic(draw: Draw) -> None:
    shape = draw.shape(1, 5)
    draw.apply([draw.booleans(shape), draw.booleans(draw.broadcast(shape))])


@draw_kind("Not")
def negation(draw: Draw) -> None:
    draw.apply([draw.booleans(draw.shape(1, 5))])


@draw_kind("BitwiseAnd", "BitwiseOr", "BitwiseXor")
def bitwise(draw: Draw) -> None:
    shape, kind = draw.shape(1, 4), draw.pick([TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8])
    values: Values = (
        (lambda random, extents: random.integers(0, 200, extents))
        if kind == TensorProto.UINT8
        else (lambda random, extents: random.integers(-99, 99, extents))
    )
    draw.apply([draw.whole(shape, kind, values), draw.whole(draw.broadcast(shape), kind, values)])


@draw_kind("BitwiseNot")
def complement(draw: Draw) -> None:
    draw.apply([draw.whole(draw.shape(1, 4), draw.pick([TensorProto.INT32, TensorProto.INT64]))])


@draw_kind("BitShift")
def shift(draw: Draw) -> None:
    shape, kind = draw.shape(1, 4), draw.pick([TensorProto.UINT8, TensorProto.UINT32, TensorProto.UINT64])
    data = draw.whole(shape, kind, lambda random, extents: random.integers(0, 200, extents))
    by = draw.whole(draw.broadcast(shape), kind, lambda random, extents: random.integers(0, 7, extents))
    draw.apply([data, by], direction=draw.pick(["LEFT", "RIGHT"]))


@draw_kind("Where")
def where(draw: Draw) -> None:
    shape = draw.shape(1, 5)
    shapes = [shape, draw.broadcast(shape), draw.broadcast(shape)]
    draw.random.shuffle(shapes)
    draw.apply([draw.booleans(shapes[0]), draw.data(shapes[1], constant=0.3), draw.data(shapes[2], constant=0.3)])


@draw_kind("IsNaN", "IsInf")
def special(draw: Draw) -> None:
    def values(random: np.random.Generator, shape: Any) -> Any:
        return random.choice([1.0, -2.0, np.inf, -np.inf, np.nan], shape)

    given = {}
    if draw.operator == "IsInf":
        given = {"detect_negative": draw.pick([None, 0, 1]), "detect_positive": draw.pick([None, 0, 1])}
    draw.apply([draw.data(draw.shape(1, 5), values)], **given)


_KINDS = [
    TensorProto.INT8,
    TensorProto.UINT8,
    TensorProto.INT16,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.BOOL,
    TensorProto.FLOAT16,
    TensorProto.DOUBLE,
]


@draw_kind("Cast", "CastLike")
def cast(draw: Draw) -> None:
    source = draw.pick([TensorProto.FLOAT, TensorProto.FLOAT, *_KINDS, TensorProto.UINT32])
    target = draw.pick([TensorProto.FLOAT, *_KINDS]) if source != TensorProto.FLOAT else draw.pick(_KINDS)
    unsigned = {TensorProto.UINT8, TensorProto.UINT32} & {source, target}
    values: Values = positive if unsigned else normal
    data = draw.input(draw.shape(1, 5), values)
    if source != TensorProto.FLOAT:
        data = draw.cast(data, source)
    if draw.operator == "Cast":
        draw.apply([data], to=target)
        return
    draw.apply([data, draw.constant(np.ones(1), helper.tensor_dtype_to_np_dtype(target))])


@draw_kind("Dropout")
def dropout(draw: Draw) -> None:
    data = draw.data(draw.shape(1, 5))
    if draw.since >= 12:
        draw.apply([data, draw.constant(0.4)] if draw.chance() else [data], outputs=1)
        return
    draw.apply([data], ratio=draw.pick([None, 0.3]))
