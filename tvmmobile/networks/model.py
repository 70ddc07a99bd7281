"""A network with its weights: a variant of a built-in family, or the user's own from a file or as a PyTorch object."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tvmmobile.networks.models.costs import ModelCost, count
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.networks.own.files import OwnFile
from tvmmobile.system.errors import UserError


@dataclass(frozen=True)
class Model:
    """The result of `load`: what identifies a network, in a form that can be sent to a worker process.

    Attributes:
        spec: the variant.
        checkpoint: state dict with the weights; `None` for generated ones.
        seed: seed of generated weights, and of what a Python file draws.
        own: the file of a network of the user's own.
        quantised: true if that file has scales for integers.
    """

    spec: ModelSpec
    checkpoint: Path | None = None
    seed: int = 0
    own: OwnFile | None = None
    quantised: bool = False

    def __str__(self) -> str:
        return self.spec.variant

    @property
    def cost(self) -> ModelCost:
        """Multiply-adds and parameters, by layer and layer type.

        Raises:
            UserError: it is a network of the user's own; its library's results have both.
        """
        if self.own is not None:
            raise UserError(
                f"{self} is from a file; costs are counted for built-in networks.", "Compile it: bench() returns macs and parameters."
            )
        return count(self.spec)
