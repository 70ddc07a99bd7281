"""The epilogue of NCHW kernels, whose vectors hold neighbouring pixels of one channel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from tvmmobile.schedules.emit.activations import Activation
from tvmmobile.schedules.emit.epilogue import Epilogue, Spot
from tvmmobile.schedules.emit.kernel import Buffer, Expr


@dataclass(frozen=True)
class PlaneEpilogue(Epilogue):
    """The epilogue of vectors that hold pixels of one channel."""

    def _constant(self, name: str, spot: Spot) -> Expr:
        return self._of_channels(self.buffers[name], spot)

    def _of_channels(self, buffer: Buffer, spot: Spot) -> Expr:
        return self.kernel.splat(self.kernel.load(buffer, spot.channel, 1), spot.lanes)

    def _tensor(self, name: str, spot: Spot) -> Expr:
        return self.kernel.load(self.buffers[name], spot.place(Activation(self.buffers[name], 0, 0, 0)), spot.lanes)


def plane_spot(channel: Expr, target: Expr, lanes: int) -> Spot:
    """Return the spot of neighbouring pixels, whose index `target` is the same in all tensors with the output's extents."""
    return Spot(channel, target, partial(_at, target), lanes, lanes)


def _at(place: Expr, _tensor: Activation) -> Expr:
    return place
