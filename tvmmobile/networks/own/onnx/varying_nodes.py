"""New nodes of an ONNX network with missing rows, and facts about their tensors, see `onnx/missing_rows.py`."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tvmmobile.graph.layers import Array
from tvmmobile.networks.own.missing_rows import unsupported_rows
from tvmmobile.networks.own.onnx.tensors import Nodes, model_of_one, named_node, opset_of, static_shape
from tvmmobile.networks.selection import most_selected
from tvmmobile.system.errors import UserError

#: Rows that a tensor may get.
_MOST_ROWS = 1 << 22


@dataclass(frozen=True)
class VaryingRows:
    """The axis of a tensor along which only the first places are present, as many as the int64 tensor `count` `[1]` says."""

    axis: int
    count: str


class VaryingNodes(Nodes):
    """The nodes of a model while its tensors with missing rows get their greatest number.

    Attributes:
        values: values of known tensors; where these depend on a number of rows, those of the greatest one.
        fewer: values for one row less of each of the latter, and the tensor that counts rows.
        shapes, types: shape and type of each tensor.
        rows: the number of rows of each tensor that has fewer rows than its shape says.
        multiples: the count that another one is a multiple of, and the factor.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.opset, self.subject = model, opset_of(model), "varying/"
        self.values: dict[str, Array] = {}
        self.fewer: dict[str, tuple[Array, str]] = {}
        self.shapes: dict[str, list[int]] = {}
        self.types: dict[str, int] = {}
        self.rows: dict[str, VaryingRows] = {}
        self.multiples: dict[str, tuple[str, int]] = {}
        self._joined: dict[tuple[tuple[str, int], ...], str] = {}
        graph = model.graph
        for tensor in graph.initializer:
            self.shapes[tensor.name], self.types[tensor.name] = list(tensor.dims), tensor.data_type
            self.values[tensor.name] = numpy_helper.to_array(tensor)
        for value in (*graph.input, *graph.value_info, *graph.output):
            kind = value.type.tensor_type
            self.types[value.name] = kind.elem_type
            if (shape := static_shape(value)) is not None:
                self.shapes[value.name] = shape

    def with_one_less(self, names: Sequence[str]) -> tuple[set[str], dict[str, Array], dict[str, list[int]]]:
        """Return the count of these tensors' rows, and all known values and shapes as if the tensors had one row less."""
        fewer = {name: self.fewer[name] for name in names if name in self.fewer}
        rows = {name: self.rows[name] for name in names if name in self.rows}
        counts = {count for _, count in fewer.values()} | {row.count for row in rows.values()}
        shapes = {name: [extent - (place == one.axis) for place, extent in enumerate(self.shapes[name])] for name, one in rows.items()}
        return counts, self.values | {name: value for name, (value, _) in fewer.items()}, self.shapes | shapes

    def refused(self, node: Any) -> UserError:
        """Return the error for a node that cannot handle missing rows."""
        return unsupported_rows(named_node(node, self.opset))

    def append(self, node: Any) -> None:
        """Append a node, and infer the shapes of its results."""
        self.nodes.append(node)
        if any(name and name not in self.shapes for name in node.output):
            for name, (kind, shape) in self.inferred(node, self.values, self.shapes).items():
                self.types[name] = kind
                if shape is not None:
                    self.shapes[name] = shape

    def inferred(
        self, node: Any, values: Mapping[str, Array], shapes: Mapping[str, Sequence[int]]
    ) -> dict[str, tuple[int, list[int] | None]]:
        """Return types and static shapes of a node's results for these known values and shapes."""
        read = [name for name in dict.fromkeys(node.input) if name]
        stored = [numpy_helper.from_array(np.asarray(values[name], order="C"), name) for name in read if name in values]
        inputs = [helper.make_tensor_value_info(name, self.types[name], shapes[name]) for name in read if name in shapes]
        model = onnx.shape_inference.infer_shapes(model_of_one(node, inputs, self.model.opset_import, stored), data_prop=True)
        return {value.name: (value.type.tensor_type.elem_type, static_shape(value)) for value in model.graph.output}

    def constant(self, array: Any, kind: Any = np.int64) -> str:
        """Return the name of a new constant, or of a number."""
        name = super().constant(np.asarray(array, kind))
        self.know(name, self.constants[name])
        return name

    def know(self, name: str, value: Array) -> None:
        """Note the value of a tensor, and with it its shape and type."""
        self.values[name], self.shapes[name], self.types[name] = value, list(value.shape), type_of(value)

    def places_of(self, mask: str) -> str:
        """Append a search for the places at which a vector of booleans is true."""
        name = self._new_name("places")
        self.source(helper.make_node("NonZero", [mask], [name]))
        found = self.emit("Reshape", [name, self.constant([-1])])
        self.rows[found] = VaryingRows(0, self.rows[name].count)
        return found

    def joined_places(self, extents: tuple[tuple[str, int], ...]) -> str:
        """Append a search for the present rows of joined tensors, by each one's count (none if it has all) and extent."""
        if extents not in self._joined:
            parts = [self.present(0, extent, 1, count) if count else self.constant(np.ones(extent), np.bool_) for count, extent in extents]
            self._joined[extents] = self.places_of(self.emit("Concat", parts, axis=0))
        return self._joined[extents]

    def source(self, node: Any) -> None:
        """Append an operator whose result has a varying number of rows."""
        (output,) = node.output
        if node.op_type == "NonMaxSuppression":
            axis, most = 0, self._prepare_suppression(node)
            shape = [most, 3]
        else:
            axis, most = 1, self._prepare_places(node)
            shape = [max(len(self.shapes[node.input[0]]), 1), most]
        if not most:
            raise UserError(f"{named_node(node, self.opset)} finds nothing, whatever the input.", "Leave it out of the network.")
        if most > _MOST_ROWS:
            what = f"{named_node(node, self.opset)} may find {most:,} places, more than {_MOST_ROWS:,}."
            raise UserError(what, "Have it select fewer, for instance with max_output_boxes_per_class.")
        raw = copy.deepcopy(node)
        raw.output[0] = f"{output}/found"
        self.nodes.append(raw)
        self.types[raw.output[0]] = type_of(np.zeros(0, np.int64))
        padded = f"{output}/filled"
        self.shapes[padded], self.types[padded] = shape, self.types[raw.output[0]]
        self.emit("Reshape", [raw.output[0], self.constant(shape)], padded)
        zero = self.constant(0)
        absent = self.emit("Less", [padded, zero])
        first = self.emit("Gather", [absent, zero], axis=1 - axis)
        ones = self.emit("Where", [first, zero, self.constant(1)])
        count = self.emit("ReduceSum", [ones], keepdims=1)
        self.shapes[output], self.types[output] = shape, self.types[padded]
        self.emit("Where", [absent, zero, padded], output)  # those behind may be read as well
        self.rows[output] = VaryingRows(axis, count)

    def _prepare_suppression(self, node: Any) -> int:
        """Bound the rows of a `NonMaxSuppression`, which cannot select missing boxes."""
        boxes, scores, *given = node.input
        found = {self.rows.get(boxes, VaryingRows(1, "")), self.rows.get(scores, VaryingRows(2, ""))}
        if found != {VaryingRows(1, ""), VaryingRows(2, "")}:
            if len({one.count for one in found} - {""}) != 1 or {one.axis for one in found} != {1, 2} or scores not in self.rows:
                raise self.refused(node)
            node.input[1] = self.without_absent(scores, -math.inf)
            if len(given) < 3 or not given[2]:
                lowest = self.constant(-math.inf, np.float32)
                del node.input[2:]
                node.input.extend([*given[:2], *[""] * (2 - len(given[:2])), lowest])
        if any(name not in self.shapes for name in (boxes, scores)):
            raise self.refused(node)
        if not given or not given[0]:
            return 0
        most = self.values.get(given[0])
        return most_selected(self.shapes[boxes], self.shapes[scores], None if most is None else int(most.reshape(-1)[0]))

    def _prepare_places(self, node: Any) -> int:
        """Return the most places a `NonZero` can find."""
        (data,) = node.input
        if data not in self.shapes:
            raise self.refused(node)
        if data in self.rows:
            node.input[0] = self.without_absent(data, 0.0)
        return math.prod(self.shapes[data])

    def present(self, axis: int, extent: int, rank: int, count: str) -> str:
        """Return booleans that say which rows are present, with extents of 1 along the other axes."""
        numbers = np.arange(extent).reshape([extent if place == axis else 1 for place in range(rank)])
        return self.emit("Less", [self.constant(numbers), count])

    def without_absent(self, name: str, number: float) -> str:
        """Fill a tensor's missing rows with a number."""
        rows, shape = self.rows[name], self.shapes[name]
        kind = helper.tensor_dtype_to_np_dtype(self.types[name])
        if kind.kind in "iu" and math.isinf(number):
            number = np.iinfo(kind).min if number < 0 else np.iinfo(kind).max
        present = self.present(rows.axis, shape[rows.axis], len(shape), rows.count)
        return self.emit("Where", [present, name, self.constant(number, kind)])

    def times(self, count: str, number: int) -> str:
        """Return a multiple of a count."""
        found = self.emit("Mul", [count, self.constant([number])])
        self.multiples[found] = count, number
        return found

    def least(self, one: str, other: str) -> str:
        """Return the smaller of two counts."""
        return self.emit("Where", [self.emit("Less", [one, other]), one, other])


def differing(one: Sequence[int], other: Sequence[int]) -> list[int]:
    """Return the axes along which two shapes differ."""
    return [axis for axis, (a, b) in enumerate(zip(one, other, strict=False)) if a != b]


def type_of(array: Array) -> int:
    """Return the number that ONNX has for an array's type."""
    return int(helper.np_dtype_to_tensor_dtype(array.dtype))
