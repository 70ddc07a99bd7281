"""Placed concatenations need no kernel: their parts are written where they lie in the result.

Along the outermost axis with more than one place, the parts of a concatenation follow each other in memory. Where kernels write all parts,
and nothing needs one elsewhere, memory can be laid out so that they are the result.
"""

from __future__ import annotations

import re
from typing import Any

from tvmmobile.graph.expressions import outermost_axis, shape_of
from tvmmobile.graph.network import kernel_bindings, sources_of, wiring_of

#: Relax's function of a concatenation that is fused with nothing; repeated names are numbered.
_PLAIN = re.compile(r"concatenate\d*")


def placed_concatenations(module: Any) -> frozenset[int]:
    """Return the nodes of a prepared module that can be placed.

    A kernel or another placed node computes each part, which is a part of no other one, once, and no output of the network itself.
    """
    elsewhere = set(wiring_of(module).results)
    found = set()
    for node, (binding, parts) in enumerate(zip(kernel_bindings(module), sources_of(module), strict=True)):
        own = {part for part in parts if isinstance(part, int) and part >= 0}
        if len(own) == len(parts) and own.isdisjoint(elsewhere) and _joins_in_memory(binding.value):
            found.add(node)
            elsewhere |= own
    return frozenset(found)


def _joins_in_memory(call: Any) -> bool:
    """Return whether a call only joins tensors end to end in memory."""
    if not _PLAIN.fullmatch(getattr(call.args[0], "name_hint", "")):
        return False
    parts, whole = [shape_of(part) for part in call.args[1].fields], shape_of(call)
    axis = outermost_axis(whole)
    return sum(part[axis] for part in parts) == whole[axis] and all(part[axis + 1 :] == whole[axis + 1 :] for part in parts)
