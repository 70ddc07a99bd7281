"""The identity of a network variant: of a built-in family, or the user's own."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tvmmobile.networks.models.traits import TRAITS, UNKNOWN, Traits
from tvmmobile.system.errors import UserError

#: Several times as many as the largest public set of labelled images has (21,841 in ImageNet-21k).
MOST_CLASSES = 100_000


def side_of(shape: tuple[int, ...]) -> str:
    """What stands for an input shape in names: `224` for a square image, `96x128` for height and width, or all but the batch: `1x16000`."""
    if len(shape) == 4:
        return str(shape[2]) if shape[2] == shape[3] else f"{shape[2]}x{shape[3]}"
    return "x".join(map(str, shape[1:]))


@dataclass(frozen=True, order=True)
class ModelSpec:
    """One variant of a network family.

    Attributes:
        name: the family, e.g. `mobilenet_v1`.
        alpha: width multiplier; which ones there are depends on the family (`traits.TRAITS`).
        resolution: input side in pixels; ρ is `resolution / 224`.
        activation: `relu` or `relu6` for MobileNet v1; other families have one of their own. "" stands for the family's own.
        classes: outputs of the classifier.

    Raises:
        UserError: the family has no such variant.
    """

    name: str = "mobilenet_v1"
    alpha: float = 1.0
    resolution: int = 224
    activation: str = ""
    classes: int = 1000

    def __post_init__(self) -> None:
        traits = TRAITS.get(self.name, UNKNOWN)
        object.__setattr__(self, "alpha", float(self.alpha))  # 1 and 1.0 are the same variant, and print alike
        object.__setattr__(self, "activation", self.activation or traits.activations[0])
        self._check_alpha(traits)
        self._check_resolution(traits)
        if self.activation not in traits.activations:
            raise UserError(
                f"activation {self.activation!r} is not one of {self.name}'s.",
                f"Give --activation one of: {', '.join(traits.activations)}.",
            )
        if self.classes < 1:
            raise UserError(f"{self.classes} classes are too few.", "Give --classes a positive number.")
        if self.classes > MOST_CLASSES:
            raise UserError(f"{self.classes} classes are too many.", f"Give --classes a number up to {MOST_CLASSES}.")

    def _check_alpha(self, traits: Traits) -> None:
        if traits.most_alpha is not None:
            if not 0 < self.alpha <= traits.most_alpha:
                raise UserError(
                    f"width multiplier {self.alpha} is outside (0, {traits.most_alpha:g}] of {self.name}.",
                    "Give --alpha a value such as 0.25, 0.5, 0.75 or 1.0.",
                )
        elif traits.alphas == (1.0,) != (self.alpha,):
            raise UserError(f"{self.name} has no width multiplier, but --alpha is {self.alpha}.", "Leave out --alpha, or give 1.0.")
        elif self.alpha not in traits.alphas:
            raise UserError(
                f"width multiplier {self.alpha} is not one of {self.name}'s.", f"Give --alpha one of: {', '.join(map(str, traits.alphas))}."
            )

    def _check_resolution(self, traits: Traits) -> None:
        least, most = traits.sides
        if least == most != self.resolution:
            raise UserError(f"{self.name} takes only images of side {least}, not {self.resolution}.", f"Give --resolution {least}.")
        if not least <= self.resolution <= most:
            raise UserError(
                f"resolution {self.resolution} is outside {least} to {most} of {self.name}.",
                "Give --resolution an input side in pixels, such as 128, 160, 192 or 224.",
            )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """NCHW, with the batch of 1."""
        return (1, 3, self.resolution, self.resolution)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """With the batch of 1."""
        return (1, self.classes)

    @property
    def side(self) -> str:
        """Its input side, or what stands for one where the input is no square image; see `side_of`."""
        return str(self.resolution)

    @property
    def odd_shape(self) -> tuple[int, ...]:
        """Shape of its input where that is no square image; `()` where it is."""
        return ()

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width of its input; `None` where that is no image."""
        return self.resolution, self.resolution

    @property
    def variant(self) -> str:
        """Family, α and input side, e.g. `mobilenet_v1_0.25_128`."""
        return f"{self.name}_{self.alpha}_{self.side}"


@dataclass(frozen=True, order=True)
class OwnSpec(ModelSpec):
    """A network from a file that the user named, for one input shape.

    It has no width multiplier (`alpha` is 1.0) and no `activation`; `classes` is how many numbers it returns.

    Attributes:
        contents: what identifies it: SHA-256 of its file (see `own.files`), in hexadecimal.
        channels: of its input.
        output: shape of the tensor it returns, with the batch of 1.
        shape: of its input, where that is not `[1, channels, resolution, resolution]`; `()` otherwise. `resolution` is then the height of
            images, or else the last dimension.
    """

    contents: str = ""
    channels: int = 3
    output: tuple[int, ...] = (1, 1000)
    shape: tuple[int, ...] = ()

    @classmethod
    def of(cls, name: str, contents: str, shape: tuple[int, ...], output: tuple[int, ...]) -> OwnSpec:
        """The network of these shapes; each has a batch of 1 in front."""
        if len(shape) == 4 and shape[2] == shape[3]:
            return cls(name, 1.0, shape[2], contents=contents, channels=shape[1], output=output)
        resolution = shape[2] if len(shape) == 4 else shape[-1]
        return cls(name, 1.0, resolution, contents=contents, channels=shape[1], output=output, shape=shape)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", math.prod(self.output))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """`shape`, or `[1, channels, resolution, resolution]`."""
        return self.shape or (1, self.channels, self.resolution, self.resolution)

    @property
    def side(self) -> str:
        """See `ModelSpec.side`."""
        return side_of(self.input_shape)

    @property
    def odd_shape(self) -> tuple[int, ...]:
        """See `ModelSpec.odd_shape`."""
        return self.shape

    @property
    def image_size(self) -> tuple[int, int] | None:
        """See `ModelSpec.image_size`."""
        if not self.shape:
            return self.resolution, self.resolution
        if len(self.shape) != 4:
            return None
        height, width = self.shape[2:]
        return height, width

    @property
    def output_shape(self) -> tuple[int, ...]:
        """`output`."""
        return self.output
