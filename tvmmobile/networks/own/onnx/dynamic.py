"""Rewrites ONNX operators that quantise activations at run time, and products of integers, in ordinary operators on float32.

Integers become real numbers of the same value: sums of their products are exact up to 2^24, and rounded to 24 bits beyond, as ONNX Runtime
rounds them where they become real numbers. Scales and zero points are computed as it does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tvmmobile.graph.layers import Array
from tvmmobile.system.errors import UserError

if TYPE_CHECKING:
    from tvmmobile.networks.own.onnx.quantised import Rewriting

#: Integers without sign, into which activations are rounded.
_MOST = 255.0
_GATES = 4
_SIMPLER = "Quantise it without that operator."
#: Activations of `DynamicQuantizeLSTM` that are known: those that it has without the attribute.
_CURVES = [b"Sigmoid", b"Tanh", b"Tanh"]


def _constant(into: Rewriting, name: str, value: Any) -> str:
    return into.constant(name, np.asarray(value, np.float32))


def _quantised(into: Rewriting, data: str, prefix: str) -> tuple[str, str, str]:
    """Append the rounding of a tensor by its own extremes; returns the names of integers, scale and zero point, all in float32."""
    least, zero, most = (_constant(into, f"{prefix}/{name}", value) for name, value in (("tiny", 1.2e-38), ("0", 0), ("255", _MOST)))
    extremes = []
    for reduce, keep in (("ReduceMax", "Max"), ("ReduceMin", "Min")):
        found = into.emit(reduce, [data], f"{prefix}/{reduce}", keepdims=0)
        extremes.append(into.emit(keep, [found, zero], f"{prefix}/{keep}"))
    spread = into.emit("Div", [into.emit("Sub", extremes, f"{prefix}/range"), most], f"{prefix}/step")
    scale = into.emit("Max", [spread, least], f"{prefix}/scale")
    place = into.emit("Sub", [zero, into.emit("Div", [extremes[1], scale], f"{prefix}/low")], f"{prefix}/place")
    bounded = into.emit("Min", [into.emit("Max", [place, zero], f"{prefix}/above"), most], f"{prefix}/below")
    middle = into.emit("Round", [bounded], f"{prefix}/zero")
    steps = into.emit("Round", [into.emit("Div", [data, scale], f"{prefix}/steps")], f"{prefix}/rounded")
    moved = into.emit("Max", [into.emit("Add", [steps, middle], f"{prefix}/moved"), zero], f"{prefix}/positive")
    return into.emit("Min", [moved, most], f"{prefix}/integers"), scale, middle


def _quantize(into: Rewriting, node: Any) -> bool:
    """`DynamicQuantizeLinear`."""
    for source, output in zip(_quantised(into, node.input[0], f"{node.output[0]}/dynamic"), node.output, strict=False):
        if output:
            into.emit("Identity", [source], output)
    into.numbers.update(node.output[::2])
    return True


def _centred(into: Rewriting, tensor: str, zero: str, prefix: str, axis: int = -1) -> str | None:
    """The name of integers less their zero point; `None` where they are not known.

    Args:
        axis: of a constant, along which it has several zero points.
    """
    if tensor in into.known:
        zeros = into.known[zero] if zero in into.known else np.zeros((), np.int64)
        if zero and zero not in into.known:
            return None
        name = f"{tensor}/{zero}/{axis}/whole"
        if name not in into.made:
            into.constant(name, into.weights.dequantise(into.known[tensor], np.ones(zeros.shape, np.float32), zeros, axis))
        return name
    if tensor in into.numbers or tensor in into.entries:
        source = tensor if tensor in into.numbers else into.cast(tensor, f"{prefix}/Cast")
        if not zero:
            return source
        if zero in into.known:
            zero = into.constant(f"{prefix}/zero", into.known[zero].astype(np.float32).reshape(()))
        return into.emit("Sub", [source, zero], f"{prefix}/centred")
    return into.whole(tensor, zero, prefix)


def _convolution(into: Rewriting, node: Any) -> bool:
    """`ConvInteger`."""
    return _sums(into, node, "Conv", 0)


def _product(into: Rewriting, node: Any) -> bool:
    """`MatMulInteger`."""
    return _sums(into, node, "MatMul", -1)


def _sums(into: Rewriting, node: Any, operator: str, axis: int) -> bool:
    data, weight, zero, weight_zero = (*node.input, "", "")[:4]
    operands = [
        _centred(into, data, zero, f"{node.output[0]}/data"),
        _centred(into, weight, weight_zero, f"{node.output[0]}/weight", axis),
    ]
    if None in operands:
        return False
    into.emit(operator, [name for name in operands if name is not None], node.output[0], node.attribute)
    into.numbers.add(node.output[0])
    return True


def _scaled(into: Rewriting, sums: str, scales: tuple[str, str], bias: str, output: str) -> bool:
    step = into.emit("Mul", scales, f"{output}/scales")
    real = into.emit("Mul", [sums, step], f"{output}/real" if bias else output)
    if bias:
        into.emit("Add", [real, bias], output)
    return True


def _product_of_reals(into: Rewriting, node: Any) -> bool:
    """`DynamicQuantizeMatMul`: of real numbers, which are rounded first, and integers."""
    data, weight, weight_scale, weight_zero, bias = (*node.input, "", "")[:5]
    output, factor = node.output[0], _centred(into, weight, weight_zero, f"{node.output[0]}/weight")
    if factor is None:
        return False
    integers, scale, zero = _quantised(into, data, f"{output}/dynamic")
    centred = into.emit("Sub", [integers, zero], f"{output}/centred")
    return _scaled(into, into.emit("MatMul", [centred, factor], f"{output}/sums"), (scale, weight_scale), bias, output)


def _product_to_reals(into: Rewriting, node: Any) -> bool:
    """`MatMulIntegerToFloat`."""
    data, weight, scale, weight_scale, zero, weight_zero, bias = (*node.input, "", "", "")[:7]
    output = node.output[0]
    operands = [
        _centred(into, one, its_zero, f"{output}/{name}") for name, one, its_zero in (("data", data, zero), ("weight", weight, weight_zero))
    ]
    if None in operands:
        return False
    sums = into.emit("MatMul", [name for name in operands if name is not None], f"{output}/sums")
    return _scaled(into, sums, (scale, weight_scale), bias, output)


def _lstm(into: Rewriting, node: Any) -> bool:
    """`DynamicQuantizeLSTM` as a `Scan` for each direction; its state is rounded anew at every step."""
    data, kernel, recurrence, bias, lengths, hidden, memory, holes, *numbers = (*node.input, *[""] * 4)[:12]
    given = {found.name: found for found in node.attribute}
    curves = list(given["activations"].strings) if "activations" in given else _CURVES
    constants = [into.known.get(name) for name in (kernel, recurrence, *numbers[::2])]
    strange = "clip" in given or ("input_forget" in given and given["input_forget"].i) or curves != _CURVES * (len(curves) // len(_CURVES))
    if lengths or holes or strange or any(constant is None for constant in constants):
        raise UserError(
            f"the network has DynamicQuantizeLSTM ({node.output[0] or node.name}) with sequence lengths, peepholes, other activations or "
            "weights that are computed, which are not supported.",
            _SIMPLER,
        )
    directions, units = into.known[recurrence].shape[:2]
    prefix = f"{next(filter(None, node.output))}/lstm"
    integers, scale, zero = _quantised(into, data, f"{prefix}/data")
    centred = into.emit("Sub", [integers, zero], f"{prefix}/centred")
    backwards = given["direction"].s == b"reverse" if "direction" in given else False
    found: list[list[str]] = []
    for place in range(directions):
        inside = f"{prefix}/{place}"
        weights, steps = zip(*(_matrix(into, numbers, place, f"{inside}/{name}") for name, numbers in _weights(node).items()), strict=True)
        product = into.emit("MatMul", [centred, weights[0]], f"{inside}/sums")
        both = into.known[bias][place].reshape(2, -1).sum(0) if bias else np.zeros(_GATES * units)
        _scaled(into, product, (scale, steps[0]), _constant(into, f"{inside}/bias", both), f"{inside}/rows")
        states = [
            _state(into, one, data, place, into.known[kernel].shape[1], units, f"{inside}/{name}")
            for one, name in ((hidden, "hidden"), (memory, "memory"))
        ]
        outputs = [f"{inside}/{name}" for name in ("last", "last_memory", "all")]
        into.nodes.append(_scan([*states, f"{inside}/rows"], outputs, _step(into, weights[1], steps[1], inside), backwards or place == 1))
        found.append([outputs[2], *outputs[:2]])
    for which, output in enumerate(node.output):
        if output:
            shape = into.constant(f"{prefix}/shape{which}", np.array([0, 1, -1, units] if which == 0 else [1, -1, units], np.int64))
            parts = [into.emit("Reshape", [one[which], shape], f"{one[which]}/shaped") for one in found]
            into.emit("Concat", parts, output, axis=0 if which else 1)
    return True


def _weights(node: Any) -> dict[str, tuple[str, str, str]]:
    """The names of an LSTM's integers, their scales and zero points."""
    return {"kernel": (node.input[1], *node.input[8:10]), "recurrence": (node.input[2], *node.input[10:12])}


