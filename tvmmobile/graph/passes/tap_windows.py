"""Finds taps that parts of a convolution's channels lack.

Transposed convolutions have such parts (see `sub_pixels`): of a 4×4 one with stride 2, each of the four pixels has four of nine taps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tvmmobile.graph.composed import ComposedLayer
from tvmmobile.graph.layers import Array, Conv2d, Layer, TapWindow

#: Fewest channels of a part: with fewer, vectors are filled better by channels of several parts.
_LEAST_CHANNELS = 8
#: Most parts, each of which is a loop of its own.
_MOST_PARTS = 16


def tap_windows(accepts: Callable[[Layer], bool], layers: dict[str, ComposedLayer]) -> Callable[[Any], Any]:
    """Return the pass that sets the windows of composed layers where a template takes them; it changes only `layers`."""

    def find(module: Any) -> Any:
        for name, composed in layers.items():
            layer = composed.layer
            if isinstance(layer, Conv2d) and layer.groups == 1 and (windows := windows_of(composed.parameters.weight)):
                windowed = replace(layer, windows=windows)
                if accepts(windowed):
                    layers[name] = replace(composed, layer=windowed)
        return module

    return find


def windows_of(weight: Array) -> tuple[TapWindow, ...]:
    """Return the fewest windows of HWIO weights (`Conv2d.windows`) that omit the most zeros; none if channels have all taps."""
    rows, columns, _, channels = weight.shape
    used = (weight != 0).any(2)
    if used.all():
        return ()
    best: tuple[TapWindow, ...] = ()
    least = rows * columns * channels
    for parts in range(2, min(_MOST_PARTS, channels // _LEAST_CHANNELS) + 1):
        if channels % parts:
            continue
        windows = tuple(_window(used[..., first : first + channels // parts].any(2)) for first in range(0, channels, channels // parts))
        taps = sum((bottom - top) * (right - left) for top, bottom, left, right in windows) * (channels // parts)
        if taps < least:
            best, least = windows, taps
    return best


def _window(used: Array) -> TapWindow:
    """Return the smallest window with all taps that are used, one at least."""
    rows, columns = np.flatnonzero(used.any(1)), np.flatnonzero(used.any(0))
    return (int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1) if rows.size else (0, 1, 0, 1)
