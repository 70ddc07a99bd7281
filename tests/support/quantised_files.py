"""Networks that others have quantised, in files, and what their own runtimes compute."""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from network_files import write_onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from own_networks import load
from small_networks import Residual, seeded, unit
from torch import nn

import tvmmobile
from tvmmobile.graph.layers import Array
from tvmmobile.graph.network import INPUT
from tvmmobile.graph.precision import INT8
from tvmmobile.networks.own.pt2.quantised import register_operators
from tvmmobile.pipeline.job import variant_job
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.prepared import Prepared, prepared
from tvmmobile.pipeline.request import device_of

SHAPE = (1, 3, 24, 24)
_INPUTS = 4


def residual_network() -> nn.Module:
    """MobileNet v2's kinds of layers."""
    inner = nn.Sequential(*unit(16, 24), *unit(24, 24, 3, groups=24), *unit(24, 16, activation=nn.Identity()))
    last = unit(16, 24, activation=nn.ReLU())
    return seeded(*unit(3, 16, 3, 2), Residual(inner), *last, nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(24, 10))


def window_network() -> nn.Module:
    """Return a ResNet's kinds of layers: 3×3 convolutions with a residual, and with a stride."""
    inner = nn.Sequential(*unit(16, 24, 3), *unit(24, 16, 3, activation=nn.Identity()))
    last = unit(16, 24, 3, 2, activation=nn.ReLU())
    return seeded(*unit(3, 16, 3, 2), Residual(inner), *last, nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(24, 10))


def noise(seed: int, shape: tuple[int, ...] = SHAPE) -> Array:
    """Return an input, NCHW."""
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


class _Reader(CalibrationDataReader):
    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self.inputs = iter([{name: noise(seed, shape)} for seed in range(_INPUTS)])

    def get_next(self) -> dict[str, Array] | None:
        return next(self.inputs, None)


def write_quantised_onnx(
    module: nn.Module, folder: Path, shape: tuple[int, ...] = SHAPE, *, operators: bool = False, unsigned: bool = False
) -> Path:
    """Write a module as ONNX Runtime quantises it: QDQ, or `operators` on integers. Weights have a scale for each output channel, and
    seven bits: with eight, ONNX Runtime's own sums of two products saturate on x86 processors without VNNI."""
    plain, quantised = write_onnx(module, folder / "plain.onnx", shape), folder / "quantised.onnx"
    name = onnx.load(str(plain)).graph.input[0].name
    quantize_static(
        str(plain),
        str(quantised),
        _Reader(name, shape),
        quant_format=QuantFormat.QOperator if operators else QuantFormat.QDQ,
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8 if unsigned else QuantType.QInt8,
        weight_type=QuantType.QInt8,
    )
    return quantised


def of_integers(path: Path) -> Path:
    """Return the same network whose input is quantised already: without the operator that quantises it."""
    model = onnx.load(str(path))
    (given,) = model.graph.input
    (first,) = (node for node in model.graph.node if given.name in node.input)
    kind = next(constant.data_type for constant in model.graph.initializer if constant.name == first.input[2])
    model.graph.node.remove(first)
    shape = [dimension.dim_value for dimension in given.type.tensor_type.shape.dim]
    given.CopyFrom(onnx.helper.make_tensor_value_info(first.output[0], kind, shape))
    onnx.save(model, str(path.with_name("integers.onnx")))
    return path.with_name("integers.onnx")


def write_pt2e(module: nn.Module, folder: Path, shape: tuple[int, ...] = SHAPE) -> Path:
    """Write a module as torchao's PT2E flow quantises it, with scales for each output channel, and `torch.export` exports that."""
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.testing.pt2e._xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config

        quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
        prepared = prepare_pt2e(torch.export.export(module, (torch.zeros(shape),)).module(), quantizer)
        for seed in range(_INPUTS):
            prepared(torch.from_numpy(noise(seed, shape)))
        program = torch.export.export(convert_pt2e(prepared), (torch.zeros(shape),))
    torch.export.save(program, folder / "quantised.pt2")
    return folder / "quantised.pt2"


