"""Attention as one layer that reads queries, keys and values where a linear layer wrote them, and writes what the next one reads.

Networks permute, slice and reshape in between. Such a chain of views only says where elements are: it is applied to the indices of a
tensor's elements, and if the result is an arithmetic progression along each axis, nothing has to be moved.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tvmmobile.graph.access import moved_by
from tvmmobile.graph.expressions import operator_of, shape_of
from tvmmobile.graph.layers import NO_PARAMETERS, Array, Attention, HeadView, Layer, LayerParameters
from tvmmobile.graph.operators import Trait, has
from tvmmobile.graph.passes.compose_layers import ComposedLayer, layer_call
from tvmmobile.graph.passes.rewriting import MainRewriter, bindings_of, readers_of
from tvmmobile.graph.precision import FLOAT32

#: Added to masked products; differences of minus infinities would be NaN.
_NOTHING = np.float32(-1e30)


def attention(accepts: Callable[[Layer], bool], layers: dict[str, ComposedLayer]) -> Callable[[Any], Any]:
    """The pass that replaces every attention that is accepted by a call of an external function, which it adds to `layers`."""

    def compose(module: Any) -> Any:
        from tvm import relax

        graph = _Graph(module["main"])
        found = {made.output: made for binding in bindings_of(module["main"]) if (made := graph.attention(binding)) and accepts(made.layer)}
        if not found:
            return module
        module = module.clone()
        module["main"] = _Rewriting(module["main"], found, layers).rewritten()
        return relax.transform.DeadCodeElimination()(module)

    return compose


@dataclass(frozen=True)
class _Found:
    """An attention, what it adds to its products, the variables that it reads, and the one that shows its result."""

    layer: Attention
    bias: Array | None
    inputs: tuple[Any, Any, Any]
    output: Any


@dataclass(frozen=True)
class _Read:
    """An operand of attention, traced back: a tensor, places in it, a factor, and the number of views on the way."""

    source: Any
    place: HeadView
    factor: float
    views: int


def _views(reads: list[_Read]) -> int:
    return sum(one.views for one in reads)


class _Rewriting(MainRewriter):
    """`main` while attentions become calls."""

    def __init__(self, main: Any, found: dict[Any, _Found], layers: dict[str, ComposedLayer]) -> None:
        super().__init__(main)
        self.found, self.layers = found, layers

    def value(self, variable: Any, value: Any) -> Any:
        """A call, or the old value."""
        from tvm import relax

        made = self.found.get(variable)
        if made is None:
            return self.again(value)
        parameters = NO_PARAMETERS if made.bias is None else LayerParameters(NO_PARAMETERS.weight, made.bias)
        inputs = [self.replaced[one] for one in made.inputs]
        result = self.builder.emit(layer_call(self.layers, ComposedLayer(made.layer, parameters), inputs))
        return relax.op.reshape(result, shape_of(variable))


class _Graph:
    """The values of `main`, from the last to the first."""

    def __init__(self, main: Any) -> None:
        self.values = {binding.var: binding.value for binding in bindings_of(main)}
        self.readers = readers_of(main)

    def _value(self, variable: Any) -> Any:
        return self.values.get(variable)

    def attention(self, binding: Any) -> _Found | None:
        """The attention that ends with this product of a softmax and values; `None` for other bindings."""
        value = binding.value
        if operator_of(value) != "relax.matmul" or str(value.ty.dtype) != FLOAT32.name:
            return None
        weights = self._softmax(value.args[0])
        scores, factor, added = self._scaled(weights.args[0]) if weights is not None else (None, 1.0, None)
        product = self._value(scores)
        if operator_of(product) != "relax.matmul":
            return None
        (*heads, queries, width), (*_, depth, keys) = shape_of(binding.var), shape_of(product.args[1])
        count = math.prod(heads)
        if shape_of(product)[-2:] != [queries, keys] or math.prod(shape_of(product)) != count * queries * keys:
            return None
        operands = (
            (product.args[0], (queries, depth), False),
            (product.args[1], (keys, depth), True),
            (value.args[1], (keys, width), False),
        )
        best: list[_Read] = []
        groups = 1
        for tried in (divisor for divisor in range(1, count + 1) if count % divisor == 0):
            found = [place for one in operands if (place := self._place(one[0], (tried, count // tried), *one[1:]))]
            if len(found) == len(operands) and (not best or _views(found) > _views(best)):
                best, groups = found, tried
        if not best:
            return None
        query, key, values = best
        shapes = [tuple(shape_of(one.source)) for one in best]
        output, merged = self._merged(binding.var, (groups, count // groups), queries, width)
        layer = Attention(
            *(groups, count // groups, queries, keys, depth, width),
            factor * math.prod(one.factor for one in best),
            (shapes[0], shapes[1], shapes[2]),
            *(query.place, key.place, values.place),
            merged,
        )
        bias = None if added is None else _reduced(added.reshape(groups, count // groups, queries, keys))
        if bias is not None:
            if not (bias.max(-1) > _NOTHING).all():
                return None  # what is the softmax of nothing?
            bias = np.maximum(bias, _NOTHING)
            layer = replace(layer, bias=(bias.shape[0], bias.shape[1]))
        return _Found(layer, bias, (query.source, key.source, values.source), output)

    def _softmax(self, variable: Any) -> Any:
        """The softmax over the last axis that a variable shows; PyTorch's exporter adds zeros for rows that are all masked, of which a
        product has none.
        """
        value = self._value(self._ordered(variable))
        if operator_of(value) == "relax.where":
            masked, _, chosen = value.args
            value = self._value(self._ordered(chosen))
            test = self._value(masked)
            while operator_of(test) in ("relax.logical_not", "relax.astype", "relax.max"):
                test = self._value(test.args[0])
            same = operator_of(test) == "relax.equal" and operator_of(value) == "relax.nn.softmax" and test.args[0].same_as(value.args[0])
            if not same or not np.isneginf(test.args[1].value.numpy()).all():
                return None
        last = operator_of(value) == "relax.nn.softmax" and int(value.attrs.axis) % value.ty.ndim == value.ty.ndim - 1
        return value if last else None

    def _ordered(self, variable: Any) -> Any:
        """Follow reshapes back from a variable to the first with the same elements in the same order."""
        elements = math.prod(shape_of(variable))
        while has(value := self._value(variable), Trait.RESHAPE) and math.prod(shape_of(value.args[0])) == elements:
            variable = value.args[0]
        return variable

    def _scaled(self, variable: Any) -> tuple[Any, float, Array | None]:
        """Follow reshapes, factors and summands back from a variable: the source, its total factor, and the constants added."""
        factor, added = 1.0, None
        while True:
            variable = self._ordered(variable)
            value = self._value(variable)
            if step := _factor(value):
                variable, factor = step[0], factor * step[1]
            elif summand := _summand(value):
                more = np.broadcast_to(summand[1], shape_of(value)).reshape(-1) * np.float32(factor)
                variable, added = summand[0], more if added is None else added + more
            else:
                return variable, factor, added

    def _place(self, operand: Any, heads: tuple[int, int], extents: tuple[int, int], turned: bool) -> _Read | None:
        """The tensor farthest back in which an operand's elements are in place.

        Args:
            heads: groups, and heads of each.
            extents: tokens, and elements of each.
            turned: the operand has them the other way round.
        """
        chain: list[Any] = []
        best, factor, number = None, 1.0, operand
        while True:
            where = self._where(number, chain, heads, extents, turned)
            best = _Read(number, where, factor, len(chain)) if where else best
            value = self._value(number)
            step = _factor(value)
            if step is not None:
                number, factor = step[0], factor * step[1]
                continue
            if not has(value, Trait.MOVE) or len(chain) > 16:
                return best
            chain.insert(0, value)
            number = value.args[0]

    def _where(self, source: Any, chain: list[Any], heads: tuple[int, int], extents: tuple[int, int], turned: bool) -> HeadView | None:
        """Compute the place of elements in the tensor that a chain of views begins with; `None` if no strides describe it."""
        numbers = np.arange(math.prod(shape_of(source))).reshape(shape_of(source))
        for view in chain:
            moved = moved_by(view, numbers)
            if moved is None:
                return None
            numbers = moved
        tokens, elements = extents
        numbers = numbers.reshape(-1, *((elements, tokens) if turned else (tokens, elements)))
        numbers = numbers.swapaxes(1, 2) if turned else numbers
        groups, each = heads
        if len(numbers) not in (1, groups, groups * each):
            return None
        numbers = numbers.reshape(*((1, 1) if len(numbers) == 1 else (groups, -1)), tokens, elements)
        numbers = np.broadcast_to(numbers, (groups, each, tokens, elements))
        first = int(numbers[0, 0, 0, 0])
        group, head, token = (int(numbers.take(min(1, numbers.shape[axis] - 1), axis).flat[0]) - first for axis in range(3))
        g, h, t, e = np.ogrid[:groups, :each, :tokens, :elements]
        return (first, group, head, token) if (numbers == first + group * g + head * h + token * t + e).all() else None

    def _merged(self, variable: Any, heads: tuple[int, int], queries: int, width: int) -> tuple[Any, bool]:
        """The last view of a result that has a token's heads one behind the other; the result itself if there is none."""
        wanted = np.arange(math.prod(heads) * queries * width).reshape(*heads, queries, width).transpose(0, 2, 1, 3).reshape(-1)
        numbers: Array | None = np.arange(wanted.size).reshape(shape_of(variable))
        at, best = variable, None
        while numbers is not None and len(self.readers[at]) == 1 and self.readers[at][0] is not None:
            at = self.readers[at][0]
            numbers = moved_by(self._value(at), numbers)
            if numbers is not None and numbers.size == wanted.size and (numbers.reshape(-1) == wanted).all():
                best = at
        return (variable, False) if best is None else (best, True)


