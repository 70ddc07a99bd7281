"""Weights in fewer bits than a kernel computes with: widened in registers where each is read once, else panel by panel into a buffer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tvmmobile.graph.layers import Layer, LayerParameters
from tvmmobile.graph.precision import INT8
from tvmmobile.graph.small_weights import as_stored
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel
from tvmmobile.schedules.emit.matmul import MatmulTile


def stored_constants(layer: Layer, parameters: LayerParameters) -> LayerParameters:
    """Return a layer's constants with the weights as they are stored."""
    return as_stored(parameters, layer.weights) if layer.weights else parameters


def widened(kernel: Kernel, weights: Buffer, begin: Expr, count: int) -> Iterator[Expr]:
    """Yield so many stored weights as vectors in the kernel's precision, two of which are loaded together."""
    lanes = kernel.lanes
    for first in range(0, count, 2 * lanes):
        together = min(2 * lanes, count - first)
        stored = weights[kernel.at(begin + first, together)]
        # LLVM extends both halves of a register with an instruction each, but not those of wider vectors.
        wide = kernel.T.bind(kernel.T.Cast(f"int16x{together}", stored) if str(weights.dtype) == INT8.name else stored)
        for place in range(0, together, lanes):
            yield kernel.vectors().cast(kernel.T.Shuffle([wide], list(range(place, place + lanes))))


@dataclass(frozen=True)
class SmallTile(MatmulTile):
    """Tiles that widen weights where they multiply them."""

    def _weights(self, begin: Expr, width: int) -> Iterator[tuple[int, Expr]]:
        yield from zip(range(0, width, self.kernel.lanes), widened(self.kernel, self.w, begin, width), strict=True)
