"""Pools over windows and over all pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from tvmmobile.graph.layers.image import ImageLayer
from tvmmobile.graph.layers.pieces import other_sources, pieces_name
from tvmmobile.graph.layers.window import WindowLayer
from tvmmobile.graph.layouts import Layout, activation_shape, short_name
from tvmmobile.graph.needs import SHAPE


@dataclass(frozen=True)
class Pool(ImageLayer):
    """The mean of every channel over all pixels: → (1, 1, 1, channels).

    Attributes:
        in_layout: of the input.
    """

    in_layout: Layout = "NHWC"
    kind: ClassVar[str] = "average pool"

    @property
    def output_shape(self) -> tuple[int, ...]:
        """(1, 1, 1, channels)."""
        return (1, 1, 1, self.channels)

    @property
    def name(self) -> str:
        """Canonical name."""
        layout = [] if self.in_layout == "NHWC" else [short_name(self.in_layout)]
        return "_".join(["pool", f"{self.height}x{self.width}", f"{self.channels}", *layout, *self._stored_name()])


@dataclass(frozen=True)
class WindowPool(ImageLayer, WindowLayer):
    """One value of every channel for each window, NHWC; padding does not count, and no window lies in the padding entirely.

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

    @property
    def in_channels(self) -> int:
        """The same as the output's."""
        return self.channels

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input tensor, or of the first of several, with the batch of 1."""
        return activation_shape("NHWC", self.height, self.width, self.sources[0] if self.sources else self.channels)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output tensor, with the batch of 1."""
        return activation_shape("NHWC", self.out_height, self.out_width, self.channels)

    @property
    def side_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the other tensors that the input comes from."""
        return other_sources(self.height, self.width, self.sources)

    @property
    def kind(self) -> str:
        """The layer type as reports name it."""
        return f"{self.of} pool {self.kernel[0]}x{self.kernel[1]}"

    @property
    def name(self) -> str:
        """Canonical name."""
        pieces, size = pieces_name(self.sources, self.pieces), [f"{self.height}x{self.width}", f"{self.channels}"]
        return "_".join([f"{self.of}pool", *size, self._window_name, *pieces, *self._stored_name()])


@dataclass(frozen=True)
class MaxPool(WindowPool):
    """The largest value of every channel in a window."""

    of: ClassVar[str] = "max"


@dataclass(frozen=True)
class MeanPool(WindowPool):
    """The mean of every channel's values in a window."""

    of: ClassVar[str] = "mean"
