"""The identity of a network variant."""

from __future__ import annotations

from dataclasses import dataclass

from tvmmobile.errors import UserError

MIN_SIDE, MAX_SIDE = 32, 512
#: The paper's grid (arXiv 1704.04861, tables 6 and 7).
PAPER_ALPHAS = (1.0, 0.75, 0.5, 0.25)
PAPER_RESOLUTIONS = (224, 192, 160, 128)


@dataclass(frozen=True, order=True)
class ModelSpec:
    """One variant of a network family.

    Attributes:
        name: the family, e.g. `mobilenet_v1`.
        alpha: width multiplier, in (0, 1].
        resolution: input side in pixels, 32 to 512; ρ is `resolution / 224`.
        activation: `relu` or `relu6`.
        classes: outputs of the classifier.
    """

    name: str = "mobilenet_v1"
    alpha: float = 1.0
    resolution: int = 224
    activation: str = "relu6"
    classes: int = 1000

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", float(self.alpha))  # 1 and 1.0 are the same variant, and print alike
        if not 0 < self.alpha <= 1:
            raise UserError(f"width multiplier {self.alpha} is outside (0, 1].", "Give --alpha a value such as 0.25, 0.5, 0.75 or 1.0.")
        if not MIN_SIDE <= self.resolution <= MAX_SIDE:
            raise UserError(
                f"resolution {self.resolution} is outside {MIN_SIDE} to {MAX_SIDE}.",
                "Give --resolution an input side in pixels, such as 128, 160, 192 or 224.",
            )
        if self.activation not in ("relu", "relu6"):
            raise UserError(f"activation {self.activation!r} is not known.", "Use relu or relu6.")
        if self.classes < 1:
            raise UserError(f"{self.classes} classes are too few.", "Give --classes a positive number.")

    @property
    def variant(self) -> str:
        """Family, α and input side, e.g. `mobilenet_v1_0.25_128`."""
        return f"{self.name}_{self.alpha}_{self.resolution}"
