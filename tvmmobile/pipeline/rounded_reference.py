"""Computes a float32 network with weights stored in fewer bits, and how far its outputs are from the given network's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array
from tvmmobile.graph.network import Network
from tvmmobile.kernels.reference import decibels, network_error
from tvmmobile.kernels.simulation import network_outputs


@dataclass(frozen=True, eq=False)
class RoundedNetwork:
    """The outputs of a network with rounded weights.

    Attributes:
        outputs: the network's, for its reference inputs.
        where: description of how the outputs were computed, in words that follow a noun.
        entry: the manifest's, see `SmallWeightsEntry`.
    """

    outputs: tuple[Array, ...]
    where: str
    entry: dict[str, Any]


def round_weights(network: Network, inputs: Sequence[Array], wanted: tuple[Array, ...], name: str) -> RoundedNetwork:
    """Compute a network with weights rounded to a precision; `wanted` are the outputs without rounding."""
    sizes = [node.parameters.weight.size for node in network.nodes if node.parameters and (node.layer.weights or node.parameters.stored)]
    computed = zip(network_outputs(network, inputs), wanted, strict=True)
    outputs = tuple(np.ascontiguousarray(output.reshape(each.shape)) for output, each in computed)
    entry = {
        "dtype": name,
        "layers": len(sizes),
        "weights": sum(sizes),
        "loss": float(f"{network_error(outputs, wanted):.2g}"),
        "signal_to_noise_db": _decibels(outputs, wanted),
    }
    return RoundedNetwork(outputs, f"layer by layer with the weights of {len(sizes)} layers in {name}", entry)


def _decibels(outputs: Sequence[Array], wanted: Sequence[Array]) -> float | None:
    """Return the signal-to-noise ratio of all outputs that are real numbers; `None` without a difference."""
    pairs = [(each.astype(np.float64), other) for each, other in zip(outputs, wanted, strict=True) if other.dtype.kind == "f"]
    signal = sum(float(np.square(other, dtype=np.float64).sum()) for _, other in pairs)
    noise = sum(float(np.square(each - other).sum()) for each, other in pairs)
    ratio = decibels(signal, noise)
    return None if ratio is None else round(ratio, 1)
