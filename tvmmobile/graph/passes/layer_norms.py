"""Rewrites layer norms over whole images, `torch.nn.LayerNorm([C, H, W])`, as group norms of one group.

TVM 0.27's layout conversion moves their axes, but leaves their factors and summands as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax
from tvm.relax.dpl import is_const, is_op, wildcard

from tvmmobile.graph.expressions import shape_of
from tvmmobile.graph.passes.rewriting import rewrite_main


def layer_norms_of_images(module: Any) -> Any:
    """Rewrite `nn.layer_norm` over channels, rows and columns in `main`; factors and summands of pixels follow it."""
    data, weight, bias = wildcard(), is_const(), is_const()
    norm = is_op("relax.nn.layer_norm")(data, weight, bias)

    def rewrite(call: Any, matched: Any) -> Any:
        shape, attrs = shape_of(call), matched[norm].attrs
        if sorted(int(axis) % len(shape) for axis in attrs.axes) != [1, 2, 3] or not (attrs.center and attrs.scale):
            return None
        factors, summands = (matched[part].value.numpy() for part in (weight, bias))
        numbers = {"num_groups": 1, "channel_axis": 1, "axes": [2, 3], "epsilon": float(attrs.epsilon)}
        if all((array == array[:, :1, :1]).all() for array in (factors, summands)):
            own = (relax.const(np.ascontiguousarray(array[:, 0, 0])) for array in (factors, summands))
            return relax.op.nn.group_norm(matched[data], *own, **numbers)
        plain = (relax.const(np.full(shape[1], value, factors.dtype)) for value in (1.0, 0.0))
        normed = relax.op.nn.group_norm(matched[data], *plain, **numbers)
        return relax.op.add(relax.op.multiply(normed, relax.const(factors[None])), relax.const(summands[None]))

    return rewrite_main(module, norm, rewrite)
