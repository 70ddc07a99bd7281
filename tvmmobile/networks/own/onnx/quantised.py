"""Quantised ONNX networks in ordinary operators, which TVM's importer has for every opset.

Each tensor of integers becomes the real numbers that they stand for. Whatever rounds to integers, by itself (`QuantizeLinear`) or with an
operator (`QLinearConv`), becomes the operator in float32 and

    (min(max(round(x / scale) + zero, low), high) - zero) · scale

which `graph.passes.roundings` finds again, as it finds what dequantises an input of integers. Integers without sign are those with sign,
128 higher: so are their zero points and bounds. Constants become float32; `WeightScales` keeps their scales.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmmobile.graph.integers import LOWEST
from tvmmobile.graph.layers import Array
from tvmmobile.networks.own.onnx.dynamic import DYNAMIC
from tvmmobile.networks.own.onnx.tensors import STANDARD, attribute
from tvmmobile.networks.quantised import WeightScales
from tvmmobile.system.errors import UserError

_DOMAINS = ("", "ai.onnx", "com.microsoft")
#: Operators between integers and the real numbers that they stand for.
_CONVERSIONS = {"QuantizeLinear", "DequantizeLinear"}
#: Types of integers, and what is subtracted from their zero points and bounds.
_SHIFTS = {"int8": 0, "uint8": 128, "int16": 0, "uint16": 0}
#: Types of inputs, by their numbers in ONNX.
_INPUTS = {2: "uint8", 3: "int8"}
#: Operators that leave each integer what it is.
_MOVING = {
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "MaxPool",
    "Reshape",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
}
#: Operators of two tensors and an output, each with its scale and zero point; and of one.
_PAIRS = {"QLinearAdd": "Add", "QLinearMul": "Mul"}
_SINGLES = {
    "QLinearAveragePool": "AveragePool",
    "QLinearGlobalAveragePool": "GlobalAveragePool",
    "QLinearLeakyRelu": "LeakyRelu",
    "QLinearSigmoid": "Sigmoid",
    "QLinearSoftmax": "Softmax",
}
_FIX = "Quantise it as QDQ, with 8 bits and scales that are constants."


@dataclass(frozen=True)
class _Grid:
    """The scale and zero point of a tensor, its bounds, and whether its integers of 8 bits have no sign in the file."""

    scale: np.float32
    zero: int
    low: int
    high: int
    unsigned: bool

    @property
    def shown(self) -> int:
        """The zero point in the file."""
        return self.zero - LOWEST * self.unsigned


def is_quantised(graph: Any) -> bool:
    """Return whether a graph has an operator that `without_integers` rewrites."""
    return any(node.op_type in _REWRITES and node.domain in _DOMAINS for node in graph.node)


def computes_in_integers(graph: Any) -> bool:
    """Return whether a graph has operators that compute with integers, not only `QuantizeLinear` and `DequantizeLinear`.

    ONNX Runtime's sums of their products saturate on x86 processors without VNNI, so that it cannot judge them as they are. What they stand
    for, the operator in float32 and its rounding, it computes alike everywhere; that is what QDQ writes.
    """
    return any(node.op_type not in _CONVERSIONS and node.op_type in _REWRITES and node.domain in _DOMAINS for node in graph.node)


def without_integers(model: Any) -> tuple[Any, WeightScales]:
    """The model in float32, and the scales of its weights; scales that are not constants, or of activations' channels, stay as they are.

    Raises:
        UserError: an operator on integers that is not known.
    """
    import onnx

    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    rewriting = Rewriting(model.graph, max((entry.version for entry in model.opset_import if entry.domain in STANDARD), default=1))
    del changed.graph.node[:], changed.graph.value_info[:]
    for node in model.graph.node:
        rewriting.add(node)
    for value in model.graph.output:
        rewriting.leave(value)
    changed.graph.node.extend(rewriting.nodes)
    used = {name for node in rewriting.nodes for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del changed.graph.initializer[:]
    changed.graph.initializer.extend([*kept, *(onnx.numpy_helper.from_array(array, name) for name, array in rewriting.made.items())])
    return changed, rewriting.weights


class Rewriting:
    """The nodes of a graph while integers become real numbers."""

    def __init__(self, graph: Any, opset: int) -> None:
        from onnx import numpy_helper

        self.opset, self.weights = opset, WeightScales()
        self.nodes: list[Any] = []
        #: Constants of the file, and those that are new.
        self.known: dict[str, Array] = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.made: dict[str, Array] = {}
        #: Scale and zero point of each tensor that held integers; its name holds real numbers now.
        self.grids: dict[str, _Grid] = {}
        #: Names of tensors that held integers, and hold real numbers of the same value now.
        self.numbers: set[str] = set()
        #: Names of dequantised tensors in the file, and of what has their values.
        self.same: dict[str, str] = {}
        self.results = {value.name for value in graph.output}
        #: Types of inputs that are integers.
        inputs = {value.name: _INPUTS.get(value.type.tensor_type.elem_type, "") for value in graph.input if value.name not in self.known}
        self.entries = {name: kind for name, kind in inputs.items() if kind}

    def add(self, node: Any) -> None:
        """A node of the file, or those that take its place."""
        from onnx import NodeProto

        copied = NodeProto()
        copied.CopyFrom(node)
        copied.input[:] = [self.same.get(name, name) for name in node.input]
        rewrite = _REWRITES.get(node.op_type) if node.domain in _DOMAINS else None
        integers = [self.grids[name] for name in node.input if name in self.grids]
        if rewrite is None and (integers or not self.numbers.isdisjoint(node.input)):
            rewrite = _ON_INTEGERS.get(node.op_type, _moved) if node.domain in _DOMAINS else _moved
        if rewrite is not None and rewrite(self, copied):
            return
        if integers:
            raise UserError(f"{node.op_type} ({node.output[0]}) has scales or zero points that are not one constant each.", _FIX)
        self.nodes.append(copied)

    def within(self) -> Rewriting:
        """The nodes of a graph inside."""
        from onnx import GraphProto

        return Rewriting(GraphProto(), self.opset)

    def leave(self, value: Any) -> None:
        """Append the conversion of an output that has to hold integers."""
        from onnx import helper

        name, kind = value.name, value.type.tensor_type.elem_type
        dtype = str(np.dtype(helper.tensor_dtype_to_np_dtype(kind))) if kind else ""
        if dtype not in _SHIFTS or name not in self.grids | dict.fromkeys(self.numbers):
            return
        real = f"{name}/real"
        for node in self.nodes:
            for tensors in (node.input, node.output):
                tensors[:] = [real if one == name else one for one in tensors]
        if name in self.grids:
            grid = self.grids[name]
            self.grids[real] = grid
            shown = self.placed(real, f"{name}/leaving", grid.shown)
            shift = grid.shown - grid.zero
            for operator, bound, number in (("Max", "low", grid.low + shift), ("Min", "high", grid.high + shift)):
                constant = self.constant(f"{name}/leaving/{bound}", np.array(number, np.float32))
                shown = self.emit(operator, [shown, constant], f"{name}/leaving/{operator}")
            real = shown
        self.cast(real, name, kind)

    def cast(self, source: str, output: str, kind: int = 1) -> str:
        """Append a conversion to one of ONNX's types; float32 is 1."""
        return self.emit("Cast", [source], output, to=kind)

    def whole(self, tensor: str, zero: str, prefix: str) -> str | None:
        """The name of the integers of a tensor on a grid, less their zero point, in float32; `None` if that is another one."""
        grid = self.grids.get(tensor)
        if grid is None or (zero and not self._reads_zero(grid, zero)):
            return None
        steps = self.emit("Div", [tensor, self.constant(f"{prefix}/scale", np.array(grid.scale, np.float32))], f"{prefix}/steps")
        return self.emit("Round", [steps], f"{prefix}/whole")

    def placed(self, tensor: str, prefix: str, zero: int) -> str:
        """The name of the integers of a tensor on a grid, with a zero point, in float32."""
        whole = self.whole(tensor, "", prefix)
        assert whole is not None
        return self.emit("Add", [whole, self.constant(f"{prefix}/zero", np.array(zero, np.float32))], f"{prefix}/placed")

    def emit(self, operator: str, inputs: Sequence[str], output: str, attributes: Sequence[Any] = (), **more: Any) -> str:
        """Append a node of a standard operator; returns its output."""
        from onnx import helper

        node = helper.make_node(operator, list(inputs), [output], **more)
        node.attribute.extend(attributes)
        self.nodes.append(node)
        return output

    def constant(self, name: str, array: Array) -> str:
        """A new constant; returns its name."""
        self.made[name] = array
        return name

    def rounded(self, source: str, output: str, grid: _Grid) -> bool:
        """Append the rounding of a tensor."""
        numbers = {"scale": grid.scale, "zero": grid.zero, "low": grid.low, "high": grid.high}
        names = {name: self.constant(f"{output}/{name}", np.array(value, np.float32)) for name, value in numbers.items()}
        for operator, operands in (("Div", ["scale"]), ("Round", []), ("Add", ["zero"]), ("Max", ["low"]), ("Min", ["high"])):
            source = self.emit(operator, [source, *(names[name] for name in operands)], f"{output}/{operator}")
        source = self.emit("Sub", [source, names["zero"]], f"{output}/Sub")
        self.emit("Mul", [source, names["scale"]], output)
        self.grids[output] = grid
        return True

    def grid(self, scale: str, zero: str, kind: str = "uint8") -> _Grid | None:
        """The grid of a scale and a zero point; `None` if these are not one constant each.

        Args:
            kind: type of integers without a zero point.
        """
        if scale not in self.known or (zero and zero not in self.known):
            return None
        step, place = self.known[scale], self.known[zero] if zero else np.zeros((), kind)
        if step.size != 1 or place.size != 1 or step.dtype != np.float32 or str(place.dtype) not in _SHIFTS:
            return None
        if not (np.isfinite(step).all() and (step > 0).all()):
            raise UserError(f"the network has a scale that is not a positive number: {scale} is {step.item():g}.", "Quantise it again.")
        shift, bounds = _SHIFTS[str(place.dtype)], np.iinfo(place.dtype)
        return _Grid(np.float32(step.item()), int(place.item()) - shift, int(bounds.min) - shift, int(bounds.max) - shift, bool(shift))

    def real(self, tensor: str, scale: str, zero: str) -> str | None:
        """The name of the real numbers of a tensor of integers; `None` if it has another scale or zero point than these."""
        if tensor in self.entries:
            return self._entered(tensor, scale, zero)
        return tensor if self._reads(tensor, scale, zero) else None

    def _entered(self, tensor: str, scale: str, zero: str) -> str | None:
        """The name of the real numbers of an input."""
        from onnx import TensorProto, helper

        kind = self.entries[tensor]
        grid, name = self.grid(scale, zero, kind), f"{tensor}/{scale}/{zero}/real"
        if grid is not None and name not in self.grids:
            numbers = {"zero": grid.zero + _SHIFTS[kind], "scale": grid.scale}
            names = {key: self.constant(f"{name}/{key}", np.array(value, np.float32)) for key, value in numbers.items()}
            real = self.emit("Cast", [tensor], f"{name}/Cast", [helper.make_attribute("to", TensorProto.FLOAT)])
            self.emit("Mul", [self.emit("Sub", [real, names["zero"]], f"{name}/Sub"), names["scale"]], name)
            self.grids[name] = grid
        return None if grid is None else name

    def _reads(self, tensor: str, scale: str, zero: str) -> bool:
        """Return whether a tensor has this scale and zero point, as it should; without a zero point, any one will do."""
        found, step = self.grids.get(tensor), self.known.get(scale)
        if found is None or step is None or step.size != 1 or float(step.item()) != float(found.scale):
            return False
        return not zero or self._reads_zero(found, zero)

    def _reads_zero(self, grid: _Grid, zero: str) -> bool:
        place = self.known.get(zero)
        return place is not None and place.size == 1 and int(place.item()) - _SHIFTS.get(str(place.dtype), 0) == grid.zero

    def weight(self, name: str, scale: str, zero: str, axis: int) -> str | None:
        """A constant of integers in float32; `None` if it, its scale or zero point are not constants."""
        if name not in self.known or scale not in self.known or (zero and zero not in self.known):
            return None
        real = f"{name}/{scale}/real"
        if real not in self.made:
            zeros = self.known[zero] if zero else np.zeros((), np.int64)
            self.constant(real, self.weights.dequantise(self.known[name], self.known[scale], zeros, axis))
        return real


