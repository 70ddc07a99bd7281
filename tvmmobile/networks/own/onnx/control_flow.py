"""Replaces an ONNX network's `If`, `Loop` and `Scan` by the nodes that they run, where that does not depend on the network's input.

A loop is peeled, an iteration at a time: the rest of it stays a `Loop`, whose condition may be known once that iteration is computed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tvmmobile.graph.layers import Array
from tvmmobile.networks.budget import check_operators
from tvmmobile.networks.own.onnx.tensors import STANDARD, rename
from tvmmobile.system.errors import UserError

#: Bytes that all nodes of all iterations may have.
_MOST_BYTES = 1 << 30
#: The version from which `Unsqueeze` has its axes as an input, and from which `Scan` has no batch.
_AXES_AS_INPUT, _SCAN_WITHOUT_BATCH = 13, 9
#: Attributes that the rest of a loop has here: iterations before it, and names of what they appended to each of the loop's lists.
_FIRST, _PARTS = "tvmmobile_first", "tvmmobile_parts"


@dataclass
class ControlFlow:
    """Unrolls the control flow of one network within a total budget.

    Attributes:
        opset: version of the standard operators.
        nodes, size_bytes: number and size of the nodes that were made so far.
    """

    opset: int
    nodes: int = 0
    size_bytes: int = 0

    def straightened(self, node: Any, values: Mapping[str, Array], shapes: Mapping[str, Sequence[int]]) -> list[Any] | None:
        """Return the nodes that a node runs, or `None` for an operator of another kind and where this depends on the network's input.

        Args:
            values: known tensors by name.
            shapes: static shapes of other tensors.

        Raises:
            UserError: they are more than the budget allows.
        """
        straighten = {"If": self._branch, "Loop": self._iteration, "Scan": self._scan}.get(node.op_type)
        if straighten is None or node.domain not in STANDARD:
            return None
        nodes = straighten(node, {attribute.name: attribute for attribute in node.attribute}, values, shapes)
        if nodes is not None:
            self.nodes += len(nodes)
            self.size_bytes += sum(one.ByteSize() for one in nodes if one.op_type != "Constant")
            self._check(self.nodes, self.size_bytes)
        return nodes

    @staticmethod
    def _check(nodes: int, size_bytes: int) -> None:
        check_operators("the network, its loops unrolled,", nodes)
        if size_bytes > _MOST_BYTES:
            raise UserError(f"the network's loops, unrolled, have more than {_MOST_BYTES:,} bytes.", "Export it without loops.")

    def _branch(self, node: Any, attributes: Any, values: Mapping[str, Array], _shapes: Any) -> list[Any] | None:
        condition = values.get(node.input[0])
        if condition is None:
            return None
        branch = attributes["then_branch" if condition.reshape(-1)[0] else "else_branch"].g
        prefix = f"{node.output[0]}#"
        constants, branch = _without_constants(branch, prefix)
        nodes, results = _copied(branch, prefix, {}, node.output)
        return [*constants, *nodes, *_named(results, node.output)]

    def _iteration(self, node: Any, attributes: Any, values: Mapping[str, Array], _shapes: Any) -> list[Any] | None:
        count, condition, *states = node.input
        if any(name and name not in values for name in (count, condition)):
            return None
        first = attributes[_FIRST].i if _FIRST in attributes else 0
        parts = [part.decode() for part in attributes[_PARTS].strings] if _PARTS in attributes else []
        lists = len(node.output) - len(states)
        if first >= (values[count].reshape(-1)[0] if count else math.inf) or not (values[condition].all() if condition else True):
            stacked = [
                helper.make_node("Concat", parts[place::lists], [name], axis=0) for place, name in enumerate(node.output[len(states) :])
            ]
            return [*_named(states, node.output), *stacked] if first or not lists else None
        prefix = f"{node.output[0]}#{first}:"
        constants, body = _without_constants(attributes["body"].g, prefix)
        given = [f"{prefix}iteration", f"{prefix}condition"]
        constants += [_constant(given[0], np.int64(first)), _constant(given[1], np.bool_(True))]
        inside = dict(zip((value.name for value in body.input), [*given, *states], strict=True))
        nodes, results = _copied(body, prefix, inside)
        appended = [f"{prefix}part{place}" for place in range(lists)]
        for name, result in zip(appended, results[1 + len(states) :], strict=True):
            nodes += self._unsqueezed(result, 0, name)
        rest = {"body": body, _FIRST: first + 1, **({_PARTS: [*parts, *appended]} if lists else {})}
        left = helper.make_node("Loop", [count, *results[: 1 + len(states)]], node.output, node.name, **rest)
        return [*constants, *nodes, left]

    def _scan(self, node: Any, attributes: Any, values: Mapping[str, Array], shapes: Mapping[str, Sequence[int]]) -> list[Any] | None:
        if self.opset < _SCAN_WITHOUT_BATCH:
            return None
        count = int(attributes["num_scan_inputs"].i)
        states, read = list(node.input[: len(node.input) - count]), node.input[len(node.input) - count :]
        lists = len(node.output) - len(states)

        def numbers(name: str, many: int) -> list[int]:
            return [int(number) for number in attributes[name].ints] if name in attributes else [0] * many

        axes, backwards = numbers("scan_input_axes", count), numbers("scan_input_directions", count)
        known = [values[name].shape if name in values else shapes.get(name) for name in read]
        if not known or known[0] is None:
            return None
        steps = int(known[0][axes[0]])
        constants, body = _without_constants(attributes["body"].g, f"{node.output[0]}#")
        self._check(steps * (len(body.node) + count + lists), steps * body.ByteSize())
        emitted: list[Any] = []
        parts: list[list[str]] = [[] for _ in range(lists)]
        for step in range(steps):
            prefix = f"{node.output[0]}#{step}:"
            inside = [*states, *(f"{prefix}{value.name}" for value in body.input[len(states) :])]
            for source, name, axis, back in zip(read, inside[len(states) :], axes, backwards, strict=True):
                emitted.append(_constant(f"{name}#place", np.int64(steps - 1 - step if back else step)))
                emitted.append(helper.make_node("Gather", [source, f"{name}#place"], [name], axis=axis))
            nodes, results = _copied(body, prefix, dict(zip((value.name for value in body.input), inside, strict=True)))
            emitted, states = [*emitted, *nodes], results[: len(states)]
            for place, (result, axis) in enumerate(zip(results[len(states) :], numbers("scan_output_axes", lists), strict=True)):
                parts[place].append(f"{prefix}part{place}")
                emitted += self._unsqueezed(result, axis, parts[place][-1])
        emitted += _named(states, node.output)
        axes, backwards = numbers("scan_output_axes", lists), numbers("scan_output_directions", lists)
        for found, name, axis, back in zip(parts, node.output[len(states) :], axes, backwards, strict=True):
            emitted.append(helper.make_node("Concat", found[::-1] if back else found, [name], axis=axis))
        return [*constants, *emitted]

    def _unsqueezed(self, source: str, axis: int, name: str) -> list[Any]:
        """Return the nodes that add a dimension of extent 1."""
        if self.opset < _AXES_AS_INPUT:
            return [helper.make_node("Unsqueeze", [source], [name], axes=[axis])]
        axes = f"{name}#axes"
        return [_constant(axes, np.array([axis], np.int64)), helper.make_node("Unsqueeze", [source, axes], [name])]


def _constant(name: str, value: Any) -> Any:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(value), name))


def _named(names: Sequence[str], outside: Sequence[str]) -> Iterator[Any]:
    """Yield nodes that rename tensors, except those that nothing reads."""
    yield from (
        helper.make_node("Identity", [name], [other]) for name, other in zip(names, outside, strict=False) if other not in ("", name)
    )


def _without_constants(graph: Any, prefix: str) -> tuple[list[Any], Any]:
    """Return a graph's constants as nodes with names of their own, and the graph without them, so that iterations share them."""

    def is_constant(node: Any) -> bool:
        return node.op_type == "Constant" and node.domain in STANDARD

    nodes = list(filter(is_constant, graph.node))
    if not nodes and not graph.initializer:
        return [], graph
    changed = copy.deepcopy(graph)
    del changed.node[:], changed.initializer[:]
    changed.node.extend(node for node in graph.node if not is_constant(node))
    constants = [onnx.helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in graph.initializer]
    constants += copy.deepcopy(nodes)
    names = {node.output[0]: f"{prefix}{node.output[0]}" for node in constants}
    rename([*constants, *changed.node], names)
    for value in changed.output:
        value.name = names.get(value.name, value.name)
    return constants, changed


def _copied(graph: Any, prefix: str, names: Mapping[str, str], wanted: Sequence[str] = ()) -> tuple[list[Any], list[str]]:
    """Return copies of a graph's nodes, whose results have a prefix, and the names of its outputs.

    Args:
        names: names of the values that are passed in, by the names inside.
        wanted: names for outputs, as far as nodes compute them.
    """

    computed = {name: f"{prefix}{name}" for node in graph.node for name in node.output if name}
    called = {value.name: name for value, name in zip(graph.output, wanted, strict=False) if name and value.name in computed}
    names = {**computed, **names, **called}
    nodes = [copy.deepcopy(node) for node in graph.node]
    rename(nodes, names)
    return nodes, [names.get(value.name, value.name) for value in graph.output]
