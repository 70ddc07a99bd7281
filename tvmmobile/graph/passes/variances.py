"""Variances that networks of JAX spell out as E[x²] − E[x]², which loses the digits that both have in common."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvmmobile.graph.expressions import shape_of
from tvmmobile.graph.passes.rewriting import rewrite_main


def centred_variances(module: Any) -> Any:
    """Rewrite the mean of squares less the square of the mean in `main` as the mean of the squared distances from the mean."""
    from tvm import relax
    from tvm.relax.dpl import is_const, is_op, wildcard

    data = wildcard()
    scales, reductions = (is_const(), is_const()), []

    def mean(of: Any, scale: Any) -> Any:
        total = is_op("relax.sum")(of)
        reductions.append(total)
        return is_op("relax.multiply")(total, scale)

    of_squares, plain = mean(is_op("relax.multiply")(data, data), scales[0]), mean(data, scales[1])

    def rewrite(call: Any, matched: Any) -> Any:
        first, second = (matched[total].attrs for total in reductions)
        axes, shape = [int(axis) for axis in first.axis or ()], shape_of(matched[data])
        count = np.prod([shape[axis] for axis in axes])
        exact = all(np.allclose(matched[scale].value.numpy() * count, 1, rtol=1e-6) for scale in scales)
        if not axes or not exact or axes != [int(axis) for axis in second.axis or ()] or first.keepdims != second.keepdims:
            return None
        distance = relax.op.subtract(matched[data], relax.op.mean(matched[data], axes, keepdims=True))
        return relax.op.mean(relax.op.multiply(distance, distance), axes, keepdims=bool(first.keepdims))

    return rewrite_main(module, is_op("relax.subtract")(of_squares, is_op("relax.multiply")(plain, plain)), rewrite)
