"""Normalisation of activations when the network runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from tvmmobile.graph.layers.image import ImageLayer
from tvmmobile.graph.needs import SHAPE


@dataclass(frozen=True)
class ChannelNorm(ImageLayer):
    """A pixel's channels less their mean, over their standard deviation, times a weight, plus a bias, NHWC (layer norm, arXiv 1607.06450).

    Attributes:
        epsilon: added to the variance.
        centred: if not, channels are divided by their root mean square and have no bias (RMS norm, arXiv 1910.07467).
    """

    epsilon: float = field(metadata=SHAPE)
    centred: bool = True

    @property
    def kind(self) -> str:
        """The layer type as reports name it."""
        return "layer norm" if self.centred else "RMS norm"

    @property
    def constants(self) -> int:
        """Number of weights and biases."""
        return (1 + self.centred) * self.channels

    @property
    def name(self) -> str:
        """Canonical name."""
        parts = [f"{self.height}x{self.width}", f"{self.channels}", f"e{self.epsilon:g}"]
        return "_".join(["norm" if self.centred else "rmsnorm", *parts, *self._stored_name()])


@dataclass(frozen=True)
class GroupNorm(ImageLayer):
    """Groups of neighbouring channels less their mean over all pixels, over their standard deviation, times a weight of each channel, plus
    its bias, NHWC (arXiv 1803.08494).

    Attributes:
        groups: 1 normalises the whole image; as many as channels, each channel by itself (instance norm).
        epsilon: added to the variance.
    """

    groups: int = field(metadata=SHAPE)
    epsilon: float = field(metadata=SHAPE)
    kind: ClassVar[str] = "group norm"

    @property
    def constants(self) -> int:
        """Number of weights and biases."""
        return 2 * self.channels

    @property
    def name(self) -> str:
        """Canonical name."""
        parts = [f"{self.height}x{self.width}", f"{self.channels}", f"g{self.groups}", f"e{self.epsilon:g}"]
        return "_".join(["groupnorm", *parts, *self._stored_name()])
