"""Rewrites norms that networks spell out, or contain in forms that layout conversion gets wrong, as a single operator that layers know."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax
from tvm.relax.dpl import is_const, is_op, wildcard

from tvmmobile.graph.bindings import readers_of
from tvmmobile.graph.expressions import TO_FIRST, TO_LAST, shape_of
from tvmmobile.graph.layers import Array
from tvmmobile.graph.passes.rewriting import either, rewrite_main
from tvmmobile.graph.precision import FLOAT32


def layer_norms_of_images(module: Any) -> Any:
    """Rewrite layer norms over whole images, `torch.nn.LayerNorm([C, H, W])`, as group norms of one group; factors and summands of pixels
    follow it. Layer norms over several dimensions of other tensors become norms of rows. TVM 0.27's layout conversion moves the axes of
    layer norms, but leaves their factors and summands as they are.
    """
    data, weight, bias = wildcard(), is_const(), is_const()
    norm = is_op("relax.nn.layer_norm")(data, weight, bias)

    def rewrite(call: Any, matched: Any) -> Any:
        shape, attrs = shape_of(call), matched[norm].attrs
        axes = _axes(call)
        if len(axes) > 1 and len(shape) != 4:
            settings = [-1], float(attrs.epsilon), attrs.center, attrs.scale
            return _of_rows(call, lambda rows, *constants: relax.op.nn.layer_norm(rows, *constants, *settings))
        if axes != [1, 2, 3] or not (attrs.center and attrs.scale):
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


def group_norms(module: Any) -> Any:
    """Rewrite group norms as ONNX's exporters write them in `main`, channels first, with each group as one channel of a view; then merge
    per-channel factors and summands after a group norm into it.
    """
    return _with_own_constants(_of_images(module))


def _of_images(module: Any) -> Any:
    data, weight, bias = wildcard(), is_const(), is_const()
    groups = is_op("relax.reshape")(data, wildcard())
    norm = is_op("relax.nn.group_norm")(groups, weight, bias)

    def rewrite(call: Any, matched: Any) -> Any:
        shape, attrs = shape_of(call), matched[norm].attrs
        images, count, *rows = shape_of(matched[norm])
        is_instance = int(attrs.num_groups) == count and int(attrs.channel_axis) == 1 and len(attrs.axes) == len(rows)
        if not is_instance or shape != shape_of(matched[data]) or len(shape) < 3 or shape[0] != images or shape[1] % count:
            return None
        each = shape[1] // count
        own = (relax.const(np.repeat(matched[part].value.numpy(), each)) for part in (weight, bias))
        return relax.op.nn.group_norm(matched[data], *own, count, 1, [*range(2, len(shape))], float(attrs.epsilon))

    return rewrite_main(module, is_op("relax.reshape")(norm, wildcard()), rewrite)


def _with_own_constants(module: Any) -> Any:
    data, weight, bias, constant = wildcard(), is_const(), is_const(), is_const()
    norm = is_op("relax.nn.group_norm")(data, weight, bias)

    for name in ("multiply", "add"):
        readers = readers_of(module["main"])

        def folded(call: Any, matched: Any, name: str = name, readers: Any = readers) -> Any:
            attrs, numbers = matched[norm].attrs, _of_channels(matched[constant].value.numpy(), shape_of(call))
            alone = all(len(readers[operand]) == 1 for operand in call.args if isinstance(operand, relax.Var))
            plain = int(attrs.channel_axis) == 1 and attrs.center and attrs.scale
            if numbers is None or not alone or not plain:
                return None
            factors, summands = (matched[part].value.numpy() for part in (weight, bias))
            own = (factors * numbers, summands * numbers) if name == "multiply" else (factors, summands + numbers)
            axes = [int(axis) for axis in attrs.axes]
            constants = map(relax.const, own)
            return relax.op.nn.group_norm(matched[data], *constants, int(attrs.num_groups), 1, axes, float(attrs.epsilon))

        module = rewrite_main(module, either(name, norm, constant), folded)
    return module


def _of_channels(array: Array, shape: list[int]) -> Array | None:
    """Return a constant's numbers, one for each channel of images of this shape; `None` for another constant."""
    if array.size == 1:
        return np.broadcast_to(array.reshape(-1), shape[1])
    fits = array.size == shape[1] and array.shape[-len(shape) + 1 :] == (shape[1], *[1] * (len(shape) - 2))
    return array.reshape(-1) if fits else None


