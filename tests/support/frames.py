"""Camera frames of all formats, and what a network is to see of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tvmmobile.networks.images import Array, read_input
from tvmmobile.networks.preprocessing import Preprocessing

Plane = npt.NDArray[np.uint8]
RGB, BGR, RGBA, BGRA, NV21, NV12, YUV420 = range(1, 8)
PACKED = {RGB: (0, 1, 2), BGR: (2, 1, 0), RGBA: (0, 1, 2, 3), BGRA: (2, 1, 0, 3)}
FORMATS = (*PACKED, NV21, NV12, YUV420)


@dataclass(frozen=True)
class Frame:
    """A frame as a program has it.

    Attributes:
        strides: strides of the planes, in bytes; 0 where rows lie close together.
        planes: their bytes, the last row without what may follow it.
        turns: quarter turns clockwise that set it upright.
        chroma_step: step between chroma values in YUV420.
        seen: the frame in red, green and blue, before it is turned.
    """

    format: int
    width: int
    height: int
    strides: tuple[int, ...]
    planes: tuple[bytes, ...]
    turns: int
    chroma_step: int
    seen: npt.NDArray[np.uint8]

    def expected(self, preprocessing: Preprocessing, folder: Path) -> Array:
        """Return the network's input by `tvmmobile run` for this frame, `[3, side, side]`, turned."""
        file = folder / "frame.npy"
        np.save(file, self.seen)
        return np.rot90(read_input(file, preprocessing).array[0], -self.turns, (1, 2))


def some_pixels(generator: np.random.Generator, width: int, height: int) -> npt.NDArray[np.uint8]:
    """Return noise, edges, a gradient, or one colour, `[height, width, 3]`."""
    kind = generator.integers(4)
    noise = generator.integers(0, 256, (height, width, 3), np.uint8)
    if kind == 0:
        return noise
    if kind == 1:
        return np.where(noise > 127, 255, 0).astype(np.uint8)
    if kind == 2:
        across, down = np.linspace(0, 255, width), np.linspace(0, 255, height)[:, None]
        return np.stack([across + 0 * down, 0 * across + down, 255 - (across + down) / 2], 2).astype(np.uint8)
    return np.broadcast_to(noise[:1, :1], noise.shape).copy()


def some_frame(generator: np.random.Generator, frame_format: int, width: int, height: int) -> Frame:
    """Return a frame of that format with random content, strides and turns."""
    turns, step, pixels = int(generator.integers(4)), 0, some_pixels(generator, width, height)
    rows: list[Plane]
    if frame_format in PACKED:
        alpha = generator.integers(0, 256, (height, width, 1), np.uint8)
        rows = [np.concatenate([pixels, alpha], 2)[:, :, PACKED[frame_format]].reshape(height, -1)]
        least = [rows[0].shape[1]]
    else:
        half = (height + 1) // 2, (width + 1) // 2
        luma, both = pixels[:, :, 0], some_pixels(generator, half[1], half[0])
        u, v = both[:, :, 0], both[:, :, 1]
        pixels = rgb_of(luma, u, v)
        if frame_format == YUV420:
            step = int(generator.integers(3))
            rows = [luma, *(_spread(each, max(step, 1), generator) for each in (u, v))]
            least = [width, *[max(step, 1) * half[1]] * 2]
        else:
            rows = [luma, np.stack([v, u] if frame_format == NV21 else [u, v], 2).reshape(half[0], -1)]
            least = [width, 2 * half[1]]
    padding = generator.integers(0, 9, 3) * generator.integers(2)
    strides = [size + int(more) if more else 0 for size, more in zip(least, padding, strict=False)] + [0, 0]
    planes = [_laid(each, stride or size, generator) for each, stride, size in zip(rows, strides, least, strict=False)] + [b"", b""]
    return Frame(frame_format, width, height, tuple(strides[:3]), tuple(planes[:3]), turns, step, pixels)


def rgb_of(luma: Plane, u: Plane, v: Plane) -> npt.NDArray[np.uint8]:
    """BT.601, full range, rounded to the nearest as libjpeg does; each chroma sample is that of four pixels."""
    height, width = luma.shape
    wide_u, wide_v = (np.repeat(np.repeat(each, 2, 0), 2, 1)[:height, :width].astype(np.int64) - 128 for each in (u, v))
    half = 1 << 15
    red, blue = (91881 * wide_v + half) >> 16, (116130 * wide_u + half) >> 16
    green = (-22554 * wide_u - 46802 * wide_v + half) >> 16
    return np.clip(np.stack([luma + red, luma + green, luma + blue], 2), 0, 255).astype(np.uint8)


def _laid(rows: Plane, stride: int, generator: np.random.Generator) -> bytes:
    """Return rows with anything between them, and nothing behind the last."""
    height, size = rows.shape
    memory = generator.integers(0, 256, (height, stride), np.uint8)
    memory[:, :size] = rows
    return memory.tobytes()[: (height - 1) * stride + size]


def _spread(samples: Plane, step: int, generator: np.random.Generator) -> Plane:
    """Return samples `step` apart, with anything between them and nothing behind the last."""
    spread = generator.integers(0, 256, (samples.shape[0], (samples.shape[1] - 1) * step + 1), np.uint8)
    spread[:, ::step] = samples
    return spread
