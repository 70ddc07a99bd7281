"""The identity of a network variant: of a built-in family, or the user's own."""

from __future__ import annotations

from dataclasses import dataclass

from tvmmobile.networks.models.traits import TRAITS, UNKNOWN, Traits
from tvmmobile.networks.signature import CHANNELS_LAST, INPUT_NAME, OUTPUT_NAME, Port
from tvmmobile.system.errors import UserError

#: Limit: several times the number of classes of the largest public data set (21,841 in ImageNet-21k).
MOST_CLASSES = 100_000


def side_of(shape: tuple[int, ...]) -> str:
    """Return an input shape as names show it: `224` or `96x128` for an image, otherwise all dimensions but the batch: `1x16000`.

    A batch of several is in front: `b4_224`.
    """
    batch, *others = shape
    if batch > 1 and others:
        return f"b{batch}_{side_of((1, *others))}"
    if len(shape) == 4:
        return str(shape[2]) if shape[2] == shape[3] else f"{shape[2]}x{shape[3]}"
    return "x".join(map(str, others or shape))


@dataclass(frozen=True, order=True)
class ModelSpec:
    """One variant of a network family.

    Attributes:
        name: the family, e.g. `mobilenet_v1`.
        alpha: width multiplier; the family decides which values exist (`traits.TRAITS`).
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
    def key(self) -> tuple[str, float, int]:
        """Name, width multiplier and resolution, by which published figures are found."""
        return self.name, self.alpha, self.resolution

    @property
    def takes(self) -> tuple[Port, ...]:
        """The network's inputs, in order."""
        return (Port(INPUT_NAME, (1, 3, self.resolution, self.resolution)),)

    @property
    def returns(self) -> tuple[Port, ...]:
        """The network's outputs, in order."""
        return (Port(OUTPUT_NAME, (1, self.classes)),)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the first input; images are NCHW."""
        return self.takes[0].shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the first output."""
        return self.returns[0].shape

    @property
    def scored_classes(self) -> int:
        """Number of classes that its only output scores; 0 if that is something else, or there are several outputs."""
        return self.returns[0].classes if len(self.returns) == 1 else 0

    @property
    def side(self) -> str:
        """Input side as names show it, such as `224`, `96x128` or `1x16000`; see `side_of`."""
        return side_of(self._by_channels)

    @property
    def _by_channels(self) -> tuple[int, ...]:
        """Shape of its first input, of an image as NCHW."""
        first = self.takes[0]
        return tuple(first.shape[axis] for axis in (0, 3, 1, 2)) if first.layout == CHANNELS_LAST else first.shape

    @property
    def channels(self) -> int:
        """Channels of the first input; 1 where it has no such dimension."""
        return self._by_channels[1] if len(self.input_shape) > 1 else 1

    @property
    def odd_shape(self) -> tuple[int, ...]:
        """Shape of its first input where it does not take one square image of floats; `()` where it does."""
        first, *others = self.takes
        square = len(first.shape) == 4 and first.shape[0] == 1 and first.shape[2] == first.shape[3]
        return () if square and first.is_float and not first.axes and not others else first.shape

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width of its first input; `None` if that is not an image in NCHW."""
        if len(self.input_shape) != 4 or self.takes[0].axes:
            return None
        height, width = self.input_shape[2:]
        return height, width

    @property
    def variant(self) -> str:
        """Family, α and input side, e.g. `mobilenet_v1_0.25_128`."""
        return f"{self.name}_{self.alpha}_{self.side}"


@dataclass(frozen=True, order=True)
class OwnSpec(ModelSpec):
    """A network from a file that the user named, for one shape of each input.

    It has no width multiplier (`alpha` is 1.0) and no `activation`; `classes` is how many numbers its first output has, and `resolution` is
    the height of its first input or, if that is not an image, the last dimension.

    Attributes:
        contents: SHA-256 that identifies it: that of its file (see `own.files`), in hexadecimal.
        inputs, outputs: its inputs and outputs, in order.
    """

    contents: str = ""
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()

    @classmethod
    def of(cls, name: str, contents: str, inputs: tuple[Port, ...], outputs: tuple[Port, ...]) -> OwnSpec:
        """Return the network that takes and returns these."""
        shape = inputs[0].shape
        height = shape[1 if inputs[0].layout == CHANNELS_LAST else 2] if len(shape) == 4 else shape[-1]
        return cls(name, 1.0, height, contents=contents, inputs=inputs, outputs=outputs)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", self.outputs[0].elements)

    @property
    def takes(self) -> tuple[Port, ...]:
        return self.inputs

    @property
    def returns(self) -> tuple[Port, ...]:
        return self.outputs
