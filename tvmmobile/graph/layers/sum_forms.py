"""The forms of layers that compute sums: an operator before the product, its bias, a residual, and a curve or bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from tvmmobile.graph.curves import CHANNEL, CURVES, GATE, TENSOR, Spelling
from tvmmobile.graph.expressions import holds, is_float32, shape_of
from tvmmobile.graph.layers.gating import gated_operands
from tvmmobile.graph.layers.kind import Form, Layer, Parts
from tvmmobile.graph.layers.sums import Clamp
from tvmmobile.graph.parameters import LayerParameters

#: Makes the layer from the parts and from the steps after the sum.
_Make = Callable[[Parts, Clamp], Layer | None]


def sum_forms(operator: str, before: str, order: str, layer: _Make) -> Iterator[Form]:
    """Yield a form for each spelling of each curve, and for bounds.

    Args:
        before: change of the data: `permuted` from NCHW to NHWC, or `scaled` by a gate, or none.
        order: order of the operands of the last addition.
    """
    for curve, entry in CURVES.items():
        for spelling in entry.spellings:
            yield _curve_form(*_sum(operator, before, order), curve, spelling, layer)
    for bounds in (("low", "high"), ("low",), ()):
        pattern, parts = _bounded(*_sum(operator, before, order), bounds)
        yield _form(pattern, parts, layer)


def _form(pattern: Any, parts: Parts, layer: _Make, curve: str = "", numbers: Mapping[str, float] | None = None) -> Form:
    """Return a form; `numbers` are the values of the curve's constants, by the name of their part."""
    return Form(pattern, parts, partial(_layer, layer, curve, numbers or {}), partial(_reads, curve), partial(_constants, curve))


def _operands(curve: str, *kinds: str) -> list[str]:
    """Return the names of a curve's operands of some kinds, in order: the kind, and the number among operands of that kind."""
    found = CURVES[curve].operands if curve else ()
    return [f"{kind} {found[:place].count(kind)}" for place, kind in enumerate(found) if kind in kinds]


def _curve_form(total: Any, parts: Parts, curve: str, spelling: Spelling, layer: _Make) -> Form:
    from tvm.relax.dpl import is_const, wildcard

    numbers: dict[str, float] = {}
    operands = {name: is_const() if name.startswith(CHANNEL) else wildcard() for name in _operands(curve, CHANNEL, TENSOR, GATE)}
    parts.update(operands)

    def number(value: float) -> Any:
        name = f"number {len(numbers)}"
        numbers[name], parts[name] = value, is_const()
        return parts[name]

    return _form(spelling(total, number, *operands.values()), parts, layer, curve, numbers)


def _bounded(pattern: Any, parts: Parts, bounds: tuple[str, ...]) -> tuple[Any, Parts]:
    from tvm.relax.dpl import is_const, is_op

    for bound in bounds:
        parts[bound] = is_const()
        pattern = is_op("relax.maximum" if bound == "low" else "relax.minimum")(pattern, parts[bound])
    return pattern, parts


def _sum(operator: str, before: str, order: str) -> tuple[Any, Parts]:
    """Return the pattern of a layer without its activation, and its annotated parts."""
    from tvm.relax.dpl import is_const, is_op, wildcard

    parts: Parts = {"weight": is_const(), "bias": is_const()}
    data = wildcard()
    if before == "permuted":
        data = parts["permute"] = is_op("relax.permute_dims")(data)
    elif before == "scaled":
        data = parts["scaled"] = is_op("relax.multiply")(data, wildcard())
    parts["product"] = is_op(f"relax.{operator}")(data, parts["weight"])
    add = is_op("relax.add")
    pattern = add(parts["bias"], parts["product"]) if order == "bias, product" else add(parts["product"], parts["bias"])
    if "residual" in order:
        parts["sum"], parts["residual"] = pattern, wildcard()
        pattern = add(pattern, parts["residual"]) if order == "sum, residual" else add(parts["residual"], pattern)
    return pattern, parts


def _reads(curve: str, found: Parts) -> list[Any]:
    """Return the tensors that a kernel reads."""
    read = gated_operands(found) or (found["permute" if "permute" in found else "product"].args[0],)
    return [*read, *(found[part] for part in ("residual", *_operands(curve, TENSOR, GATE)) if part in found)]


def _constants(curve: str, found: Parts) -> LayerParameters:
    """Return weights, biases and steps' operands; one number for all channels is repeated."""
    weight = np.ascontiguousarray(found["weight"].value.numpy())
    bias, *operands = (found[part].value.numpy().reshape(-1) for part in ("bias", *_operands(curve, CHANNEL)))
    return LayerParameters(weight, bias, tuple(np.ascontiguousarray(np.broadcast_to(array, bias.shape)) for array in operands))


def _layer(layer: _Make, curve: str, numbers: Mapping[str, float], found: Parts) -> Layer | None:
    """Return the layer made of the parts; `None` if they are not such a layer, or have shapes or values that no sum has."""
    shapes = {part: shape_of(expression) for part, expression in found.items()}
    out_shape = shapes["product"]
    wrong = (
        not is_float32(found["product"])
        or out_shape[0] != 1
        or not all(holds(found[name], value) for name, value in numbers.items())
        or not _along_channels(shapes["bias"], out_shape)
        or any(math.prod(shapes[part]) != 1 and not _along_channels(shapes[part], out_shape) for part in _operands(curve, CHANNEL))
        or any(shapes[part] != out_shape for part in ("residual", *_operands(curve, TENSOR)) if part in found)
        or not all(_is_gate(shapes[part], out_shape) for part in _operands(curve, GATE))
    )
    clamp = None if wrong else curve or _bounds_of(found)
    return None if clamp is None else layer(found, clamp)


def _along_channels(shape: list[int], out_shape: list[int]) -> bool:
    """Return whether a constant has one number per channel."""
    return shape == [*[1] * (len(shape) - 1), out_shape[-1]]


def _is_gate(shape: list[int], out_shape: list[int]) -> bool:
    """Return whether a tensor has one number per channel, for an image of several pixels."""
    return _along_channels(shape, out_shape) and len(shape) == len(out_shape) == 4 and shape != out_shape


def _bounds_of(found: Parts) -> Clamp | None:
    """Lower and upper bound; `None` for one that differs between channels."""
    values = [found[part].value.numpy() if part in found else None for part in ("low", "high")]
    if any(value is not None and value.size != 1 for value in values):
        return None
    low, high = (None if value is None else float(value.item()) for value in values)
    return low, high
