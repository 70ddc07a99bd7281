"""Rewrites quantised ONNX networks in ordinary operators, which TVM's importer supports in every opset.

Each tensor of integers becomes the real numbers that they stand for. Whatever rounds to integers, by itself (`QuantizeLinear`) or with an
operator (`QLinearConv`), becomes the operator in float32 and

    (min(max(round(x / scale) + zero, low), high) - zero) · scale

which `graph.passes.roundings` finds again, as it finds what dequantises an input of integers. Unsigned integers are signed ones plus 128,
and so are their zero points and bounds. Constants become float32; `WeightScales` keeps their scales.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tvmmobile.networks.own.onnx.dynamic import DYNAMIC
from tvmmobile.networks.own.onnx.real_nodes import RealNodes
from tvmmobile.networks.own.onnx.tensors import attribute, opset_of, read_by, rename
from tvmmobile.networks.quantised import WeightScales
from tvmmobile.system.errors import UserError

_DOMAINS = ("", "ai.onnx", "com.microsoft")
#: Operators that convert between integers and the real numbers that they represent.
_CONVERSIONS = {"QuantizeLinear", "DequantizeLinear"}
#: Operators that return some of their integers, unchanged.
_MOVING = (
    *("DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "ReduceMax", "ReduceMin", "Reshape", "Slice", "SpaceToDepth"),
    *("Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
)
_FIX = "Quantise it as QDQ, with 8 bits and scales that are constants."


def is_quantised(graph: Any) -> bool:
    """Return whether a graph has an operator that `without_integers` rewrites."""
    return any(node.op_type in _REWRITES and node.domain in _DOMAINS for node in graph.node)


def computes_in_integers(graph: Any) -> bool:
    """Return whether a graph has operators that compute with integers, not only `QuantizeLinear` and `DequantizeLinear`.

    ONNX Runtime's sums of their products saturate on x86 processors without VNNI, so that it cannot judge them as they are. It does compute
    the equivalent, the operator in float32 and its rounding, identically on all machines; QDQ files are written that way.
    """
    return any(node.op_type not in _CONVERSIONS and node.op_type in _REWRITES and node.domain in _DOMAINS for node in graph.node)


def without_integers(model: Any) -> tuple[Any, WeightScales]:
    """Return the model in float32, and its weights' scales; scales that are not constants, or of activations' channels, stay.

    Raises:
        UserError: an operator on integers that is not known.
    """
    changed = copy.deepcopy(model)
    nodes = RealNodes(model.graph, opset_of(model))
    del changed.graph.node[:], changed.graph.value_info[:]
    for node in model.graph.node:
        _add(nodes, node)
    for value in model.graph.output:
        nodes.leave(value)
    changed.graph.node.extend(nodes.nodes)
    used = {name for node in nodes.nodes for name in read_by(node)}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del changed.graph.initializer[:]
    changed.graph.initializer.extend([*kept, *(onnx.numpy_helper.from_array(array, name) for name, array in nodes.constants.items())])
    return changed, nodes.weights


def _add(into: RealNodes, node: Any) -> None:
    """Append a node of the file or its replacement."""
    copied = copy.deepcopy(node)
    for name in set(read_by(node)) - {*node.input, *into.same}:
        if name in into.grids or name in into.numbers:
            raise UserError(f"a graph within {node.op_type} ({next(iter(node.output), '')}) reads the integers {name}.", _FIX)
    rename([copied], into.same)
    into.subject = f"{next(filter(None, node.output), '')}/"
    rewrite = _REWRITES.get(node.op_type) if node.domain in _DOMAINS else None
    integers = [into.grids[name] for name in node.input if name in into.grids]
    if rewrite is None and (integers or not into.numbers.isdisjoint(node.input)):
        rewrite = _ON_INTEGERS.get(node.op_type, _moved) if node.domain in _DOMAINS else _moved
    if rewrite is not None and rewrite(into, copied):
        return
    if integers:
        raise UserError(f"{node.op_type} ({node.output[0]}) has scales or zero points that are not one constant each.", _FIX)
    into.nodes.append(copied)


def _inputs(node: Any, count: int) -> list[str]:
    """Return a node's inputs, "" for those that are omitted."""
    return [*node.input, *[""] * count][:count]