def rms_norms(module: Any) -> Any:
    """Rewrite RMS norms (arXiv 1910.07467), which exporters spell out as `x · rsqrt(mean(x²) + ε) · weight`, over the last axis, or over an
    image's channels in front, with or without a factor for each place.
    """
    data, epsilon, factors, two, one, unit = wildcard(), *(is_const() for _ in range(5))
    numbers = {two: 2.0, one: 1.0, unit: 1.0}

    for squared in (is_op("relax.power")(data, two), is_op("relax.multiply")(data, data), is_op("relax.square")(data)):
        mean = is_op("relax.mean")(squared)
        total = either("add", mean, epsilon)
        root = is_op("relax.sqrt")(total)
        quotient = is_op("relax.divide")(one, root)
        inverse = is_op("relax.rsqrt")(total) | quotient | is_op("relax.multiply")(quotient, unit)  # as PyTorch's exporter has it
        normed = either("multiply", data, inverse) | is_op("relax.divide")(data, root)

        def rewrite(call: Any, matched: Any, mean: Any = mean) -> Any:
            axis = _axis_of(matched[mean])
            if axis is None or matched[epsilon].value.numpy().size != 1:
                return None
            weight = _along(matched[factors].value.numpy() if factors in matched else np.ones(()), axis, shape_of(call))
            if weight is None or str(call.ty.dtype) != FLOAT32.name:
                return None
            operands = relax.const(weight), [-1], float(matched[epsilon].value.numpy().item())
            if axis == call.ty.ndim - 1:
                return relax.op.nn.rms_norm(matched[data], *operands)
            last = relax.op.permute_dims(matched[data], TO_LAST)  # TVM 0.27 legalises it along the last axis alone
            return relax.op.permute_dims(relax.op.nn.rms_norm(last, *operands), TO_FIRST)

        for pattern in (either("multiply", normed, factors), normed):
            module = rewrite_main(module, pattern, rewrite, numbers)
    return _along_rows(module)


def _along_rows(module: Any) -> Any:
    """Rewrite `nn.rms_norm` over several last axes, over all, or over the last of an image, as one of rows: layout inference would move the
    axes of an image, but leave the factors as they are; and TVM 0.27 legalises no norm over all axes.
    """
    data, weight = wildcard(), wildcard()
    norm = is_op("relax.nn.rms_norm")(data, weight)

    def rewrite(call: Any, _: Any) -> Any:
        if len(_axes(call)) == 1 and len(shape_of(call)) not in (1, 4):
            return None
        return _of_rows(call, lambda rows, factors: relax.op.nn.rms_norm(rows, factors, [-1], float(call.attrs.epsilon)))

    return rewrite_main(module, norm, rewrite)


def _axes(norm: Any) -> list[int]:
    """Return the axes of a norm, in order."""
    return sorted(int(axis) % norm.ty.ndim for axis in norm.attrs.axes)


def _of_rows(norm: Any, normed: Callable[..., Any]) -> Any:
    """Return a norm over last axes as one of rows, `None` for other axes; `normed` makes that from the rows and its constants."""
    shape, axes = shape_of(norm), _axes(norm)
    normalised = shape[axes[0] :]
    if axes != list(range(axes[0], len(shape))):
        return None
    count, op = math.prod(normalised), relax.op
    rows = op.reshape(norm.args[0], [1, math.prod(shape) // count, count])
    constants = (op.reshape(op.broadcast_to(constant, normalised), [count]) for constant in norm.args[1:])
    return op.reshape(normed(rows, *constants), shape)


def _axis_of(mean: Any) -> int | None:
    """Return the only axis of a mean that keeps it, if that is the last one, or the channels of images with these in front."""
    rank = mean.args[0].ty.ndim
    axes = [] if mean.attrs.axis is None else [int(axis) % rank for axis in mean.attrs.axis]
    known = axes == [rank - 1] or (axes == [1] and rank == 4)
    return axes[0] if known and bool(mean.attrs.keepdims) else None


def _along(factors: Array, axis: int, shape: list[int]) -> Array | None:
    """Return factors that vary only along one axis, one per place; `None` for others."""
    extents = (1,) * (len(shape) - factors.ndim) + factors.shape
    if factors.ndim > len(shape) or any(extent != 1 for place, extent in enumerate(extents) if place != axis):
        return None
    return np.ascontiguousarray(np.broadcast_to(factors.reshape(-1), shape[axis]).astype(np.float32))
