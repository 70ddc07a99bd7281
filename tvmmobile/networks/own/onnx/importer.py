"""Imports ONNX models into Relax with TVM's importer, and with our converters for operators that it lacks, gets wrong, or would turn into
unscheduled loops, which graph passes cannot read.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
from onnx import AttributeProto, TensorProto, helper
from tvm import relax
from tvm.relax.frontend.onnx.onnx_frontend import ONNXGraphImporter, _get_convert_map

from tvmmobile.graph.expressions import constant, numbers_of, operator_of, shape_of
from tvmmobile.graph.precision import FLOAT32
from tvmmobile.networks.frontend import importing, quiet
from tvmmobile.networks.own.onnx import attention, detection, elementwise, fourier, norms, pools, resize, scatter
from tvmmobile.networks.own.onnx.recurrent import recurrent
from tvmmobile.networks.own.onnx.tensors import PACKED_BITS, STANDARD, named_node
from tvmmobile.networks.scattering import from_the_front
from tvmmobile.networks.sorting import without_sorting
from tvmmobile.system.errors import UserError

#: Operators that the importer knows but that cannot become a sequence of kernels.
_NOT_STRAIGHT = {"If", "Unique"}  # the results' extents depend on values

#: Types of constants that TVM does not read: with several elements to a byte, and text.
_UNREADABLE = {*PACKED_BITS, "STRING"}


def known_operators() -> set[str]:
    """Return the names of ONNX's supported operators."""
    return set(_get_convert_map().keys() | CONVERTERS.keys())


def unknown_operators(model: Any) -> list[str]:
    """Return operators that the importer lacks."""
    known = known_operators()
    return [
        f"{node.domain}.{node.op_type}" if node.domain not in STANDARD else node.op_type
        for node in model.graph.node
        if node.domain not in STANDARD or node.op_type not in known or node.op_type in _NOT_STRAIGHT
    ]


#: An operator's inputs, attributes and version to a Relax expression; `None` leaves it, with these attributes, to TVM's converter.
Converter = Callable[[list[Any], dict[str, Any], int], Any]


class _Importer(ONNXGraphImporter):  # type: ignore[misc]
    def _construct_nodes(self, graph: Any) -> None:
        for node in graph.node:
            self._check_slice(node)
            with importing(named_node(node, self.opset)):
                super()._construct_nodes(SimpleNamespace(node=[_without_omitted_results(node)]))

    def _check_slice(self, node: Any) -> None:
        """Raise `UserError` for a `Slice` with scalars for bounds, which ONNX Runtime refuses, too."""
        for name in node.input[1:] if node.op_type == "Slice" else ():
            bound = self._nodes.get(name)
            if isinstance(getattr(bound, "ty", None), relax.TensorType) and not shape_of(bound):
                raise UserError(
                    f"{named_node(node, self.opset)} has the scalar {name!r} as a bound, axis or step, where ONNX has lists.",
                    "Give it the shape [1].",
                )

    def _parse_graph_initializers(self, graph: Any) -> None:
        readers = {name: node for node in reversed(graph.node) for name in node.input}
        for tensor in graph.initializer:
            kind, reader = TensorProto.DataType.Name(tensor.data_type), readers.get(tensor.name)
            if reader is None and kind in _UNREADABLE:
                self._nodes[tensor.name] = None  # else it would be taken for an input
                continue
            with importing(named_node(reader, self.opset) if reader is not None else ""):
                if kind in _UNREADABLE:
                    raise ValueError(f"its constant {tensor.name!r} is {kind}, which is not supported")
                super()._parse_graph_initializers(SimpleNamespace(initializer=[tensor]))

    def _check_for_unsupported_ops(self, graph: Any) -> None:
        """Do nothing: `unknown_operators` has found them, and TVM does not know those that only we convert."""

    def _convert_operator(self, op_name: str, inputs: Any, attrs: Any, opset: int) -> Any:
        convert = CONVERTERS.get(op_name)
        converted = convert(inputs, attrs, opset) if convert else None
        if converted is None:
            return super()._convert_operator(op_name, inputs, attrs, opset)
        return self.bb.normalize(converted)

    def _parse_attr(self, attr_proto: Any) -> Any:
        """Parse all attributes but empty lists, which TVM refuses: PyTorch's exporter writes one for reductions of everything."""
        lists = (AttributeProto.INTS, AttributeProto.FLOATS, AttributeProto.STRINGS)
        return super()._parse_attr([one for one in attr_proto if one.type not in lists or helper.get_attribute_value(one)])


def _without_omitted_results(node: Any) -> Any:
    """Return a node without the last outputs if they have no names; those of `Split` count as parts."""
    if len(node.output) < 2 or node.output[-1] or node.op_type == "Split":
        return node
    changed = copy.deepcopy(node)
    while len(changed.output) > 1 and not changed.output[-1]:
        del changed.output[-1]
    return changed


