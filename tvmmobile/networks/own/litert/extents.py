"""Computes constants from shapes, and extents that a LiteRT file leaves open.

It has 1 in their place, and no shapes of dependent tensors.
"""

from __future__ import annotations

from collections import ChainMap
from dataclasses import replace

import numpy as np
from onnx import helper, numpy_helper

from tvmmobile.graph.layers import Array
from tvmmobile.networks.own.litert.reader import LiteRtOperator
from tvmmobile.networks.own.litert.translation import TO_LAST, Translation
from tvmmobile.networks.own.onnx.constants import values_of, with_shapes
from tvmmobile.networks.own.onnx.tensors import static_shape


def settle(into: Translation, operator: LiteRtOperator, begin: int, opset: int) -> None:
    """Find the shapes of an operator's results by the nodes made for it, those from `begin`, and make constants of integers that are known.

    Raises:
        Exception: of any kind, from ONNX's shape inference.
    """
    nodes = into.nodes[begin:]
    read = dict.fromkeys(name for node in nodes for name in node.input)
    described = [into.described[name] for name in read if name in into.described]
    stored = [numpy_helper.from_array(into.constants[name], name) for name in read if name in into.constants]
    model = helper.make_model(helper.make_graph(nodes, "operator", described, [], stored), opset_imports=[helper.make_opsetid("", opset)])
    found = {value.name: value for value in with_shapes(model).graph.value_info}
    into.described |= found
    shapes = {name: shape for name, value in found.items() if (shape := static_shape(value)) is not None}
    values: ChainMap[str, Array] = ChainMap({}, into.constants)
    for node in nodes:
        values.update(values_of(model, node, values, shapes) or {})
    for number in operator.outputs:
        tensor, (name, front) = into.tensor(number), into.names.get(number, ("", False))
        value, known = values.get(name), static_shape(into.described[name]) if name in into.described else None
        if number in into.padded:
            data, (top, left, bottom, right) = into.padded[number]
            known = list(np.add(into.tensor(data).shape, (0, top + bottom, left + right, 0)))
        elif value is not None and value.dtype.kind in "iu" and tensor.grid is None and not front:
            tensor, known = replace(tensor, value=value.astype(tensor.dtype)), list(value.shape)
            del into.names[number]
        elif known is not None and front and len(known) == 4:
            known = [known[axis] for axis in TO_LAST]
        if known is not None:
            into.known[number] = replace(tensor, shape=tuple(map(int, known[: len(tensor.shape)])), open=False)
