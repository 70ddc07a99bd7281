"""Checkpoints as torchvision and timm would write them: their names and shapes, with generated weights.

`published_networks/` has a file for each network: where it comes from (`of`), its tensors in order, and its first logits for an image of
side `side` with the weights generated here, as the original network computed them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(__file__).parents[1] / "published_networks"


@dataclass(frozen=True)
class Original:
    """A network of torchvision's or timm's.

    Attributes:
        of: package with version, and the network's name there.
        name, alpha: name and alpha of our network.
        side: side of the image that `logits` belong to, in pixels.
        logits: the first ones.
        tensors: shapes by name, without `num_batches_tracked`.
    """

    of: str
    name: str
    alpha: float
    side: int
    logits: tuple[float, ...]
    tensors: dict[str, tuple[int, ...]]


def original(file: str) -> Original:
    """Return the network that a file of `published_networks/` describes."""
    content = json.loads((FOLDER / f"{file}.json").read_text(encoding="utf-8"))
    tensors = {name: tuple(shape) for name, shape in content.pop("tensors").items()}
    return Original(**content | {"logits": tuple(content["logits"]), "tensors": tensors})


def generated(tensors: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Any]:
    """Weights for tensors of these names and shapes, such that activations neither vanish nor grow; small variances let ε matter."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(shape: tuple[int, ...], low: float, high: float) -> torch.Tensor:
        return torch.rand(shape, generator=generator) * (high - low) + low

    found: dict[str, Any] = {}
    for name, shape in tensors.items():
        if name.endswith("running_var"):
            found[name] = uniform(shape, 0.02, 0.32)
        elif name.endswith("weight") and len(shape) == 1:
            found[name] = uniform(shape, 0.2, 0.7)
        elif name.endswith("weight"):
            bound = (1.5 / torch.Size(shape[1:]).numel()) ** 0.5
            found[name] = uniform(shape, -bound, bound)
        else:
            found[name] = uniform(shape, -0.2, 0.2)
    return found


def image_of(side: int) -> torch.Tensor:
    """Return an image of that side, NCHW, with values as normalised photographs have them."""
    return torch.rand((1, 3, side, side), generator=torch.Generator().manual_seed(1)) * 4 - 2
