"""Computes everything in an ONNX network that does not depend on its input, so that all shapes are known at import.

PyTorch's exporter writes shapes as arithmetic on `Shape`, paddings and sizes as small graphs, and `If` where a rank decides.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Callable, Mapping, Set
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, defs, helper, inliner, numpy_helper

from tvmmobile.networks.own.onnx.control_flow import ControlFlow
from tvmmobile.networks.own.onnx.reference import reference_evaluator
from tvmmobile.networks.own.onnx.tensors import STANDARD, attribute, graphs_of, model_of_one, opset_of, static_shape
from tvmmobile.system.survival import survives

Array = npt.NDArray[Any]
#: Elements of a computed constant; larger ones stay as they are written.
_MOST_ELEMENTS = 1 << 24
#: Bytes of a constant that may be a shape.
_MOST_TRIED = 4096
#: Operators whose result differs from run to run.
RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
#: Number of elements of results that may be far larger than the operator's inputs, computed from these inputs.
_ENLARGING: dict[str, Callable[..., float]] = {
    "Conv": lambda *_: math.inf,
    "ConvTranspose": lambda *_: math.inf,
    "ConstantOfShape": lambda shape: math.prod(map(int, shape)),
    "Einsum": lambda *operands: math.prod(operand.size for operand in operands),
    "Expand": lambda data, shape: data.size * math.prod(map(int, shape)),
    "OneHot": lambda indices, depth, _values: indices.size * abs(int(depth.reshape(-1)[0])),
    "Pad": lambda data, pads, *_: math.prod(data.shape) * math.prod(int(abs(amount)) + 1 for amount in pads),
    "Range": lambda start, limit, delta: abs(float(limit) - float(start)) / max(abs(float(delta)), 1e-30),
    "Resize": lambda *_: math.inf,
    "Tile": lambda data, repeats: data.size * math.prod(map(int, repeats)),
    "Upsample": lambda *_: math.inf,
}
#: Operators that return a sequence of tensors, which no initializer holds.
_SEQUENCES = {"SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SplitToSequence"}
#: Norms whose results have their input's type and shape, which ONNX does not infer.
_UNTYPED = {"GroupNormalization", "MeanVarianceNormalization"}


def fold_constants(model: Any) -> Any:
    """Return the model with known values as initializers, control flow replaced by what it runs, and inferred shapes.

    Args:
        model: a `ModelProto` with static input shapes and without functions of its own.

    Raises:
        Exception: of any kind, from ONNX's shape inference.
    """
    folded = copy.deepcopy(model)
    for output in folded.graph.output:
        output.type.tensor_type.ClearField("shape")
    for node in folded.graph.node:  # ONNX's inference takes another default than its own
        if node.op_type == "STFT" and attribute(node, "onesided") is None:
            node.attribute.append(helper.make_attribute("onesided", 1))
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in folded.graph.initializer}
    flow, changed = ControlFlow(opset_of(folded)), True
    while changed:
        del folded.graph.value_info[:]
        folded = with_shapes(folded)
        _make_axes_scalar(folded.graph, values)
        nodes = _left(folded, values, flow)
        changed = [node.SerializeToString() for node in nodes] != [node.SerializeToString() for node in folded.graph.node]
        del folded.graph.node[:]
        folded.graph.node.extend(nodes)
        names = {tensor.name for tensor in folded.graph.initializer} | {name for node in nodes for name in node.output}
        _add(folded.graph, {name: value for name, value in values.items() if name not in names})
    return folded


def without_functions(model: Any, known: Set[str]) -> Any:
    """Return a model as `fold_constants` returns it, with bodies in place of operators that are not `known` but have one.

    Raises:
        Exception: of any kind, from ONNX's inliner and shape inference.
    """
    functions = {
        (schema.domain, schema.name)
        for schema in defs.get_all_schemas()
        if (schema.has_function or schema.has_context_dependent_function) and schema.name not in known | RANDOM
    }

    if not any((node.domain, node.op_type) in functions for graph in graphs_of(model.graph) for node in graph.node):
        return model
    changed = copy.deepcopy(model)
    # The inliner also wants the types of constants and of omitted inputs.
    constants = {"": (TensorProto.FLOAT, ()), **{tensor.name: (tensor.data_type, tensor.dims) for tensor in model.graph.initializer}}
    changed.graph.value_info.extend(helper.make_tensor_value_info(name, *kind) for name, kind in constants.items())
    versions = {entry.domain: entry.version for entry in model.opset_import}
    for node in (node for graph in graphs_of(changed.graph) for node in graph.node):
        if (node.domain, node.op_type) in functions:  # it overlooks the defaults of attributes
            attributes = defs.get_schema(node.op_type, versions[node.domain], node.domain).attributes
            missing = attributes.keys() - {one.name for one in node.attribute}
            node.attribute.extend(attributes[name].default_value for name in sorted(missing) if attributes[name].default_value.name)
    return fold_constants(inliner.inline_selected_functions(changed, sorted(functions), inline_schema_functions=True))


def with_shapes(model: Any) -> Any:
    """Return the model with the shapes and types that ONNX infers; raise as `fold_constants` does.

    ONNX infers none for norms that it defines as functions, and then none behind them: they are inferred as copies of their input.
    """
    named = copy.deepcopy(model)
    norms = {place: node for place, node in enumerate(model.graph.node) if node.op_type in _UNTYPED and node.domain in STANDARD}
    for place, node in norms.items():
        named.graph.node[place].CopyFrom(onnx.helper.make_node("Identity", node.input[:1], node.output[:1]))
    inferred = _inferred(named)
    for place, node in norms.items():
        inferred.graph.node[place].CopyFrom(node)
    return inferred


def _inferred(model: Any) -> Any:
    """Return the model with ONNX's inferred shapes. The inference ends the process for a `Slice` of a tensor that padding gave a negative
    extent, so models with one are tried in another process first.
    """

    def infer() -> Any:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)

    def tried() -> None:  # in a process of its own, which need not copy weights
        for tensor in model.graph.initializer:
            if len(tensor.raw_data) > _MOST_TRIED:
                tensor.ClearField("raw_data")
        infer()

    if any(node.op_type == "Slice" for graph in graphs_of(model.graph) for node in graph.node) and not survives(tried):
        raise ValueError("ONNX's shape inference crashes on it, as for negative extents")
    return infer()


def _make_axes_scalar(graph: Any, values: dict[str, Array]) -> None:
    """PyTorch's exporter gives the axis of `CumSum` a dimension, which ONNX's evaluator refuses."""
    for node in graph.node:
        axis = values.get(node.input[1]) if node.op_type == "CumSum" and node.domain in STANDARD else None
        if axis is not None and axis.ndim:
            name = f"{node.input[1]}/scalar"
            node.input[1] = name
            if name not in values:
                values[name] = axis.reshape(())
                _add(graph, {name: values[name]})


def _add(graph: Any, values: Mapping[str, Array]) -> None:
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value, order="C"), name) for name, value in values.items())


def _left(model: Any, values: dict[str, Array], flow: ControlFlow) -> list[Any]:
    """Return the nodes that depend on the input, without control flow that does not; the others' values are added to `values`."""
    graph = model.graph
    static = ((value.name, static_shape(value)) for value in (*graph.input, *graph.value_info))
    shapes = {name: shape for name, shape in static if shape is not None}
    outputs = {output.name for output in graph.output}
    left: list[Any] = []
    waiting = deque(graph.node)
    while waiting:
        node = waiting.popleft()
        if (nodes := flow.straightened(node, values, shapes)) is not None:
            waiting.extendleft(reversed(nodes))
        elif outputs.isdisjoint(node.output) and (found := values_of(model, node, values, shapes)) is not None:
            values.update(found)
            if node.op_type in _SEQUENCES:  # nodes that read one of its tensors are known; nodes that append a computed tensor need it
                left.append(node)
        else:
            left.append(node)
    return left


