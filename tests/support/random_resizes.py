"""Random resizes as ONNX files and as modules of PyTorch, many in one network, and what ONNX Runtime and PyTorch make of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from lowered_networks import prepare
from onnx import helper, numpy_helper
from small_networks import HOST, accepted, kernels_of
from torch import nn

from tvmmobile.graph.expressions import shape_of
from tvmmobile.graph.layers import Array
from tvmmobile.graph.lowering import lower
from tvmmobile.graph.network import read_network
from tvmmobile.graph.resizing import pixels_along
from tvmmobile.graph.taps import is_given, taps_of
from tvmmobile.kernels.codegen import export, make_target, pass_context
from tvmmobile.kernels.lowering import PIPELINE
from tvmmobile.networks.frontend import decomposed, export_torch, import_program
from tvmmobile.networks.own.onnx.constants import fold_constants
from tvmmobile.networks.own.onnx.importer import import_onnx
from tvmmobile.networks.torch_resizes import OPERATORS, WEIGHTED
from tvmmobile.system.toolchain import toolchain

PLACES = (
    "half_pixel",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
    "half_pixel_symmetric",
)
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
#: Opsets with an operator of their own, and the newest.
OPSETS = (7, 9, 10, 11, 13, 18, 19, 23)


@dataclass
class OnnxCase:
    """One `Resize` or `Upsample`.

    Attributes:
        more: its other inputs, in order; `None` for one that is left out.
    """

    opset: int
    shape: tuple[int, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    more: list[Array | None] = field(default_factory=list)

    @property
    def operator(self) -> str:
        return "Upsample" if self.opset < 10 else "Resize"


def _extents(random: np.random.Generator, count: int) -> list[int]:
    most = 40 if random.random() < 0.1 else 14
    return [int(extent) for extent in random.integers(1, most, count)]


def _factor(random: np.random.Generator, least: float = 0.25) -> float:
    """Draw a factor of any kind: whole, a ratio of small numbers, and any."""
    kind = random.integers(4)
    found = (
        random.integers(1, 5) if kind == 0 else random.integers(1, 12) / random.integers(1, 8) if kind == 1 else random.uniform(0.3, 3.5)
    )
    return max(least, min(float(found), 4.0))


def onnx_case(random: np.random.Generator, opset: int) -> OnnxCase:
    """Draw a resize that the operator's version allows and ONNX Runtime computes, for the most part."""
    mode = str(random.choice(["nearest", "linear"] if opset < 11 else ["nearest", "linear", "cubic"]))
    ranks = [2, 4] if mode == "cubic" else [1, 2, 3, 4, 5] if mode == "nearest" else [2, 3, 4, 5]
    rank = 4 if random.random() < 0.7 else int(random.choice(ranks))
    spatial = min(rank, 3 if rank == 5 else 2 if rank in (2, 4) else 1)
    last = rank == 4 and mode != "cubic" and random.random() < 0.1
    resized = [1, 2] if last else list(range(rank - spatial, rank))
    shape = tuple(_extents(random, rank))
    factors = [_factor(random, 1.0 if opset < 10 else 0.25) if axis in resized else 1.0 for axis in range(rank)]
    factors = [
        max(factor, 1.0001 / extent) if axis in resized else 1.0 for axis, (factor, extent) in enumerate(zip(factors, shape, strict=True))
    ]
    case = OnnxCase(opset, shape, {"mode": mode})
    if opset == 7:
        case.attributes["scales"] = factors
        return case
    scales = np.array(factors, np.float32)
    if opset < 11:
        case.more = [scales]
        return case
    places = str(random.choice(PLACES))
    case.attributes |= {"coordinate_transformation_mode": places}
    if mode == "nearest":
        case.attributes["nearest_mode"] = str(random.choice(NEAREST))
    if mode == "cubic":
        case.attributes |= {"cubic_coeff_a": float(random.choice([-0.75, -0.5, -0.3])), "exclude_outside": int(random.integers(2))}
    if opset >= 18 and mode != "nearest" and random.random() < 0.4 and (rank != 5 or mode == "linear"):
        case.attributes |= {"antialias": 1, "exclude_outside": int(random.integers(2))}
    given = list(range(rank))
    if opset >= 18 and random.random() < 0.4:
        given = [int(axis) for axis in random.permutation(resized)]
        case.attributes["axes"] = given
    roi = None
    if places == "tf_crop_and_resize":
        case.attributes["extrapolation_value"] = float(random.choice([0.0, 7.5]))
        begins, ends = random.uniform(-0.2, 0.5, rank), random.uniform(0.5, 1.2, rank)
        roi = np.array([*(begins[axis] for axis in given), *(ends[axis] for axis in given)], np.float32)
    if random.random() < 0.4:
        sizes = np.array([max(1, math.floor(factors[axis] * shape[axis])) for axis in given], np.int64)
        if opset >= 18 and random.random() < 0.3:
            case.attributes["keep_aspect_ratio_policy"] = str(random.choice(["not_larger", "not_smaller"]))
            if not case.attributes.get("axes"):
                case.attributes["axes"] = resized
                sizes = sizes[resized]
                roi = None if roi is None else roi.reshape(2, rank)[:, resized].reshape(-1)
        case.more = [roi, None, sizes]
    else:
        case.more = [roi, scales[given]]
    if opset == 11 and case.more[0] is None:
        case.more[0] = np.zeros(0, np.float32)
    if opset == 11 and case.more[1] is None:
        case.more[1] = np.zeros(0, np.float32)
    return case


