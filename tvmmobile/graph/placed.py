"""Placed nodes need no kernel: the parts of concatenations are written where they lie in the result, and slices are read where they lie.

Along the outermost axis with more than one place, the parts of a concatenation follow each other in memory. Where kernels write all parts,
and nothing needs one elsewhere, memory can be laid out so that they are the result. A slice along this axis already lies in its source.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from tvmmobile.graph.expressions import outermost_axis, shape_of
from tvmmobile.graph.layers import Array
from tvmmobile.graph.network import kernel_bindings, sources_of, wiring_of
from tvmmobile.graph.stages import Stage, replaced, stages_of

#: Relax's functions of a concatenation and of a slice that are fused with nothing; repeated names are numbered.
_CONCATENATION, _SLICE = re.compile(r"concatenate\d*"), re.compile(r"strided_slice\d*")


def placed_nodes(module: Any) -> frozenset[int]:
    """Return the nodes of a prepared module that can be placed.

    A kernel or another placed concatenation computes each part of a concatenation, which is a part of no other one, once, and no output of
    the network itself. A slice is placed if it is neither an output nor such a part, and its source is not a constant.
    """
    concatenations = _placed_concatenations(module)
    sources = sources_of(module)
    elsewhere = {*wiring_of(module).results, *(part for node in concatenations for part in sources[node] if isinstance(part, int))}
    slices = {
        node
        for node, binding in enumerate(kernel_bindings(module))
        if node not in elsewhere and isinstance(sources[node][0], int) and first_of_slice(module, binding.value) is not None
    }
    return concatenations | slices


def value_of_placed(module: Any, node: int, parts: Sequence[Array]) -> Array:
    """Return the elements of a placed node, in order, given those that it reads."""
    call = kernel_bindings(module)[node].value
    first = first_of_slice(module, call)
    if first is None:
        return np.concatenate([part.reshape(-1) for part in parts])
    row = math.prod(shape_of(call)[outermost_axis(shape_of(call.args[1].fields[0])) + 1 :])
    return parts[0].reshape(-1)[first * row :][: math.prod(shape_of(call))]


def first_of_slice(module: Any, call: Any) -> int | None:
    """Return the first place of a slice along its source's outermost axis; `None` for other calls, and if its elements lie apart."""
    if not _SLICE.fullmatch(getattr(call.args[0], "name_hint", "")):
        return None
    whole, part = shape_of(call.args[1].fields[0]), shape_of(call)
    axis = outermost_axis(whole)
    stages = stages_of(module[call.args[0]])
    if part[axis + 1 :] != whole[axis + 1 :] or stages is None or len(stages) > 1:
        return None
    first, last = (_place_in_source(stages[-1], axis, place) for place in (0, part[axis] - 1))
    return first if last - first == part[axis] - 1 else None


def _place_in_source(slicing: Stage, axis: int, place: int) -> int:
    """Return the place along an axis that a slice copies to a place of its result."""
    from tvm import sym, tirx

    variable, _ = slicing.places[axis]
    read = replaced(slicing.value.indices[axis], {variable: tirx.IntImm(str(variable.ty.dtype), place)})
    return int(sym.Analyzer().simplify(read))


def _placed_concatenations(module: Any) -> frozenset[int]:
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
    if not _CONCATENATION.fullmatch(getattr(call.args[0], "name_hint", "")):
        return False
    parts, whole = [shape_of(part) for part in call.args[1].fields], shape_of(call)
    axis = outermost_axis(whole)
    return sum(part[axis] for part in parts) == whole[axis] and all(part[axis + 1 :] == whole[axis + 1 :] for part in parts)
