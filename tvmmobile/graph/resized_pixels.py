"""The pixels that a resize layer reads, by its rule or from its constants."""

from __future__ import annotations

import numpy as np

from tvmmobile.graph.layers import Array, LayerParameters, Resize
from tvmmobile.graph.resizing import GIVEN, pixels_along


def pixels_of(layer: Resize, constants: LayerParameters) -> tuple[tuple[Array, Array, Array], ...]:
    """Of each output row, then of each column: the first and last line of the input that it is made of, and the share of the last."""
    extents = (layer.height, layer.out_height), (layer.width, layer.out_width)
    if layer.places != GIVEN:
        return tuple(pixels_along(inputs, outputs, layer.method, layer.places) for inputs, outputs in extents)
    found, begin = [], 0
    for inputs, outputs in extents:
        first, share = constants.weight[begin : begin + outputs].astype(np.int64), constants.bias[begin : begin + outputs]
        found.append((first, np.minimum(first + 1, inputs - 1), share))
        begin += outputs
    return tuple(found)


def given_pixels(layer: Resize, generator: np.random.Generator) -> LayerParameters:
    """Constants for a layer whose pixels are given: random ones in ascending order, as resizes have them."""
    extents = (layer.height, layer.out_height), (layer.width, layer.out_width)
    first = np.concatenate([np.sort(generator.integers(0, inputs, outputs)) for inputs, outputs in extents]).astype(np.int32)
    share = generator.uniform(0.0, 1.0, first.size) if layer.method == "linear" else np.zeros(first.size)
    return LayerParameters(first, share.astype(np.float32))
