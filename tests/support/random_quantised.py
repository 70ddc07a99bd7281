"""Random small networks in ONNX, and what ONNX Runtime's tools and others make of them in integers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from tvmmobile.graph.layers import Array

#: Activations, of which some are several operators.
_ACTIVATIONS = ("", "Relu", "Relu6", "HardSwish", "LeakyRelu", "Silu", "Sigmoid", "PRelu")
_TYPES = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8, "int16": QuantType.QInt16, "uint16": QuantType.QUInt16}


@dataclass
class Drawn:
    """A network under construction: nodes, constants, and for each image its name and shape."""

    draw: np.random.Generator
    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)

    def node(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        """Append a node; returns its output."""
        name = f"{operator}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, array: Any) -> str:
        """Return a new constant."""
        name = f"constant{len(self.constants)}"
        self.constants[name] = np.asarray(array)
        return name

    def normal(self, shape: tuple[int, ...], fan: int) -> str:
        """Weights whose sums have the spread of what they multiply."""
        return self.constant(self.draw.normal(0, 1.4 / np.sqrt(fan), shape).astype(np.float32))

    def activated(self, data: str, channels: int) -> str:
        """Return an activation."""
        kind = str(self.draw.choice(_ACTIVATIONS))
        if kind == "Silu":
            return self.node("Mul", [data, self.node("Sigmoid", [data])])
        if kind == "Relu6":
            return self.node("Clip", [data, self.constant(np.float32(0)), self.constant(np.float32(6))])
        if kind == "PRelu":
            return self.node("PRelu", [data, self.constant(self.draw.uniform(0, 0.5, (channels, 1, 1)).astype(np.float32))])
        return self.node(kind, [data]) if kind else data

    def convolution(self, data: str, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> str:
        """With a bias or without."""
        weight = self.normal((outputs, inputs // groups, kernel, kernel), inputs // groups * kernel**2)
        bias = [self.constant(self.draw.normal(0, 0.3, outputs).astype(np.float32))] if self.draw.random() < 0.8 else []
        return self.node("Conv", [data, weight, *bias], pads=[kernel // 2] * 4, strides=[stride] * 2, group=groups)

    def model(self, shape: tuple[int, ...], output: str) -> onnx.ModelProto:
        """Return the network; its output's shape is inferred."""
        tensors = [numpy_helper.from_array(array, name) for name, array in self.constants.items()]
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, extents) for name, extents in (("x", shape), (output, None))]
        graph = helper.make_graph(self.nodes, "random", ends[:1], ends[1:], tensors)
        model = onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
        onnx.checker.check_model(model, full_check=True)
        return model


def random_network(seed: int, most: int) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """Return a network of up to so many blocks in a row, and its input's shape."""
    net, side = Drawn(np.random.default_rng(seed)), 16
    draw, shape = net.draw, (1, 3, side, side)
    channels = int(draw.choice([8, 16]))
    data = net.activated(net.convolution("x", 3, channels, 3, 2), channels)
    blocks: list[Callable[[str, int], tuple[str, int]]] = [
        lambda data, many: (net.activated(net.convolution(data, many, 16, 1), 16), 16),
        lambda data, many: (net.activated(net.convolution(data, many, 12, 3), 12), 12),
        lambda data, many: (net.activated(net.convolution(data, many, many, 3, groups=many), many), many),
        lambda data, many: (net.activated(net.node("Add", [data, net.convolution(data, many, many, 3)]), many), many),
        lambda data, many: (net.node("ConvTranspose", [data, net.normal((many, 8, 2, 2), many)], strides=[2, 2]), 8),
        lambda data, many: (net.node("ConvTranspose", [data, net.normal((many, 8, 3, 3), many)], strides=[2, 2], pads=[1, 1, 0, 0]), 8),
        lambda data, many: (net.node("Concat", [data, net.convolution(data, many, 8, 1)], axis=1), many + 8),
        lambda data, many: (net.node("MaxPool", [data], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), many),
        lambda data, many: (net.node("AveragePool", [data], kernel_shape=[3, 3], strides=[2, 2]), many),  # no ties
        lambda data, many: (net.node("Resize", [data, "", net.constant(np.float32([1, 1, 2, 2]))], mode="nearest"), many),
    ]
    for place in draw.choice(len(blocks), int(draw.integers(1, most + 1)), replace=False):
        data, channels = blocks[place](data, channels)
    if draw.random() < 0.5:
        return net.model(shape, net.convolution(data, channels, 8, 1)), shape
    flat = net.node("Flatten", [net.node("GlobalAveragePool", [data])])
    return net.model(shape, net.node("Gemm", [flat, net.normal((channels, 10), channels)])), shape


