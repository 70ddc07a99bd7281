"""Output layouts in place of operators that move a layer's output: pixel shuffles, and images in NCHW. Nothing moves in memory afterwards.

Networks spell pixel shuffles (W. Shi et al., arXiv 1609.05158) as a reshape and a permutation; these are one where the channels of a pixel
stay together in blocks, each in a row of its own of the larger image. The order of channels in these is that of the weights, which is ours
to choose. NCHW is the shuffle of blocks of one channel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tvmmobile.graph.access import Access
from tvmmobile.graph.curves import GATE, TENSOR
from tvmmobile.graph.expressions import shape_of
from tvmmobile.graph.layers import Array, Conv2d, Layer, LayerParameters, Resize
from tvmmobile.graph.layouts import Layout, shuffled
from tvmmobile.graph.operators import Trait, has
from tvmmobile.graph.passes.compose_layers import ComposedLayer, external_name
from tvmmobile.graph.passes.rewriting import MainRewriter, bindings_of, readers_of
from tvmmobile.graph.precision import FLOAT32


def output_layouts(accepts: Callable[[Layer], bool], layers: dict[str, ComposedLayer]) -> Callable[[Any], Any]:
    """The pass that has composed layers write what is made of their output, where a template takes that; it changes `layers`."""

    def compose(module: Any) -> Any:
        from tvm import relax

        main = module["main"]
        values, readers = {binding.var: binding.value for binding in bindings_of(main)}, readers_of(main)
        found = {}
        for variable, value in values.items():
            name = external_name(value)
            made = _moving(variable, layers[name], values, readers) if name else None
            if name and made and accepts(made.composed.layer):
                layers[name], found[variable] = made.composed, made
        if not found:
            return module
        module = module.clone()
        module["main"] = _Rewriting(main, found).rewritten()
        return relax.transform.DeadCodeElimination()(module)

    return compose


@dataclass(frozen=True)
class _Found:
    """A layer that moves its output, and the variable with its result."""

    composed: ComposedLayer
    output: Any


class _Rewriting(MainRewriter):
    """`main` while layers write outputs in other layouts."""

    def __init__(self, main: Any, found: dict[Any, _Found]) -> None:
        super().__init__(main)
        self.found, self.results = found, dict[Any, Any]()

    def value(self, variable: Any, value: Any) -> Any:
        """A call, a view of its result, or the old value."""
        from tvm import relax

        if variable in self.results:
            return relax.op.reshape(self.results[variable], shape_of(variable))
        made = self.found.get(variable)
        new = self.again(value)
        if made is None:
            return new
        out = relax.TensorType(made.composed.layer.output_shape, FLOAT32.name)
        self.results[made.output] = self.builder.emit(relax.Call(new.op, new.args, new.attrs, [out]))
        return relax.op.reshape(self.results[made.output], shape_of(variable))  # for the views in between, which nothing reads any more


def _moving(variable: Any, composed: ComposedLayer, values: dict[Any, Any], readers: dict[Any, list[Any]]) -> _Found | None:
    """The layer with the layout that its output is brought to; `None` without one."""
    layer = composed.layer
    if not isinstance(layer, Conv2d | Resize) or layer.out_layout != "NHWC" or (isinstance(layer, Conv2d) and layer.groups > 1):
        return None
    moves = list(_moves(variable, values, readers))
    found = [(at, *_nchw(layer)) for at, access in moves[-1:] if _is_nchw(access, layer) and not _moves_on(at, values, readers)]
    if isinstance(layer, Conv2d):
        found += [(at, *shuffle) for at, access in moves if (shuffle := _shuffle(access, layer))]
    if not found:
        return None
    at, layout, order = found[-1]
    if isinstance(layer, Resize):
        return _Found(replace(composed, layer=replace(layer, out_layout=layout)), at)
    alike = (order == np.arange(order.size)).all()
    if not alike and (layer.residual or {TENSOR, GATE} & {*layer.operands}):
        return None  # these have the channels in the old order
    parameters = composed.parameters
    constants = (parameters.bias, *parameters.operands)
    bias, *operands = (array[order] for array in constants)
    parameters = LayerParameters(np.ascontiguousarray(parameters.weight[..., order]), bias, tuple(operands))
    return _Found(replace(composed, layer=replace(layer, out_layout=layout), parameters=parameters), at)


def _moves(variable: Any, values: dict[Any, Any], readers: dict[Any, list[Any]]) -> Iterator[tuple[Any, Access]]:
    """Yield the views that a variable goes through, each with the elements of the variable that it has."""
    access = Access.of(shape_of(variable))
    while len(readers[variable]) == 1 and (variable := readers[variable][0]) is not None:
        after = access.after(values[variable])
        if after is None:
            return
        access = after
        yield variable, access


def _moves_on(variable: Any, values: dict[Any, Any], readers: dict[Any, list[Any]]) -> bool:
    """Return whether a reader of a view is another view, with which the views before can be joined."""
    return any(reader is not None and has(values[reader], Trait.MOVE) for reader in readers[variable])


def _is_nchw(access: Access, layer: Conv2d | Resize) -> bool:
    """Return whether these elements of an NHWC output follow each other as in NCHW, which is another order."""
    channels = layer.output_shape[3]
    pixels = math.prod(layer.output_shape) // channels
    return min(pixels, channels) > 1 and access.in_order(Access.of([pixels, channels]).permute())


def _nchw(layer: Conv2d | Resize) -> tuple[Layout, Array]:
    """The layout, and the order of channels."""
    return "NCHW" if isinstance(layer, Resize) else shuffled(1, 1), np.arange(layer.output_shape[3])


def _shuffle(access: Access, layer: Conv2d) -> tuple[Layout, Array] | None:
    """Return the layout with the largest blocks in which these elements of an NHWC output follow each other, and its order of channels."""
    height, width, channels = layer.out_height, layer.out_width, layer.out_channels
    if math.prod(access.shape) != height * width * channels:
        return None
    *pixels, _ = Access.of([height, width, channels]).dimensions
    divisors = [count for count in range(2, channels + 1) if channels % count == 0]
    for block, rows in itertools.product(reversed(divisors), divisors):
        parts = None if channels % (block * rows) else access.reshape([channels // (block * rows), height, rows, width, block])
        if parts is None or [parts.dimensions[1], parts.dimensions[3]] != pixels:
            continue
        order = Access(parts.dimensions[::2], access.offset).indices().reshape(-1)
        if (np.sort(order) == np.arange(channels)).all():
            return shuffled(rows, block), order
    return None
