"""Rewrites ONNX operators that quantise activations at run time, and integer products, as ordinary float32 operators.

Integers become real numbers of the same value: sums of their products are exact up to 2^24, and rounded to 24 bits beyond, as ONNX Runtime
rounds them where they become real numbers. Scales and zero points are computed as it does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from tvmmobile.graph.layers import Array
from tvmmobile.networks.own.onnx.real_nodes import RealNodes
from tvmmobile.networks.own.onnx.tensors import attribute, rename
from tvmmobile.system.errors import UserError

#: Integers without sign, into which activations are rounded.
_MOST = 255.0
_GATES = 4
_SIMPLER = "Quantise it without that operator."
#: Activations of `DynamicQuantizeLSTM` that are known: those that it has without the attribute.
_CURVES = [b"Sigmoid", b"Tanh", b"Tanh"]


def _quantised(into: RealNodes, data: str) -> tuple[str, str, str]:
    """Append the rounding of a tensor by its own extremes; return the names of integers, scale and zero point, all in float32."""
    least, zero, most = map(into.real, (1.2e-38, 0, _MOST))
    high, low = (into.emit(keep, [into.emit(f"Reduce{keep}", [data], keepdims=0), zero]) for keep in ("Max", "Min"))
    scale = into.emit("Max", [into.emit("Div", [into.emit("Sub", [high, low]), most]), least])
    place = into.emit("Sub", [zero, into.emit("Div", [low, scale])])
    middle = into.emit("Round", [into.emit("Min", [into.emit("Max", [place, zero]), most])])
    moved = into.emit("Add", [into.emit("Round", [into.emit("Div", [data, scale])]), middle])
    return into.emit("Min", [into.emit("Max", [moved, zero]), most]), scale, middle


def _rounded(into: RealNodes, data: str) -> tuple[str, str]:
    """Append that rounding; return the names of the integers minus their zero point, and of the scale."""
    integers, scale, zero = _quantised(into, data)
    return into.emit("Sub", [integers, zero]), scale


def _quantize(into: RealNodes, node: Any) -> bool:
    for source, output in zip(_quantised(into, node.input[0]), node.output, strict=False):
        if output:
            into.emit("Identity", [source], output)
    into.numbers.update(node.output[::2])
    return True


def _centred(into: RealNodes, tensor: str, zero: str, axis: int = -1) -> str | None:
    """Return the name of integers less their zero point; `None` where they are not known.

    Args:
        axis: axis along which a constant has several zero points.
    """
    if tensor in into.known:
        if zero and zero not in into.known:
            return None
        if (key := (tensor, zero, axis)) not in into.dequantised:
            zeros = into.known[zero] if zero else np.zeros((), np.int64)
            into.dequantised[key] = into.constant(
                into.weights.dequantise(into.known[tensor], np.ones(zeros.shape, np.float32), zeros, axis)
            )
        return into.dequantised[key]
    if tensor in into.grids:
        if (whole := into.whole(tensor, zero) if zero else None) is not None:
            return whole
        source = into.placed(tensor)
    elif tensor in into.numbers or tensor in into.entries:
        source = tensor if tensor in into.numbers else into.cast(tensor, np.float32)
    else:
        return None
    if not zero:
        return source
    return into.emit("Sub", [source, into.real(into.known[zero].reshape(())) if zero in into.known else zero])


def _sums(into: RealNodes, node: Any, operator: str, axis: int) -> bool:
    """Append `ConvInteger` and `MatMulInteger`."""
    data, weight, zero, weight_zero = (*node.input, "", "")[:4]
    return _product(into, (_centred(into, data, zero), _centred(into, weight, weight_zero, axis)), node.output[0], operator, node.attribute)


def _product(into: RealNodes, factors: tuple[str | None, str | None], output: str, operator: str = "MatMul", given: Any = ()) -> bool:
    """Append the sums of products of integers; return whether both factors are known."""
    known = [name for name in factors if name is not None]
    if len(known) == 2:
        into.emit(operator, known, output, given)
        into.numbers.add(output)
    return len(known) == 2


def _scaled(into: RealNodes, sums: str, scales: tuple[str, str], bias: str, output: str) -> None:
    real = into.emit("Mul", [sums, into.emit("Mul", scales)], "" if bias else output)
    if bias:
        into.emit("Add", [real, bias], output)


def _in_reals(into: RealNodes, node: Any) -> bool:
    """Append `MatMulIntegerToFloat`, and `DynamicQuantizeMatMul` of real numbers, which are rounded first."""
    data, weight, *others = list[str]([*node.input, "", "", ""])
    if node.op_type == "MatMulIntegerToFloat":
        scale, weight_scale, zero, weight_zero, bias, *_ = others
        first = _centred(into, data, zero)
    else:
        weight_scale, weight_zero, bias, *_ = others
        first, scale = _rounded(into, data)
    sums = f"{node.output[0]}/sums"
    if not _product(into, (first, _centred(into, weight, weight_zero)), sums):
        return False
    _scaled(into, sums, (scale, weight_scale), bias, node.output[0])
    return True


def _lstm(into: RealNodes, node: Any) -> bool:
    """Append `DynamicQuantizeLSTM` as a `Scan` for each direction; its state is rounded anew at every step."""
    data, kernel, recurrence, bias, lengths, hidden, memory, holes, *numbers = (*node.input, *[""] * 4)[:12]
    curves = attribute(node, "activations", _CURVES)
    constants = [into.known.get(name) for name in (kernel, recurrence, *numbers[::2])]
    strange = curves != _CURVES * (len(curves) // len(_CURVES)) or attribute(node, "clip") is not None or attribute(node, "input_forget", 0)
    if lengths or holes or strange or any(constant is None for constant in constants):
        raise UserError(
            f"the network has DynamicQuantizeLSTM ({node.output[0] or node.name}) with sequence lengths, peepholes, other activations or "
            "weights that are computed, which are not supported.",
            _SIMPLER,
        )
    directions, units = into.known[recurrence].shape[:2]
    centred, scale = _rounded(into, data)
    backwards = attribute(node, "direction") == b"reverse"
    found: list[list[str]] = []
    for place in range(directions):
        (weight, step), (inner, inner_step) = (
            _matrix(into, (name, *numbers[first : first + 2]), place) for first, name in ((0, kernel), (2, recurrence))
        )
        both = into.known[bias][place].reshape(2, -1).sum(0) if bias else np.zeros(_GATES * units)
        outputs = [f"{into.subject}{name}/{place}" for name in ("all", "last", "last_memory", "rows")]
        _scaled(into, into.emit("MatMul", [centred, weight]), (scale, step), into.real(both), outputs[3])
        states = [_state(into, one, data, place, into.known[kernel].shape[1], units) for one in (hidden, memory)]
        order, body = [int(backwards or place == 1)], _step(into, inner, inner_step)
        scan = {"num_scan_inputs": 1, "scan_input_directions": order, "scan_output_directions": order}
        into.nodes.append(helper.make_node("Scan", [*states, outputs[3]], [*outputs[1:3], outputs[0]], body=body, **scan))
        found.append(outputs[:3])
    for which, output in enumerate(node.output):
        if output:
            shape = into.integers(*([0, 1, -1, units] if which == 0 else [1, -1, units]))
            into.emit("Concat", [into.emit("Reshape", [one[which], shape]) for one in found], output, axis=0 if which else 1)
    return True


def _matrix(into: RealNodes, numbers: tuple[str, ...], place: int) -> tuple[str, str]:
    """Return the integers of one direction's weights less their zero points, and their scales."""
    weight, scale, zero = numbers
    zeros = into.known[zero][place] if zero else np.zeros((), np.int64)
    whole: Array = into.weights.dequantise(into.known[weight][place], np.ones(zeros.shape, np.float32), zeros, -1)
    return into.constant(whole), into.real(np.atleast_1d(into.known[scale])[place])