def _optional(node: Any, place: int) -> str:
    return str(node.input[place]) if len(node.input) > place else ""


def _others(node: Any, *names: str) -> list[Any]:
    """A node's attributes without some."""
    return [found for found in node.attribute if found.name not in names]


def _quantize(into: Rewriting, node: Any) -> bool:
    grid = into.grid(node.input[1], _optional(node, 2), _kind(node))
    return grid is not None and into.rounded(node.input[0], node.output[0], grid)


def _kind(node: Any) -> str:
    """The type that `QuantizeLinear` without a zero point makes."""
    from onnx import helper

    given = attribute(node, "output_dtype", 0)
    return str(np.dtype(helper.tensor_dtype_to_np_dtype(given))) if given else "uint8"


def _dequantize(into: Rewriting, node: Any) -> bool:
    data, scale, zero, output = node.input[0], node.input[1], _optional(node, 2), node.output[0]
    source = into.real(data, scale, zero) or into.weight(data, scale, zero, attribute(node, "axis", 1))
    if source is None:
        return False
    if output in into.results:
        into.emit("Identity", [source], output)
    else:
        into.same[output] = source
    return True


def _convolution(into: Rewriting, node: Any) -> bool:
    data, scale, zero, kernel, kernel_scale, kernel_zero, scale_out, zero_out = node.input[:8]
    weight, grid = into.weight(kernel, kernel_scale, kernel_zero, 0), into.grid(scale_out, zero_out)
    real = into.real(data, scale, zero)
    if weight is None or grid is None or real is None:
        return False
    inputs, bias = [real, weight], _optional(node, 8)
    if bias:
        inputs.append(_bias(into, bias, scale, kernel_scale, node.output[0]))
    return into.rounded(into.emit("Conv", inputs, f"{node.output[0]}/sums", node.attribute), node.output[0], grid)


