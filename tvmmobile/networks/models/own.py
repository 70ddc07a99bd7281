"""The identity of a network of the user's own."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tvmmobile.networks.models.spec import ModelSpec


@dataclass(frozen=True, order=True)
class OwnSpec(ModelSpec):
    """A network from a file that the user named, for one input side.

    It has no width multiplier (`alpha` is 1.0) and no `activation`; `classes` is how many numbers it returns.

    Attributes:
        contents: what identifies it: SHA-256 of its file (see `own.files`), in hexadecimal.
        channels: of its input.
        output: shape of the tensor it returns, with the batch of 1.
    """

    contents: str = ""
    channels: int = 3
    output: tuple[int, ...] = (1, 1000)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", math.prod(self.output))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """`[1, channels, side, side]`."""
        return (1, self.channels, self.resolution, self.resolution)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """`output`."""
        return self.output
