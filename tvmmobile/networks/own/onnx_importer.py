"""TVM's ONNX importer, with other converters for what it would make unscheduled loops of, which no graph pass could read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, reduce
from typing import Any

from tvmmobile.networks.frontend import quiet

#: An operator's inputs, attributes and version to a Relax expression; `None` leaves it, with these attributes, to TVM's converter.
_Converter = Callable[[Sequence[Any], dict[str, Any], int], Any]


def import_onnx(model: Any, opset: int) -> Any:
    """An ONNX model as a Relax module with its weights as constants.

    Args:
        model: a `ModelProto` that holds all its weights; every shape is static.
        opset: version of the standard operators.

    Raises:
        Exception: whatever a converter meets that it does not know.
    """
    with quiet():
        return _importer()(None, "float32").from_onnx(model.graph, opset)


@cache
def _importer() -> Any:
    from tvm.relax.frontend.onnx.onnx_frontend import ONNXGraphImporter

    class Importer(ONNXGraphImporter):  # type: ignore[misc]
        def _convert_operator(self, op_name: str, inputs: Any, attrs: Any, opset: int) -> Any:
            convert = _CONVERTERS.get(op_name)
            converted = convert(inputs, attrs, opset) if convert else None
            if converted is None:
                return super()._convert_operator(op_name, inputs, attrs, opset)
            return self.bb.normalize(converted)

    return Importer


def _clip(inputs: Sequence[Any], attrs: dict[str, Any], opset: int) -> Any:
    from tvm import relax

    if not _is_float(inputs[0]):
        return None
    if opset < 11:
        return relax.op.clip(inputs[0], float(attrs.get("min", -math.inf)), float(attrs.get("max", math.inf)))
    low, high = _bound(inputs[1], -math.inf), _bound(inputs[2], math.inf)
    return None if low is None or high is None else relax.op.clip(inputs[0], low, high)


def _bound(value: Any, default: float) -> float | None:
    """A bound of a clip: `default` where there is none, `None` where it is not constant."""
    import tvm

    if value is None:
        return default
    return float(value.value.numpy().item()) if isinstance(value, tvm.ir.GenericConst) and value.value.numpy().size == 1 else None


def _explicit_padding(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Says how much a convolution is padded where it says `SAME` only: TVM's converter would pad in a kernel of its own."""
    mode = attrs.get("auto_pad", b"NOTSET").decode()
    if not mode.startswith("SAME"):
        return None
    image, weight = ([int(extent) for extent in tensor.ty.shape][2:] for tensor in inputs[:2])
    before, after = [], []
    for place, (extent, kernel) in enumerate(zip(image, weight, strict=True)):
        stride, dilation = (attrs.get(name, (1,) * len(image))[place] for name in ("strides", "dilations"))
        zeros = max(0, (-(-extent // stride) - 1) * stride + dilation * (kernel - 1) + 1 - extent)
        smaller, greater = zeros // 2, zeros - zeros // 2
        before.append(smaller if mode == "SAME_UPPER" else greater)
        after.append(greater if mode == "SAME_UPPER" else smaller)
    attrs.update(auto_pad=b"NOTSET", pads=(*before, *after))
    return None


def _pairwise(operator: str) -> _Converter:
    def convert(inputs: Sequence[Any], _attrs: dict[str, Any], _opset: int) -> Any:
        from tvm import relax

        return reduce(getattr(relax.op, operator), list(inputs)) if all(map(_is_float, inputs)) else None

    return convert


def _is_float(value: Any) -> bool:
    from tvm import relax

    return isinstance(value.ty, relax.TensorType) and str(value.ty.dtype) == "float32"


_CONVERTERS: dict[str, _Converter] = {"Clip": _clip, "Conv": _explicit_padding, "Max": _pairwise("maximum"), "Min": _pairwise("minimum")}
