"""The variants of each family: width multipliers, input sides and activations, and the defaults of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MIN_SIDE, MAX_SIDE = 32, 512
#: The grid of the MobileNets paper (arXiv 1704.04861, tables 6 and 7).
PAPER_ALPHAS = (1.0, 0.75, 0.5, 0.25)
PAPER_RESOLUTIONS = (224, 192, 160, 128)


@dataclass(frozen=True)
class Traits:
    """The variants of one family.

    Attributes:
        grid: (α, side) of a run's default variants.
        most_alpha: any α in (0, `most_alpha`] is a variant; `None`: only those in `alphas`.
        alphas: the width multipliers, if only some are possible.
        sides: least and greatest input side, in pixels.
        native_side: the side the network was designed for.
        activations: activations that may stand behind the convolutions, the family's own first.
    """

    grid: tuple[tuple[float, int], ...] = ((1.0, 224),)
    most_alpha: float | None = None
    alphas: tuple[float, ...] = (1.0,)
    sides: tuple[int, int] = (MIN_SIDE, MAX_SIDE)
    native_side: int = 224
    activations: tuple[str, ...] = ("relu",)

    @property
    def listed(self) -> tuple[tuple[float, int], ...]:
        """(α, side) of the family's variants to show: the grid, or every α if it has only some."""
        return self.grid if self.most_alpha is not None else tuple((alpha, self.native_side) for alpha in self.alphas)

    def variants(self, alphas: Sequence[float], sides: Sequence[int]) -> list[tuple[float, int]]:
        """Return (α, side) of every α with every side, each once.

        If both are empty, return the grid. If only one is empty, its values come from the grid if every α there is combined with every
        side; otherwise the native value is used.
        """
        if not alphas and not sides:
            return list(self.grid)
        all_alphas, all_sides = (tuple(dict.fromkeys(values)) for values in zip(*self.grid, strict=True))
        if len(all_alphas) * len(all_sides) != len(self.grid):
            all_alphas, all_sides = (1.0,), (self.native_side,)
        wanted = [(float(alpha), side) for alpha in alphas or all_alphas for side in sides or all_sides]
        return list(dict.fromkeys(wanted))


_V1_ACTIVATIONS = ("relu6", "relu")
#: (α, side) that v2's authors trained (tensorflow/models `research/slim/nets/mobilenet/README.md`).
_V2_GRID = ((1.4, 224), (1.0, 224), (1.0, 192), (1.0, 160), (1.0, 128), (0.75, 224), (0.5, 224), (0.35, 224))
_V3 = Traits(((1.0, 224), (0.75, 224)), most_alpha=1.5, activations=("hardswish",))
#: Its fully connected layers fit only the features of a 224 image.
_FIXED_SIDE = Traits(sides=(224, 224))

TRAITS = {
    "mobilenet_v1": Traits(
        tuple((alpha, side) for alpha in PAPER_ALPHAS for side in PAPER_RESOLUTIONS), most_alpha=1.0, activations=_V1_ACTIVATIONS
    ),
    "mobilenet_v1_full": Traits(most_alpha=1.0, activations=_V1_ACTIVATIONS),
    "mobilenet_v1_shallow": Traits(most_alpha=1.0, activations=_V1_ACTIVATIONS),
    "mobilenet_v2": Traits(_V2_GRID, most_alpha=1.4, activations=("relu6",)),
    "mobilenet_v3_large": _V3,
    "mobilenet_v3_small": _V3,
    "squeezenet1_0": Traits(),
    "squeezenet1_1": Traits(),
    "shufflenet_v1": Traits(alphas=(0.5, 1.0, 1.5, 2.0)),
    "shufflenet_v2": Traits(alphas=(0.5, 1.0, 1.5, 2.0)),
    "xception": Traits(((1.0, 299),), native_side=299),
    "googlenet": Traits(),
    "vgg16": _FIXED_SIDE,
    "alexnet": _FIXED_SIDE,
}
#: For unknown families, as in files of a later version; networks from files are `spec.OwnSpec`s.
UNKNOWN = Traits(most_alpha=float("inf"), activations=("relu6", "relu", "hardswish"))
