"""Factors for the channels of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tvmmobile.graph.layers.image import ImageLayer


@dataclass(frozen=True)
class Gating(ImageLayer):
    """Each channel of the input times a factor of its own, which is another input, NHWC: `Conv2d.scaled` by itself, for networks whose
    kernels do not multiply what they load.
    """

    kind: ClassVar[str] = "gate"

    @property
    def side_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of the factors."""
        return {"gate": (1, 1, 1, self.channels)}

    @property
    def name(self) -> str:
        """Canonical name."""
        return "_".join(["gate", f"{self.height}x{self.width}", f"{self.channels}", *self._stored_name()])
