"""Splits 1×1 convolutions of concatenations with an enlarged image: its share of the products is computed before enlarging.

Resizing treats all channels alike, so it may follow the products; doubled sides then need only a quarter of them. The enlarged share
becomes the residual of the remaining convolution. Feature pyramids are made of such pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tvmmobile.graph.composed import ComposedLayer
from tvmmobile.graph.layers import NO_CLAMP, Conv2d, LayerParameters, Resize
from tvmmobile.graph.passes.layer_passes import LayerGraph, layer_pass


@layer_pass
def resized_pieces(graph: LayerGraph, variable: Any) -> Mapping[Any, Any]:
    """Split a 1×1 convolution that reads a whole enlarged image into three layers: the image's share, its enlargement, and the rest.
    Templates must take them, and the image must have at least as many channels as the result.
    """
    composed = graph.layer(variable)
    layer = composed.layer if composed else None
    if not (isinstance(layer, Conv2d) and layer.is_pointwise and len(layer.pieces) == len(layer.sources) > 1):
        return {}
    assert composed is not None
    sources = graph.inputs(variable)[: len(layer.sources)]
    place = next((place for place, piece in enumerate(layer.pieces) if _is_enlarged(graph, layer, piece, sources)), None)
    if place is None or layer.residual or layer.added or layer.scaled:
        return {}
    source, _, count = layer.pieces[place]
    resize = graph.layer(sources[source])
    assert resize is not None and isinstance(resize.layer, Resize)
    start = sum(piece[2] for piece in layer.pieces[:place])
    weight = composed.parameters.weight
    own = LayerParameters(np.ascontiguousarray(weight[:, :, start : start + count]), np.zeros_like(composed.parameters.bias))
    others = replace(composed.parameters, weight=np.delete(weight, np.s_[start : start + count], 2))
    plain = Conv2d(resize.layer.height, resize.layer.width, count, layer.out_channels, clamp=NO_CLAMP)
    share, rest = ComposedLayer(plain, own), ComposedLayer(_without(layer, place), others)
    enlarged = replace(resize, layer=replace(resize.layer, channels=layer.out_channels))
    if not all(graph.accepts(one.layer) for one in (share, enlarged, rest)):
        return {}
    image = graph.call(enlarged, [graph.call(share, graph.inputs(sources[source]))])
    operands = graph.inputs(variable)[len(sources) :]
    return {variable: graph.call(rest, [*sources[:source], *sources[source + 1 :], image, *operands])}


def _is_enlarged(graph: LayerGraph, layer: Conv2d, piece: tuple[int, int, int], sources: tuple[Any, ...]) -> bool:
    """Return whether a piece is a whole image, enlarged only for this layer, with no fewer channels than its outputs."""
    source, first, count = piece
    found = graph.layer(sources[source])
    if found is None or not isinstance(found.layer, Resize) or not graph.read_once(sources[source]):
        return False
    small, large = found.layer.height * found.layer.width, found.layer.out_height * found.layer.out_width
    whole = (first, count) == (0, layer.sources[source]) and found.layer.out_layout == "NHWC"
    return whole and small < large and count >= layer.out_channels


def _without(layer: Conv2d, place: int) -> Conv2d:
    """Return the layer without a piece and its source, and with a residual."""
    gone, _, count = layer.pieces[place]
    sources = tuple(channels for number, channels in enumerate(layer.sources) if number != gone)
    pieces = tuple((number - (number > gone), first, channels) for number, first, channels in layer.pieces if number != gone)
    if pieces == ((0, 0, sources[0]),):
        sources, pieces = (), ()
    return replace(layer, in_channels=layer.in_channels - count, sources=sources, pieces=pieces, residual=True)
