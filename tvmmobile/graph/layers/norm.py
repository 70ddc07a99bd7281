"""Normalisation of activations when the network runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tvmmobile.graph.layers.image import ImageLayer


@dataclass(frozen=True)
class ChannelNorm(ImageLayer):
    """A pixel's channels less their mean, over their standard deviation, times a weight, plus a bias, NHWC (layer norm, arXiv 1607.06450).

    Attributes:
        epsilon: what is added to the variance.
    """

    epsilon: float
    kind: ClassVar[str] = "layer norm"

    @property
    def constants(self) -> int:
        """Number of weights and biases."""
        return 2 * self.channels

    @property
    def name(self) -> str:
        """Canonical name."""
        parts = [f"{self.height}x{self.width}", f"{self.channels}", f"e{self.epsilon:g}"]
        return "_".join(["norm", *parts, *self._stored_name()])
