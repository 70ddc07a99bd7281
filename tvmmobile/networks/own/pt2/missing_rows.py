"""Gives tensors with missing rows (`own/missing_rows.py`) in a `.pt2` their greatest extent.

`torch.export` writes such an extent as an expression of a symbol that no input has, such as `Min(Integer(100), Symbol('u0'))`. Here each
such symbol becomes its greatest value, and the expression, computed from the numbers of selected rows, counts those that are there.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import reduce
from typing import Any

import torch
from torch._export.serde.serialize import _SERIALIZE_TO_TORCH_DTYPE
from torch.utils._pytree import MappingKey, tree_flatten_with_path, tree_unflatten, treespec_loads

from tvmmobile.networks.own.files import OwnFile
from tvmmobile.networks.own.missing_rows import unsupported_rows
from tvmmobile.networks.own.pt2.arguments import signature
from tvmmobile.networks.own.pt2.dimensions import UnknownExtentError, entries, evaluated, tensors_in, unknown_extent
from tvmmobile.networks.signature import COUNT, OUTPUT_NAME
from tvmmobile.networks.torch_selection import PLACES, SUPPRESSION
from tvmmobile.system.errors import UserError

_ATEN, _NMS = "torch.ops.aten.", "torch.ops.torchvision.nms.default"
#: Operators that find places by values, and the one that may do so.
_SOURCES, _INDEX = {_NMS, f"{_ATEN}where.default", f"{_ATEN}nonzero.default"}, f"{_ATEN}index.Tensor"
#: Operators whose results have in a row what they compute from the same row of operands, beside those that PyTorch calls pointwise, as long
#: as rows have the same number in all.
_ROW_WISE = (
    "alias amax amin any argmax argmin bmm cat chunk clone constant_pad_nd contiguous copy_ detach detach_ expand flatten floor_divide "
    "full_like gather hardswish index index_select lift_fresh_copy linear matmul max mean min mm ones_like pad permute reshape select "
    "slice split split_with_sizes squeeze stack sum to transpose type_as unbind unsqueeze view zeros_like"
)
_BY_ROW = set(_ROW_WISE.split())
#: Operators that keep the order of elements, that take places as their last operand, that make rows of none, and that take extents.
_VIEWS, _GATHERS = {"view", "reshape", "flatten"}, {"index", "index_select", "gather"}
_MAKERS = {"zeros", "ones", "full", "arange", "expand", "new_zeros", "new_ones", "new_full"}
_SIZED = {*_VIEWS, *_MAKERS, "slice", "pad", "constant_pad_nd"}
#: Operators that take rows together, and what changes nothing there.
_TOGETHER = {"max": -math.inf, "amax": -math.inf, "argmax": -math.inf, "min": math.inf, "amin": math.inf, "argmin": math.inf}
_TOGETHER |= {"sum": 0, "any": 0, "pad": 0, "constant_pad_nd": 0}
_SYMBOL = re.compile(r"Symbol\('(\w+)'")
#: Functions of extents, and the operators for them.
_COUNTED = {"Add": "add.Tensor", "Mul": "mul.Tensor", "Min": "minimum.default", "Max": "maximum.default"}
#: PyTorch's numbers for types in a serialised program.
_LONG, _BOOL, _INTEGERS = 5, 12, (1, 2, 3, 4, 5)


def with_greatest_extents(file: OwnFile, program: Any, values: Mapping[str, Fraction]) -> tuple[Any, Mapping[str, Fraction]]:
    """Return a serialised program whose numbers of rows are fixed, and the greatest values of symbols besides those given.

    Raises:
        UserError: an operator cannot work on rows of which some are not there, or an extent depends on more.
        AttributeError, LookupError, TypeError, ValueError: it is no such program.
    """
    graph = program["graph_module"]["graph"]
    if not any(node["target"] in _SOURCES or (node["target"] == _INDEX and _masks(graph, node)) for node in graph["nodes"]):
        return program, values
    rewriting = _GraphBounding(file, graph, dict(values))
    try:
        for node in graph["nodes"]:
            rewriting.read(node)
        return rewriting.rewritten(program), rewriting.values
    except UnknownExtentError as error:
        raise unknown_extent(file, program, error) from error


def output_names(spec: Any, count: int) -> list[str]:
    """Return the outputs' names: keys of dictionaries, and positions in tuples and lists, appended to `output`."""
    leaves, _ = tree_flatten_with_path(tree_unflatten(list(range(count)), spec))
    names = []
    for path, _ in leaves:
        keys = [str(key.key if isinstance(key, MappingKey) else key.idx) for key in path]
        named = bool(path) and isinstance(path[0], MappingKey)
        names.append("_".join(keys) if named else OUTPUT_NAME + "_".join(keys))
    return names


