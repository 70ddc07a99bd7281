"""Drawn digits, which a small network learns to tell apart in minutes; studies and tests draw the same ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

SIDE = 32
Pixels = npt.NDArray[np.uint8]


def digit(number: int, generator: np.random.Generator) -> Pixels:
    """Return a bright digit on a dark ground, near the middle, a little turned, with noise over it: `[SIDE, SIDE, 3]`."""
    size, turn, place = int(generator.integers(22, 31)), float(generator.uniform(-12, 12)), tuple(SIDE / 2 + generator.uniform(-2, 2, 2))
    mask = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(mask).text(place, str(number), fill=255, font=ImageFont.load_default(size), anchor="mm")
    ink = np.asarray(mask.rotate(turn, Image.Resampling.BILINEAR), np.float32)[..., None] / 255
    pixels = generator.uniform(0, 90, 3) + ink * generator.uniform(90, 160, 3) + generator.normal(0, 12, (SIDE, SIDE, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def digits(count: int, seed: int) -> tuple[Pixels, npt.NDArray[np.int64]]:
    """Draw a number of digits, `[count, SIDE, SIDE, 3]`; return them with their labels, 0 to 9 in turn."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 10
    return np.stack([digit(int(label), generator) for label in labels]), labels


def pictures(labels: npt.NDArray[np.integer[Any]], side: int, drawn: Pixels, generator: np.random.Generator) -> Pixels:
    """Return pictures of any side, `[len(labels), side, side, 3]`, each tiled with one digit, cropped at the right and at the bottom.

    A network that is convolutional up to its pool sees in a larger picture what it sees in a smaller one.

    Args:
        drawn: the result of `digits`; each place of a picture gets any of those of its label.
    """
    count = -(-side // SIDE)
    found = []
    for label in labels:
        chosen = drawn[label::10][generator.integers(len(drawn[label::10]), size=(count, count))]
        found.append(chosen.transpose(0, 2, 1, 3, 4).reshape(count * SIDE, count * SIDE, 3)[:side, :side])
    return np.stack(found)


def inputs_of(pixels: Pixels) -> npt.NDArray[np.float32]:
    """Prepare pictures for a network, NCHW, as `evaluate` does: minus 0.5, over 0.5."""
    return np.ascontiguousarray((pixels.transpose(0, 3, 1, 2) / 255 - 0.5) / 0.5, np.float32)
