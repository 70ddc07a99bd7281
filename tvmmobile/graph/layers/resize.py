"""Resized images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tvmmobile.graph.expressions import image_of, is_float32, shape_of
from tvmmobile.graph.layers.image import ImageLayer
from tvmmobile.graph.layers.kind import Form, Parts, form_of_operator
from tvmmobile.graph.layouts import Layout, activation_shape, from_nhwc, short_name
from tvmmobile.graph.needs import SHAPE
from tvmmobile.graph.parameters import NO_PARAMETERS, Array, LayerParameters
from tvmmobile.graph.resizing import COPIES, GIVEN, METHODS, PLACES, pixels_along
from tvmmobile.graph.taps import is_given, taps_of


@dataclass(frozen=True)
class Resize(ImageLayer):
    """Resizes an image. `graph.resizing` defines which pixels are read, unless the layer's constants do: `weight`, int32, has the first
    pixel for each output row, then for each column; `bias` has the share of the next pixel.

    Attributes:
        out_height, out_width: output size in pixels.
        method: `linear`, or how a position is rounded to a pixel: see `graph.resizing.ROUNDINGS`; `nearest` where pixels are given.
        places: rule for an output pixel's place in the input, see `graph.resizing.PLACES`; `given` where the constants say it.
        out_layout: `NHWC`, in which the input is, or `NCHW`.
    """

    out_height: int = field(metadata=SHAPE)
    out_width: int = field(metadata=SHAPE)
    method: str = field(metadata=SHAPE)
    places: str = field(metadata=SHAPE)
    out_layout: Layout = "NHWC"
    extents = ("out_height", "out_width", "channels")

    @property
    def output_shape(self) -> tuple[int, ...]:
        return activation_shape(self.out_layout, self.out_height, self.out_width, self.channels)

    @property
    def least_read(self) -> dict[str, tuple[int, ...]]:
        """Extents of the largest part of the input that it may read."""
        taps = 2 if self.method == "linear" else 1
        pixels = min(self.height, taps * self.out_height), min(self.width, taps * self.out_width)
        return {"input": activation_shape("NHWC", *pixels, self.channels)}

    @property
    def apart_in_integers(self) -> bool:
        """True if pixels are repeated or left out: integers are copied unchanged."""
        return self.method != "linear"

    @property
    def kind(self) -> str:
        return "resize bilinear" if self.method == "linear" else "resize nearest"

    @property
    def name(self) -> str:
        parts = [f"{self.height}x{self.width}", f"to_{self.out_height}x{self.out_width}", f"{self.channels}", self.method, self.places]
        parts += [] if self.out_layout == "NHWC" else [f"to_{short_name(self.out_layout)}"]
        return "_".join(["resize", *parts, *self._stored_name()])

    @classmethod
    def forms(cls) -> list[Form]:
        from tvm.relax.dpl import wildcard

        return [form_of_operator("image.resize2d", cls._of, {"size": wildcard()}, constants=_constants)]

    @classmethod
    def _of(cls, found: Parts) -> Resize | None:
        """Return a resize's layer; `None` for a batch, another layout, or an unsupported method."""
        call = found["call"]
        attrs, image, out_shape = call.attrs, image_of(call.args[0]), shape_of(call)
        method = "linear" if attrs.method == "linear" else str(attrs.rounding_method) if attrs.method == "nearest_neighbor" else ""
        places = str(attrs.coordinate_transformation_mode)
        if attrs.layout != "NHWC" or image is None or not is_float32(call):
            return None
        if is_given(call) and method:
            method = "linear" if method == "linear" else COPIES
        elif method not in METHODS or places not in PLACES:
            return None
        return cls(*image, out_shape[1], out_shape[2], method, places)

    def pixels(self, constants: LayerParameters) -> tuple[tuple[Array, Array, Array], ...]:
        """Return the first and last input line of each output row and the share of the last; then the same for columns."""
        sizes = (self.height, self.out_height), (self.width, self.out_width)
        if self.places != GIVEN:
            return tuple(pixels_along(inputs, outputs, self.method, self.places) for inputs, outputs in sizes)
        found, begin = [], 0
        for inputs, outputs in sizes:
            first, share = constants.weight[begin : begin + outputs].astype(np.int64), constants.bias[begin : begin + outputs]
            found.append((first, np.minimum(first + 1, inputs - 1), share))
            begin += outputs
        return tuple(found)

    def random_parameters(self, generator: np.random.Generator, dtype: np.dtype[Any]) -> LayerParameters:
        """Draw ascending pixels, as in real resizes, if constants give them."""
        if self.places != GIVEN:
            return NO_PARAMETERS
        sizes = (self.height, self.out_height), (self.width, self.out_width)
        first = np.concatenate([np.sort(generator.integers(0, inputs, outputs)) for inputs, outputs in sizes]).astype(np.int32)
        share = generator.uniform(0.0, 1.0, first.size) if self.method == "linear" else np.zeros(first.size)
        return LayerParameters(first, share.astype(np.float32))

    def compute(self, data: Array, constants: LayerParameters, side: Mapping[str, Array]) -> Array:
        """Compute rows first, then columns."""
        for axis, (first, last, share) in enumerate(self.pixels(constants), 1):
            below, above = data.take(first, axis), data.take(last, axis)
            if self.method != "linear":
                data = below  # where an infinity stays one
                continue
            data = below + (above - below) * np.expand_dims(share.astype(data.dtype), tuple({0, 1, 2, 3} - {axis}))
        return from_nhwc(data, self.out_layout)


def _constants(found: Parts) -> LayerParameters:
    """Return a resize's pixels and their shares, if constants give them."""
    if not is_given(found["call"]):
        return NO_PARAMETERS
    first, share = (np.concatenate(parts) for parts in zip(*(taps.first_and_share() for taps in taps_of(found["call"])), strict=True))
    return LayerParameters(first.astype(np.int32), share.astype(np.float32))
