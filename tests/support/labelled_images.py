"""Generated images in class folders, for the tests of `tvmmobile evaluate`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image


def pixels(seed: int, width: int = 48, height: int = 40) -> npt.NDArray[np.uint8]:
    """Waves in each channel, whose frequencies, phases and offsets come of the seed."""
    generator = np.random.default_rng(seed)
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    fast, slow, phase, offset = (generator.uniform(low, high, 3) for low, high in ((2, 25), (1, 15), (0, 6), (60, 190)))
    waves = [offset[c] + 60 * np.sin(fast[c] * across + slow[c] * down + phase[c]) for c in range(3)]
    return np.clip(np.stack(waves, 2), 0, 255).astype(np.uint8)


def write_image(path: Path, seed: int) -> Path:
    """Return a picture of that seed, in a folder that is made if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed)).save(path)
    return path
