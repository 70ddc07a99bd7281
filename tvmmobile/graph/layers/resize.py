"""Resized images."""

from __future__ import annotations

from dataclasses import dataclass, field

from tvmmobile.graph.layers.image import ImageLayer
from tvmmobile.graph.layouts import Layout, activation_shape, short_name
from tvmmobile.graph.needs import SHAPE


@dataclass(frozen=True)
class Resize(ImageLayer):
    """A resized image: `graph.resizing` says from which pixels, or the layer's constants do: `weight` has the first pixel that each output
    row and then each column is made of, int32, `bias` the share of the next one.

    Attributes:
        out_height, out_width: output size in pixels.
        method: `linear`, or how a position is rounded to a pixel: see `graph.resizing.ROUNDINGS`; `nearest` where pixels are given.
        places: where an output pixel lies in the input: see `graph.resizing.PLACES`; `given` where the constants say it.
        out_layout: `NHWC`, in which the input is, or `NCHW`.
    """

    out_height: int = field(metadata=SHAPE)
    out_width: int = field(metadata=SHAPE)
    method: str = field(metadata=SHAPE)
    places: str = field(metadata=SHAPE)
    out_layout: Layout = "NHWC"

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output tensor, with the batch of 1."""
        return activation_shape(self.out_layout, self.out_height, self.out_width, self.channels)

    @property
    def read_shape(self) -> tuple[int, ...]:
        """Extents of at most the pixels that it reads."""
        taps = 2 if self.method == "linear" else 1
        return activation_shape("NHWC", min(self.height, taps * self.out_height), min(self.width, taps * self.out_width), self.channels)

    @property
    def kind(self) -> str:
        """The layer type as reports name it."""
        return "resize bilinear" if self.method == "linear" else "resize nearest"

    @property
    def name(self) -> str:
        """Canonical name."""
        parts = [f"{self.height}x{self.width}", f"to_{self.out_height}x{self.out_width}", f"{self.channels}", self.method, self.places]
        parts += [] if self.out_layout == "NHWC" else [f"to_{short_name(self.out_layout)}"]
        return "_".join(["resize", *parts, *self._stored_name()])