def _matrix(into: Rewriting, numbers: tuple[str, str, str], place: int, name: str) -> tuple[str, str]:
    """The integers of one direction's weights less their zero points, and their scales."""
    weight, scale, zero = numbers
    zeros = into.known[zero][place] if zero else np.zeros((), np.int64)
    steps = np.atleast_1d(into.known[scale])[place]
    whole: Array = into.weights.dequantise(into.known[weight][place], np.ones(zeros.shape, np.float32), zeros, -1)
    return into.constant(name, whole), _constant(into, f"{name}/scale", steps)


def _state(into: Rewriting, given: str, data: str, place: int, inputs: int, units: int, name: str) -> str:
    """The initial state of a direction; it is zeros, a row for each of the batch, where none is given."""
    first = into.constant(f"{name}/place", np.array(place if given else 0, np.int64))
    if given:
        return into.emit("Gather", [given, first], name, axis=0)
    step = into.emit("Gather", [data, first], f"{name}/step", axis=0)
    return into.emit("MatMul", [step, _constant(into, f"{name}/zeros", np.zeros((inputs, units)))], name)


def _step(into: Rewriting, weight: str, scale: str, prefix: str) -> Any:
    """The body of a `Scan`: state and memory, and a row of products of the input, to both and the state again."""
    from onnx import TensorProto, helper

    inner = into.within()
    integers, step, zero = _quantised(inner, "hidden", "state")
    sums = inner.emit("MatMul", [inner.emit("Sub", [integers, zero], "state/centred"), weight], "state/sums")
    _scaled(inner, sums, (step, scale), "row", "gates")
    parts = [f"gate{number}" for number in range(_GATES)]
    inner.nodes.append(helper.make_node("Split", ["gates"], parts, axis=-1, **({"num_outputs": _GATES} if into.opset >= 18 else {})))
    opened = [inner.emit("Tanh" if name == "gate3" else "Sigmoid", [name], f"{name}/curved") for name in parts]
    kept = inner.emit("Mul", [opened[2], "memory"], "kept")
    new = inner.emit("Mul", [opened[0], opened[3]], "new")
    inner.emit("Add", [kept, new], "memory/next")
    inner.emit("Mul", [opened[1], inner.emit("Tanh", ["memory/next"], "memory/curved")], "hidden/next")
    inner.emit("Identity", ["hidden/next"], "hidden/copy")

    def real(name: str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)

    for name, array in inner.made.items():
        into.constant(f"{prefix}/{name}", array)
    names = {name: f"{prefix}/{name}" for name in inner.made}
    for node in inner.nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
    read, results = ("hidden", "memory", "row"), ("hidden/next", "memory/next", "hidden/copy")
    return helper.make_graph(inner.nodes, "step", [*map(real, read)], [*map(real, results)])


def _scan(read: list[str], outputs: list[str], body: Any, backwards: bool) -> Any:
    from onnx import helper

    order = [int(backwards)]
    return helper.make_node("Scan", read, outputs, body=body, num_scan_inputs=1, scan_input_directions=order, scan_output_directions=order)


#: From an operator to what appends others in its place, or does not.
DYNAMIC: Mapping[str, Callable[[Rewriting, Any], bool]] = {
    "ConvInteger": _convolution,
    "DynamicQuantizeLSTM": _lstm,
    "DynamicQuantizeLinear": _quantize,
    "DynamicQuantizeMatMul": _product_of_reals,
    "MatMulInteger": _product,
    "MatMulIntegerToFloat": _product_to_reals,
}