def _bias(into: Rewriting, bias: str, scale: str, weight_scale: str, output: str) -> str:
    """A bias of integers in float32."""
    steps = into.known[scale].reshape(()) * into.known[weight_scale].reshape(-1)
    into.weights.parameters += into.known[bias].size
    return into.constant(f"{output}/bias", (into.known[bias] * steps.astype(np.float64)).astype(np.float32))


def _product(into: Rewriting, node: Any) -> bool:
    """`QLinearMatMul`."""
    data, scale, zero, kernel, kernel_scale, kernel_zero, scale_out, zero_out = node.input[:8]
    weight, grid = into.weight(kernel, kernel_scale, kernel_zero, -1), into.grid(scale_out, zero_out)
    real = into.real(data, scale, zero)
    if weight is None or grid is None or real is None:
        return False
    return into.rounded(into.emit("MatMul", [real, weight], f"{node.output[0]}/sums"), node.output[0], grid)


def _gemm(into: Rewriting, node: Any) -> bool:
    """`QGemm`: with a bias or without, to integers or to real numbers; a factor of the product alone is left out by none that we know."""
    data, scale, zero, kernel, kernel_scale, kernel_zero = node.input[:6]
    weight = into.weight(kernel, kernel_scale, kernel_zero, 0 if attribute(node, "transB", 0) else 1)
    scale_out, zero_out = _optional(node, 7), _optional(node, 8)
    grid = into.grid(scale_out, zero_out) if scale_out else None
    factor = attribute(node, "alpha", 1.0)
    real = into.real(data, scale, zero)
    if weight is None or (scale_out and grid is None) or factor != 1.0 or real is None:
        return False
    inputs, bias = [real, weight], _optional(node, 6)
    if bias:
        inputs.append(_bias(into, bias, scale, kernel_scale, node.output[0]))
    if grid is None:
        into.emit("Gemm", inputs, node.output[0], _others(node, "alpha"))
        return True
    return into.rounded(into.emit("Gemm", inputs, f"{node.output[0]}/sums", _others(node, "alpha")), node.output[0], grid)


