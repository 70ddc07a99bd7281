"""Translates LiteRT's operators that select or repeat elements to ONNX."""

from __future__ import annotations

import numpy as np

from tvmmobile.networks.own.litert.reader import LiteRtOperator
from tvmmobile.networks.own.litert.translation import Translation


def select(into: Translation, operator: LiteRtOperator) -> None:
    """Translate `SELECT`, where a vector chooses along the first dimension."""
    condition, *others = operator.inputs
    chosen, rank = into.read(condition, False), len(into.tensor(operator.outputs[0]).shape)
    if len(into.tensor(condition).shape) == 1 and rank > 1:
        chosen = into.emit("Reshape", [chosen, into.integers(-1, *[1] * (rank - 1))])
    into.write(operator.outputs[0], into.emit("Where", [chosen, *(into.read(number, False) for number in others)]), False)


def reverse(into: Translation, operator: LiteRtOperator) -> None:
    """Translate `REVERSE_V2`."""
    data, which = operator.inputs
    shape, made = into.tensor(data).shape, into.read(data, False)
    for axis in into.axes(which, len(shape)):
        made = into.emit("Gather", [made, into.integers(*reversed(range(shape[axis])))], axis=axis)
    into.write(operator.outputs[0], made, False, data)


def top_k(into: Translation, operator: LiteRtOperator) -> None:
    """Translate `TOPK_V2`, along the last dimension."""
    from onnx import helper

    data, count = operator.inputs
    names = [f"{into.tensor(number).name}/{number}/found" for number in operator.outputs]
    inputs = [into.read(data, False), into.integers(int(into.value(count)))]
    into.nodes.append(helper.make_node("TopK", inputs, names, axis=-1))
    into.write(operator.outputs[0], names[0], False, data)
    into.write(operator.outputs[1], into.cast(names[1], into.tensor(operator.outputs[1]).dtype), False)


def one_hot(into: Translation, operator: LiteRtOperator) -> None:
    """Translate `ONE_HOT`."""
    places, depth, on, off = operator.inputs
    values = np.stack([np.ravel(into.value(off))[0], np.ravel(into.value(on))[0]])
    inputs = [into.cast(into.read(places, False), np.int64), into.integers(int(into.value(depth))), into.constant(values)]
    into.write(operator.outputs[0], into.emit("OneHot", inputs, axis=int(operator.options.Axis())), False)


def repeated(into: Translation, operator: LiteRtOperator) -> None:
    """Translate `TILE`, and `BROADCAST_TO` and `FILL` to the shape that the file has."""
    data, shape = operator.inputs if operator.kind != "FILL" else reversed(operator.inputs)
    operation, numbers = ("Tile", into.value(shape)) if operator.kind == "TILE" else ("Expand", into.tensor(operator.outputs[0]).shape)
    made = into.emit(operation, [into.read(data, False), into.integers(*map(int, numbers))])
    into.write(operator.outputs[0], made, False, data)
