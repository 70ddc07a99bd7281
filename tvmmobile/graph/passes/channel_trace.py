"""Traces the channels of a tensor through operators that only move them: concatenations, slices, shuffles, layout changes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import relax

from tvmmobile.graph.access import slices_of
from tvmmobile.graph.expressions import TO_FIRST, TO_LAST, shape_of

#: Axes of channels in NCHW and NHWC.
NCHW, NHWC = 1, 3
#: Permutation of (1, groups, channels of a group, height, width): the channels of the groups taken in turn.
_SHUFFLE = (0, 2, 1, 3, 4)


@dataclass(frozen=True)
class MovedChannels:
    """A tensor whose channels come from other tensors.

    Attributes:
        origins: origin of each channel: (number of the tensor, channel in it), of shape (channels, 2); within a shuffle,
            (groups, channels of a group, 2).
        axis: axis of its channels, by `NCHW` or `NHWC`.
        shuffled: true if the channels pass through a shuffle.
    """

    origins: npt.NDArray[np.int64]
    axis: int
    shuffled: bool = False


@dataclass
class Trace:
    """The channel moves of a network.

    Attributes:
        tensors: NHWC tensors that something is computed into, by number.
        moved: the others, by their variables.
    """

    tensors: list[Any] = field(default_factory=list)
    moved: dict[Any, MovedChannels] = field(default_factory=dict)
    _numbers: dict[Any, int] = field(default_factory=dict)

    def follow(self, bindings: Iterable[Any]) -> None:
        """Note every binding that moves channels; they come in order of execution."""
        for binding in bindings:
            moved = self._moved(binding.value) if isinstance(binding.value, relax.Call) else None
            if moved is not None:
                self.moved[binding.var] = moved

    def _moved(self, call: Any) -> MovedChannels | None:
        name = getattr(call.op, "name", "")
        if name == "relax.concat":
            return self._joined(call)
        moved = self._of(call.args[0]) if name in ("relax.permute_dims", "relax.reshape", "relax.strided_slice") else None
        if moved is None:
            return None
        if name == "relax.permute_dims":
            return _permuted(moved, tuple(map(int, call.attrs.axes or ())))
        if name == "relax.reshape":
            return _reshaped(moved, shape_of(call.args[0]), shape_of(call))
        found = slice_of(call)
        if found is None or found[0] != moved.axis or moved.origins.ndim != 2:
            return None
        return replace(moved, origins=moved.origins[found[1] : found[2]])

    def _joined(self, call: Any) -> MovedChannels | None:
        parts = [self._of(part) for part in getattr(call.args[0], "fields", ())]
        if not parts or any(part is None or part.axis != int(call.attrs.axis) or part.origins.ndim != 2 for part in parts):
            return None
        known = [part for part in parts if part is not None]
        return MovedChannels(np.concatenate([part.origins for part in known]), known[0].axis, any(part.shuffled for part in known))

    def _of(self, variable: Any) -> MovedChannels | None:
        """Return the origins of a tensor's channels; a computed tensor is its own origin."""
        if variable in self.moved:
            return self.moved[variable]
        shape = [int(extent) for extent in getattr(variable.ty, "shape", None) or ()]
        if len(shape) != 4 or shape[0] != 1:
            return None
        if variable not in self._numbers:
            self._numbers[variable] = len(self.tensors)
            self.tensors.append(variable)
        channels = np.arange(shape[3])
        return MovedChannels(np.stack([np.full_like(channels, self._numbers[variable]), channels], -1), NHWC)


def slice_of(call: Any) -> tuple[int, int, int] | None:
    """Return the axis, begin and end of a `relax.strided_slice` along one axis, step 1, from the front and inside; `None` for others.

    PyTorch writes `x[:, 4:]` with an end of 2⁶³ - 1, and `x[:, -4:]` with a begin of -4.
    """
    shape = shape_of(call.args[0])
    cuts = [(axis, *slice(*part).indices(shape[axis])) for axis, part in enumerate(slices_of(call)) if any(one is not None for one in part)]
    return cuts[0][:3] if len(cuts) == 1 and cuts[0][3] == 1 else None


def _permuted(moved: MovedChannels, axes: tuple[int, ...]) -> MovedChannels | None:
    if axes == _SHUFFLE and moved.origins.ndim == 3:
        return replace(moved, origins=moved.origins.swapaxes(0, 1), shuffled=True)
    if moved.origins.ndim == 2 and (moved.axis, axes) in ((NHWC, TO_FIRST), (NCHW, TO_LAST)):
        return replace(moved, axis=NCHW if moved.axis == NHWC else NHWC)
    return None


def _reshaped(moved: MovedChannels, before: list[int], after: list[int]) -> MovedChannels | None:
    """Return channels as groups of channels, or the other way round."""
    if moved.axis != NCHW or len(after) not in (4, 5) or after[0] != 1 or after[-2:] != before[-2:]:
        return None
    return replace(moved, origins=moved.origins.reshape((*after[1:-2], 2)))