def _pair(into: Rewriting, node: Any) -> bool:
    first, scale, zero, second, other_scale, other_zero, scale_out = node.input[:7]
    grid = into.grid(scale_out, _optional(node, 7))
    operands = [
        into.real(data, *numbers) or into.weight(data, *numbers, 0)
        for data, numbers in ((first, (scale, zero)), (second, (other_scale, other_zero)))
    ]
    if grid is None or None in operands:
        return False
    inputs = [name for name in operands if name is not None]
    return into.rounded(into.emit(_PAIRS[node.op_type], inputs, f"{node.output[0]}/sums"), node.output[0], grid)


def _single(into: Rewriting, node: Any) -> bool:
    data, scale, zero, scale_out = node.input[:4]
    grid = into.grid(scale_out, _optional(node, 4))
    real = into.real(data, scale, zero)
    if grid is None or real is None or attribute(node, "channels_last", 0):
        return False
    made = into.emit(_SINGLES[node.op_type], [real], f"{node.output[0]}/real", _others(node, "channels_last"))
    return into.rounded(made, node.output[0], grid)


def _concatenation(into: Rewriting, node: Any) -> bool:
    grid = into.grid(node.input[0], node.input[1])
    tensors = [into.real(*node.input[place : place + 3]) for place in range(2, len(node.input), 3)]
    known = [name for name in tensors if name is not None]
    if grid is None or len(known) < len(tensors):
        return False
    return into.rounded(into.emit("Concat", known, f"{node.output[0]}/real", node.attribute), node.output[0], grid)


