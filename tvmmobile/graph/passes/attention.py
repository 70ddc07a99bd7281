"""Attention as one layer that reads queries, keys and values where a linear layer left them, and writes what the next one reads.

Networks permute, slice and reshape between these. Such a chain of views only says where elements are: it is applied to the numbers of a
tensor's elements, and where the result is an arithmetic progression along each axis, nothing has to be moved.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmmobile.graph.layers import NO_PARAMETERS, Array, Attention, Layer, Place
from tvmmobile.graph.passes.channel_trace import slice_of
from tvmmobile.graph.passes.compose_layers import EXTERNAL_PREFIX, ComposedLayer
from tvmmobile.graph.passes.rewriting import VIEW, MainRewriter, bindings_of, readers_of, rebuilt
from tvmmobile.graph.precision import FLOAT32

#: Views that keep the order of elements, where they keep their number.
_ORDERED = {VIEW, "relax.squeeze", "relax.expand_dims", "relax.flatten", "relax.broadcast_to"}


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
    """An attention, the variables that it reads, and the one that shows its result."""

    layer: Attention
    inputs: tuple[Any, Any, Any]
    output: Any


class _Rewriting(MainRewriter):
    """`main` while attentions become calls."""

    def __init__(self, main: Any, found: dict[Any, _Found], layers: dict[str, ComposedLayer]) -> None:
        super().__init__(main)
        self.found, self.layers = found, layers

    def value(self, variable: Any, value: Any) -> Any:
        """A call, or what it was."""
        from tvm import relax

        made = self.found.get(variable)
        if made is None:
            return rebuilt(value, lambda part: self.replaced.get(part, part))
        name = f"{EXTERNAL_PREFIX}{len(self.layers)}"
        self.layers[name] = ComposedLayer(made.layer, NO_PARAMETERS)
        inputs = relax.Tuple([self.replaced[one] for one in made.inputs])
        result = self.builder.emit(relax.call_dps_packed(name, inputs, out_ty=relax.TensorType(made.layer.output_shape, FLOAT32.name)))
        return relax.op.reshape(result, _shape(variable))

    def output(self, variable: Any) -> Any:
        """The same."""
        return self.replaced[variable]


class _Graph:
    """The values of `main`, from the last to the first."""

    def __init__(self, main: Any) -> None:
        self.values = {binding.var: binding.value for binding in bindings_of(main)}
        self.readers = readers_of(main)

    def _value(self, variable: Any) -> Any:
        return self.values.get(variable)

    def attention(self, binding: Any) -> _Found | None:
        """What a product of a softmax and something else is the last part of; `None` for other bindings."""
        value = binding.value
        if _name(value) != "relax.matmul" or str(value.ty.dtype) != FLOAT32.name:
            return None
        weights = self._softmax(value.args[0])
        scores, factor = self._scaled(weights.args[0]) if weights is not None else (None, 1.0)
        product = self._value(scores)
        if _name(product) != "relax.matmul":
            return None
        (*heads, queries, width), (*_, depth, keys) = _shape(binding.var), _shape(product.args[1])
        count = math.prod(heads)
        if _shape(product)[-2:] != [queries, keys] or math.prod(_shape(product)) != count * queries * keys:
            return None
        found = []
        for operand, extents, turned in (
            (product.args[0], (queries, depth), False),
            (product.args[1], (keys, depth), True),
            (value.args[1], (keys, width), False),
        ):
            place = self._place(operand, count, extents, turned)
            if place is None:
                return None
            source, where, scale = place
            factor *= scale
            found.append((source, where))
        shapes = [tuple(_shape(source)) for source, _ in found]
        query, key, values = (where for _, where in found)
        output, merged = self._merged(binding.var, count, queries, width)
        layer = Attention(count, queries, keys, depth, width, factor, (shapes[0], shapes[1], shapes[2]), query, key, values, merged)
        return _Found(layer, (found[0][0], found[1][0], found[2][0]), output)

    def _softmax(self, variable: Any) -> Any:
        """The softmax over the last axis that a variable shows; PyTorch's exporter adds zeros for rows that are all masked, of which a
        product has none.
        """
        value = self._value(self._ordered(variable))
        if _name(value) == "relax.where":
            masked, _, chosen = value.args
            value = self._value(self._ordered(chosen))
            test = self._value(masked)
            while _name(test) in ("relax.logical_not", "relax.astype", "relax.max"):
                test = self._value(test.args[0])
            same = _name(test) == "relax.equal" and _name(value) == "relax.nn.softmax" and test.args[0].same_as(value.args[0])
            if not same or not np.isneginf(test.args[1].value.numpy()).all():
                return None
        last = _name(value) == "relax.nn.softmax" and int(value.attrs.axis) % value.ty.ndim == value.ty.ndim - 1
        return value if last else None

    def _ordered(self, variable: Any) -> Any:
        """What a variable shows in the same order."""
        while _name(value := self._value(variable)) in _ORDERED and math.prod(_shape(value.args[0])) == math.prod(_shape(variable)):
            variable = value.args[0]
        return variable

    def _scaled(self, variable: Any) -> tuple[Any, float]:
        """What a variable shows in the same order, and by what it is multiplied."""
        factor = 1.0
        while True:
            variable = self._ordered(variable)
            step = _factor(self._value(variable))
            if step is None:
                return variable, factor
            variable, factor = step[0], factor * step[1]

    def _place(self, operand: Any, heads: int, extents: tuple[int, int], turned: bool) -> tuple[Any, Place, float] | None:
        """The tensor farthest back in which an operand's elements are in place, where they are, and by what they are multiplied.

        Args:
            extents: tokens, and elements of each.
            turned: the operand has them the other way round.
        """
        chain: list[Any] = []
        best, factor, number = None, 1.0, operand
        while True:
            where = self._where(number, chain, heads, extents, turned)
            best = (number, where, factor) if where else best
            value = self._value(number)
            step = _factor(value)
            if step is not None:
                number, factor = step[0], factor * step[1]
                continue
            if _name(value) not in {*_ORDERED, "relax.permute_dims", "relax.strided_slice"} or len(chain) > 16:
                return best
            chain.insert(0, value)
            number = value.args[0]

    def _where(self, source: Any, chain: list[Any], heads: int, extents: tuple[int, int], turned: bool) -> Place | None:
        """Where elements are in a tensor that a chain of views begins with; `None` if they are not in place."""
        numbers = np.arange(math.prod(_shape(source))).reshape(_shape(source))
        for view in chain:
            moved = _moved(view, numbers)
            if moved is None:
                return None
            numbers = moved
        tokens, elements = extents
        numbers = numbers.reshape(-1, *((elements, tokens) if turned else (tokens, elements)))
        numbers = numbers.swapaxes(1, 2) if turned else numbers
        if len(numbers) not in (1, heads):
            return None
        numbers = np.broadcast_to(numbers, (heads, tokens, elements))
        first = int(numbers[0, 0, 0])
        head, token = (int(numbers[tuple(np.minimum(place, np.array(numbers.shape) - 1))]) - first for place in ((1, 0, 0), (0, 1, 0)))
        expected = sum(step * axis for step, axis in zip((head, token, 1), np.ogrid[:heads, :tokens, :elements], strict=True)) + first
        return (first, head, token) if (numbers == expected).all() else None

    def _merged(self, variable: Any, heads: int, queries: int, width: int) -> tuple[Any, bool]:
        """The last view of a result that has a token's heads one behind the other; the result itself if there is none."""
        wanted = np.arange(heads * queries * width).reshape(heads, queries, width).transpose(1, 0, 2).reshape(-1)
        numbers: Array | None = np.arange(wanted.size).reshape(_shape(variable))
        at, best = variable, None
        while numbers is not None and len(self.readers[at]) == 1 and self.readers[at][0] is not None:
            at = self.readers[at][0]
            numbers = _moved(self._value(at), numbers)
            if numbers is not None and numbers.size == wanted.size and (numbers.reshape(-1) == wanted).all():
                best = at
        return (variable, False) if best is None else (best, True)


