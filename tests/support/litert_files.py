"""LiteRT files made operator by operator, and what LiteRT's own runtime and our translation to ONNX compute with them."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tvmmobile.networks.own.files import OwnFile
from tvmmobile.networks.own.litert.operators import onnx_of
from tvmmobile.networks.own.litert.reader import LiteRtNetwork, read_litert
from tvmmobile.networks.own.litert.states import without_variables
from tvmmobile.networks.own.onnx.quantised import is_quantised, without_integers
from tvmmobile.networks.own.onnx.runtime import start_onnx_runtime
from tvmmobile.system.errors import UserError

Array = npt.NDArray[Any]
#: Shape of an image.
IMAGE = (1, 6, 4, 3)
#: The name that messages give.
FILE = OwnFile(Path("net.tflite"))


@functools.cache
def schema() -> Any:
    """LiteRT's own description of its files, without its runtime."""
    package = importlib.util.find_spec("ai_edge_litert")
    assert package is not None and package.submodule_search_locations
    path = Path(package.submodule_search_locations[0]) / "schema_py_generated.py"
    spec = importlib.util.spec_from_file_location("litert_schema", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class LiteRtFile:
    """A network under construction; tensors are numbers."""

    def __init__(self) -> None:
        made = schema()
        self.model, self.graph = made.ModelT(), made.SubGraphT()
        self.model.version, self.model.subgraphs, self.model.buffers, self.model.operatorCodes = 3, [self.graph], [made.BufferT()], []
        self.graph.tensors, self.graph.operators, self.graph.name = [], [], "main"
        self.graph.inputs, self.graph.outputs = [], []

    def tensor(
        self, shape: Sequence[int], dtype: str = "float32", value: Array | None = None, scale: Any = None, zero: Any = 0, axis: int = 0
    ) -> int:
        """Return a tensor, constant if it has a value; with a scale and zero point, or several along an axis, it is quantised."""
        made = schema()
        tensor = made.TensorT()
        tensor.shape, tensor.type = list(shape), getattr(made.TensorType, dtype.upper())
        tensor.name, tensor.buffer = f"tensor{len(self.graph.tensors)}", 0
        if value is not None:
            tensor.buffer = len(self.model.buffers)
            buffer = made.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(value, dtype).tobytes(), np.uint8)
            self.model.buffers.append(buffer)
        if scale is not None:
            found = made.QuantizationParametersT()
            found.scale = np.atleast_1d(np.asarray(scale, np.float32))
            found.zeroPoint = np.broadcast_to(np.asarray(zero, np.int64), found.scale.shape)
            found.quantizedDimension = axis
            tensor.quantization = found
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def int32(self, *numbers: Any) -> int:
        """Return a constant of integers."""
        array = np.array(numbers)
        return self.tensor(array.shape, "int32", array)

    def operator(self, kind: str, inputs: Sequence[int], outputs: Sequence[int], options: str = "", **values: Any) -> None:
        """Append an operator; `options` names its table, such as `Conv2DOptions`."""
        made = schema()
        code, operator = made.OperatorCodeT(), made.OperatorT()
        number = getattr(made.BuiltinOperator, kind)
        code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), values.pop("version", 1)
        operator.opcodeIndex, operator.inputs, operator.outputs = len(self.model.operatorCodes), list(inputs), list(outputs)
        if options:
            operator.builtinOptionsType, operator.builtinOptions = getattr(made.BuiltinOptions, options), getattr(made, f"{options}T")()
            for name, value in values.items():
                assert hasattr(operator.builtinOptions, name), name
                setattr(operator.builtinOptions, name, value)
        self.model.operatorCodes.append(code)
        self.graph.operators.append(operator)

    def ends(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """Return the file, with these inputs and outputs."""
        import flatbuffers

        self.graph.inputs, self.graph.outputs = list(inputs), list(outputs)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def quantised_network(dtype: str, seed: int, full: bool = False) -> bytes:
    """Return a convolution, a depthwise one, a sum, a mean and a classifier; `full`: inputs and outputs are integers too."""
    random, file = np.random.default_rng(seed), LiteRtFile()
    low = -128 if dtype == "int8" else 0

    def activation(shape: tuple[int, ...], spread: float, positive: bool) -> int:
        return file.tensor(shape, dtype, None, spread / 255, low if positive else low + 128)

    def weights(shape: tuple[int, ...], axis: int | None) -> tuple[int, Array]:
        """Add weights, with a scale for each channel along an axis if one is given."""
        if dtype == "uint8":
            scale = np.array([0.02], np.float32)
            return file.tensor(shape, "uint8", random.integers(4, 256, shape), scale, 131), scale
        scale = np.asarray(random.uniform(0.002, 0.02, 1 if axis is None else shape[axis]), np.float32)
        return file.tensor(shape, "int8", random.integers(-127, 128, shape), scale, 0, axis or 0), scale

    def bias(channels: int, read: float, scale: Array) -> int:
        return file.tensor((channels,), "int32", random.integers(-500, 500, channels), np.float32(read) * scale)

    image, conv, deep, total = (1, 16, 16, 3), (1, 8, 8, 8), (1, 8, 8, 8), (1, 8, 8, 8)
    entry = activation(image, 4.0, False)
    one, two = activation(conv, 6.0, True), activation(deep, 6.0, True)
    three, mean, logits = activation(total, 10.0, True), activation((1, 8), 8.0, True), activation((1, 5), 30.0, False)
    weight, scale = weights((8, 3, 3, 3), 0)
    same = {"padding": 0, "fusedActivationFunction": 3}
    file.operator("CONV_2D", [entry, weight, bias(8, 4 / 255, scale)], [one], "Conv2DOptions", strideH=2, strideW=2, **same)
    weight, scale = weights((1, 3, 3, 8), 3)
    values = same | {"strideH": 1, "strideW": 1, "depthMultiplier": 1}
    file.operator("DEPTHWISE_CONV_2D", [one, weight, bias(8, 6 / 255, scale)], [two], "DepthwiseConv2DOptions", **values)
    file.operator("ADD", [one, two], [three], "AddOptions")
    file.operator("MEAN", [three, file.int32(1, 2)], [mean], "ReducerOptions", keepDims=False)
    weight, scale = weights((5, 8), None)  # runtimes of all ages know one scale of FULLY_CONNECTED
    file.operator("FULLY_CONNECTED", [mean, weight, bias(5, 8 / 255, scale)], [logits], "FullyConnectedOptions")
    if full:
        return file.ends([entry], [logits])
    data, real = file.tensor(image), file.tensor((1, 5))
    file.operator("QUANTIZE", [data], [entry], "QuantizeOptions")
    file.operator("DEQUANTIZE", [logits], [real], "DequantizeOptions")
    file.graph.operators.insert(0, file.graph.operators.pop(-2))
    return file.ends([data], [real])


def network_in(content: bytes) -> LiteRtNetwork:
    """Return the file's network, with inputs and outputs for its variables."""
    return without_variables(read_litert(FILE, content))


def by_litert(content: bytes, inputs: Sequence[Array]) -> list[Array]:
    """Return the outputs of LiteRT's runtime."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    for found, array in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(found["index"], array)
    interpreter.invoke()
    return [interpreter.get_tensor(found["index"]) for found in interpreter.get_output_details()]


def translated(content: bytes, inputs: list[Array]) -> list[Any]:
    """Compute the network with ONNX Runtime, after ONNX's checker has accepted the translation."""
    import onnx

    model = onnx_of(network_in(content))
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(model), full_check=True)
    if is_quantised(model.graph):
        model, _ = without_integers(model)
    _, compute = start_onnx_runtime(model, [value.name for value in model.graph.input])
    return list(compute(inputs))


def agrees(content: bytes, inputs: list[Array], most: float = 1e-5) -> None:
    """Real outputs differ by at most `most` of the largest magnitude, integers not at all."""
    theirs, ours = by_litert(content, inputs), translated(content, inputs)
    for one, other in zip(theirs, ours, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        assert np.abs(one.astype(float) - other).max() <= (most * max(1.0, np.abs(one).max()) if one.dtype.kind == "f" else 0)


def one(kind: str, options: str = "", shape: tuple[int, ...] = IMAGE, **values: Any) -> tuple[bytes, list[Array]]:
    """Return an operator of each element of an image."""
    file = LiteRtFile()
    data, out = file.tensor(shape), file.tensor(shape)
    file.operator(kind, [data], [out], options, **values)
    numbers = 3 * np.random.default_rng(1).standard_normal(shape, np.float32)
    return file.ends([data], [out]), [np.abs(numbers) + np.float32(0.1) if kind in ("SQRT", "RSQRT", "LOG") else numbers]


def refused(content: bytes) -> str:
    """Return the message about a network that is not translated."""
    with pytest.raises(UserError) as caught:
        onnx_of(network_in(content))
    return str(caught.value)
