"""Names blocks and buffers by order of occurrence.

Relax takes them from the variables of `main`, whose numbers depend on everything before. MetaSchedule's traces name blocks, and name the
blocks that they create after buffers: a trace fits the same function in another network only if the names agree.
"""

from __future__ import annotations

import json
from typing import Any

import tvm

from tvmmobile.graph.function_json import BLOCK, json_of

_VARIABLE, _BUFFER = "ir.Var", "tirx.BufferType"
#: The outermost block, which MetaSchedule looks up by this name.
_ROOT = "root"


def canonical_names(module: Any) -> Any:
    """Return the module with its TIR functions' blocks called `block0`, …, their buffers `buffer0`, …; a root block stays `root`."""
    functions = {}
    for variable, function in module.functions_items():
        functions[variable] = _renamed(function) if isinstance(function, tvm.tirx.PrimFunc) else function
    return tvm.IRModule(functions, attrs=module.attrs)


def _renamed(function: Any) -> Any:
    graph = json_of(function)
    nodes: list[Any] = graph["nodes"]
    blocks = [node for node in nodes if node["type"] == BLOCK and nodes[node["data"]["name_hint"]]["data"] != _ROOT]
    buffers = [node for node in nodes if node["type"] == _VARIABLE and nodes[node["data"]["ty"]]["type"] == _BUFFER]
    for kind, field, members in (("block", "name_hint", blocks), ("buffer", "name", buffers)):
        for number, member in enumerate(members):
            member["data"][field] = len(nodes)
            nodes.append({"type": "ffi.String", "data": f"{kind}{number}"})
    return tvm.ir.load_json(json.dumps(graph))
