"""Pools over windows and over all pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from tvmmobile.graph.expressions import image_of, shape_of
from tvmmobile.graph.integers import IntegerParameters
from tvmmobile.graph.layers.image import ImageLayer
from tvmmobile.graph.layers.integer import IntegerLayer
from tvmmobile.graph.layers.kind import Form, Parts, form_of_operator
from tvmmobile.graph.layers.window import WindowLayer
from tvmmobile.graph.layouts import Layout, activation_shape, short_name, to_nchw
from tvmmobile.graph.needs import SHAPE
from tvmmobile.graph.parameters import Array, LayerParameters


@dataclass(frozen=True)
class Pool(ImageLayer, IntegerLayer):
    """The mean of every channel over all pixels: → (1, 1, 1, channels).

    Attributes:
        in_layout: layout of the input.
    """

    in_layout: Layout = "NHWC"
    kind: ClassVar[str] = "average pool"
    extents = ("height", "width", "channels")
    passes_factors = reads_blocks = reads_lines = True
    can_write_floats: ClassVar[bool] = True

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (1, 1, 1, self.channels)

    @property
    def name(self) -> str:
        layout = [] if self.in_layout == "NHWC" else [short_name(self.in_layout)]
        return "_".join(["pool", f"{self.height}x{self.width}", f"{self.channels}", *layout, *self._stored_name()])

    @classmethod
    def forms(cls) -> list[Form]:
        return [form_of_operator("mean", cls._of)]

    @classmethod
    def _of(cls, found: Parts) -> Pool | None:
        """Return the layer of a mean, `None` if it is not over all pixels of one image."""
        attrs, image = found["call"].attrs, image_of(found["call"].args[0])
        over_pixels = attrs.axis is not None and [int(axis) for axis in attrs.axis] == [1, 2] and bool(attrs.keepdims)
        return cls(*image) if over_pixels and image else None

    def compute(self, data: Array, constants: LayerParameters, side: Mapping[str, Array]) -> Array:
        import torch

        means: Array = torch.from_numpy(to_nchw(data, self.in_layout)).mean((2, 3)).numpy()
        return means.reshape(self.output_shape)

    def with_layouts(self, before: Layout, after: Layout) -> Pool:
        return self if before == "NHWC" else replace(self, in_layout=before)

    @property
    def terms(self) -> int:
        return self.height * self.width

    def term_scale(self, side: float) -> float:
        return 1 / self.terms

    def integer_products(self, data: npt.NDArray[np.int8], parameters: IntegerParameters) -> Array:
        return np.asarray(data.sum((1, 2), np.int64, keepdims=True))


@dataclass(frozen=True)
class WindowPool(ImageLayer, WindowLayer):
    """Computes one value per channel and window, NHWC; padding does not count, and no window lies wholly in the padding.

    Attributes:
        kernel, stride: (vertical, horizontal).
        padding: (top, left, bottom, right).
        sources, pieces: see `Conv2d`.
    """

    kernel: tuple[int, int] = field(metadata=SHAPE)
    stride: tuple[int, int] = field(default=(1, 1), metadata=SHAPE)
    padding: tuple[int, int, int, int] = field(default=(0, 0, 0, 0), metadata=SHAPE)
    sources: tuple[int, ...] = ()
    pieces: tuple[tuple[int, int, int], ...] = ()
    of: ClassVar[str]
    operator: ClassVar[str]
    extents = ("out_height", "out_width", "channels")
    unlike: ClassVar[Mapping[str, float]] = {**ImageLayer.unlike, **WindowLayer.unlike}

    @property
    def in_channels(self) -> int:
        """Channels of the input, as many as of the output."""
        return self.channels

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input tensor, or of the first of several, with the batch of 1."""
        return activation_shape("NHWC", self.height, self.width, self.sources[0] if self.sources else self.channels)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return activation_shape("NHWC", self.out_height, self.out_width, self.channels)

    @property
    def side_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the other tensors that the input comes from."""
        return self._source_shapes

    @property
    def apart_in_integers(self) -> bool:
        """True if the input joins several tensors: integers of one scale are joined unchanged."""
        return bool(self.sources)

    @property
    def kind(self) -> str:
        return f"{self.of} pool {self.kernel[0]}x{self.kernel[1]}"

    @property
    def name(self) -> str:
        parts = [f"{self.of}pool", f"{self.height}x{self.width}", f"{self.channels}", self._window_name]
        return "_".join([*parts, *self._pieces_name, *self._stored_name()])

    @classmethod
    def forms(cls) -> list[Form]:
        return [form_of_operator(cls.operator, cls._of)]

    @classmethod
    def _of(cls, found: Parts) -> Self | None:
        """Return a pool's layer; `None` for a batch, dilation, another layout, or windows of padding alone.

        The padding after the input is as much as the windows reach, because of rounding up or the network's own padding.
        """
        attrs, image, out_shape = found["call"].attrs, image_of(found["call"].args[0]), shape_of(found["call"])
        if image is None or not attrs.layout == attrs.out_layout == "NHWC" or any(int(step) != 1 for step in attrs.dilation):
            return None
        kernel, stride = [int(extent) for extent in attrs.pool_size], [int(extent) for extent in attrs.strides]
        before = [int(extent) for extent in attrs.padding][:2]
        after = []
        for axis in (0, 1):
            start = (out_shape[axis + 1] - 1) * stride[axis] - before[axis]
            if start >= image[axis] or before[axis] >= kernel[axis]:
                return None
            after.append(max(0, start + kernel[axis] - image[axis]))
        return cls(*image, (kernel[0], kernel[1]), (stride[0], stride[1]), (before[0], before[1], after[0], after[1]))


@dataclass(frozen=True)
class MaxPool(WindowPool):
    """The largest value of every channel in a window."""

    of: ClassVar[str] = "max"
    operator: ClassVar[str] = "nn.max_pool2d"
    apart_in_integers: ClassVar[bool] = True  # integers are compared unchanged

    def random_input(self, generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Draw mostly negative values, which are less than padding of zeros."""
        return generator.normal(-2.0, 1.0, shape)

    def compute(self, data: Array, constants: LayerParameters, side: Mapping[str, Array]) -> Array:
        import torch

        image = self._image(data, side, outside=-np.inf)
        return np.ascontiguousarray(torch.nn.functional.max_pool2d(image, self.kernel, self.stride).permute(0, 2, 3, 1))


@dataclass(frozen=True)
class MeanPool(WindowPool):
    """The mean of every channel's values in a window."""

    of: ClassVar[str] = "mean"
    operator: ClassVar[str] = "nn.avg_pool2d"

    @classmethod
    def _of(cls, found: Parts) -> MeanPool | None:
        """Return a pool's layer; `None` also where padding counts."""
        attrs = found["call"].attrs
        counts_padding = attrs.count_include_pad and any(int(extent) for extent in attrs.padding)
        return None if counts_padding else super()._of(found)

    def compute(self, data: Array, constants: LayerParameters, side: Mapping[str, Array]) -> Array:
        """Divide each window's sum by its number of values in the image."""
        import torch

        ones = {name: np.ones_like(array) for name, array in side.items()}
        images = self._image(data, side), self._image(np.ones_like(data), ones)
        sums, counts = (torch.nn.functional.avg_pool2d(image, self.kernel, self.stride) for image in images)
        return np.ascontiguousarray((sums / counts).permute(0, 2, 3, 1))
