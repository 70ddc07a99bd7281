"""The constants of a layer, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

#: Weights and activations, in any precision.
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class LayerParameters:
    """Constants of one layer: weights (HWIO, (in, out), or one a channel), a bias for each output channel, and operands of its steps.

    Attributes:
        stored: precision in which a C library's file may hold the weights, which are rounded to it; `init` computes what the kernel reads.
            "" for what the kernel reads. See `graph.small_weights`.
    """

    weight: Array
    bias: Array
    operands: tuple[Array, ...] = ()
    stored: str = ""


#: Parameters of layers without constants.
NO_PARAMETERS = LayerParameters(np.zeros(0), np.zeros(0))
