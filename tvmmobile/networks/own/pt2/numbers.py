"""Computes the numbers that a `.pt2` takes out of constant tensors with `.item()`, as every detector of ultralytics does with its strides.

`torch.export` makes a symbol of each such number, as if it depended on the input. Here the few operators between a stored tensor and
`.item()` are run on small tensors, and nothing else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any

import torch
from torch._export.serde.serialize import _SERIALIZE_TO_TORCH_DTYPE

from tvmmobile.networks.own.pt2.dimensions import ITEMS, tensors_in

_PREFIX = "torch.ops.aten."
#: Operators that are run, none of which makes much of little or changes its operands.
_RUN = frozenset(
    f"{_PREFIX}{name}"
    for name in (
        *("alias.default", "clone.default", "detach.default", "lift_fresh_copy.default", "to.dtype", "_to_copy.default"),
        *("select.int", "slice.Tensor", "unbind.int", "view.default", "reshape.default"),
        *("squeeze.default", "squeeze.dim", "unsqueeze.default", "flatten.using_ints", "permute.default", "transpose.int"),
        *(f"{name}.{kind}" for name in ("add", "sub", "mul", "div") for kind in ("Tensor", "Scalar")),
        *("abs.default", "neg.default", "reciprocal.default", "sqrt.default", "rsqrt.default", "exp.default", "log.default"),
        *("floor.default", "ceil.default", "round.default", "pow.Tensor_Scalar"),
        *("max.default", "min.default", "sum.default", "mean.default", "prod.default"),
    )
)
#: Elements of a tensor that is read, and those that two operands of an operator may have multiplied with each other.
_MOST_ELEMENTS, _MOST_TOGETHER = 1 << 16, 1 << 20
_SYMBOL = re.compile(r"Symbol\('(\w+)'")
_FILE = re.compile(r"\w+")
#: Errors that PyTorch raises for an operator with wrong arguments.
_REFUSALS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def constant_numbers(program: Any, configs: Mapping[str, Any], read: Callable[[str], bytes]) -> dict[str, Fraction]:
    """Return the values of symbols that stand for numbers in constant tensors of a serialised program.

    Args:
        configs: descriptions of the stored tensors in each folder, by name.
        read: returns the content of a file in the archive.

    Raises:
        AttributeError, LookupError, TypeError, ValueError: it is no such program.
    """
    graph = program["graph_module"]["graph"]
    wanted = {node["inputs"][0]["arg"]["as_tensor"]["name"] for node in graph["nodes"] if node["target"] in ITEMS}
    steps = []
    for node in reversed(graph["nodes"]):
        if node["target"] in _RUN and not wanted.isdisjoint(tensors_in(node["outputs"])):
            steps.append(node)
            wanted.update(tensors_in(node["inputs"]))
    stored = ((name, _content(place, configs, read)) for name, place in _stored(program) if name in wanted)
    known = {name: tensor for name, tensor in stored if tensor is not None}
    for node in reversed(steps):
        results, computed = tensors_in(node["outputs"]), _run(node, known)
        known.update(zip(results, computed, strict=True) if len(results) == len(computed) else ())
    found: dict[str, Fraction] = {}
    for node in graph["nodes"]:
        tensor = known.get(node["inputs"][0]["arg"]["as_tensor"]["name"]) if node["target"] in ITEMS else None
        if tensor is not None and tensor.numel() == 1 and (symbol := _symbol(graph, node)) and math.isfinite(number := tensor.item()):
            found[symbol] = Fraction(number)
    return found


def _symbol(graph: Any, node: Any) -> str:
    """Return the symbol of the number that an operator returns; "" if there is none."""
    (output,) = node["outputs"]
    ((kind, value),) = output.items()
    recorded = graph.get(f"{kind.removeprefix('as_')}_values", {}).get(value.get("as_name")) or {}
    names = set(_SYMBOL.findall(str((recorded.get("as_expr") or {}).get("expr_str", ""))))
    return names.pop() if len(names) == 1 else ""


def _stored(program: Any) -> Iterator[tuple[str, str]]:
    """Yield constant tensors' names in the graph and the archive."""
    for spec in program["graph_module"]["signature"]["input_specs"]:
        for kind, named in (("buffer", "buffer_name"), ("parameter", "parameter_name"), ("tensor_constant", "tensor_constant_name")):
            if kind in spec:
                yield str(spec[kind]["arg"]["name"]), str(spec[kind][named])


def _run(node: Any, known: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """Return the results of an operator on known tensors; none if an operand is unknown, large, or of an unsupported kind."""
    operands = tensors_in(node["inputs"])
    if not known.keys() >= set(operands) or math.prod(known[operand].numel() for operand in operands) > _MOST_TOGETHER:
        return []
    packet, overload = node["target"].removeprefix(_PREFIX).split(".")
    positional = [_argument(given["arg"], known) for given in node["inputs"] if given.get("kind") != 2]
    named = {str(given["name"]): _argument(given["arg"], known) for given in node["inputs"] if given.get("kind") == 2}
    try:
        result = getattr(getattr(torch.ops.aten, packet), overload)(*positional, **named)
    except _REFUSALS:  # it says why later
        return []
    return list(result) if isinstance(result, list | tuple) else [result]


def _argument(given: Any, known: Mapping[str, torch.Tensor]) -> Any:
    ((kind, value),) = given.items()
    if kind == "as_tensor":
        return known[value["name"]]
    if kind == "as_scalar_type":
        return _SERIALIZE_TO_TORCH_DTYPE[value]
    if kind in ("as_int", "as_float", "as_bool", "as_ints"):
        return value
    if kind in ("as_none", "as_device", "as_memory_format", "as_layout"):
        return None
    raise ValueError(f"an argument {kind}")


def _content(name: str, configs: Mapping[str, Any], read: Callable[[str], bytes]) -> torch.Tensor | None:
    """Return a stored tensor; `None` for a large one."""
    for folder, config in configs.items():
        if name not in config:
            continue
        meta, place = config[name]["tensor_meta"], str(config[name]["path_name"])
        sizes, strides = ([int(extent["as_int"]) for extent in meta[part]] for part in ("sizes", "strides"))
        if not _FILE.fullmatch(place) or math.prod(sizes) > _MOST_ELEMENTS:
            return None
        content = bytearray(read(folder + place))
        numbers = torch.frombuffer(content, dtype=_SERIALIZE_TO_TORCH_DTYPE[meta["dtype"]])
        return numbers.as_strided(sizes, strides, int(meta["storage_offset"]["as_int"]))
    return None