def _quantize(into: RealNodes, node: Any) -> bool:
    data, scale, zero = _inputs(node, 3)
    given = attribute(node, "output_dtype", 0)
    grid = into.grid(scale, zero, str(np.dtype(helper.tensor_dtype_to_np_dtype(given))) if given else "uint8")
    return grid is not None and into.rounded(data, node.output[0], grid)


def _dequantize(into: RealNodes, node: Any) -> bool:
    axis, block = attribute(node, "axis", 1), attribute(node, "block_size", 0)
    source, output = into.reals(_inputs(node, 3), axis, block), node.output[0]
    if source is None:
        return False
    if output in into.results:
        into.emit("Identity", [source], output)
    else:
        into.same[output] = source
    return True


@dataclass(frozen=True)
class _IntegerForm:
    """An operator between integers.

    Attributes:
        operator: the operator between the real numbers that the integers stand for.
        operands: places of inputs, each followed by its scale and zero point; none for all behind those of the result.
        result: place of the result's scale, which its zero point follows.
        bias: place of a bias, which has the product of the operands' scales.
        axis: axis along which constants have several scales.
        plain: number of inputs in front that are not integers with a scale.
    """

    operator: str
    operands: tuple[int, ...] = (0, 3)
    result: int = 6
    bias: int | None = None
    axis: int = 0
    plain: int = 0


def _in_reals(into: RealNodes, node: Any) -> bool:
    """Append an operator between integers in float32, and the rounding of its result; `QGemm` may also return real numbers."""
    form, inputs, output = _FORMS[node.op_type], _inputs(node, max(9, len(node.input))), node.output[0]
    axis = 1 - attribute(node, "transB", 0) if form.operator == "Gemm" else form.axis
    places = form.operands or range(2, len(node.input), 3)
    operands = [into.reals(inputs[place : place + 3], axis) for place in places]
    scale, zero = inputs[form.result : form.result + 2]
    grid = into.grid(scale, zero) if scale or form.operator != "Gemm" else None
    odd = attribute(node, "channels_last", 0) or (form.operator == "Gemm" and attribute(node, "alpha", 1.0) != 1.0)
    known = [name for name in operands if name is not None]
    if odd or len(known) < len(operands) or (grid is None and (scale or form.operator != "Gemm")):
        return False
    if form.bias is not None and (bias := inputs[form.bias]):
        steps = into.known[inputs[1]].reshape(()) * into.known[inputs[4]].reshape(-1)
        into.weights.parameters += into.known[bias].size
        known.append(into.constant((into.known[bias] * steps.astype(np.float64)).astype(np.float32)))
    attributes = onnx.defs.get_schema(form.operator, into.opset).attributes
    kept = [one for one in node.attribute if one.name in attributes and (form.operator, one.name) != ("Gemm", "alpha")]
    if form.operator == "Softmax" and attribute(node, "axis") is None:
        kept.append(helper.make_attribute("axis", -1))  # the default of `QLinearSoftmax` in every opset
    result = into.emit(form.operator, [*inputs[: form.plain], *known], output if grid is None else "", kept)
    return grid is None or into.rounded(result, output, grid)


def _moved(into: RealNodes, node: Any) -> bool:
    if node.op_type not in _MOVING or node.domain not in _DOMAINS:
        raise UserError(f"the network has an operator on integers that is not supported: {node.op_type} ({node.output[0]}).", _FIX)
    data = node.input[0]
    for output in node.output:
        if data in into.grids:
            into.grids[output] = into.grids[data]
        elif data in into.numbers:
            into.numbers.add(output)
    into.nodes.append(node)
    return True


def _converted(into: RealNodes, node: Any) -> bool:
    (data,) = node.input
    if attribute(node, "to", 0) != TensorProto.FLOAT:
        return _moved(into, node)
    into.emit("Identity", [into.placed(data) if data in into.grids else data], node.output[0])
    return True


def _added(into: RealNodes, node: Any) -> bool:
    """Append `Add` of sums of products, which are real numbers already, and other integers."""
    if any(name in into.grids for name in node.input):
        return _moved(into, node)
    output = node.output[0]
    into.emit("Add", [name if name in into.numbers else into.cast(name, np.float32) for name in node.input], output)
    into.numbers.add(output)
    return True


