"""The values inside an ONNX network, and its import with all of them as outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import onnx

from tvmmobile.graph.layers import Array
from tvmmobile.networks.frontend import Traced
from tvmmobile.networks.own.references import HostReference


def trace_onnx(
    model: Any, convert: Callable[[Any], Any], reference: Callable[[Any, Sequence[str]], HostReference], given: Sequence[Array]
) -> Traced:
    """Trace a network as it is imported. Raises exceptions of any kind.

    Args:
        model: a `ModelProto` that holds all its weights, with static shapes.
        convert: imports such a model into Relax.
        reference: makes what computes such a model, whose inputs have these names.
        given: values of the network's inputs, in order.
    """
    model = onnx.shape_inference.infer_shapes(model)
    found = dict(_computed(model.graph))
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in constants]
    del model.graph.output[:]
    model.graph.output.extend(value for _, value in found.values())
    values = reference(model, inputs).compute(given)
    return Traced(tuple(operator for operator, _ in found.values()), values, convert(model))


def _computed(graph: Any) -> Iterator[tuple[str, tuple[str, Any]]]:
    """Yield each tensor of real numbers that a node computes: its name, and the node in words and the tensor's type."""
    types = {value.name: value for value in (*graph.value_info, *graph.output)}
    for node in graph.node:
        for name in node.output:
            kind = types[name].type.tensor_type if name in types else None
            if kind is not None and kind.elem_type == onnx.TensorProto.FLOAT and all(extent.dim_value > 0 for extent in kind.shape.dim):
                yield name, (f'{node.op_type} "{node.name or name}"', types[name])