def onnx_network(cases: Sequence[OnnxCase], opset: int, before: bool = False) -> Any:
    """Return a file with an input and an output for each; `before` puts a convolution that changes nothing before those of images."""
    nodes, stored, inputs, outputs = [], [], [], []
    for number, case in enumerate(cases):
        names = [f"x{number}"]
        inputs.append(helper.make_tensor_value_info(names[0], 1, case.shape))
        if before and len(case.shape) == 4:
            stored.append(numpy_helper.from_array(np.ones((case.shape[1], 1, 1, 1), np.float32), f"w{number}"))
            nodes.append(helper.make_node("Conv", [f"x{number}", f"w{number}"], [f"c{number}"], group=case.shape[1]))
            names = [f"c{number}"]
        for place, array in enumerate(case.more):
            names.append("" if array is None else f"m{number}_{place}")
            if array is not None:
                stored.append(numpy_helper.from_array(array, names[-1]))
        nodes.append(helper.make_node(case.operator, names, [f"y{number}"], **case.attributes))
        outputs.append(onnx.ValueInfoProto(name=f"y{number}"))
        outputs[-1].type.tensor_type.elem_type = 1
    graph = helper.make_graph(nodes, "resizes", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def by_onnx_runtime(model: Any, images: Sequence[Array]) -> list[Array]:
    """Return the outputs of ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: list[Array] = session.run(None, {f"x{number}": image for number, image in enumerate(images)})
    return found


def by_us(module: Any, images: Sequence[Array], path: Path, choice: int = 0) -> list[Array]:
    """Return the outputs of the imported module, compiled for the host."""
    import tvm
    from tvm import relax

    network = read_network(*prepare(module, accepted))
    with pass_context():
        executable = relax.build(lower(network, kernels_of(network, choice)), target=make_target(HOST), tir_pipeline=PIPELINE)
    export(executable, path, toolchain(HOST))
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())
    found = machine["main"](*map(tvm.runtime.tensor, images))
    return [part.numpy() for part in ([found] if len(images) == 1 else found)]


def imported(model: Any) -> Any:
    """Return an ONNX file in Relax."""
    return import_onnx(fold_constants(model), model.opset_import[0].version)


def values_of(module: Any, images: Sequence[Array]) -> list[Array]:
    """Return the outputs of the imported module, computed operator by operator with numpy: nothing is compiled."""

    main = module["main"]
    values = dict(zip(main.params, images, strict=True))
    for block in main.body.blocks:
        for binding in block.bindings:
            values[binding.var] = _value(binding.value, values)
    result = _value(main.body.body, values)
    return list(result) if isinstance(result, list) else [result]


def _value(expression: Any, values: dict[Any, Array]) -> Any:
    from tvm import relax

    if isinstance(expression, relax.Var):
        return values[expression]
    if isinstance(expression, relax.Tuple):
        return [_value(part, values) for part in expression.fields]
    if isinstance(expression, relax.TupleGetItem):
        return _value(expression.tuple_value, values)[expression.index]
    if not isinstance(expression, relax.Call):
        return np.array(expression.value.numpy())
    name = expression.op.name.removeprefix("relax.")
    if name == "image.resize2d":
        return _resized(expression, _value(expression.args[0], values))
    if name == "reshape":
        return _value(expression.args[0], values).reshape(shape_of(expression))
    operands = [_value(argument, values) for argument in expression.args]
    return {"matmul": np.matmul, "where": np.where}[name](*operands)


def _resized(call: Any, data: Array) -> Array:
    """Products with a matrix for each axis, whose rows are where pixels come from."""
    attrs, layout, (height, width) = call.attrs, str(call.attrs.layout), call.args[1].values
    for place, (name, outputs) in enumerate((("H", int(height)), ("W", int(width)))):
        axis = layout.index(name)
        if is_given(call):
            matrix = taps_of(call)[place].matrix(data.shape[axis])
        else:
            method = "linear" if attrs.method == "linear" else str(attrs.rounding_method)
            first, last, share = pixels_along(data.shape[axis], outputs, method, str(attrs.coordinate_transformation_mode))
            matrix = np.zeros((outputs, data.shape[axis]), np.float32)
            np.add.at(matrix, (np.arange(outputs), first), 1 - share)
            np.add.at(matrix, (np.arange(outputs), last), share)
        data = np.moveaxis(np.moveaxis(data, axis, -1) @ matrix.T, -1, axis)
    return data


@dataclass
class TorchCase:
    """One call of an operator of PyTorch; `factors` may be given beside sizes, where the operator takes both."""

    name: str
    overload: str
    shape: tuple[int, ...]
    arguments: tuple[Any, ...]

    def __call__(self, data: torch.Tensor) -> torch.Tensor:
        operator = getattr(getattr(torch.ops.aten, self.name), self.overload)
        result: torch.Tensor = operator(data, *self.arguments)
        return result


def torch_case(random: np.random.Generator) -> TorchCase:
    """Draw a call of a resize that PyTorch computes."""
    name = str(random.choice(sorted(OPERATORS)))
    dimensions = OPERATORS[name]
    corners = [bool(random.integers(2))] if name in WEIGHTED else []
    shape = (int(random.integers(1, 3)), int(random.integers(1, 5)), *_extents(random, dimensions))
    factors = [max(_factor(random), 1.0001 / extent) for extent in shape[2:]]
    if name.endswith("_aa"):  # refused to a width of 1
        factors[1] = max(factors[1], 2.0001 / shape[3])
    size = [max(1, math.floor(factor * extent)) for factor, extent in zip(factors, shape[2:], strict=True)]
    by_factor = bool(random.integers(3))
    if random.integers(2):
        return TorchCase(name, "vec", shape, (None, *corners, factors) if by_factor else (size, *corners, None))
    return TorchCase(name, "default", shape, (size, *corners, *(factors if by_factor else [None] * dimensions)))


class Several(nn.Module):
    """Resizes of an input each."""

    def __init__(self, cases: Sequence[TorchCase]) -> None:
        super().__init__()
        self.cases = cases

    def forward(self, *images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(case(image) for case, image in zip(self.cases, images, strict=True))


def torch_imported(cases: Sequence[TorchCase]) -> Any:
    """Resizes of an input each, in Relax."""
    return import_program(decomposed(export_torch(Several(cases), [torch.zeros(case.shape) for case in cases])))