def _state(into: RealNodes, given: str, data: str, place: int, inputs: int, units: int) -> str:
    """Return a direction's initial state: by default zeros, a row for each of the batch."""
    first = into.constant(np.array(place if given else 0, np.int64))
    row = into.emit("Gather", [given or data, first], axis=0)
    return row if given else into.emit("MatMul", [row, into.real(np.zeros((inputs, units)))])


def _step(into: RealNodes, weight: str, scale: str) -> Any:
    """Return the body of a `Scan` from state, memory and a row of input products to state, memory and the state again."""
    inner, parts = into.within(), [f"gate{number}" for number in range(_GATES)]
    centred, step = _rounded(inner, "hidden")
    _scaled(inner, inner.emit("MatMul", [centred, weight]), (step, scale), "row", "gates")
    inner.nodes.append(helper.make_node("Split", ["gates"], parts, axis=-1, **({"num_outputs": _GATES} if into.opset >= 18 else {})))
    opened = [inner.emit("Tanh" if name == "gate3" else "Sigmoid", [name]) for name in parts]
    inner.emit("Add", [inner.emit("Mul", [opened[2], "memory"]), inner.emit("Mul", [opened[0], opened[3]])], "memory/next")
    inner.emit("Mul", [opened[1], inner.emit("Tanh", ["memory/next"])], "hidden/next")
    inner.emit("Identity", ["hidden/next"], "hidden/copy")
    names = {name: into.constant(array) for name, array in inner.constants.items()}
    rename(inner.nodes, names)
    ends = ("hidden", "memory", "row"), ("hidden/next", "memory/next", "hidden/copy")
    inputs, outputs = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in end] for end in ends)
    return helper.make_graph(inner.nodes, "step", inputs, outputs)


#: Maps an operator to a function that appends its replacement and returns whether it could.
DYNAMIC: Mapping[str, Callable[[RealNodes, Any], bool]] = {
    "ConvInteger": partial(_sums, operator="Conv", axis=0),
    "DynamicQuantizeLSTM": _lstm,
    "DynamicQuantizeLinear": _quantize,
    "DynamicQuantizeMatMul": _in_reals,
    "MatMulInteger": partial(_sums, operator="MatMul", axis=-1),
    "MatMulIntegerToFloat": _in_reals,
}
