"""Makes RMS norms (arXiv 1910.07467), which exporters spell out, one operator: `x · rsqrt(mean(x²) + ε) · weight`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from tvm import relax
from tvm.relax.dpl import is_const, is_op, wildcard

from tvmmobile.graph.expressions import TO_FIRST, TO_LAST, shape_of
from tvmmobile.graph.layers import Array
from tvmmobile.graph.passes.rewriting import rewrite_main
from tvmmobile.graph.precision import FLOAT32


def rms_norms(module: Any) -> Any:
    """Rewrite RMS norms in `main` over the last axis, or over an image's channels in front, with or without a factor for each place."""
    data, epsilon, factors, two, one, unit = wildcard(), *(is_const() for _ in range(5))
    numbers = {two: 2.0, one: 1.0, unit: 1.0}

    def either(operator: str, left: Any, right: Any) -> Any:
        return is_op(operator)(left, right) | is_op(operator)(right, left)

    for squared in (is_op("relax.power")(data, two), is_op("relax.multiply")(data, data), is_op("relax.square")(data)):
        mean = is_op("relax.mean")(squared)
        total = either("relax.add", mean, epsilon)
        root = is_op("relax.sqrt")(total)
        quotient = is_op("relax.divide")(one, root)
        inverse = is_op("relax.rsqrt")(total) | quotient | is_op("relax.multiply")(quotient, unit)  # as PyTorch's exporter has it
        normed = either("relax.multiply", data, inverse) | is_op("relax.divide")(data, root)

        def rewrite(call: Any, matched: Any, mean: Any = mean) -> Any:
            axis = _axis_of(matched[mean])
            if axis is None or matched[epsilon].value.numpy().size != 1:
                return None
            weight = _along(matched[factors].value.numpy() if factors in matched else np.ones(()), axis, shape_of(call))
            if weight is None or str(call.ty.dtype) != FLOAT32.name:
                return None
            operands = relax.const(weight), [-1], float(matched[epsilon].value.numpy().item())
            shape = shape_of(call)
            if axis == len(shape) - 1 == 3:  # layout inference would take it for an image with its channels in front, and move the axis
                rows = relax.op.reshape(matched[data], [shape[0], shape[1] * shape[2], shape[3]])
                return relax.op.reshape(relax.op.nn.rms_norm(rows, *operands), shape)
            if axis == len(shape) - 1:
                return relax.op.nn.rms_norm(matched[data], *operands)
            last = relax.op.permute_dims(matched[data], TO_LAST)  # TVM 0.27 legalises it along the last axis alone
            return relax.op.permute_dims(relax.op.nn.rms_norm(last, *operands), TO_FIRST)

        for pattern in (either("relax.multiply", normed, factors), normed):
            module = rewrite_main(module, pattern, rewrite, numbers)
    return _along_rows(module)


def _along_rows(module: Any) -> Any:
    """Rewrite `nn.rms_norm` over several last axes, or the last of an image, as one of rows: layout inference would move the axes of an
    image, but leave the factors as they are.
    """
    data, weight = wildcard(), wildcard()
    norm = is_op("relax.nn.rms_norm")(data, weight)

    def rewrite(call: Any, matched: Any) -> Any:
        shape = shape_of(call)
        axes = sorted(int(axis) % len(shape) for axis in call.attrs.axes)
        count = math.prod(shape[axes[0] :])
        if axes != list(range(axes[0], len(shape))) or (len(axes) == 1 and len(shape) != 4):
            return None
        rows = relax.op.reshape(matched[data], [1, math.prod(shape) // count, count])
        factors = relax.op.reshape(relax.op.broadcast_to(matched[weight], shape[axes[0] :]), [count])
        return relax.op.reshape(relax.op.nn.rms_norm(rows, factors, [-1], float(call.attrs.epsilon)), shape)

    return rewrite_main(module, norm, rewrite)


def _axis_of(mean: Any) -> int | None:
    """Return the only axis of a mean that keeps it, if that is the last one, or the channels of images with these in front."""
    rank = mean.args[0].ty.ndim
    axes = [] if mean.attrs.axis is None else [int(axis) % rank for axis in mean.attrs.axis]
    known = axes == [rank - 1] or (axes == [1] and rank == 4)
    return axes[0] if known and bool(mean.attrs.keepdims) else None


def _along(factors: Array, axis: int, shape: list[int]) -> Array | None:
    """Return factors that are the same but for their place along an axis, as many as that has; `None` for others."""
    extents = (1,) * (len(shape) - factors.ndim) + factors.shape
    if factors.ndim > len(shape) or any(extent != 1 for place, extent in enumerate(extents) if place != axis):
        return None
    return np.ascontiguousarray(np.broadcast_to(factors.reshape(-1), shape[axis]).astype(np.float32))
