"""The network families by name. A new family is one line in `FAMILIES`, and one in `traits.TRAITS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tvmmobile.networks.models import (
    googlenet,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    shufflenet_v1,
    shufflenet_v2,
    squeezenet,
    vgg,
    xception,
)
from tvmmobile.networks.models.blocks import Part, WeightLayer, layers_of
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.networks.models.traits import TRAITS
from tvmmobile.system.errors import UserError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Family:
    """A network family.

    Attributes:
        name: the family's name, as in `ModelSpec.name`.
        body: the description of a variant; needs no framework.
        spare: prefixes of names in published checkpoints that the network does not use, such as training heads.
    """

    name: str
    body: Callable[[ModelSpec], Part]
    spare: tuple[str, ...] = ()

    def layers(self, spec: ModelSpec) -> tuple[WeightLayer, ...]:
        """Return the layers with weights, in order of execution."""
        return layers_of(self.body(spec), spec.resolution)

    def module(self, spec: ModelSpec) -> torch.nn.Module:
        """Return the PyTorch module: NCHW `[N, 3, side, side]` float32 in, logits `[N, classes]` out; weights as PyTorch leaves them."""
        from tvmmobile.networks.models.network import TorchNetwork

        return TorchNetwork(self.body(spec), spec.resolution)


FAMILIES = {
    family.name: family
    for family in (
        Family("mobilenet_v1", mobilenet_v1.body),
        Family("mobilenet_v1_full", partial(mobilenet_v1.body, block_of=mobilenet_v1.full)),
        Family("mobilenet_v1_shallow", partial(mobilenet_v1.body, stages=mobilenet_v1.SHALLOW_STAGES)),
        Family("mobilenet_v2", mobilenet_v2.body),
        Family("mobilenet_v3_large", partial(mobilenet_v3.body, stages=mobilenet_v3.LARGE, head=mobilenet_v3.LARGE_HEAD)),
        Family("mobilenet_v3_small", partial(mobilenet_v3.body, stages=mobilenet_v3.SMALL, head=mobilenet_v3.SMALL_HEAD)),
        Family("squeezenet1_0", partial(squeezenet.body, channels=96, kernel=7, table=squeezenet.V1_0)),
        Family("squeezenet1_1", partial(squeezenet.body, channels=64, kernel=3, table=squeezenet.V1_1)),
        Family("shufflenet_v1", shufflenet_v1.body),
        Family("shufflenet_v2", shufflenet_v2.body),
        Family("xception", xception.body),
        Family("googlenet", googlenet.body, spare=("aux1.", "aux2.")),
        Family("vgg16", vgg.vgg16_body),
        Family("alexnet", vgg.alexnet_body),
    )
}


@dataclass(frozen=True)
class TorchModel:
    """A PyTorch module ready for export, and where its weights came from.

    Attributes:
        spec: the variant.
        module: the module in eval mode, float32; NCHW image in, logits out.
        weights: origin of the weights, for the manifest, e.g. `seeded kaiming, seed 0` or `checkpoint sha256 …`.
    """

    spec: ModelSpec
    module: torch.nn.Module
    weights: str


def family(name: str) -> Family:
    """Return the family called `name`; raise `UserError` naming the known ones."""
    if name not in FAMILIES:
        raise UserError(f"model {name!r} is not known.", f"Give --model one of: {', '.join(FAMILIES)}.")
    return FAMILIES[name]


def grid(
    name: str, alphas: Sequence[float] = (), resolutions: Sequence[int] = (), activation: str | None = None, classes: int = 1000
) -> tuple[ModelSpec, ...]:
    """Return every α with every resolution, in the order given and each once; see `Traits.variants` for an empty list.

    An `activation` of `None` is the family's own. Raises `UserError` if the family is not known, or has no such variant.
    """
    wanted = TRAITS[family(name).name].variants(alphas, resolutions)
    return tuple(ModelSpec(name, alpha, side, activation or "", classes) for alpha, side in wanted)


def build_torch_model(spec: ModelSpec, checkpoint: Path | None = None, seed: int = 0) -> TorchModel:
    """Return the PyTorch model of a variant, with the weights of `checkpoint` if given, else generated ones, the same for every resolution.

    Args:
        checkpoint: a state dict saved with `torch.save`, with the names that torchvision or timm give the network.

    Raises:
        UserError: the family is not known, or the checkpoint cannot be read or does not fit.
    """
    import torch

    from tvmmobile.networks.models.checkpoints import load_checkpoint
    from tvmmobile.networks.models.weights import PROBE, seed_weights

    network = family(spec.name)
    with torch.random.fork_rng(devices=[]):  # PyTorch's constructors draw random weights
        module = network.module(spec)
    if checkpoint:
        source = load_checkpoint(module, network.body(spec), checkpoint, network.spare)
    else:
        layers = network.layers(spec)
        # The classifier keeps its weights: the spread of logits does not matter.
        scaled = [layer.name for layer in layers[:-1] if not layer.norm]
        least, most = TRAITS[spec.name].sides
        source = seed_weights(module, seed, scaled, (3, least, least) if least == most else PROBE)
    return TorchModel(spec, module.eval(), source)
