"""Repairs ONNX models that ONNX Runtime runs and ONNX's checker refuses."""

from __future__ import annotations

import copy
from typing import Any

import onnx

from tvmmobile.networks.own.onnx.tensors import read_by

#: The first version of the format in which constants need not be inputs.
_FREE_CONSTANTS = 4


def repair(model: Any) -> None:
    """Sort a model's nodes, declare the types and shapes of its outputs, and let constants be constants only; all in place.

    Outputs whose shape is left out get that of a number, as in the files of Paddle's exporter: the network has their true shapes.

    Raises:
        Exception: of any kind, from ONNX's shape inference.
    """
    graph = model.graph
    if model.ir_version == _FREE_CONSTANTS - 1:
        model.ir_version = _FREE_CONSTANTS
    if (places := _in_order(graph.node)) != list(range(len(graph.node))):
        nodes = [copy.deepcopy(graph.node[place]) for place in places]
        del graph.node[:]
        graph.node.extend(nodes)
    if any(not output.type.tensor_type.elem_type for output in graph.output):
        inferred = onnx.shape_inference.infer_shapes(model).graph.output
        for output, found in zip(graph.output, inferred, strict=True):
            output.type.CopyFrom(output.type if output.type.tensor_type.elem_type else found.type)
    for output in graph.output:
        if output.type.HasField("tensor_type"):
            output.type.tensor_type.shape.SetInParent()


def _in_order(nodes: Any) -> list[int]:
    """Return the places of nodes such that each follows those that compute its inputs; otherwise they keep the given order, also in
    cycles.
    """
    makers = {name: place for place, node in enumerate(nodes) for name in node.output if name}
    found: dict[int, None] = {}
    for place in range(len(nodes)):
        waiting, entered = [place], set[int]()
        while waiting:
            current = waiting[-1]
            needed = [makers[name] for name in read_by(nodes[current]) if name in makers] if current not in entered else []
            entered.add(current)
            missing = [one for one in dict.fromkeys(needed) if one not in found and one not in entered]
            waiting += reversed(missing)
            if not missing:
                found.setdefault(waiting.pop())
    return list(found)