def import_onnx(model: Any, opset: int) -> Any:
    """Return a `ModelProto` that holds all its weights, with static shapes, as a Relax module with its weights as constants.

    Raises:
        UserError: an operator cannot be imported.
        Exception: of any kind, from what is done to the whole.
    """
    with quiet():
        return without_sorting(_Importer(None, FLOAT32.name).from_onnx(model.graph, opset))


def _bounded_cast(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Convert a `Cast` of bounded values to 8 or 16-bit integers; `None` for others, which wrap in TVM's converter."""
    kind = helper.tensor_dtype_to_np_dtype(attrs["to"])
    if kind.kind not in "iu" or kind.itemsize > 2:
        return None
    low, high, value = -np.inf, np.inf, inputs[0]
    while True:
        call = relax.BlockBuilder.current().lookup_binding(value) if isinstance(value, relax.Var) else value
        operator = operator_of(call)
        numbers = numbers_of(call.args[1]) if operator in ("relax.maximum", "relax.minimum") else None
        if numbers is None:
            break
        low, high = (max(low, numbers.min()), high) if operator == "relax.maximum" else (low, min(high, numbers.max()))
        value = call.args[0]
    bounds = np.iinfo(kind)
    return relax.op.astype(inputs[0], str(kind)) if bounds.min <= low and high <= bounds.max else None


def _clip(inputs: Sequence[Any], attrs: dict[str, Any], opset: int) -> Any:
    if not _is_float(inputs[0]):
        return None
    if opset < 11:
        return relax.op.clip(inputs[0], float(attrs.get("min", -math.inf)), float(attrs.get("max", math.inf)))
    low, high = _bound(inputs[1], -math.inf), _bound(inputs[2], math.inf)
    return None if low is None or high is None else relax.op.clip(inputs[0], low, high)


def _bound(value: Any, default: float) -> float | None:
    """Return a bound of a clip: `default` where there is none, `None` where it is not constant."""
    number = default if value is None else numbers_of(value)
    return None if number is None or np.size(number) != 1 else float(np.asarray(number).item())


def _space_to_depth(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Convert `SpaceToDepth` with each channel's pixels together (`CRD`), a mode that TVM ignores."""
    if attrs.get("mode", b"DCR") == b"DCR":
        return None
    size, (batch, channels, height, width) = int(attrs["blocksize"]), shape_of(inputs[0])
    pixels = relax.op.reshape(inputs[0], [batch, channels, height // size, size, width // size, size])
    together = relax.op.permute_dims(pixels, [0, 1, 3, 5, 2, 4])
    return relax.op.reshape(together, [batch, channels * size**2, height // size, width // size])


def _convolution(inputs: Sequence[Any], attrs: dict[str, Any], opset: int) -> Any:
    """Convert Fourier transforms; in other convolutions make `SAME` explicit padding, for which TVM's converter would make a kernel."""
    mode = attrs.get("auto_pad", b"NOTSET").decode()
    if not mode.startswith("SAME"):
        return fourier.spectral_convolution(inputs, attrs, opset)
    image, kernel = (shape_of(tensor)[2:] for tensor in inputs[:2])
    strides, dilations = (attrs.get(name, (1,) * len(image)) for name in ("strides", "dilations"))
    attrs.update(auto_pad=b"NOTSET", pads=tuple(pools.same_pads(image, kernel, strides, dilations, odd_first=mode == "SAME_LOWER")))
    return None


def _is_float(value: Any) -> bool:
    return isinstance(value.ty, relax.TensorType) and str(value.ty.dtype) == FLOAT32.name


def _gather(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Return constant places as numbers; TVM's converter computes at run time which of them count from the end. Computed ones stay inside:
    TVM's would read whatever is there.
    """
    (data, places), numbers = inputs, numbers_of(inputs[1])
    if isinstance(data, relax.ShapeExpr) or (numbers_of(data) is not None and numbers is not None):
        return None
    shape = shape_of(data)
    axis = int(attrs.get("axis", 0)) % len(shape)
    places = from_the_front(places, relax.const(shape[axis], str(places.ty.dtype)))
    if numbers is None:
        return relax.op.take(data, places, axis, "clip")
    if np.array_equal(numbers_of(places).reshape(-1), np.arange(shape[axis])):  # all in order: PyTorch's exporter writes views so
        return relax.op.reshape(data, [*shape[:axis], *numbers.shape, *shape[axis + 1 :]])
    return relax.op.take(data, places, axis)


def _pad(inputs: Sequence[Any], attrs: dict[str, Any], opset: int) -> Any:
    """Convert a `Pad` with one number, by reflection or by the border to an operator; TVM's converter writes loops, which no pass reads."""
    operands = [*inputs, None, None, None]
    data, widths, number, axes = operands[:4]
    given = attrs.get("pads") if opset < 11 else numbers_of(widths)
    value = float(attrs.get("value", 0.0)) if opset < 11 else _bound(number, 0.0)
    chosen = list(range(len(shape_of(data)))) if axes is None else numbers_of(axes)
    if given is None or value is None or chosen is None or min(given) < 0:
        return None
    mode = {b"constant": "constant", b"reflect": "reflect", b"edge": "replicate"}.get(attrs.get("mode", b"constant"))
    if mode is None or not _is_float(data):
        return None
    around = [[0, 0] for _ in shape_of(data)]
    for place, axis in enumerate(chosen):
        around[axis] = [int(given[place]), int(given[place + len(chosen)])]
    return relax.op.nn.pad(data, [width for pair in around for width in pair], mode, value)


def _reshape(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Convert a `Reshape` to a shape with an extent of 0, in which TVM's converter takes all extents for unknown."""
    extents = numbers_of(inputs[1])
    if extents is None or not attrs.get("allowzero", 0) or extents.all():
        return None
    return constant(np.zeros(extents, str(inputs[0].ty.dtype)))


def _slice(inputs: Sequence[Any], attrs: dict[str, Any], opset: int) -> Any:
    """Convert `Slice` before opset 10, whose bounds are attributes."""
    if opset >= 10:
        return None
    starts, ends = list(attrs["starts"]), list(attrs["ends"])
    return relax.op.strided_slice(inputs[0], list(attrs.get("axes", range(len(starts)))), starts, ends)


def _split_to_sequence(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Convert `SplitToSequence`, whose last part may be smaller, to a tuple; TVM's converter makes all parts equal."""
    data, sizes = inputs[0], numbers_of(inputs[1]) if len(inputs) > 1 else np.array(1)
    if sizes is None:
        return None
    op, emit, axis = relax.op, relax.BlockBuilder.current().emit, int(attrs.get("axis", 0))
    places = np.cumsum(sizes)[:-1].tolist() if sizes.ndim else list(range(int(sizes), shape_of(data)[axis], int(sizes)))
    parts = [data]
    if places:
        found = emit(op.split(data, places, axis))
        parts = [emit(relax.TupleGetItem(found, place)) for place in range(len(places) + 1)]
    return relax.Tuple(parts if len(inputs) > 1 or attrs.get("keepdims", 1) else [emit(op.squeeze(part, [axis])) for part in parts])


#: By operator.
CONVERTERS: dict[str, Converter] = {
    "Attention": attention.attention,
    "AveragePool": partial(pools.pool, "AveragePool"),
    "BatchNormalization": norms.batch_norm,
    "Cast": _bounded_cast,
    "Celu": elementwise.celu,
    "Clip": _clip,
    "Conv": _convolution,
    "ConvTranspose": pools.explicit_transposed,
    "DFT": fourier.dft,
    "Dropout": elementwise.dropout,
    "EyeLike": elementwise.eye_like,
    "GRU": partial(recurrent, "GRU"),
    "Gather": _gather,
    "InstanceNormalization": norms.instance_norm,
    "IsInf": elementwise.is_inf,
    "LSTM": partial(recurrent, "LSTM"),
    "LayerNormalization": norms.layer_norm,
    "LpNormalization": elementwise.lp_normalization,
    "LpPool": pools.lp_pool,
    "Max": partial(elementwise.pairwise, "maximum"),
    "MaxPool": partial(pools.pool, "MaxPool"),
    "Mean": elementwise.mean,
    "Mod": elementwise.modulo,
    "Min": partial(elementwise.pairwise, "minimum"),
    "NonMaxSuppression": detection.select_boxes,
    "NonZero": detection.places_of_true,
    "OneHot": elementwise.one_hot,
    "Pad": _pad,
    "Pow": elementwise.power,
    "RNN": partial(recurrent, "RNN"),
    "ReduceL1": partial(elementwise.over_no_axis, "abs"),
    "ReduceL2": partial(elementwise.over_no_axis, "abs"),
    "ReduceLogSum": partial(elementwise.over_no_axis, "log"),
    "ReduceLogSumExp": elementwise.log_sum_exp,
    "ReduceMax": partial(elementwise.extreme, "max"),
    "ReduceMin": partial(elementwise.extreme, "min"),
    "ReduceSumSquare": fourier.power_spectrum,
    "Reshape": _reshape,
    "Resize": resize.resize,
    "RoiAlign": detection.roi_align,
    "Scatter": scatter.scatter_elements,
    "ScatterElements": scatter.scatter_elements,
    "ScatterND": scatter.scatter_nd,
    # `Shape` that the network returns: TVM's has no tensor.
    "Shape": lambda inputs, attrs, _: constant(np.array(shape_of(inputs[0])[attrs.get("start", 0) : attrs.get("end")], np.int64)),
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "STFT": fourier.stft,
    # `Split` with one output, which is its input; TVM's converter makes a tuple of it and takes that for the tensor.
    "Split": lambda inputs, attrs, _: inputs[0] if attrs["tvm_custom"]["num_outputs"] == 1 else None,
    "SplitToSequence": _split_to_sequence,
    "Sum": partial(elementwise.pairwise, "add"),
    "TopK": elementwise.top_k,
    "Upsample": resize.upsample,
}
