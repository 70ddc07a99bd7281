"""Rewrites PReLUs (arXiv 1502.01852) and leaky ReLUs as `max(x, 0) + slope · min(x, 0)`, whose operators every layout has."""

from __future__ import annotations

from typing import Any

from tvm import relax
from tvm.relax.dpl import is_const, is_op, wildcard

from tvmmobile.graph.expressions import shape_of
from tvmmobile.graph.passes.rewriting import either, rewrite_main


def spell_prelus(module: Any) -> Any:
    """Rewrite `nn.leakyrelu`, `nn.prelu`, and `where(x > 0, x, slope * x)` in `main`."""
    data, slope, zero = wildcard(), wildcard(), is_const()
    sloped = either("multiply", slope, data)
    above = is_op("relax.greater")(data, zero) | is_op("relax.greater_equal")(data, zero)
    below = is_op("relax.less")(data, zero) | is_op("relax.less_equal")(data, zero)

    def leaky(call: Any, matched: Any) -> Any:
        return _spelled(matched[data], relax.const(float(call.attrs.alpha), str(call.ty.dtype)))

    def along_axis(call: Any, matched: Any) -> Any:
        rank = call.ty.ndim
        extents = [-1 if place == int(call.attrs.axis) % rank else 1 for place in range(rank)]
        return _spelled(matched[data], relax.op.reshape(matched[slope], extents))

    def chosen(call: Any, matched: Any) -> Any:
        same = shape_of(matched[data]) == shape_of(call)
        return _spelled(matched[data], _with_all_axes(matched[slope], call.ty.ndim)) if same else None

    for pattern, replacement in (
        (is_op("relax.nn.leakyrelu")(data), leaky),
        (is_op("relax.nn.prelu")(data, slope), along_axis),
        (is_op("relax.where")(above, data, sloped), chosen),
        (is_op("relax.where")(below, sloped, data), chosen),
    ):
        module = rewrite_main(module, pattern, replacement, {zero: 0.0})
    return module


def _with_all_axes(slope: Any, rank: int) -> Any:
    """Return the slope with as many axes as the data, as layout inference needs; a number is unchanged."""
    extents = shape_of(slope)
    return relax.op.reshape(slope, [*[1] * (rank - len(extents)), *extents]) if 0 < len(extents) < rank else slope


def _spelled(data: Any, slope: Any) -> Any:
    zero = relax.const(0.0, str(data.ty.dtype))
    return relax.op.add(relax.op.maximum(data, zero), relax.op.multiply(relax.op.minimum(data, zero), slope))
