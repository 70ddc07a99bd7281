"""Rewrites activations in the forms that later passes know: clips and ReLUs as maximum and minimum, others as PyTorch's.

TVM has no layout inference for clip. An infinite bound, from PyTorch's decompositions, is treated as no bound. Networks contain h-swish and
h-sigmoid, x · clip(x + 3, 0, 6) / 6 and clip(x + 3, 0, 6) / 6, also as x · (clip(x + 3, 0, 6) / 6), with a factor of 1/6 instead of the
division, and as clip(x / 6 + 1/2, 0, 1), which is how ONNX's HardSwish and HardSigmoid are imported. A `log_softmax`, which has no layout
inference either, becomes the logarithm of a softmax, and the second power, also that of a magnitude, a product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from tvm import relax
from tvm.relax.dpl import is_const, is_op, wildcard

from tvmmobile.graph.expressions import operator_of
from tvmmobile.graph.passes.rewriting import either, rewrite_main, value_pass
from tvmmobile.graph.precision import FLOAT32


@value_pass
def clamp_to_min_max(value: Any, _: Mapping[Any, Any]) -> Any:
    """Rewrite `relax.clip(x, lo, hi)` and `relax.nn.relu(x)` in `main`."""
    if operator_of(value) not in ("relax.clip", "relax.nn.relu"):
        return None
    data, low, high = (value.args[0], *map(_number, value.args[1:])) if operator_of(value) == "relax.clip" else (*value.args, 0.0, math.inf)
    kind = str(data.ty.dtype)
    if low > -math.inf:
        data = relax.op.maximum(data, relax.const(low, kind))
    return relax.op.minimum(data, relax.const(high, kind)) if high < math.inf else data


def _number(value: Any) -> float:
    inner = value.value
    return float(getattr(inner, "value", inner))


#: The arguments of `rewrite_main`: a pattern, the values of its constants, and a function that builds its replacement.
_Rule = tuple[Any, Mapping[Any, float], Callable[[Any, Any], Any]]


def one_form_of_hard_activations(module: Any) -> Any:
    """Rewrite the other forms in `main`, whose clips are already maximum and minimum."""
    for pattern, numbers, replacement in _rules():
        module = rewrite_main(module, pattern, replacement, numbers)
    return module


def _rules() -> Iterator[_Rule]:
    """Yield the rules, in the order in which they are applied."""
    add, divide, minimum, maximum = (is_op(f"relax.{name}") for name in ("add", "divide", "minimum", "maximum"))
    image, low, high, shift, scale = wildcard(), is_const(), is_const(), is_const(), is_const()

    product = partial(either, "multiply")

    def number(value: float) -> Any:
        return relax.const(value, FLOAT32.name)

    def clipped(matched: Any) -> Any:
        return relax.op.minimum(relax.op.maximum(relax.op.add(matched[image], number(3)), number(0)), number(6))

    def hsigmoid(_: Any, matched: Any) -> Any:
        return relax.op.divide(clipped(matched), number(6))

    def hswish(_: Any, matched: Any) -> Any:
        return relax.op.divide(relax.op.multiply(matched[image], clipped(matched)), number(6))

    clip = minimum(maximum(add(image, shift), low), high)
    bounds = {shift: 3.0, low: 0.0, high: 6.0}
    for part, factor in ((product(image, scale), 1 / 6), (divide(image, scale), 6.0)):
        yield minimum(maximum(add(part, shift), low), high), {scale: factor, shift: 0.5, low: 0.0, high: 1.0}, hsigmoid
    yield product(clip, scale), bounds | {scale: 1 / 6}, hsigmoid
    yield product(product(image, clip), scale), bounds | {scale: 1 / 6}, hswish
    yield product(image, divide(clip, scale)), bounds | {scale: 6.0}, hswish
    error = is_op("relax.erf")
    above = add(error(divide(image, scale)), shift), {scale: math.sqrt(2), shift: 1.0, low: 0.5}
    below = add(error(product(image, scale)), shift), {scale: math.sqrt(0.5), shift: 1.0, low: 0.5}
    for part, numbers in (above, below):
        for form in (product(product(image, part), low), product(image, product(part, low)), product(product(image, low), part)):
            yield form, numbers, lambda _, matched: relax.op.nn.gelu(matched[image])
    magnitude = is_op("relax.abs")(image)
    for base in (magnitude, image):
        yield is_op("relax.power")(base, scale), {scale: 2.0}, lambda _, matched: relax.op.multiply(matched[image], matched[image])
    yield is_op("relax.multiply")(magnitude, magnitude), {}, lambda _, matched: relax.op.multiply(matched[image], matched[image])
    yield product(image, is_op("relax.sigmoid")(image)), {}, lambda _, matched: relax.op.nn.silu(matched[image])
    logarithm = is_op("relax.nn.log_softmax")(image)
    yield logarithm, {}, lambda _, matched: relax.op.log(relax.op.nn.softmax(matched[image], int(matched[logarithm].attrs.axis)))
