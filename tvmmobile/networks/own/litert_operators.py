"""A LiteRT network's operators in ONNX's, which the importer, the graph passes and ONNX's reference evaluator know.

Images have their channels last in LiteRT and in front in ONNX. Each image between operators has its channels in front, and is turned only
where an operator needs the order in memory (`RESHAPE`). A tensor of integers becomes `QuantizeLinear` and `DequantizeLinear` around the
operator in float32, as quantised ONNX networks have it; LiteRT's own kernels round sums by a multiplier of 31 bits, so that a value in
thousands differs by a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array
from tvmmobile.graph.precision import FLOAT32
from tvmmobile.networks.own.litert_reader import Grid, LiteRtNetwork, LiteRtOperator, LiteRtTensor
from tvmmobile.system.errors import UserError

#: The version of ONNX's operators that are used.
OPSET = 17
#: From the place of a dimension in NHWC to that in NCHW, and the orders that turn one into the other.
_PLACE = (0, 2, 3, 1)
_TO_FRONT, _TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
#: Activations that are part of another operator (`ActivationFunctionType`): none, ReLU, -1 to 1, ReLU6, tanh.
_ACTIVATIONS: Mapping[int, tuple[str, tuple[float, ...]] | None] = {
    0: None,
    1: ("Relu", ()),
    2: ("Clip", (-1.0, 1.0)),
    3: ("Clip", (0.0, 6.0)),
    4: ("Tanh", ()),
}
_SAME = 0
_SIMPLER = "Convert the network without it."


class Translation:
    """The ONNX nodes for the operators of a network, made one after another."""

    def __init__(self, network: LiteRtNetwork) -> None:
        self.network = network
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}
        #: Names of the real numbers of a tensor, and whether channels are in front.
        self.names: dict[int, tuple[str, bool]] = {}
        #: Images that are another one with zeros around it, by number: that one's, and ONNX's `pads` of height and width.
        self.padded: dict[int, tuple[int, list[int]]] = {}
        self._kept: dict[tuple[object, ...], str] = {}
        self._made = 0

    def tensor(self, number: int) -> LiteRtTensor:
        """The file's tensor of this number."""
        return self.network.tensors[number]

    def emit(self, operator: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """Append a node; returns its output's name."""
        from onnx import helper

        if not output:
            self._made += 1
            output = f"{operator}/{self._made}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(self, array: Array, name: str = "") -> str:
        """The name of a constant."""
        if not name:
            self._made += 1
            name = f"constant/{self._made}"
        self.constants[name] = array
        return name

    def integers(self, *numbers: int) -> str:
        """The name of a constant vector of 64-bit integers, as ONNX has shapes and axes."""
        return self.constant(np.array(numbers, np.int64))

    def value(self, number: int) -> Array:
        """A constant of the file; raises `UserError` where it is computed."""
        found = self.tensor(number).value if number >= 0 else None
        if found is None:
            name = self.tensor(number).name if number >= 0 else "a tensor"
            raise UserError(f"the network computes {name}, which must be a constant.", _SIMPLER)
        return found

    def weight(self, number: int, order: Sequence[int], shape: Sequence[int] = (), axis: int | None = None) -> str:
        """A constant with its dimensions in another order, and then in another shape, as float32.

        Args:
            axis: where the file's axis of scales is afterwards; `None`: where the order puts it.
        """
        tensor = self.tensor(number)
        array = np.ascontiguousarray(self.value(number).transpose(order))
        grid = tensor.grid and replace(tensor.grid, axis=order.index(tensor.grid.axis % len(order)) if axis is None else axis)
        return self.held(tensor, array.reshape(shape or array.shape), grid)

    def held(self, tensor: LiteRtTensor, array: Array, grid: Grid | None) -> str:
        """The name of a constant's real numbers in float32."""
        if grid is None or array.dtype.kind == "f":
            return self.constant(array.astype(np.float32) if array.dtype.kind == "f" else array)
        integers = self.constant(array)
        scale, zero = self.numbers(grid, array.dtype)
        along: dict[str, Any] = {"axis": grid.axis} if grid.scales.size > 1 else {}
        return self.emit("DequantizeLinear", [integers, scale, zero], **along)

    def numbers(self, grid: Grid, dtype: Any) -> tuple[str, str]:
        """The names of a grid's scale and zero point."""
        shape = () if grid.scales.size == 1 else grid.scales.shape
        return self.constant(grid.scales.reshape(shape)), self.constant(grid.zeros.astype(dtype).reshape(shape))

    def read(self, number: int, front: bool) -> str:
        """The name of a tensor's real numbers, channels in front or last if it is an image."""
        tensor = self.tensor(number)
        if number in self.padded and number not in self.names:
            data, (top, left, bottom, right) = self.padded[number]
            pads = self.integers(0, 0, top, left, 0, 0, bottom, right)
            self.names[number] = self.emit("Pad", [self.read(data, True), pads]), True
        if number not in self.names:
            array, grid = self.value(number), tensor.grid
            if front and len(tensor.shape) == 4:
                return self._once(("constant", number), lambda: self.weight(number, _TO_FRONT))
            return self._once(("plain", number), lambda: self.held(tensor, array, grid))
        name, is_front = self.names[number]
        if len(tensor.shape) != 4 or is_front == front:
            return name
        return self._once((name, front), lambda: self.emit("Transpose", [name], perm=_TO_FRONT if front else _TO_LAST))

    def in_order(self, number: int) -> str:
        """The name of a tensor's real numbers in the file's order, in which an image of one pixel is whichever way it is turned."""
        shape = self.tensor(number).shape
        one_pixel = len(shape) == 4 and shape[1:3] == (1, 1) and number in self.names
        return self.names[number][0] if one_pixel else self.read(number, False)

    def _once(self, key: tuple[object, ...], make: Callable[[], str]) -> str:
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def write(self, number: int, name: str, front: bool, source: int | None = None) -> None:
        """A tensor of the network has these real numbers; they are rounded if its integers are not those of `source`."""
        tensor = self.tensor(number)
        if tensor.grid is not None and not (source is not None and _same_grid(tensor, self.tensor(source))):
            scale, zero = self.numbers(tensor.grid, tensor.dtype)
            rounded = self.emit("QuantizeLinear", [name, scale, zero])
            name = self.emit("DequantizeLinear", [rounded, scale, zero])
        self.names[number] = name, front

    def activated(self, name: str, activation: int) -> str:
        """With the activation that is part of an operator."""
        if activation not in _ACTIVATIONS:
            raise UserError(f"the network has activation {activation}, which is not known.", _SIMPLER)
        found = _ACTIVATIONS[activation]
        if found is None:
            return name
        operator, bounds = found
        return self.emit(operator, [name, *(self.constant(np.array(bound, np.float32)) for bound in bounds)])


def _same_grid(one: LiteRtTensor, other: LiteRtTensor) -> bool:
    return (
        one.grid is not None
        and other.grid is not None
        and one.dtype == other.dtype
        and np.array_equal(one.grid.scales, other.grid.scales)
        and np.array_equal(one.grid.zeros, other.grid.zeros)
    )


def _same_grid_or_none(one: LiteRtTensor, other: LiteRtTensor) -> bool:
    return _same_grid(one, other) or (one.grid is None and other.grid is None)


def _window_pads(padding: int, image: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> list[int]:
    """ONNX's `pads` of a window: the zeros before each dimension, then behind."""
    before, behind = [], []
    for extent, size, stride, dilation in zip(image, kernel, strides, dilations, strict=True):
        zeros = max(0, (-(-extent // stride) - 1) * stride + dilation * (size - 1) + 1 - extent) if padding == _SAME else 0
        before.append(zeros // 2)
        behind.append(zeros - zeros // 2)
    return [*before, *behind]


def _convolution(into: Translation, operator: LiteRtOperator) -> None:
    """`CONV_2D` (weights O, height, width, I) and `DEPTHWISE_CONV_2D` (1, height, width, O)."""
    data, weight, *rest = operator.inputs
    options, (_, height, width, channels) = operator.options, into.tensor(data).shape
    data, around = into.padded.get(data, (data, [0, 0, 0, 0]))
    shape = into.value(weight).shape
    strides = options.StrideH(), options.StrideW()
    dilations = max(options.DilationHFactor(), 1), max(options.DilationWFactor(), 1)
    if operator.kind == "CONV_2D":
        kernel, groups = into.weight(weight, (0, 3, 1, 2)), channels // shape[3]
    else:
        kernel, groups = into.weight(weight, (3, 0, 1, 2)), channels
    inputs = [into.read(data, True), kernel, *(into.read(number, True) for number in rest if number >= 0)]
    pads = _window_pads(options.Padding(), (height, width), shape[1:3], strides, dilations)
    pads = [one + other for one, other in zip(pads, around, strict=True)]
    made = into.emit("Conv", inputs, strides=strides, dilations=dilations, group=groups, pads=pads, kernel_shape=shape[1:3])
    into.write(operator.outputs[0], into.activated(made, options.FusedActivationFunction()), True)


def _transposed_convolution(into: Translation, operator: LiteRtOperator) -> None:
    """Weights O, height, width, I; the first input is the output's shape."""
    wanted, weight, data, *rest = operator.inputs
    options, (_, height, width, _) = operator.options, into.value(wanted).tolist()
    shape, strides = into.value(weight).shape, (operator.options.StrideH(), operator.options.StrideW())
    inputs = [into.read(data, True), into.weight(weight, (3, 0, 1, 2)), *(into.read(number, True) for number in rest if number >= 0)]
    pads, extents = [0, 0, 0, 0], into.tensor(data).shape[1:3]
    for place, (extent, small) in enumerate(zip((height, width), extents, strict=True)):
        cut = max(0, (small - 1) * strides[place] + shape[1 + place] - extent)
        pads[place], pads[2 + place] = cut // 2, cut - cut // 2
    more = [
        extent + pads[place] + pads[2 + place] - (small - 1) * strides[place] - shape[1 + place]
        for place, (extent, small) in enumerate(zip((height, width), extents, strict=True))
    ]
    made = into.emit("ConvTranspose", inputs, strides=strides, pads=pads, output_padding=more, kernel_shape=shape[1:3])
    activation = options.FusedActivationFunction() if hasattr(options, "FusedActivationFunction") else 0
    into.write(operator.outputs[0], into.activated(made, activation), True)


def _fully_connected(into: Translation, operator: LiteRtOperator) -> None:
    data, weight, *rest = operator.inputs
    shape, out = into.value(weight).shape, into.tensor(operator.outputs[0]).shape
    if operator.options is not None and operator.options.WeightsFormat():
        raise UserError("the network has weights of FULLY_CONNECTED in an order of its own.", _SIMPLER)
    source = into.in_order(data)
    if len(into.tensor(data).shape) != 2:
        source = into.emit("Reshape", [source, into.integers(-1, shape[1])])
    inputs = [source, into.weight(weight, (0, 1)), *(into.read(number, False) for number in rest if number >= 0)]
    made = into.emit("Gemm", inputs, transB=1)
    if len(out) != 2:
        made = into.emit("Reshape", [made, into.integers(*out)])
    into.write(operator.outputs[0], into.activated(made, operator.options.FusedActivationFunction() if operator.options else 0), False)


def _pair(onnx: str) -> Callable[[Translation, LiteRtOperator], None]:
    """An operator of two tensors that are repeated to one shape."""

    def translate(into: Translation, operator: LiteRtOperator) -> None:
        out = into.tensor(operator.outputs[0]).shape
        ranks = [len(into.tensor(number).shape) for number in operator.inputs]
        front = len(out) == 4 and all(rank == 4 or into.tensor(n).value is not None for rank, n in zip(ranks, operator.inputs, strict=True))
        names = [_operand(into, number, front) for number in operator.inputs]
        options = operator.options
        activation = options.FusedActivationFunction() if hasattr(options, "FusedActivationFunction") else 0
        into.write(operator.outputs[0], into.activated(into.emit(onnx, names), activation), front)

    return translate


def _operand(into: Translation, number: int, front: bool) -> str:
    """A tensor beside an image; a constant of fewer dimensions gets those that are missing."""
    tensor = into.tensor(number)
    if not front or len(tensor.shape) == 4:
        return into.read(number, front)
    shape = (1,) * (4 - len(tensor.shape)) + tensor.shape
    array = np.ascontiguousarray(into.value(number).reshape(shape).transpose(_TO_FRONT))
    grid = tensor.grid and (replace(tensor.grid, axis=1) if tensor.grid.scales.size > 1 else tensor.grid)
    return into.held(tensor, array, grid)


def _single(onnx: str, **attributes: Any) -> Callable[[Translation, LiteRtOperator], None]:
    """An operator of each element by itself."""

    def translate(into: Translation, operator: LiteRtOperator) -> None:
        name, front = _as_it_is(into, operator.inputs[0])
        into.write(operator.outputs[0], into.emit(onnx, [name], **attributes), front)

    return translate


def _as_it_is(into: Translation, number: int) -> tuple[str, bool]:
    """A tensor's name and whether its channels are in front, whichever it is."""
    return into.names[number] if number in into.names else (into.read(number, False), False)


def _bounded(low: float, high: float | None) -> Callable[[Translation, LiteRtOperator], None]:
    def translate(into: Translation, operator: LiteRtOperator) -> None:
        name, front = _as_it_is(into, operator.inputs[0])
        bounds = [into.constant(np.array(bound, np.float32)) for bound in (low, high) if bound is not None]
        into.write(operator.outputs[0], into.emit("Clip", [name, *bounds]), front)

    return translate


def _leaky(into: Translation, operator: LiteRtOperator) -> None:
    name, front = _as_it_is(into, operator.inputs[0])
    into.write(operator.outputs[0], into.emit("LeakyRelu", [name], alpha=float(operator.options.Alpha())), front)


def _gelu(into: Translation, operator: LiteRtOperator) -> None:
    """`x/2 · (1 + erf(x/√2))`, or by `tanh`."""
    name, front = _as_it_is(into, operator.inputs[0])

    def by(operation: str, one: str, other: float) -> str:
        return into.emit(operation, [one, into.constant(np.array(other, np.float32))])

    if operator.options is not None and operator.options.Approximate():
        cube = into.emit("Mul", [name, into.emit("Mul", [name, name])])
        inner = by("Mul", into.emit("Add", [name, by("Mul", cube, 0.044715)]), math.sqrt(2 / math.pi))
        curve = into.emit("Tanh", [inner])
    else:
        curve = into.emit("Erf", [by("Mul", name, math.sqrt(0.5))])
    into.write(operator.outputs[0], into.emit("Mul", [by("Mul", name, 0.5), by("Add", curve, 1.0)]), front)


def _squared_difference(into: Translation, operator: LiteRtOperator) -> None:
    first, second = (into.read(number, False) for number in operator.inputs)
    difference = into.emit("Sub", [first, second])
    into.write(operator.outputs[0], into.emit("Mul", [difference, difference]), False)


def _inverse_root(into: Translation, operator: LiteRtOperator) -> None:
    name, front = _as_it_is(into, operator.inputs[0])
    into.write(operator.outputs[0], into.emit("Reciprocal", [into.emit("Sqrt", [name])]), front)


def _pool(onnx: str) -> Callable[[Translation, LiteRtOperator], None]:
    def translate(into: Translation, operator: LiteRtOperator) -> None:
        (data,), options = operator.inputs, operator.options
        kernel, strides = (options.FilterHeight(), options.FilterWidth()), (options.StrideH(), options.StrideW())
        pads = _window_pads(options.Padding(), into.tensor(data).shape[1:3], kernel, strides, (1, 1))
        made = into.emit(onnx, [into.read(data, True)], kernel_shape=kernel, strides=strides, pads=pads)
        source = data if onnx == "MaxPool" else None
        into.write(operator.outputs[0], into.activated(made, options.FusedActivationFunction()), True, source)

    return translate


def _axes(into: Translation, number: int, rank: int) -> list[int]:
    return [int(axis) % rank for axis in np.ravel(into.value(number))]


def _reduction(onnx: str) -> Callable[[Translation, LiteRtOperator], None]:
    def translate(into: Translation, operator: LiteRtOperator) -> None:
        data, which = operator.inputs
        rank, keep = len(into.tensor(data).shape), bool(operator.options is not None and operator.options.KeepDims())
        axes = sorted(_axes(into, which, rank))
        front = rank == 4 and (keep or axes in ([1, 2], [1, 2, 3]))
        places = sorted(_PLACE[axis] for axis in axes) if front else axes
        name = into.read(data, front)
        if onnx == "ReduceSum":  # as a multiple of the mean, for which there is a kernel
            mean = into.emit("ReduceMean", [name], axes=places, keepdims=int(keep))
            count = math.prod(into.tensor(data).shape[axis] for axis in axes)
            made = into.emit("Mul", [mean, into.constant(np.array(count, np.float32))]) if count > 1 else mean
        else:
            made = into.emit(onnx, [name], axes=places, keepdims=int(keep))
        into.write(operator.outputs[0], made, front and keep, data if onnx in ("ReduceMax", "ReduceMin") else None)

    return translate


def _pad(into: Translation, operator: LiteRtOperator) -> None:
    data, widths, *rest = operator.inputs
    pairs, rank = into.value(widths).tolist(), len(into.tensor(data).shape)
    front = rank == 4
    if (
        front
        and not rest
        and not any(map(any, (pairs[0], pairs[3])))
        and _same_grid_or_none(into.tensor(data), into.tensor(operator.outputs[0]))
    ):
        into.padded[operator.outputs[0]] = data, [int(pairs[axis][side]) for side in (0, 1) for axis in (1, 2)]
        return
    order = _TO_FRONT if front else range(rank)
    pads = [int(pairs[axis][side]) for side in (0, 1) for axis in order]
    filling = [into.read(rest[0], False)] if rest and rest[0] >= 0 else []
    if filling:
        filling = [into.emit("Reshape", [filling[0], into.constant(np.zeros(0, np.int64))])]
    into.write(operator.outputs[0], into.emit("Pad", [into.read(data, front), into.integers(*pads), *filling]), front, data)


def _mirror_pad(into: Translation, operator: LiteRtOperator) -> None:
    data, widths = operator.inputs
    if operator.options.Mode() != 0:
        raise UserError("the network has MIRROR_PAD that repeats the border, which is not known.", _SIMPLER)
    pairs, front = into.value(widths).tolist(), len(into.tensor(data).shape) == 4
    pads = [int(pairs[axis][side]) for side in (0, 1) for axis in (_TO_FRONT if front else range(len(pairs)))]
    made = into.emit("Pad", [into.read(data, front), into.integers(*pads)], mode="reflect")
    into.write(operator.outputs[0], made, front, data)


def _reshape(into: Translation, operator: LiteRtOperator) -> None:
    """`RESHAPE`, `SQUEEZE` and `EXPAND_DIMS`; the file has the shape of what they make."""
    data, out = operator.inputs[0], into.tensor(operator.outputs[0]).shape
    made = into.emit("Reshape", [into.in_order(data), into.integers(*out)])
    into.write(operator.outputs[0], made, False, data)


def _transpose(into: Translation, operator: LiteRtOperator) -> None:
    data, order = operator.inputs[0], [int(axis) for axis in into.value(operator.inputs[1])]
    into.write(operator.outputs[0], into.emit("Transpose", [into.read(data, False)], perm=order), False, data)


def _concatenation(into: Translation, operator: LiteRtOperator) -> None:
    rank = len(into.tensor(operator.outputs[0]).shape)
    axis, front = operator.options.Axis() % rank, rank == 4
    names = [into.read(number, front) for number in operator.inputs]
    made = into.emit("Concat", names, axis=_PLACE[axis] if front else axis)
    same = all(_same_grid(into.tensor(number), into.tensor(operator.outputs[0])) for number in operator.inputs)
    activated = into.activated(made, operator.options.FusedActivationFunction())
    into.write(operator.outputs[0], activated, front, operator.inputs[0] if same else None)


def _split(into: Translation, operator: LiteRtOperator) -> None:
    """`SPLIT` (axis, data) and `SPLIT_V` (data, sizes, axis)."""
    data, which = (operator.inputs[0], operator.inputs[2]) if operator.kind == "SPLIT_V" else (operator.inputs[1], operator.inputs[0])
    rank = len(into.tensor(data).shape)
    (axis,), front, begin = _axes(into, which, rank), rank == 4, 0
    for number in operator.outputs:
        end = begin + into.tensor(number).shape[axis]
        places = into.integers(begin), into.integers(end), into.integers(_PLACE[axis] if front else axis)
        into.write(number, into.emit("Slice", [into.read(data, front), *places]), front, data)
        begin = end


def _slice(into: Translation, operator: LiteRtOperator) -> None:
    data, first, size = operator.inputs
    shape = into.tensor(data).shape
    begins = into.value(first).tolist()
    ends = [extent if length < 0 else begin + length for begin, length, extent in zip(begins, into.value(size), shape, strict=True)]
    _cut(into, operator, data, begins, ends, [1] * len(shape))


def _strided_slice(into: Translation, operator: LiteRtOperator) -> None:
    data, (begins, ends, steps) = operator.inputs[0], (into.value(number).tolist() for number in operator.inputs[1:4])
    options = operator.options
    if options.EllipsisMask() or options.NewAxisMask() or min(steps) < 1:
        raise UserError("the network has a STRIDED_SLICE with new dimensions or backwards, which is not known.", _SIMPLER)
    for place, extent in enumerate(into.tensor(data).shape):
        if options.BeginMask() >> place & 1:
            begins[place] = 0
        if options.ShrinkAxisMask() >> place & 1:
            ends[place] = begins[place] + 1 or extent
        elif options.EndMask() >> place & 1:
            ends[place] = extent
    _cut(into, operator, data, begins, ends, steps)


def _cut(into: Translation, operator: LiteRtOperator, data: int, begins: Sequence[int], ends: Sequence[int], steps: Sequence[int]) -> None:
    out, rank = into.tensor(operator.outputs[0]).shape, len(begins)
    front = rank == 4 and len(out) == 4
    places = [_PLACE[axis] if front else axis for axis in range(rank)]
    numbers = [into.integers(*map(int, values)) for values in (begins, ends, places, steps)]
    made = into.emit("Slice", [into.read(data, front), *numbers])
    if len(out) != rank:
        made = into.emit("Reshape", [made, into.integers(*out)])
    into.write(operator.outputs[0], made, front, data)


def _softmax(into: Translation, operator: LiteRtOperator) -> None:
    name, factor = into.read(operator.inputs[0], False), float(operator.options.Beta())
    if factor != 1.0:
        name = into.emit("Mul", [name, into.constant(np.array(factor, np.float32))])
    into.write(operator.outputs[0], into.emit("Softmax", [name], axis=-1), False)


def _same_values(into: Translation, operator: LiteRtOperator) -> None:
    """`QUANTIZE` and `DEQUANTIZE`: real numbers stay what they are, but for the grid of what is written."""
    name, front = _as_it_is(into, operator.inputs[0])
    into.write(operator.outputs[0], name, front, operator.inputs[0])


def _resize(mode: str) -> Callable[[Translation, LiteRtOperator], None]:
    def translate(into: Translation, operator: LiteRtOperator) -> None:
        data, size = operator.inputs
        batch, _, _, channels = into.tensor(data).shape
        height, width = into.value(size).tolist()
        corners, centres = operator.options.AlignCorners(), operator.options.HalfPixelCenters()
        rule = "align_corners" if corners else "half_pixel" if centres else "asymmetric"
        nearest = ("round_prefer_ceil" if corners else "floor") if mode == "nearest" else "round_prefer_floor"
        inputs = [into.read(data, True), "", "", into.integers(batch, channels, height, width)]
        made = into.emit("Resize", inputs, mode=mode, coordinate_transformation_mode=rule, nearest_mode=nearest)
        into.write(operator.outputs[0], made, True, data if mode == "nearest" else None)

    return translate


def _space(onnx: str) -> Callable[[Translation, LiteRtOperator], None]:
    """`DEPTH_TO_SPACE` and `SPACE_TO_DEPTH`: the channels of a block lie row by row of its pixels."""

    def translate(into: Translation, operator: LiteRtOperator) -> None:
        (data,) = operator.inputs
        more = {"mode": "DCR"} if onnx == "DepthToSpace" else {}
        made = into.emit(onnx, [into.read(data, True)], blocksize=operator.options.BlockSize(), **more)
        into.write(operator.outputs[0], made, True, data)

    return translate


def _products(into: Translation, operator: LiteRtOperator) -> None:
    """`BATCH_MATMUL`: of the last two dimensions, turned if `AdjX` or `AdjY` says so."""
    names = []
    for number, turned in zip(operator.inputs, (operator.options.AdjX(), operator.options.AdjY()), strict=True):
        name, rank = into.read(number, False), len(into.tensor(number).shape)
        names.append(into.emit("Transpose", [name], perm=[*range(rank - 2), rank - 1, rank - 2]) if turned else name)
    into.write(operator.outputs[0], into.emit("MatMul", names), False)


def _index_of(onnx: str) -> Callable[[Translation, LiteRtOperator], None]:
    def translate(into: Translation, operator: LiteRtOperator) -> None:
        data, which = operator.inputs
        (axis,) = _axes(into, which, len(into.tensor(data).shape))
        made = into.emit(onnx, [into.read(data, False)], axis=axis, keepdims=0)
        dtype = into.tensor(operator.outputs[0]).dtype
        into.write(operator.outputs[0], made if dtype == np.int64 else _cast(into, made, dtype), False)

    return translate


def _cast(into: Translation, name: str, dtype: Any) -> str:
    from onnx import helper

    return into.emit("Cast", [name], to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _cast_operator(into: Translation, operator: LiteRtOperator) -> None:
    name, front = _as_it_is(into, operator.inputs[0])
    into.write(operator.outputs[0], _cast(into, name, into.tensor(operator.outputs[0]).dtype), front)


#: From an operator to what appends ONNX's in its place.
OPERATORS: Mapping[str, Callable[[Translation, LiteRtOperator], None]] = {
    "ABS": _single("Abs"),
    "ADD": _pair("Add"),
    "ARG_MAX": _index_of("ArgMax"),
    "ARG_MIN": _index_of("ArgMin"),
    "AVERAGE_POOL_2D": _pool("AveragePool"),
    "BATCH_MATMUL": _products,
    "CAST": _cast_operator,
    "CONCATENATION": _concatenation,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "DEPTH_TO_SPACE": _space("DepthToSpace"),
    "DEQUANTIZE": _same_values,
    "DIV": _pair("Div"),
    "ELU": _single("Elu"),
    "EXP": _single("Exp"),
    "EXPAND_DIMS": _reshape,
    "FULLY_CONNECTED": _fully_connected,
    "GELU": _gelu,
    "HARD_SWISH": _single("HardSwish"),
    "LEAKY_RELU": _leaky,
    "LOG": _single("Log"),
    "LOGISTIC": _single("Sigmoid"),
    "MAXIMUM": _pair("Max"),
    "MAX_POOL_2D": _pool("MaxPool"),
    "MEAN": _reduction("ReduceMean"),
    "MINIMUM": _pair("Min"),
    "MIRROR_PAD": _mirror_pad,
    "MUL": _pair("Mul"),
    "NEG": _single("Neg"),
    "PAD": _pad,
    "PADV2": _pad,
    "POW": _pair("Pow"),
    "PRELU": _pair("PRelu"),
    "QUANTIZE": _same_values,
    "REDUCE_MAX": _reduction("ReduceMax"),
    "REDUCE_MIN": _reduction("ReduceMin"),
    "RELU": _single("Relu"),
    "RELU6": _bounded(0.0, 6.0),
    "RELU_N1_TO_1": _bounded(-1.0, 1.0),
    "RESHAPE": _reshape,
    "RESIZE_BILINEAR": _resize("linear"),
    "RESIZE_NEAREST_NEIGHBOR": _resize("nearest"),
    "RSQRT": _inverse_root,
    "SLICE": _slice,
    "SOFTMAX": _softmax,
    "SPACE_TO_DEPTH": _space("SpaceToDepth"),
    "SPLIT": _split,
    "SPLIT_V": _split,
    "SQRT": _single("Sqrt"),
    "SQUARED_DIFFERENCE": _squared_difference,
    "SQUEEZE": _reshape,
    "STRIDED_SLICE": _strided_slice,
    "SUB": _pair("Sub"),
    "SUM": _reduction("ReduceSum"),
    "TANH": _single("Tanh"),
    "TRANSPOSE": _transpose,
    "TRANSPOSE_CONV": _transposed_convolution,
}


def onnx_of(network: LiteRtNetwork) -> Any:
    """The network as an ONNX `ModelProto`; its inputs and outputs keep their types, and images their channels last.

    Raises:
        UserError: an operator or a type is not known, or a shape must be constant and is not.
    """
    from onnx import helper, numpy_helper

    into = Translation(network)
    inputs, outputs = _named(network, network.inputs, "input"), _named(network, network.outputs, "output")
    for number, name in inputs.items():
        _enter(into, number, name)
    for operator in network.operators:
        translate = OPERATORS.get(operator.kind)
        if translate is None:
            raise UserError(f"the network has an operator that is not known: {operator.kind}.", _SIMPLER)
        for number in (*operator.inputs, *operator.outputs):
            if number >= 0 and into.tensor(number).dtype is None:
                raise UserError(f"the network has a tensor of a type that is not known: {into.tensor(number).name}.", _SIMPLER)
        translate(into, operator)
    for number, name in outputs.items():
        _leave(into, number, name)

    def described(numbers: Mapping[int, str]) -> list[Any]:
        found = [(name, into.tensor(number)) for number, name in numbers.items()]
        kinds = {name: helper.np_dtype_to_tensor_dtype(tensor.dtype or FLOAT32.numpy) for name, tensor in found}
        return [helper.make_tensor_value_info(name, kinds[name], tensor.shape) for name, tensor in found]

    stored = [numpy_helper.from_array(array, name) for name, array in into.constants.items()]
    graph = helper.make_graph(into.nodes, network.name, described(inputs), described(outputs), stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def _named(network: LiteRtNetwork, numbers: Sequence[int], kind: str) -> dict[int, str]:
    """Names in ONNX; those of the signature, else the file's."""
    return {number: network.names.get(number) or network.tensors[number].name or f"{kind}{place}" for place, number in enumerate(numbers)}


def _enter(into: Translation, number: int, name: str) -> None:
    """An input; integers of a grid become real numbers, which the grid rounds to themselves."""
    tensor = into.tensor(number)
    if tensor.grid is None:
        into.names[number] = name, False
        return
    scale, zero = (into.constant(array.reshape(()).astype(np.float32)) for array in (tensor.grid.scales, tensor.grid.zeros))
    into.write(number, into.emit("Mul", [into.emit("Sub", [_cast(into, name, np.float32), zero]), scale]), False)


def _leave(into: Translation, number: int, name: str) -> None:
    """An output, as integers where it is on a grid."""
    tensor, found = into.tensor(number), into.read(number, False)
    if tensor.grid is None:
        into.emit("Identity", [found], name)
        return
    scale, zero = (into.constant(array.reshape(()).astype(np.float32)) for array in (tensor.grid.scales, tensor.grid.zeros))
    steps = into.emit("Add", [into.emit("Round", [into.emit("Div", [found, scale])]), zero])
    from onnx import helper

    into.emit("Cast", [steps], name, to=helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype)))
