"""The network families by name. A new family is one line in `FAMILIES`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tvmmobile.errors import UserError
from tvmmobile.models import mobilenet_v1
from tvmmobile.models.layers import Layer
from tvmmobile.models.spec import PAPER_ALPHAS, PAPER_RESOLUTIONS, ModelSpec

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Family:
    """A network family.

    Attributes:
        name: as in `ModelSpec.name`.
        layers: the layers with weights, in order; needs no framework.
        module: the PyTorch module, with weights as PyTorch leaves them.
    """

    name: str
    layers: Callable[[ModelSpec], tuple[Layer, ...]]
    module: Callable[[ModelSpec], torch.nn.Module]


FAMILIES = {
    mobilenet_v1.NAME: Family(mobilenet_v1.NAME, mobilenet_v1.layers, mobilenet_v1.module),
}


@dataclass(frozen=True)
class TorchModel:
    """A PyTorch module ready for export, and where its weights came from.

    Attributes:
        spec: the variant.
        module: in eval mode, float32; NCHW image in, logits out.
        weights: for the manifest, e.g. `seeded kaiming, seed 0` or `checkpoint sha256 …`.
    """

    spec: ModelSpec
    module: torch.nn.Module
    weights: str


def family(name: str) -> Family:
    """The family called `name`; raises `UserError` naming the known ones."""
    if name not in FAMILIES:
        raise UserError(f"model {name!r} is not known.", f"Give --model one of: {', '.join(FAMILIES)}.")
    return FAMILIES[name]


def grid(
    name: str, alphas: Sequence[float] = (), resolutions: Sequence[int] = (), activation: str = "relu6", classes: int = 1000
) -> tuple[ModelSpec, ...]:
    """Every α with every resolution, in the order given and each once; an empty list stands for the paper's four values.

    Raises `UserError` if the family, an α or a resolution is not valid.
    """
    family(name)
    wanted = [(float(alpha), side) for alpha in alphas or PAPER_ALPHAS for side in resolutions or PAPER_RESOLUTIONS]
    return tuple(ModelSpec(name, alpha, side, activation, classes) for alpha, side in dict.fromkeys(wanted))


def build_torch_model(spec: ModelSpec, checkpoint: Path | None = None, seed: int = 0) -> TorchModel:
    """The PyTorch model of a variant, with the weights of `checkpoint` if given, else seeded ones.

    Args:
        spec: the variant.
        checkpoint: a state dict saved with `torch.save`, with the names of timm's `mobilenetv1_100`.
        seed: of the generated weights; unused with a checkpoint. The same weights serve every resolution.

    Raises:
        UserError: the family is not known, or the checkpoint cannot be read or does not fit.
    """
    import torch

    from tvmmobile.models import weights

    network = family(spec.name)
    with torch.random.fork_rng(devices=[]):  # PyTorch's constructors draw weights of their own
        module = network.module(spec)
    source = weights.load_checkpoint(module, checkpoint) if checkpoint else weights.seed_weights(module, seed)
    return TorchModel(spec, module.eval(), source)