def _moved(view: Any, numbers: Array) -> Array | None:
    """What a view makes of an array; `None` for other operators."""
    name = _name(view)
    if name == "relax.broadcast_to":
        return np.broadcast_to(numbers, _shape(view))
    if name in _ORDERED:
        return numbers.reshape(_shape(view))
    if name == "relax.permute_dims":
        return numbers.transpose(None if view.attrs.axes is None else [int(axis) for axis in view.attrs.axes])
    sliced = slice_of(view) if name == "relax.strided_slice" else None
    return None if sliced is None else numbers.take(np.arange(*sliced[1:]), sliced[0])


def _factor(value: Any) -> tuple[Any, float] | None:
    """Of a product or quotient with one number, the other operand and the factor."""
    import tvm

    name = _name(value)
    if name not in ("relax.multiply", "relax.divide"):
        return None
    operands = list(value.args)
    if name == "relax.multiply" and isinstance(operands[0], tvm.ir.GenericConst):
        operands.reverse()
    if not isinstance(operands[1], tvm.ir.GenericConst) or operands[1].value.numpy().size != 1:
        return None
    number = float(operands[1].value.numpy().item())
    return operands[0], number if name == "relax.multiply" else 1 / number


def _name(value: Any) -> str:
    return getattr(getattr(value, "op", None), "name", "")


def _shape(value: Any) -> list[int]:
    return [int(extent) for extent in value.ty.shape]
