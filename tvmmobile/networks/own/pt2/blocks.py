"""Inlines blocks `with torch.no_grad()` and `with torch.autocast(…, enabled=False)` of a `.pt2` into the graph around them, where they
change nothing.

`torch.export` writes each as an operator with a graph of its own, which loading would have to make code of.
"""

from __future__ import annotations

import itertools
from typing import Any

from tvmmobile.networks.own.pt2.dimensions import mapped, tensors_in

_AUTOCAST = "torch.ops.higher_order.wrap_with_autocast"
#: Switches gradients on or off, which are not computed anyway.
_GRADIENTS = "torch.ops.higher_order.wrap_with_set_grad_enabled"
#: Checks that a type stays what it is, made for the conversions in such a block.
_CHECK = "torch.ops.aten._assert_tensor_metadata.default"


def without_blocks(program: Any) -> Any:
    """Return a serialised program without such blocks, as far as it has any.

    Raises:
        AttributeError, LookupError, TypeError, ValueError: it is none.
    """
    graph = program["graph_module"]["graph"]
    flat = _flat(graph)
    return program if flat is graph else {**program, "graph_module": {**program["graph_module"], "graph": flat}}


def _flat(graph: Any) -> Any:
    """Return a graph without such blocks, which may be in each other."""
    if not any(node["target"] in (_AUTOCAST, _GRADIENTS) for node in graph["nodes"]):
        return graph
    nodes, values = [], dict(graph["tensor_values"])
    for number, node in enumerate(graph["nodes"]):
        inner, tensors = _inlined(node, f"block{number}_")
        nodes += inner
        values |= tensors
    return {**graph, "nodes": nodes, "tensor_values": values}


def _block(node: Any) -> tuple[Any, list[Any]] | None:
    """Return the graph of a block that changes nothing, and its arguments; `None` for other nodes."""
    if node["target"] not in (_AUTOCAST, _GRADIENTS):
        return None
    arguments = [one["arg"] for one in node["inputs"]]
    if node["target"] == _GRADIENTS:
        _, block, *given = arguments
    else:
        _, _, enabled, _, block, *given = arguments
        if enabled != {"as_bool": False}:
            return None
    return block["as_graph"]["graph"], given


def _inlined(node: Any, prefix: str) -> tuple[list[Any], dict[str, Any]]:
    """Return a node, or its block's nodes with names that begin with `prefix`, and their results."""
    found = _block(node)
    if found is None:
        return [node], {}
    inside, given = _flat(found[0]), found[1]
    nodes = [one for one in inside["nodes"] if one["target"] != _CHECK]
    names = {name: prefix + name for name in inside["tensor_values"]}
    for place, tensor in itertools.chain(_pairs(inside["inputs"], given), _pairs(inside["outputs"], node["outputs"])):
        names[place] = tensor
    results = {name for one in nodes for name in tensors_in(one["outputs"])}
    computed = {names[name]: value for name, value in inside["tensor_values"].items() if name in results}
    renamed = mapped(nodes, lambda part: {"name": names[part["name"]]} if set(part) == {"name"} else None)
    return [{**one, "name": prefix + str(one.get("name") or number)} for number, one in enumerate(renamed)], computed


def _pairs(inside: Any, outside: Any) -> list[tuple[str, str]]:
    """Pair the names of tensors inside and outside of a block."""
    return [(str(one["as_tensor"]["name"]), str(other["as_tensor"]["name"])) for one, other in zip(inside, outside, strict=True)]