def _resized(into: RealNodes, node: Any) -> bool:
    """Rewrite a `Resize` of integers: ONNX Runtime interpolates in real numbers and truncates them."""
    mode = attribute(node, "mode", b"nearest")
    data, output, grid = node.input[0], node.output[0], into.grids.get(node.input[0])
    if mode == b"nearest":
        into.nodes.append(node)
        if grid is not None:
            into.grids[output] = grid
        return True
    if grid is None or mode != b"linear":
        return _moved(into, node)
    resized = into.emit("Resize", [into.placed(data), *node.input[1:]], "", node.attribute)
    whole = into.emit("Mul", [into.emit("Sign", [resized]), into.emit("Floor", [into.emit("Abs", [resized])])])
    centred = into.emit("Sub", [whole, into.real(grid.shown)])
    return into.rounded(into.emit("Mul", [centred, into.real(grid.scale)]), output, grid)


def _padded(into: RealNodes, node: Any) -> bool:
    """Append `Pad` of integers, by an integer or the integer 0."""
    data, grid, mode = node.input[0], into.grids.get(node.input[0]), attribute(node, "mode", b"constant")
    value = _inputs(node, 3)[2]
    if grid is None or len(node.input) < 2 or (mode == b"constant" and value and value not in into.known):
        return _moved(into, node)
    if mode == b"constant":
        value = into.real(grid.real(into.known[value].reshape(()) if value else np.zeros((), np.int64)))
    into.emit("Pad", [data, node.input[1], value, *node.input[3:]], node.output[0], node.attribute)
    into.grids[node.output[0]] = grid
    return True


def _clipped(into: RealNodes, node: Any) -> bool:
    """Append `Clip` of integers, between integers."""
    data, *bounds = _inputs(node, 3)
    grid = into.grids.get(data)
    if grid is None or any(name and name not in into.known for name in bounds):
        return _moved(into, node)
    for operator, name in zip(("Max", "Min"), bounds, strict=True):
        if name:
            data = into.emit(operator, [data, into.real(grid.real(into.known[name].reshape(())))])
    into.emit("Identity", [data], node.output[0])
    into.grids[node.output[0]] = grid
    return True


def _chosen(into: RealNodes, node: Any) -> bool:
    """Append `Where` between integers of one grid, of which one may be constant."""
    condition, *operands = node.input
    grids = [into.grids[name] for name in operands if name in into.grids]
    others = [name for name in operands if name not in into.grids]
    if not grids or grids[0] != grids[-1] or any(name not in into.known for name in others):
        return _moved(into, node)
    (grid, *_), output = grids, node.output[0]
    real = {name: into.constant(grid.real(into.known[name])) for name in others}
    into.emit("Where", [condition, *(real.get(name, name) for name in operands)], output)
    into.grids[output] = grid
    return True


def _ranked(into: RealNodes, node: Any) -> bool:
    """Append an operator that returns places of integers, which the real numbers have as well."""
    into.nodes.append(node)
    return True


#: Rewriters of operators on integers that do more than move them.
_ON_INTEGERS: Mapping[str, Callable[[RealNodes, Any], bool]] = {
    "Add": _added,
    "ArgMax": _ranked,
    "ArgMin": _ranked,
    "Cast": _converted,
    "Clip": _clipped,
    "Pad": _padded,
    "Resize": _resized,
    "Where": _chosen,
}
#: Operators between integers.
_FORMS: Mapping[str, _IntegerForm] = {
    "QGemm": _IntegerForm("Gemm", result=7, bias=6),
    "QLinearAdd": _IntegerForm("Add"),
    "QLinearConcat": _IntegerForm("Concat", (), 0),
    "QLinearConv": _IntegerForm("Conv", bias=8),
    "QLinearMatMul": _IntegerForm("MatMul", axis=-1),
    "QLinearMul": _IntegerForm("Mul"),
    "QLinearWhere": _IntegerForm("Where", (1, 4), 7, plain=1),
    **{f"QLinear{name}": _IntegerForm(name, (0,), 3) for name in ("AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Softmax")},
}
#: Maps an operator to a function that appends its replacement and returns whether it could.
_REWRITES: Mapping[str, Callable[[RealNodes, Any], bool]] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    **dict.fromkeys(_FORMS, _in_reals),
    **DYNAMIC,
}
