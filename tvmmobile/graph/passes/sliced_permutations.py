"""Moves slices in front of the permutation that they read, such as those of queries, keys and values where no template takes the
attention: each part is then permuted by the kernel that cuts it out, and the whole permutation is not written to memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tvm import relax

from tvmmobile.graph.access import axes_of
from tvmmobile.graph.bindings import readers_of
from tvmmobile.graph.expressions import operator_of, shape_of
from tvmmobile.graph.passes.rewriting import replace_values

_SLICE = "relax.strided_slice"


def sliced_permutations(module: Any) -> Any:
    """Rewrite the slices of every permutation of `main` that several slices read, and nothing else; together they have no more elements."""
    readers = readers_of(module["main"])

    def sliced(value: Any, values: Mapping[Any, Any]) -> Any:
        permutation: Any = values.get(value.args[0]) if operator_of(value) == _SLICE else None
        if operator_of(permutation) != "relax.permute_dims":
            return None
        slices = [values.get(reader) for reader in readers[value.args[0]]]
        if len(slices) < 2 or any(operator_of(one) != _SLICE for one in slices):
            return None
        if sum(math.prod(shape_of(one)) for one in slices) > math.prod(shape_of(permutation)):
            return None
        order = axes_of(permutation) or list(reversed(range(permutation.ty.ndim)))
        axes, *places = ([int(number.value) for number in part.fields] for part in value.args[1:])
        cut = relax.op.strided_slice(permutation.args[0], [order[axis] for axis in axes], *places)
        return relax.op.permute_dims(cut, order)

    return replace_values(module, sliced)