def _argument(node: Any, place: int, name: str, default: Any = None) -> Any:
    """Return an argument's value by its position or name."""
    given = node["inputs"]
    found = given[place] if place < len(given) and given[place].get("kind") != 2 else None
    found = found or next((one for one in given if one["name"] == name), None)
    return next(iter(found["arg"].values())) if found and "as_none" not in found["arg"] else default


def _packet(node: Any) -> str:
    """Return an operator's name without that of its overload."""
    return str(node["target"].removeprefix(_ATEN).partition(".")[0])


def _read(node: Any) -> list[str]:
    return tensors_in([given["arg"] for given in node["inputs"] if "as_graph" not in given["arg"]])


def _masks(graph: Any, node: Any) -> list[str]:
    """Return the booleans among the indices of a node."""
    return [name for name in tensors_in(node["inputs"][1]["arg"]) if graph["tensor_values"][name]["dtype"] == _BOOL]


def _text(size: Any) -> str:
    return str(size["as_int"]) if "as_int" in size else str(size["as_expr"]["expr_str"])


@dataclass
class _GraphBounding:
    """A serialised graph while its nodes are read in order.

    Attributes:
        values: values of symbols, the greatest ones of those that count rows.
        counts: tensors `[1]` with the values of the latter.
        nodes: those of the new graph.
    """

    file: OwnFile
    graph: Any
    values: dict[str, Fraction]
    counts: dict[str, str] = field(default_factory=dict)
    nodes: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tensors: dict[str, Any] = dict(self.graph["tensor_values"])
        self._found: dict[str, tuple[str, str]] = {}
        self._counted: dict[str, str] = {}

    def read(self, node: Any) -> None:
        """Append a node or its replacement."""
        if node["target"] in _SOURCES or (node["target"] == _INDEX and _masks(self.graph, node)):
            self._source(node)
            return
        written = tensors_in(node["outputs"])
        read = [name for name in _read(node) if self._axis(node, name) is not None]
        sized = any(map(self._varies, self._numbers(node)))
        if _packet(node).endswith("_"):
            self._found.clear()  # a mask may be changed
        if not written or not (read or sized) or self._by_row(node, read, written, sized):
            self.nodes.append(node)
        elif not self._shared_count(node, read, written):
            raise self._refused(node)

    def _refused(self, node: Any) -> UserError:
        return unsupported_rows(f"{self.file}: {node['target'].removeprefix('torch.ops.')} (node {node.get('name')!r})")

    def _varies(self, text: str) -> bool:
        return any(symbol in self.counts for symbol in re.findall(_SYMBOL, text))

    def _sizes(self, name: str) -> list[str]:
        return [_text(size) for size in self.tensors[name]["sizes"]]

    def _extents(self, name: str) -> list[int]:
        return [int(evaluated(text, self.values)) for text in self._sizes(name)]

    def _axis(self, node: Any, name: str) -> int | None:
        """Return the axis along which a tensor has fewer rows than its shape says."""
        axes = [axis for axis, text in enumerate(self._sizes(name)) if self._varies(text)]
        if len(axes) > 1:
            raise self._refused(node)
        return axes[0] if axes else None

    def _rows(self, node: Any, name: str) -> str:
        """Return the expression for a tensor's number of rows; "" for one that has all."""
        axis = self._axis(node, name)
        return "" if axis is None else self._sizes(name)[axis]

    def _numbers(self, node: Any) -> Iterator[str]:
        """Yield the expressions of a node's arguments."""
        known = {name: number for kind in ("int", "float", "bool") for name, number in self.graph[f"sym_{kind}_values"].items()}
        for name, value in entries(node["inputs"]):
            if name == "as_name":
                yield from (str(text) for kind, text in entries(known.get(value)) if kind == "expr_str")

    def _by_row(self, node: Any, read: Sequence[str], written: Sequence[str], sized: bool) -> bool:
        """Return whether each result row depends only on the operands' same row; `sized` if extents are given."""
        packet, overload = _packet(node), node["target"].rpartition(".")[2]
        rows, results = ({self._rows(node, name) for name in names} for names in (read, written))
        if not read or packet.startswith("new_"):
            computed = any(given["name"] == "fill_value" and "as_sym_int" in given["arg"] for given in node["inputs"])
            return packet in _MAKERS and not computed
        operator = getattr(getattr(torch.ops.aten, packet, None), overload, None)
        if (sized and packet not in _SIZED) or (packet not in _BY_ROW and torch.Tag.pointwise not in getattr(operator, "tags", ())):
            return False
        if packet in _GATHERS and (places := {self._rows(node, name) for name in tensors_in(node["inputs"][-1]["arg"])} - {""}):
            return results == places
        first = (self._axis(node, read[0]), self._axis(node, written[0]))
        if packet in _VIEWS and None not in first:
            before = [math.prod(self._extents(name)[:axis]) for name, axis in zip((read[0], written[0]), first, strict=True)]
            return before[0] == before[1]
        if packet == "slice" and results != rows and first[0] == first[1]:
            start, end, step = (_argument(node, place, name, 0) for place, name in ((2, "start"), (3, "end"), (4, "step")))
            return start == 0 and isinstance(end, int) and end > 0 and step in (0, 1)
        return len(rows) == 1 and results == rows

    def _shared_count(self, node: Any, read: Sequence[str], written: Sequence[str]) -> bool:
        """Append an operator that combines rows, after filling the missing ones."""
        packet = _packet(node)
        if packet == "cat" and len(written) == 1:
            self._joined(node, written[0])
            return True
        if packet not in _TOGETHER or len(read) != 1 or any(self._rows(node, name) for name in written):
            return False
        number = _TOGETHER[packet]
        if "pad" in packet:
            if packet == "pad" and _argument(node, 2, "mode", "constant") != "constant":
                return False
            number = _argument(node, 3 if packet == "pad" else 2, "value", 0)
        filled = self._filled(node, read[0], number)
        self.nodes.append({**node, "inputs": _replaced(node["inputs"], read[0], filled)})
        return True

    def _joined(self, node: Any, written: str) -> None:
        """Append a concatenation of rows that moves the present ones to the front."""
        parts, axis = _read(node), self._axis(node, written)
        if axis is None or int(_argument(node, 1, "dim", 0)) % len(self._sizes(written)) != axis:
            raise self._refused(node)
        extents = [self._extents(name) for name in parts]
        whole = [*extents[0][:axis], sum(extent[axis] for extent in extents), *extents[0][axis + 1 :]]
        kind = self.tensors[written]["dtype"]
        [joined] = self._emit("cat", [_list(parts), axis], [whole], kind)
        masks = [self._present(self._rows(node, name), extent[axis : axis + 1], 0) for name, extent in zip(parts, extents, strict=True)]
        [mask] = self._emit("cat", [_list(masks)], [[whole[axis]]], _BOOL)
        self._emit("index_select", [joined, axis, self._places(node, mask)[0]], [whole], kind, [written])

    def _source(self, node: Any) -> None:
        """Append an operator that finds places in a form that returns as many as possible, and their number."""
        written = tensors_in(node["outputs"])
        names = re.findall(_SYMBOL, " ".join(self._sizes(written[0])))
        symbol = next((name for name in names if name in self.counts or name not in self.values), None)
        if symbol is None:
            raise self._refused(node)
        if node["target"] == _NMS:
            boxes, scores, overlap = (_argument(node, place, name) for place, name in enumerate(("dets", "scores", "iou_threshold")))
            [most, _] = self._extents(boxes["name"])
            most = min(most, self._most_read(symbol, written[0], most))
            least = {"as_float": "-Infinity"} if self._rows(node, scores["name"]) else {"as_none": True}
            read = self._filled(node, scores["name"], -math.inf)
            given = [boxes["name"], read, {"as_float": overlap}, least, most]
            _, count = self._emit(SUPPRESSION, given, [[most], [1]], _LONG, written)
        elif node["target"] == _INDEX:
            [mask, *others], [data, indices] = _masks(self.graph, node), node["inputs"]
            [most, *more] = self._extents(mask)
            if others or more:
                raise self._refused(node)
            found, count = self._places(node, mask)
            self.nodes.append({**node, "inputs": [data, _replaced(indices, mask, found)]})
        else:
            most, count = self._indices(node, written)
        self.counts[symbol], self.values[symbol] = count, Fraction(most)

    def _indices(self, node: Any, written: Sequence[str]) -> tuple[int, str]:
        """Append a search for the indices of true elements, a vector or column per axis; return how many there may be and are."""
        [mask] = _read(node)
        extents = self._extents(mask)
        most = step = math.prod(extents)
        if self.tensors[mask]["dtype"] != _BOOL or (len(extents) > 1 and self._rows(node, mask)):
            raise self._refused(node)
        [flat] = self._emit("reshape", [mask, {"as_ints": [-1]}], [[most]], _BOOL) if len(extents) > 1 else [mask]
        found, count = self._places(node, flat)
        columns = []
        for extent in extents:
            step //= extent
            [down] = self._emit("div.Tensor_mode", [found, step, ("rounding_mode", {"as_string": "floor"})], [[most]], _LONG)
            columns += self._emit("remainder.Scalar", [down, extent], [[most]], _LONG)
        if node["target"] == f"{_ATEN}nonzero.default":
            self._emit("stack", [_list(columns), 1], [[most, len(extents)]], _LONG, written)
        else:
            for column, name in zip(columns, written, strict=True):
                self._emit("clone", [column], [[most]], _LONG, [name])
        return most, count

    def _most_read(self, symbol: str, name: str, most: int) -> int:
        """Return the number of selected boxes that are read: fewer than `most` where all that follows is a slice of the first."""
        texts = " ".join(_text(size) for other, tensor in self.tensors.items() if other != name for size in tensor["sizes"])
        first = rf"Min\(Integer\((\d+)\), Symbol\('{symbol}'[^)]*\)\)"
        readers = {node["target"] for node in self.graph["nodes"] if name in _read(node)}
        ends = set(re.findall(first, texts))
        sliced = readers <= {f"{_ATEN}slice.Tensor", f"{_ATEN}sym_size.int"} and f"Symbol('{symbol}'" not in re.sub(first, "", texts)
        return max(map(int, ends)) if ends and sliced else most

    def _places(self, node: Any, mask: str) -> tuple[str, str]:
        """Append a search for the places at which a vector of booleans is true; return these and their number."""
        if mask not in self._found:
            [most] = self._extents(mask)
            self._found[mask] = tuple(self._emit(PLACES, [self._filled(node, mask, 0)], [[most], [1]], _LONG))  # type: ignore[assignment]
        return self._found[mask]

    def _filled(self, node: Any, name: str, number: float) -> str:
        """Fill a tensor's missing rows with a number."""
        axis = self._axis(node, name)
        if axis is None:
            return name
        extents, kind = self._extents(name), self.tensors[name]["dtype"]
        present = self._present(self._sizes(name)[axis], extents, axis)
        if kind == _BOOL:
            return self._emit("logical_and", [present, name], [extents], kind)[0]
        value: Any = {"as_float": f"{'-' * (number < 0)}Infinity" if math.isinf(number) else float(number)}
        if kind in _INTEGERS:
            limits = torch.iinfo(_SERIALIZE_TO_TORCH_DTYPE[kind])
            value = int(min(max(number, limits.min), limits.max))
        return self._emit("where.ScalarOther", [present, name, value], [extents], kind)[0]

    def _present(self, rows: str, extents: Sequence[int], axis: int) -> str:
        """Append booleans that say which rows along an axis are present."""
        [numbers] = self._emit("arange", [extents[axis]], [[extents[axis]]], _LONG)
        [present] = self._emit("lt.Tensor", [numbers, self._count(rows or str(extents[axis]))], [[extents[axis]]], _BOOL)
        shape = [extent if place == axis else 1 for place, extent in enumerate(extents)]
        return self._emit("reshape", [present, {"as_ints": shape}], [shape], _BOOL)[0]

    def _count(self, text: str) -> str:
        """Append a number of rows, as a tensor `[1]`."""
        if text not in self._counted:
            self._counted[text] = self._computed(ast.parse(text, mode="eval").body)
        return self._counted[text]

    def _computed(self, node: ast.expr) -> str:
        text = ast.unparse(node)
        if not self._varies(text):
            number = evaluated(text, self.values)
            return self._emit("full", [{"as_ints": [1]}, int(number), ("dtype", {"as_scalar_type": _LONG})], [[1]], _LONG)[0]
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            raise UnknownExtentError(text)
        if node.func.id == "Symbol":
            return self.counts[ast.literal_eval(node.args[0])]
        if node.func.id not in _COUNTED:
            raise UnknownExtentError(text)
        operator, parts = _COUNTED[node.func.id], [self._computed(part) for part in node.args]
        return reduce(lambda one, other: self._emit(operator, [one, other], [[1]], _LONG)[0], parts)

    def _emit(
        self, target: str, arguments: Sequence[Any], sizes: Sequence[Sequence[int]], kind: int, names: Sequence[str] = ()
    ) -> list[str]:
        """Append a new node with results of these sizes and this type, the first of which have names already; return all names."""
        if not target.startswith("torch."):
            target = _ATEN + (target if "." in target else f"{target}.default")
        known, inputs = signature(target) or (), []
        for place, argument in enumerate(arguments):
            name, value = argument if isinstance(argument, tuple) else (known[place][0], argument)
            value = {"as_tensor": {"name": value}} if isinstance(value, str) else {"as_int": value} if isinstance(value, int) else value
            inputs.append({"name": name, "arg": value, "kind": 2 if isinstance(argument, tuple) else 1})
        written = [*names, *(f"varying_{len(self.nodes)}_{place}" for place in range(len(names), len(sizes)))]
        for name, extents in zip(written, sizes, strict=True):
            self.tensors.setdefault(name, _tensor(extents, kind))
        outputs = [{"as_tensor": {"name": name}} for name in written]
        name = written[0] if len(written) == 1 else f"varying_{len(self.nodes)}"
        self.nodes.append({"target": target, "inputs": inputs, "outputs": outputs, "metadata": {}, "name": name})
        return written

    def rewritten(self, program: Any) -> Any:
        """Return the program of the new nodes, its outputs filled up and followed by their counts."""
        module, outputs = program["graph_module"], []
        [top, *calls] = module["module_call_graph"]
        names = output_names(treespec_loads(top["signature"]["out_spec"]), len(self.graph["outputs"]))
        called: list[str] = []
        for output, name in zip(self.graph["outputs"], names, strict=True):
            outputs.append(output)
            called.append(name)
            [tensor] = tensors_in(output) or [""]
            if tensor and (rows := self._rows({"target": "output", "name": tensor}, tensor)):
                filler = -1 if self.tensors[tensor]["dtype"] in _INTEGERS[1:] else 0
                [copied] = self._emit("clone", [self._count(rows)], [[1]], _LONG)  # an output is no other one
                outputs[-1:] = [{"as_tensor": {"name": found}} for found in (self._filled({}, tensor, filler), copied)]
                called.append(f"{name}{COUNT}")
        leaf: Any = {"type": None, "context": None, "children_spec": []}
        spec = {"type": "collections.OrderedDict", "context": json.dumps(called), "children_spec": [leaf] * len(called)}
        top = {**top, "signature": {**top["signature"], "out_spec": json.dumps([1, spec])}}
        others = [one for one in module["signature"]["output_specs"] if "user_output" not in one]
        specs = [*others, *({"user_output": {"arg": output}} for output in outputs)]
        graph = {**self.graph, "nodes": self.nodes, "tensor_values": self.tensors, "outputs": outputs}
        signed = {**module["signature"], "output_specs": specs}
        return {**program, "graph_module": {**module, "graph": graph, "signature": signed, "module_call_graph": [top, *calls]}}


def _replaced(value: Any, name: str, other: str) -> Any:
    """Return a part of a node with another tensor in one's place."""
    return json.loads(json.dumps(value).replace(json.dumps({"name": name}), json.dumps({"name": other})))


def _list(names: Sequence[str]) -> Any:
    return {"as_tensors": [{"name": name} for name in names]}


def _tensor(extents: Sequence[int], kind: int) -> Any:
    numbers = ([*extents], [math.prod(extents[place + 1 :]) for place in range(len(extents))])
    sizes, strides = ([{"as_int": number} for number in each] for each in numbers)
    described = {"dtype": kind, "sizes": sizes, "strides": strides, "requires_grad": False, "layout": 7}
    return {**described, "device": {"type": "cpu", "index": None}, "storage_offset": {"as_int": 0}}