def _factor(value: Any) -> tuple[Any, float] | None:
    """The other operand and the factor of a product or quotient with one number."""
    import tvm

    name = operator_of(value)
    if name not in ("relax.multiply", "relax.divide"):
        return None
    operands = list(value.args)
    if name == "relax.multiply" and isinstance(operands[0], tvm.ir.GenericConst):
        operands.reverse()
    if not isinstance(operands[1], tvm.ir.GenericConst) or operands[1].value.numpy().size != 1:
        return None
    number = float(operands[1].value.numpy().item())
    return operands[0], number if name == "relax.multiply" else 1 / number


def _summand(value: Any) -> tuple[Any, Array] | None:
    """The other operand, of the sum's shape, and the constant of a sum with a constant."""
    import tvm

    if operator_of(value) != "relax.add":
        return None
    for operand, constant in itertools.permutations(value.args):
        if (
            isinstance(constant, tvm.ir.GenericConst)
            and not isinstance(operand, tvm.ir.GenericConst)
            and shape_of(operand) == shape_of(value)
        ):
            return operand, constant.value.numpy()
    return None


def _reduced(bias: Array) -> Array:
    """Biases for each group, head, query and key, once where groups or heads have the same."""
    for axis in (0, 1):
        first = bias.take([0], axis)
        bias = first if (bias == first).all() else bias
    return np.ascontiguousarray(bias)