def run_onnxruntime(path: Path, image: Array) -> Array:
    """Return the outputs of ONNX Runtime, which fuses nothing: its sums of int8 products saturate on x86 processors without VNNI."""
    onnxruntime.set_default_logger_severity(3)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    output: Array = session.run(None, {session.get_inputs()[0].name: image})[0]
    return output


@dataclass(frozen=True, eq=False)
class Quantised:
    """A tensor of integers in somebody else's runtime, NHWC, and what they stand for."""

    step: float
    zero: int
    integers: Array


def onnx_integers(path: Path, image: Array) -> list[Quantised]:
    """Return the integers between the layers of a QDQ network, as ONNX Runtime computes them where it fuses nothing."""
    model = onnx.load(str(path))
    constants = {constant.name: onnx.numpy_helper.to_array(constant) for constant in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    del model.graph.output[:]
    for node in nodes:
        kind = onnx.helper.np_dtype_to_tensor_dtype(constants[node.input[2]].dtype)
        model.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], kind, None))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: image})
    scales = [(float(constants[node.input[1]]), int(constants[node.input[2]])) for node in nodes]
    return [_signed(*scale, integers) for scale, integers in zip(scales, found, strict=True)]


def pt2e_integers(path: Path, image: Array) -> list[Quantised]:
    """Return the integers between the layers of a network of the PT2E flow, as PyTorch computes them."""
    register_operators()
    found = []

    class Watching(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            result = super().run_node(n)
            if n.target is torch.ops.quantized_decomposed.quantize_per_tensor.default:
                found.append(_signed(n.args[1], n.args[2], result.numpy()))
            return result

    Watching(torch.export.load(path).module()).run(torch.from_numpy(image))
    return found


def _signed(step: float, zero: int, integers: Array) -> Quantised:
    lower = 128 if integers.dtype == np.uint8 else 0
    moved = integers.astype(np.int64) - lower
    return Quantised(step, zero - lower, moved.transpose(0, 2, 3, 1) if moved.ndim == 4 else moved)


def layer_by_layer(ready: Prepared, image: Array, theirs: list[Quantised]) -> Array:
    """Return by how many steps each integer of each layer is off, if the layer reads the integers that the other runtime computed before
    it.
    """
    assert ready.integers is not None
    network, values, off = ready.integers, {INPUT: image}, []
    for step in network.flow.steps:
        values[step.number] = ours = network.output(step, values)
        if step.number in network.scales and ours.dtype == np.int8:
            scale = network.scales[step.number]
            same = [one for one in theirs if one.integers.size == ours.size and np.isclose(one.step, scale.step) and one.zero == scale.zero]
            apart = [np.abs(one.integers.reshape(ours.shape) - ours) for one in same]
            nearest = min(range(len(same)), key=lambda number: apart[number].sum())
            values[step.number] = same[nearest].integers.reshape(ours.shape).astype(np.int8)
            off.append(apart[nearest].reshape(-1))
    return np.concatenate(off)


def in_integers(path: Path, board: str = "pi5", keep: tuple[str, ...] = (), dump_dir: Path | None = None) -> Prepared:
    """Return the network in a file as the planner reads it, with its integers on the host."""
    model = tvmmobile.load(path)
    assert model.quantised
    job = variant_job(model, device_of(board).profile, (), path.parent / "out", LibraryOptions(precision=INT8, keep=keep))
    return prepared(load(path), job, dump_dir)


def steps_off(output: Array, expected: Array, step: float) -> Array:
    """How far numbers are off, in steps of a scale."""
    return np.abs(output.astype(np.float64) - expected) / step


def smallest_step(values: Array) -> float:
    """Return the scale of a tensor of which all numbers are multiples, where two of them are neighbours."""
    return float(np.diff(np.unique(values)).min())
