"""A 1×1 convolution of a concatenation with an enlarged image: the image's share of the products is computed before it is enlarged.

Resizing treats all channels alike, so it may follow the products, which are then a quarter where sides double; the enlarged share is the
residual of what remains. Feature pyramids are made of such pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tvmmobile.graph.layers import NO_CLAMP, Conv2d, Layer, LayerParameters, Resize
from tvmmobile.graph.passes.compose_layers import ComposedLayer, external_name, layer_call
from tvmmobile.graph.passes.rewriting import MainRewriter, bindings_of, readers_of


def resized_pieces(accepts: Callable[[Layer], bool], layers: dict[str, ComposedLayer]) -> Callable[[Any], Any]:
    """The pass, where templates take the layers; it changes `layers`."""

    def split(module: Any) -> Any:
        from tvm import relax

        main = module["main"]
        values, readers = {binding.var: binding.value for binding in bindings_of(main)}, readers_of(main)
        found = {}
        for variable, value in values.items():
            made = _split(value, values, readers, layers) if external_name(value) in layers else None
            if made and all(accepts(one.layer) for one in (made.share, made.enlarged, made.rest)):
                found[variable] = made
        if not found:
            return module
        module = module.clone()
        module["main"] = _Rewriting(main, found, layers).rewritten()
        return relax.transform.DeadCodeElimination()(module)

    return split


@dataclass(frozen=True)
class _Split:
    """Three layers in place of one: that of the image's share, which reads `image`, of its enlargement, and of the rest."""

    share: ComposedLayer
    enlarged: ComposedLayer
    rest: ComposedLayer
    image: Any
    sources: tuple[Any, ...]
    operands: tuple[Any, ...]


class _Rewriting(MainRewriter):
    """`main` while layers are split; resizes that nobody reads any more are left behind."""

    def __init__(self, main: Any, found: dict[Any, _Split], layers: dict[str, ComposedLayer]) -> None:
        super().__init__(main)
        self.found, self.layers = found, layers

    def value(self, variable: Any, value: Any) -> Any:
        """The call of the rest, behind those of the share and its enlargement, or the old value."""
        made = self.found.get(variable)
        if made is None:
            return self.again(value)
        share = self.builder.emit(layer_call(self.layers, made.share, [self.replaced[made.image]]))
        enlarged = self.builder.emit(layer_call(self.layers, made.enlarged, [share]))
        sources, operands = ([self.replaced[one] for one in some] for some in (made.sources, made.operands))
        return layer_call(self.layers, made.rest, [*sources, enlarged, *operands])


def _split(value: Any, values: dict[Any, Any], readers: dict[Any, list[Any]], layers: dict[str, ComposedLayer]) -> _Split | None:
    """The layers in place of a 1×1 convolution that reads an enlarged image whole, if that has no fewer channels than are made of it."""
    composed = layers[str(external_name(value))]
    layer, arguments = composed.layer, tuple(value.args[1].fields)
    if (
        not (isinstance(layer, Conv2d) and layer.is_pointwise and len(layer.pieces) == len(layer.sources) > 1)
        or layer.residual
        or layer.added
        or layer.scaled
    ):
        return None
    for place, (source, first, count) in enumerate(layer.pieces):
        image = layers.get(external_name(values.get(arguments[source])) or "")
        if image is None or not isinstance(image.layer, Resize) or len(readers[arguments[source]]) > 1:
            continue
        small, large = image.layer.height * image.layer.width, image.layer.out_height * image.layer.out_width
        if image.layer.out_layout != "NHWC" or small >= large or (first, count) != (0, layer.sources[source]) or count < layer.out_channels:
            continue
        start = sum(piece[2] for piece in layer.pieces[:place])
        weight = composed.parameters.weight
        its = LayerParameters(np.ascontiguousarray(weight[:, :, start : start + count]), np.zeros_like(composed.parameters.bias))
        others = replace(composed.parameters, weight=np.delete(weight, np.s_[start : start + count], 2))
        plain = Conv2d(image.layer.height, image.layer.width, count, layer.out_channels, clamp=NO_CLAMP)
        return _Split(
            ComposedLayer(plain, its),
            replace(image, layer=replace(image.layer, channels=layer.out_channels)),
            ComposedLayer(_without(layer, place), others),
            values[arguments[source]].args[1].fields[0],
            tuple(argument for number, argument in enumerate(arguments[: len(layer.sources)]) if number != source),
            arguments[len(layer.sources) :],
        )
    return None


def _without(layer: Conv2d, place: int) -> Conv2d:
    """The layer without a piece and its source, and with a residual."""
    gone, _, count = layer.pieces[place]
    sources = tuple(channels for number, channels in enumerate(layer.sources) if number != gone)
    pieces = tuple((number - (number > gone), first, channels) for number, first, channels in layer.pieces if number != gone)
    if pieces == ((0, 0, sources[0]),):
        sources, pieces = (), ()
    return replace(layer, in_channels=layer.in_channels - count, sources=sources, pieces=pieces, residual=True)