def values_of(model: Any, node: Any, values: Mapping[str, Array], shapes: Mapping[str, list[int]]) -> dict[str, Array] | None:
    """Return the node's results by name if they are known; `None` otherwise."""
    if node.domain not in STANDARD or node.op_type in RANDOM or any(one.HasField("g") for one in node.attribute):
        return None
    if node.op_type in ("Shape", "Size") and node.input[0] in shapes:
        values = {**values, node.input[0]: np.broadcast_to(np.float32(0), shapes[node.input[0]])}
    if not all(name in values for name in node.input if name):
        return None
    if any(math.prod(shapes.get(name, ())) > _MOST_ELEMENTS for name in node.output):
        return None
    feeds = {name: values[name] for name in node.input if name}
    kinds = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in feeds.items()}
    inputs = [helper.make_tensor_value_info(name, kinds[name], value.shape) for name, value in feeds.items()]
    try:
        elements = _ENLARGING.get(node.op_type)
        if elements is not None and elements(*feeds.values()) > _MOST_ELEMENTS:
            return None
        found = reference_evaluator(model_of_one(node, inputs, model.opset_import)).run(None, feeds)
    except Exception:  # an operator that ONNX's evaluator lacks or refuses stays for the importer, which has its own message
        return None
    if any(isinstance(value, list) and len({np.shape(one) for one in value}) != 1 for value in found):
        return None  # an empty or uneven sequence of tensors
    results = {name: np.asarray(value) for name, value in zip(filter(None, node.output), found, strict=True)}
    return results if sum(array.size for array in results.values()) <= _MOST_ELEMENTS else None
