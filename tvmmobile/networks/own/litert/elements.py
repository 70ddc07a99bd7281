"""Translates LiteRT's element-wise operators, on one tensor or two, to ONNX."""

from __future__ import annotations

import math
from typing import Any

from tvmmobile.networks.own.litert.reader import LiteRtOperator
from tvmmobile.networks.own.litert.translation import Translation, Translator


def single(onnx: str) -> Translator:
    """An operator that ONNX has as well."""

    def translate(into: Translation, operator: LiteRtOperator) -> None:
        _of_each(into, operator, onnx)

    return translate


def bounded(low: float, high: float) -> Translator:
    """An operator that limits each element."""

    def translate(into: Translation, operator: LiteRtOperator) -> None:
        _of_each(into, operator, "Clip", into.real(low), into.real(high))

    return translate


def leaky_relu(into: Translation, operator: LiteRtOperator) -> None:
    """`LEAKY_RELU`."""
    _of_each(into, operator, "LeakyRelu", alpha=float(operator.options.Alpha()))


def _of_each(into: Translation, operator: LiteRtOperator, onnx: str, *constants: str, **attributes: Any) -> None:
    name, front = into.as_it_is(operator.inputs[0])
    into.write(operator.outputs[0], into.emit(onnx, [name, *constants], **attributes), front)


def pair(onnx: str) -> Translator:
    """Return the translator of an operator of tensors, mostly two, that are repeated to one shape."""

    def translate(into: Translation, operator: LiteRtOperator) -> None:
        tensors = [into.tensor(number) for number in operator.inputs]
        image = len(into.tensor(operator.outputs[0]).shape) == 4
        front = image and all(len(tensor.shape) == 4 or tensor.value is not None for tensor in tensors)
        made = into.emit(onnx, [into.read(number, front) for number in operator.inputs])
        into.write(operator.outputs[0], into.activated(made, operator), front)

    return translate


def square(into: Translation, operator: LiteRtOperator) -> None:
    """Translate `SQUARE`."""
    name, front = into.as_it_is(operator.inputs[0])
    into.write(operator.outputs[0], into.emit("Mul", [name, name]), front)


def squared_difference(into: Translation, operator: LiteRtOperator) -> None:
    """`SQUARED_DIFFERENCE`."""
    first, second = (into.read(number, False) for number in operator.inputs)
    difference = into.emit("Sub", [first, second])
    into.write(operator.outputs[0], into.emit("Mul", [difference, difference]), False)


def floor_division(into: Translation, operator: LiteRtOperator) -> None:
    """Translate `FLOOR_DIV`, and `FLOOR_MOD`: what is left, with the divisor's sign."""
    first, second = (into.read(number, False) for number in operator.inputs)
    whole = into.tensor(operator.outputs[0]).dtype.kind != "f"  # type: ignore[union-attr]
    remainder = into.emit("Mod", [first, second]) if whole else ""
    if operator.kind == "FLOOR_DIV" and whole:  # ONNX cuts quotients off towards zero
        made = into.emit("Div", [into.emit("Sub", [first, remainder]), second])
    elif whole:
        made = remainder
    else:
        made = into.emit("Floor", [into.emit("Div", [first, second])])
        if operator.kind == "FLOOR_MOD":
            made = into.emit("Sub", [first, into.emit("Mul", [made, second])])
    into.write(operator.outputs[0], made, False)


def sum_of_all(into: Translation, operator: LiteRtOperator) -> None:
    """Translate `ADD_N`."""
    into.write(operator.outputs[0], into.emit("Sum", [into.read(number, False) for number in operator.inputs]), False)


def gelu(into: Translation, operator: LiteRtOperator) -> None:
    """`GELU`: `x/2 · (1 + erf(x/√2))`, or by `tanh`."""
    name, front = into.as_it_is(operator.inputs[0])

    def by(operation: str, one: str, other: float) -> str:
        return into.emit(operation, [one, into.real(other)])

    if operator.options is not None and operator.options.Approximate():
        cube = into.emit("Mul", [name, into.emit("Mul", [name, name])])
        inner = by("Mul", into.emit("Add", [name, by("Mul", cube, 0.044715)]), math.sqrt(2 / math.pi))
        curve = into.emit("Tanh", [inner])
    else:
        curve = into.emit("Erf", [by("Mul", name, math.sqrt(0.5))])
    into.write(operator.outputs[0], into.emit("Mul", [by("Mul", name, 0.5), by("Add", curve, 1.0)]), front)


def inverse_root(into: Translation, operator: LiteRtOperator) -> None:
    """`RSQRT`."""
    name, front = into.as_it_is(operator.inputs[0])
    into.write(operator.outputs[0], into.emit("Reciprocal", [into.emit("Sqrt", [name])]), front)


def same_values(into: Translation, operator: LiteRtOperator) -> None:
    """`QUANTIZE` and `DEQUANTIZE`: real numbers stay as they are, except for the output's grid."""
    name, front = into.as_it_is(operator.inputs[0])
    into.write(operator.outputs[0], name, front, operator.inputs[0])


def cast(into: Translation, operator: LiteRtOperator) -> None:
    """`CAST`."""
    name, front = into.as_it_is(operator.inputs[0])
    into.write(operator.outputs[0], into.cast(name, into.tensor(operator.outputs[0]).dtype), front)
