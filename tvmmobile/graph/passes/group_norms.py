"""Makes group norms of images one operator: ONNX's exporters write instance norms of groups, followed by factors and summands."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax
from tvm.relax.dpl import is_const, is_op, wildcard

from tvmmobile.graph.bindings import readers_of
from tvmmobile.graph.expressions import shape_of
from tvmmobile.graph.layers import Array
from tvmmobile.graph.passes.rewriting import rewrite_main


def group_norms(module: Any) -> Any:
    """Rewrite norms of groups, each of which is one channel of a view, in `main`, channels first; then factors and summands of channels
    behind a group norm become its own.
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

        operator = is_op(f"relax.{name}")
        module = rewrite_main(module, operator(norm, constant) | operator(constant, norm), folded)
    return module


def _of_channels(array: Array, shape: list[int]) -> Array | None:
    """Return a constant's numbers, one for each channel of images of this shape; `None` for another constant."""
    if array.size == 1:
        return np.broadcast_to(array.reshape(-1), shape[1])
    fits = array.size == shape[1] and array.shape[-len(shape) + 1 :] == (shape[1], *[1] * (len(shape) - 2))
    return array.reshape(-1) if fits else None