def _moved(into: Rewriting, node: Any) -> bool:
    """Append an operator that only moves integers."""
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


def _converted(into: Rewriting, node: Any) -> bool:
    """`Cast` of integers to real numbers."""
    from onnx import TensorProto

    (data,), output, grid = node.input, node.output[0], into.grids.get(node.input[0])
    if attribute(node, "to", 0) != TensorProto.FLOAT:
        return _moved(into, node)
    into.emit("Identity", [data if grid is None else into.placed(data, f"{output}/cast", grid.shown)], output)
    return True


def _added(into: Rewriting, node: Any) -> bool:
    """`Add` of sums of products, which are real numbers already, and other integers."""
    if any(name in into.grids for name in node.input):
        return _moved(into, node)
    output = node.output[0]
    both = [name if name in into.numbers else into.cast(name, f"{output}/{place}") for place, name in enumerate(node.input)]
    into.emit("Add", both, output)
    into.numbers.add(output)
    return True


def _resized(into: Rewriting, node: Any) -> bool:
    """Rewrite a `Resize` of integers: between neighbours ONNX Runtime computes real numbers and truncates them."""
    mode = attribute(node, "mode", b"nearest")
    data, output, grid = node.input[0], node.output[0], into.grids.get(node.input[0])
    if mode == b"nearest":
        into.nodes.append(node)
        if grid is not None:
            into.grids[output] = grid
        return True
    if grid is None or mode != b"linear":
        return _moved(into, node)
    integers = into.placed(data, f"{output}/from", grid.shown)
    made = into.emit("Resize", [integers, *node.input[1:]], f"{output}/between", node.attribute)
    size = into.emit("Floor", [into.emit("Abs", [made], f"{output}/Abs")], f"{output}/Floor")
    whole = into.emit("Mul", [into.emit("Sign", [made], f"{output}/Sign"), size], f"{output}/whole")
    numbers = {
        name: into.constant(f"{output}/{name}-of", np.array(value, np.float32))
        for name, value in (("zero", grid.shown), ("scale", grid.scale))
    }
    centred = into.emit("Sub", [whole, numbers["zero"]], f"{output}/centred")
    return into.rounded(into.emit("Mul", [centred, numbers["scale"]], f"{output}/real"), output, grid)


def _padded(into: Rewriting, node: Any) -> bool:
    """`Pad` of integers, by an integer or the integer 0."""
    data, grid, mode = node.input[0], into.grids.get(node.input[0]), attribute(node, "mode", b"constant")
    if grid is None or len(node.input) < 2:
        return _moved(into, node)
    value = _optional(node, 2)
    if mode == b"constant":
        if value and value not in into.known:
            return _moved(into, node)
        integer = int(into.known[value].item()) if value else 0
        real = np.float32(integer - grid.shown) * grid.scale
        value = into.constant(f"{node.output[0]}/value", np.array(real, np.float32))
    into.emit("Pad", [data, node.input[1], value, *node.input[3:]], node.output[0], node.attribute)
    into.grids[node.output[0]] = grid
    return True


#: Rewriters of operators on integers that do more than move them.
_ON_INTEGERS: Mapping[str, Callable[[Rewriting, Any], bool]] = {
    "Add": _added,
    "Cast": _converted,
    "Pad": _padded,
    "Resize": _resized,
}
#: From an operator to what appends others in its place, or does not.
_REWRITES: Mapping[str, Callable[[Rewriting, Any], bool]] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "QLinearConv": _convolution,
    "QLinearMatMul": _product,
    "QGemm": _gemm,
    "QLinearConcat": _concatenation,
    **dict.fromkeys(_PAIRS, _pair),
    **dict.fromkeys(_SINGLES, _single),
    **DYNAMIC,
}
