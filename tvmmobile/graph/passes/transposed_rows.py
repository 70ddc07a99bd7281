"""Rewrites detectors' heads that join the pixels of several NCHW images and transpose the result to one row per box.

Each part is transposed instead, which costs nothing where its image is stored with channels last; a slice of such rows is one of the parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm import relax

from tvmmobile.graph.bindings import readers_of, values_of
from tvmmobile.graph.expressions import VIEW, operator_of, permutation_source, shape_of
from tvmmobile.graph.operators import Trait, has
from tvmmobile.graph.passes.channel_trace import slice_of
from tvmmobile.graph.passes.rewriting import replace_values, replace_variables

_TURNED = [0, 2, 1]


def transposed_rows(module: Any) -> Any:
    """Rewrite every transposed concatenation of images' pixels in `main`, with steps and other tensors beside them."""
    values, readers = values_of(module["main"]), readers_of(module["main"])
    inner = {variable: value for variable, value in values.items() if len(readers[variable]) == 1}
    sources = {variable: permutation_source(value, _TURNED) for variable, value in values.items()}
    found = {variable: source for variable, source in sources.items() if _joins_pixels(source, inner)}
    if not found:
        return module
    module = replace_variables(module, {variable: _transposed(joined, inner) for variable, joined in found.items()})
    return replace_values(module, _part)


def _is_joined(value: Any) -> bool:
    return operator_of(value) == "relax.concat" and hasattr(value.args[0], "fields") and value.attrs.axis is not None


def _joins_pixels(variable: Any, values: Mapping[Any, Any]) -> bool:
    """Return whether one of the tensors that a variable joins has the pixels of an image in each of its rows."""
    value: Any = values.get(variable)
    if has(value, Trait.UNARY):
        return _joins_pixels(value.args[0], values)
    if not _is_joined(value):
        return False
    return any(_has_pixels(values.get(part)) or _joins_pixels(part, values) for part in value.args[0].fields)


def _has_pixels(value: Any) -> bool:
    return operator_of(value) == VIEW and len(shape_of(value.args[0])) == 4 and shape_of(value)[:2] == shape_of(value.args[0])[:2]


def _transposed(variable: Any, values: Mapping[Any, Any]) -> Any:
    """Return the transpose of a variable, the parts of concatenations transposed one by one."""
    value: Any = values.get(variable)
    if has(value, Trait.UNARY):
        return relax.Call(value.op, [_transposed(value.args[0], values)], value.attrs)
    if not _is_joined(value):
        return relax.op.permute_dims(variable, _TURNED)
    parts = [_transposed(part, values) for part in value.args[0].fields]
    return relax.op.concat(parts, _TURNED[int(value.attrs.axis)])


def _part(value: Any, values: Mapping[Any, Any]) -> Any:
    """Return the part of a concatenation that a slice shows; `None` for other values."""
    found = slice_of(value) if operator_of(value) == "relax.strided_slice" else None
    joined: Any = values.get(value.args[0]) if found else None
    if found is None or not _is_joined(joined) or int(joined.attrs.axis) % len(shape_of(value)) != found[0]:
        return None
    first = 0
    for part in joined.args[0].fields:
        end = first + shape_of(part)[found[0]]
        if (first, end) == found[1:]:
            return part
        first = end
    return None
