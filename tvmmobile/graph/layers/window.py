"""Layers that see their input through a window: kernel, stride, padding, dilation."""

from __future__ import annotations


class WindowLayer:
    """A layer that sees its input through a window."""

    height: int
    width: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int] = (1, 1)

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
    def _window_name(self) -> str:
        parts = [f"k{self.kernel[0]}x{self.kernel[1]}s{self.stride[0]}x{self.stride[1]}p{'.'.join(map(str, self.padding))}"]
        return "_".join(parts + [f"d{self.dilation[0]}x{self.dilation[1]}"] * (self.dilation != (1, 1)))


#: Largest window; no network has larger ones, but a file may.
_MOST_TAPS = 256


def pairs_inside(extent: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Along one axis, how many pairs of an output and a place of its window lie in the input, and not in the padding; at least, for a
    window that is absurdly large.
    """
    count = 0
    for tap in range(min(kernel, _MOST_TAPS)):
        place = tap * dilation - padding
        first, last = -(place // stride), (extent - 1 - place) // stride
        count += max(min(last, outputs - 1) - max(first, 0) + 1, 0)
    return count
