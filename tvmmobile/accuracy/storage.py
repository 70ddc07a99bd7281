"""The error of storing weights and activations in a precision, layer by layer: simulated in PyTorch, not run on a device.

Convolutions and matrix products read weights and activations rounded to the precision; everything else, including their sums, stays
float32. A layer's loss here comes from the size of its numbers, whatever its kernel does. Layers are observed in PyTorch's dispatcher, so
that modules, exported programs and functions are all supported.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tvmmobile.accuracy.differences import subnormals_in
from tvmmobile.graph.precision import Precision
from tvmmobile.kernels.reference import decibels
from tvmmobile.networks.frontend import Compute
from tvmmobile.results.file import Count, NotNegative, PositiveCount

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class StoredLayer:
    """One convolution or matrix product, including its batch norm, in the simulation in PyTorch.

    Attributes:
        layer: number of the layer in execution order, and its description: `3: depthwise 3×3, 64 channels, to 56×56`.
        signal_to_noise_db: signal-to-noise ratio of the layer's sums before the activation, in decibels; `None` without a difference, or if
            a sum is not finite.
        largest: largest magnitude of its sums in float32.
        beyond: number of its float32 sums that exceed the precision's largest number.
        not_finite: number of its simulated sums that are infinite or NaN, because earlier layers left the range.
        subnormals: number of its float32 sums that are not 0 and smaller than the precision's least normal number.
        values: number of sums.
    """

    layer: str
    signal_to_noise_db: float | None
    largest: NotNegative
    beyond: Count
    not_finite: Count
    subnormals: Count
    values: PositiveCount


@dataclass
class _Sums:
    """Sums over images for a layer."""

    signal: float = 0.0
    noise: float = 0.0
    largest: float = 0.0
    beyond: int = 0
    not_finite: int = 0
    subnormals: int = 0
    values: int = 0

    def add(self, exact: Array, rounded: Array, precision: Precision) -> None:
        wanted, finite = exact.astype(np.float64), np.isfinite(rounded)
        self.signal += float(np.square(wanted).sum())
        self.noise += float(np.square(rounded[finite].astype(np.float64) - wanted[finite]).sum())
        self.largest = max(self.largest, float(np.abs(wanted).max()))
        self.beyond += int((np.abs(wanted) > precision.limits.max).sum())
        self.not_finite += int((~finite).sum())
        self.subnormals += subnormals_in(wanted, precision)
        self.values += wanted.size

    def layer(self, name: str) -> StoredLayer:
        ratio = None if self.not_finite else decibels(self.signal, self.noise)
        return StoredLayer(name, ratio, self.largest, self.beyond, self.not_finite, self.subnormals, self.values)


@dataclass
class _WatchedLayers:
    """The layers of one run in the order of execution: names, and sums as they were before the activation.

    Attributes:
        lent: tensors that the run rounded but did not create, such as weights used as an activation, with their previous values.
    """

    names: list[str] = field(default_factory=list)
    sums: list[Any] = field(default_factory=list)
    lent: list[tuple[Any, Any]] = field(default_factory=list)


def stored_layers(compute: Compute, images: Iterable[Array], precision: Precision) -> tuple[StoredLayer, ...]:
    """Return the loss of each layer of a network; none if PyTorch does not compute the network.

    Args:
        compute: the network in float32.
        images: its inputs; they are not changed.
        precision: precision of stored weights and activations.
    """
    totals: list[_Sums] = []
    names: list[str] = []
    for image in images:
        exact, rounded = (_run(compute, image, kept) for kept in (None, precision))
        names = exact.names
        totals = totals or [_Sums() for _ in names]
        for total, wanted, found in zip(totals, exact.sums, rounded.sums, strict=True):
            total.add(wanted.numpy(), found.numpy(), precision)
    return tuple(total.layer(name) for total, name in zip(totals, names, strict=True))


def _run(compute: Compute, image: Array, precision: Precision | None) -> _WatchedLayers:
    import torch

    from tvmmobile.networks.models.weights import single_thread

    watched = _WatchedLayers()
    try:
        with single_thread(), _watching(watched, precision):
            compute([image.copy()])
    finally:
        with torch.no_grad():
            for tensor, before in reversed(watched.lent):
                tensor.copy_(before)
    return watched


def _watching(watched: _WatchedLayers, precision: Precision | None) -> Any:
    """Return a PyTorch dispatcher mode that records the layers and, given a precision, rounds their inputs to it.

    Activations are rounded in place, so that a residual reads the same numbers.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    aten = torch.ops.aten
    #: Operators, with the positions of their activation and weights among the arguments.
    products = {aten.convolution.default: (0, 1), aten.addmm.default: (1, 2), aten.mm.default: (0, 1), aten.bmm.default: (0, 1)}
    norms = {
        aten.native_batch_norm.default,
        aten._native_batch_norm_legit_no_training.default,
        aten._native_batch_norm_legit.default,
        aten.cudnn_batch_norm.default,
    }
    #: Places in memory of what the run computed.
    made: set[int] = set()

    def stored(tensors: Any) -> set[int]:
        """Return the places of tensors in memory."""
        return {tensor.untyped_storage().data_ptr() for tensor in tree_leaves(tensors) if isinstance(tensor, torch.Tensor)}

    def round_in_place(data: torch.Tensor, precision: Precision) -> None:
        for axis in (axis for axis, step in enumerate(data.stride()) if not step):
            data = data.narrow(axis, 0, min(1, data.shape[axis]))  # an expanded axis has its values once
        if made.isdisjoint(stored(data)):
            watched.lent.append((data, data.clone()))
        data.copy_(_rounded(data, precision))

    class Watching(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = self.computed(function, args, kwargs or {})
            if precision is not None:
                made.update(stored(result) - (stored((args, kwargs)) - made))
            return result

        def computed(self, function: Any, args: Any, kwargs: Any) -> Any:
            if function in products:
                data, weights = (args[place] for place in products[function])
                if precision is not None:
                    weights_as_stored = _rounded(weights, precision)
                    round_in_place(data, precision)
                    args = tuple(weights_as_stored if argument is weights else argument for argument in args)
                result = function(*args, **kwargs)
                watched.names.append(f"{len(watched.names) + 1}: {_described(args, products[function], result)}")
                watched.sums.append(result)
                return result
            result = function(*args, **kwargs)
            if function in norms and watched.sums and args[0] is watched.sums[-1]:
                watched.sums[-1] = result[0]
            return result

    return Watching()


def _rounded(values: torch.Tensor, precision: Precision) -> torch.Tensor:
    import torch

    return values.to(getattr(torch, precision.name)).to(values.dtype)


def _described(args: Any, places: tuple[int, int], result: torch.Tensor) -> str:
    """Return a layer's description."""
    data, weights = (args[place] for place in places)
    if result.dim() != 4:
        return f"dense, {data.shape[-1]} → {result.shape[-1]}"
    side = f"{result.shape[2]}×{result.shape[3]}"
    kernel = "×".join(map(str, weights.shape[2:]))
    if weights.shape[1] == 1 and result.shape[1] == data.shape[1]:
        return f"depthwise {kernel}, {result.shape[1]} channels, to {side}"
    return f"{kernel}, {data.shape[1]} → {result.shape[1]} channels, to {side}"
