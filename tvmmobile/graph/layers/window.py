"""Layers that see their input through a window: kernel, stride, padding, dilation. Its channels may come from several tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tvmmobile.graph.layers.kind import Layer
from tvmmobile.graph.layouts import Layout, activation_shape, to_nchw
from tvmmobile.graph.parameters import Array


class WindowLayer(Layer):
    """A layer that sees its input through a window; `sources` and `pieces`: see `Conv2d`."""

    height: int
    width: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int] = (1, 1)
    sources: tuple[int, ...]
    pieces: tuple[tuple[int, int, int], ...]
    unlike: ClassVar[Mapping[str, float]] = {**Layer.unlike, "stride": 3.0, "kernel": 3.0, "dilation": 3.0}

    @property
    def reach(self) -> tuple[int, int]:
        """Rows and columns from the first to the last tap, both included."""
        return (self.kernel[0] - 1) * self.dilation[0] + 1, (self.kernel[1] - 1) * self.dilation[1] + 1

    @property
    def out_height(self) -> int:
        """Output rows."""
        return (self.height + self.padding[0] + self.padding[2] - self.reach[0]) // self.stride[0] + 1

    @property
    def out_width(self) -> int:
        """Output columns."""
        return (self.width + self.padding[1] + self.padding[3] - self.reach[1]) // self.stride[1] + 1

    @property
    def reads_pieces(self) -> bool:
        return bool(self.pieces)

    @property
    def _window_name(self) -> str:
        parts = [f"k{self.kernel[0]}x{self.kernel[1]}s{self.stride[0]}x{self.stride[1]}p{'.'.join(map(str, self.padding))}"]
        return "_".join(parts + [f"d{self.dilation[0]}x{self.dilation[1]}"] * (self.dilation != (1, 1)))

    @property
    def _pieces_name(self) -> list[str]:
        cuts = "-".join(".".join(map(str, piece)) for piece in self.pieces)
        return [f"of{'.'.join(map(str, self.sources))}_cut{cuts}"] if self.pieces else []

    @property
    def _source_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = (activation_shape("NHWC", self.height, self.width, channels) for channels in self.sources[1:])
        return {f"source{number}": shape for number, shape in enumerate(shapes, 1)}

    @property
    def least_read(self) -> dict[str, tuple[int, ...]]:
        """Shapes that every kernel reads: only the pieces of its sources."""
        if not self.pieces:
            return super().least_read
        others = {name: shape for name, shape in self.side_shapes.items() if name not in self._source_shapes}
        return {"pieces": (self.height, self.width, sum(count for _, _, count in self.pieces)), **others}

    def _image(self, data: Array, side: Mapping[str, Array], layout: Layout = "NHWC", outside: float = 0.0) -> Any:
        """Return the input, perhaps joined from pieces, as a padded NCHW tensor of PyTorch."""
        import torch

        top, left, bottom, right = self.padding
        image = torch.from_numpy(to_nchw(self.whole(data, side), layout))
        return torch.nn.functional.pad(image, (left, right, top, bottom), value=outside)

    def whole(self, data: Array, side: Mapping[str, Array]) -> Array:
        """Return the input as one tensor, in NHWC if it is joined from pieces."""
        if not self.pieces:
            return data
        sources = [data, *(side[name] for name in self._source_shapes)]
        return np.concatenate([sources[source][..., first : first + count] for source, first, count in self.pieces], -1)


#: Largest window; no network has larger ones, but a file may.
_MOST_TAPS = 256


def pairs_inside(extent: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Count the pairs of an output and a tap along one axis that read the input, not the padding; for an absurdly large window, return a
    lower bound.
    """
    count = 0
    for tap in range(min(kernel, _MOST_TAPS)):
        place = tap * dilation - padding
        first, last = -(place // stride), (extent - 1 - place) // stride
        count += max(min(last, outputs - 1) - max(first, 0) + 1, 0)
    return count