@dataclass(frozen=True)
class Tool:
    """How a network is quantised: statically as QDQ or operators, or dynamically."""

    form: str
    activations: str = "int8"
    weights: str = "int8"
    per_channel: bool = False
    symmetric: bool = False


_EIGHT_BITS, _FLAGS = (("int8", "int8"), ("uint8", "int8"), ("uint8", "uint8")), (True, False)
#: All that ONNX Runtime's tool makes and its runtime computes, by form; and what others' tools write.
TOOLS: dict[str, list[Tool]] = {
    **{form: [Tool(form, *types, *flags) for types in _EIGHT_BITS for flags in product(_FLAGS, _FLAGS)] for form in ("QDQ", "operators")},
    "16 bits": [Tool("QDQ", *types, True) for types in product(("int16", "uint16"), ("int8", "uint8", "int16"), _FLAGS)],
    "dynamic": [Tool("dynamic", weights, weights, each) for weights, each in product(("int8", "uint8"), _FLAGS)],
    "inputs": [Tool("inputs")],
}


class _Reader(CalibrationDataReader):
    def __init__(self, shape: tuple[int, ...]) -> None:
        self.inputs = iter([{"x": image_of(shape, seed)} for seed in range(4)])

    def get_next(self) -> dict[str, Array] | None:
        return next(self.inputs, None)


def image_of(shape: tuple[int, ...], seed: int) -> Array:
    """Return an input."""
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def quantised_by(tool: Tool, model: onnx.ModelProto, shape: tuple[int, ...], path: Path) -> Path:
    """Return the file that a tool writes. Weights have seven bits: with eight, its sums of two products saturate on x86 processors
    without VNNI."""
    if tool.form == "inputs":
        onnx.save(rounded_inputs(model, 0), path)
        return path
    logging.disable(logging.WARNING)
    weights = _TYPES[tool.weights]
    if tool.form == "dynamic":
        quantize_dynamic(model, path, per_channel=tool.per_channel, reduce_range=True, weight_type=weights)
    else:
        quantize_static(
            model,
            path,
            _Reader(shape),
            quant_format=QuantFormat.QDQ if tool.form == "QDQ" else QuantFormat.QOperator,
            per_channel=tool.per_channel,
            reduce_range=True,
            activation_type=_TYPES[tool.activations],
            weight_type=weights,
            extra_options={"ActivationSymmetric": tool.symmetric, "WeightSymmetric": tool.symmetric},
        )
    logging.disable(logging.NOTSET)
    return path


def rounded_inputs(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """Return the network with inputs and weights of convolutions rounded, and nothing behind them, as TensorRT's tools have it."""
    draw, changed = np.random.default_rng(seed), onnx.ModelProto()
    changed.CopyFrom(model)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes, added = [], dict[str, Array]()
    for node in changed.graph.node:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm"):
            name, axis = node.output[0], 0 if node.op_type == "Conv" else 1
            weight = constants[node.input[1]]
            others = tuple(place for place in range(weight.ndim) if place != axis)
            steps = np.maximum(np.abs(weight).max(others), 0.01) / 127
            shape = [-1 if place == axis else 1 for place in range(weight.ndim)]
            added |= {
                f"{name}_s": np.float32(draw.uniform(0.02, 0.04)),
                f"{name}_z": np.int8(draw.integers(-20, 20)),
                f"{name}_w": np.rint(weight / steps.reshape(shape)).astype(np.int8),
                f"{name}_ws": steps.astype(np.float32),
                f"{name}_wz": np.zeros(steps.shape, np.int8),
            }
            grid = [f"{name}_s", f"{name}_z"]
            nodes += [
                helper.make_node("QuantizeLinear", [node.input[0], *grid], [f"{name}_q"]),
                helper.make_node("DequantizeLinear", [f"{name}_q", *grid], [f"{name}_d"]),
                helper.make_node("DequantizeLinear", [f"{name}_w", f"{name}_ws", f"{name}_wz"], [f"{name}_r"], axis=axis),
            ]
            node.input[:2] = [f"{name}_d", f"{name}_r"]
        nodes.append(node)
    made = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del changed.graph.node[:]
    changed.graph.node.extend(made)
    changed.graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in added.items())
    return changed
