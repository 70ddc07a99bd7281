"""TIR functions in TVM's JSON form, which shows the names of blocks."""

from __future__ import annotations

import json
from typing import Any

#: The type of a block.
BLOCK = "s_tir.SBlock"


def block_names(function: Any) -> list[str]:
    """Return the names of a TIR function's blocks, in order of occurrence."""
    nodes = json_of(function)["nodes"]
    return [nodes[node["data"]["name_hint"]]["data"] for node in nodes if node["type"] == BLOCK]


def json_of(function: Any) -> Any:
    """Return TVM's JSON form of a function: nodes that refer to each other by number, in order of occurrence; names are nodes too."""
    import tvm

    return json.loads(tvm.ir.save_json(function))
