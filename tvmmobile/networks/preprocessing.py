"""Parameters that prepare an image for a network, in Python and in C libraries.

timm (timm/models/efficientnet.py): bicubic, crop fraction 0.875, and for `mobilenetv1_100.ra4_e3600_r224_in1k` mean and standard deviation
0.5 of [0, 1], as in TensorFlow's MobileNets. Other weights may want ImageNet's own: (0.485, 0.456, 0.406) and (0.229, 0.224, 0.225).
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass

from tvmmobile.system.errors import UserError

Triple = tuple[float, float, float]
HALVES: Triple = (0.5, 0.5, 0.5)
#: The part of the shorter side that the network sees.
CROP_FRACTION = 0.875


@dataclass(frozen=True)
class Normalisation:
    """Normalisation of pixels in [0, 1]: subtract `mean`, divide by `std`, for red, green and blue.

    Raises:
        UserError: a number is not finite, or a deviation not positive, in float32.
    """

    mean: Triple = HALVES
    std: Triple = HALVES

    def __post_init__(self) -> None:
        mean, std = ([ctypes.c_float(value).value for value in values] for values in (self.mean, self.std))
        if not all(map(math.isfinite, (*mean, *std))) or not all(value > 0 for value in std) or (len(mean), len(std)) != (3, 3):
            what = f"mean {self.mean} and standard deviation {self.std} cannot normalise pixels."
            raise UserError(what, "Give three numbers each; deviations are above 0.")


@dataclass(frozen=True)
class Preprocessing:
    """The steps from an image to a network's input.

    Attributes:
        side: side of the network's input, in pixels; its height if it is not square.
        mean, std: mean and standard deviation of the channels red, green, blue, on the scale [0, 1].
        resize: scale and crop; else the image must be `side` by `side`.
        channels: number of channels of the network's input; only one of 3 takes an image.
        shape: shape of the network's input if that is not a square image; the network then takes only arrays.
    """

    side: int
    mean: Triple = HALVES
    std: Triple = HALVES
    resize: bool = True
    channels: int = 3
    shape: tuple[int, ...] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the network's input."""
        return self.shape or (1, self.channels, self.side, self.side)

    @property
    def takes_images(self) -> bool:
        """True if an image can be made the network's input."""
        return self.channels == 3 and not self.shape

    @property
    def shorter_side(self) -> int:
        """Length of the shorter side after scaling, before the centre crop."""
        return int(self.side / CROP_FRACTION)

    def __str__(self) -> str:
        shape = f"shorter side to {self.shorter_side} (bicubic), middle {self.side}×{self.side}, " if self.resize else ""
        return f"{shape}RGB in [0, 1], minus {_words(self.mean)}, over {_words(self.std)}"


def _words(triple: Triple) -> str:
    return f"{triple[0]:g}" if len(set(triple)) == 1 else f"({', '.join(f'{value:g}' for value in triple)})"
