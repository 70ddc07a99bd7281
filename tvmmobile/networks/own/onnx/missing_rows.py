"""Gives tensors with missing rows (`own/missing_rows.py`) in an ONNX network their greatest extent.

ONNX's shape inference finds where the results of an operator have such rows: along the axis that changes with one row less of its operands.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from tvmmobile.graph.layers import Array
from tvmmobile.networks.own.onnx.constants import fold_constants, values_of
from tvmmobile.networks.own.onnx.control_flow import ControlFlow
from tvmmobile.networks.own.onnx.rows import RULES
from tvmmobile.networks.own.onnx.tensors import STANDARD, attribute, graphs_of, rename
from tvmmobile.networks.own.onnx.varying_nodes import VaryingNodes, VaryingRows, differing
from tvmmobile.networks.signature import COUNT

#: Operators whose results have as many rows as values say.
SOURCES = {"Compress", "NonMaxSuppression", "NonZero"}


@dataclass(frozen=True)
class FilledOutput:
    """A file's output that is filled up: its place, its axis, the extent that it gets, and the fill value."""

    place: int
    axis: int
    extent: int
    filler: int


def has_varying(graph: Any) -> bool:
    """Return whether a graph, or one within it, has an operator whose number of rows depends on values."""
    return any(
        node.op_type in SOURCES or (node.op_type == "TopK" and not {tensor.name for tensor in part.initializer}.issuperset(node.input[1:]))
        for part in graphs_of(graph)
        for node in part.node
        if node.domain in STANDARD
    )


def with_greatest_extents(model: Any) -> tuple[Any, tuple[FilledOutput, ...]]:
    """Return a model with static shapes, and its filled-up outputs, each of which is followed by its count.

    Args:
        model: a `ModelProto` whose constants are folded, with static input shapes.

    Raises:
        UserError: an operator cannot work on rows of which some are not there.
        Exception: of any kind, from ONNX's shape inference.
    """
    if not has_varying(model.graph):
        return model, ()
    rewriting = _ExtentBounding(model)
    rewriting.run()
    filled = rewriting.fill_outputs()
    return fold_constants(rewriting.rewritten()), filled


def filled_up(outputs: Sequence[Array], filled: Sequence[FilledOutput]) -> tuple[Array, ...]:
    """Return the file's own outputs in the form in which the library returns them."""
    found: list[Array] = []
    by_place = {one.place: one for one in filled}
    for place, output in enumerate(outputs):
        one = by_place.get(place)
        if one is None:
            found.append(output)
            continue
        rows = output.shape[one.axis]
        pads = [(0, one.extent - rows if axis == one.axis else 0) for axis in range(output.ndim)]
        found += [np.pad(output, pads, constant_values=one.filler), np.array([rows], np.int64)]
    return tuple(found)


class _ExtentBounding(VaryingNodes):
    """A model while its nodes are read in order."""

    def run(self) -> None:
        """Read all nodes."""
        flow, waiting = ControlFlow(self.opset), deque(self.model.graph.node)
        while waiting:
            node = waiting.popleft()
            if (nodes := flow.straightened(node, self.values, self.shapes)) is not None:
                waiting.extendleft(reversed(nodes))
            elif not self._known(node):
                self._convert(node)

    def _known(self, node: Any) -> bool:
        """Compute a node with known inputs, or one that only reads a shape."""
        joins = node.op_type == "Concat" and any(name in self.rows for name in node.input)
        if joins or any(output.name in node.output for output in self.model.graph.output):
            return False
        found = values_of(self.model, node, self.values, self.shapes)
        if found is None:
            return False
        counts, values, shapes = self.with_one_less(node.input)
        if len(counts) > 1:
            return False
        for name, value in found.items():
            self.know(name, value)
        for count in counts:
            for name, less in (values_of(self.model, node, values, shapes) or {}).items():
                value = found[name]
                if value.shape != less.shape:
                    self.rows[name] = VaryingRows(differing(value.shape, less.shape)[0], count)
                if not np.array_equal(value, less):
                    self.fewer[name] = less, count
        return True

    def _convert(self, node: Any) -> None:
        kind = node.op_type if node.domain in STANDARD else ""
        if kind == "Compress":
            self._compressed(node)
        elif kind in SOURCES:
            self.source(node)
        elif kind == "TopK" and not self.values.keys() >= set(node.input[1:]):
            self._all_in_order(node)
        elif not any(name in self.rows or name in self.fewer for name in node.input):
            self.append(node)
        elif kind not in RULES or not RULES[kind](self, node):
            raise self.refused(node)

    def _compressed(self, node: Any) -> None:
        """Convert `Compress`: a `Gather` of the places at which a vector is true."""
        data, mask = node.input
        axis = attribute(node, "axis")
        if axis is None:
            if data in self.rows:
                raise self.refused(node)
            data = self.emit("Reshape", [data, self.constant([-1])])
        self._convert(helper.make_node("Gather", [data, self.places_of(mask)], node.output, node.name, axis=axis or 0))

    def _all_in_order(self, node: Any) -> None:
        """Convert a `TopK` with a computed number: it sorts all rows, and that many count as present."""
        data, number = node.input
        if data not in self.shapes or number in self.rows:
            raise self.refused(node)
        axis = attribute(node, "axis", -1) % len(self.shapes[data])
        extent = self.shapes[data][axis]
        node.input[1] = self.constant([extent])
        count = self.least(self.emit("Reshape", [number, self.constant([1])]), self.constant([extent]))
        if data not in self.rows:
            self.append(node)
        elif self.rows[data].axis == axis and RULES[node.op_type](self, node):
            count = self.least(count, self.rows[data].count)
        else:
            raise self.refused(node)
        self.rows.update(dict.fromkeys(node.output, VaryingRows(axis, count)))

    def fill_outputs(self) -> tuple[FilledOutput, ...]:
        """Fill outputs up, and append their counts to the graph's outputs."""
        outputs, filled = [], []
        for place, output in enumerate(self.model.graph.output):
            name = output.name
            outputs.append(name)
            if name not in self.rows:
                continue
            rows, kind = self.rows[name], helper.tensor_dtype_to_np_dtype(self.types[name])
            filler = -1 if kind.kind == "i" else 0
            own = f"{name}/rows"
            rename(self.nodes, {name: own})
            self.shapes[own], self.types[own], self.rows[own] = self.shapes.pop(name), self.types.pop(name), self.rows.pop(name)
            self.emit("Identity", [self.without_absent(own, filler)], name)
            self.emit("Identity", [rows.count], f"{name}{COUNT}")
            outputs.append(f"{name}{COUNT}")
            filled.append(FilledOutput(place, rows.axis, self.shapes[own][rows.axis], filler))
        self._outputs = outputs
        return tuple(filled)

    def rewritten(self) -> Any:
        """Return the model of the new nodes."""
        model = copy.deepcopy(self.model)
        graph = model.graph
        del graph.node[:], graph.value_info[:], graph.output[:]
        graph.node.extend(self.nodes)
        initializers = {tensor.name for tensor in graph.initializer}
        read = {name for node in self.nodes for name in node.input}
        values = {name: value for name, value in self.values.items() if name in read and name not in initializers}
        graph.initializer.extend(numpy_helper.from_array(np.asarray(value, order="C"), name) for name, value in values.items())
        graph.output.extend(helper.make_tensor_value_info(name, self.types[name], self.shapes[name]) for name in self._outputs)
        return model
