"""The base class of layers without sums that read one NHWC image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from tvmmobile.graph.layers.kind import ConvertingLayer
from tvmmobile.graph.layouts import activation_shape
from tvmmobile.graph.needs import SHAPE


@dataclass(frozen=True)
class ImageLayer(ConvertingLayer):
    """A layer that reads an image and returns one of the same shape unless it says otherwise.

    Attributes:
        height, width, channels: input size.
    """

    height: int = field(metadata=SHAPE)
    width: int = field(metadata=SHAPE)
    channels: int = field(metadata=SHAPE)

    # Without annotations, these are not dataclass fields.
    in_layout = out_layout = "NHWC"
    unlike: ClassVar[Mapping[str, float]] = {**ConvertingLayer.unlike, "in_layout": 1.0, "out_layout": 1.0}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input tensor, with the batch of 1."""
        return activation_shape(self.in_layout, self.height, self.width, self.channels)
