"""Weights in fewer bits than the kernel's type: widened in registers if each is read once, else panel by panel into a buffer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tvmmobile.graph.layers import Layer, LayerParameters
from tvmmobile.graph.precision import INT8
from tvmmobile.graph.small_weights import as_stored
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel
from tvmmobile.schedules.emit.matmul import MatmulTile


def stored_constants(layer: Layer, parameters: LayerParameters) -> LayerParameters:
    """Return a layer's constants with its weights in the type that the library stores."""
    return as_stored(parameters, layer.weights) if layer.weights else parameters


def widened(kernel: Kernel, weights: Buffer, begin: Expr, count: int) -> Iterator[Expr]:
    """Yield `count` stored weights as vectors in the kernel's precision; two vectors share a load."""
    lanes = kernel.lanes
    for first in range(0, count, 2 * lanes):
        together = min(2 * lanes, count - first)
        stored = weights[kernel.at(begin + first, together)]
        # LLVM widens each half of a register with one instruction, but needs more for wider vectors.
        wide = kernel.T.bind(kernel.T.Cast(f"int16x{together}", stored) if str(weights.dtype) == INT8.name else stored)
        for place in range(0, together, lanes):
            yield kernel.vectors().cast(kernel.T.Shuffle([wide], list(range(place, place + lanes))))


@dataclass(frozen=True)
class SmallTile(MatmulTile):
    """Register tiles that widen weights in registers."""

    def _weights(self, begin: Expr, width: int) -> Iterator[tuple[int, Expr]]:
        yield from zip(range(0, width, self.kernel.lanes), widened(self.kernel, self.w, begin, width), strict=True)
