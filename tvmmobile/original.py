"""The PyTorch network that a library was compiled from, made again from what its manifest says of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from tvmmobile.errors import UserError
from tvmmobile.files import sha256_of
from tvmmobile.library import Library
from tvmmobile.models.own import OwnSpec

if TYPE_CHECKING:
    import torch

#: What a manifest says of weights; see `models.weights.seed_weights` and `models.checkpoints.load_checkpoint`.
_SEEDED = re.compile(r"seeded kaiming, seed (\d+)")
_CHECKPOINT = re.compile(r"checkpoint sha256 ([0-9a-f]{64})")


def check_weights(library: Library, checkpoint: Path | None) -> None:
    """Raises `UserError` unless the library's weights are known here: generated ones, or those of `checkpoint`. No tensor is read."""
    if isinstance(library.spec, OwnSpec):
        raise UserError(
            f"{library.path.name} is a network from a file ({library.spec.name}), which is not read here.",
            "Evaluate a built-in network's library; tvmmobile bench compares this one with its own reference.",
        )
    weights = library.weights
    if _SEEDED.fullmatch(weights):
        if checkpoint is not None:
            raise UserError(f"{library.path.name} was compiled with generated weights ({weights}).", "Leave out --checkpoint.")
        return
    wanted = _CHECKPOINT.fullmatch(weights)
    if wanted is None:
        raise UserError(f"{library.manifest_path} says nothing of its weights that is known here: {weights!r}.", "Compile it again.")
    if checkpoint is None:
        remedy = f"Give it with --checkpoint; its SHA-256 is {wanted.group(1)}"
        raise UserError(f"{library.path.name} was compiled from a checkpoint.", remedy)
    if not checkpoint.is_file():
        raise UserError(f"checkpoint {checkpoint} is not a file.", "Give the state dict that the library was compiled from.")
    if sha256_of(checkpoint) != wanted.group(1):
        raise UserError(
            f"checkpoint {checkpoint} is not the one that {library.path.name} was compiled from.",
            f"Give the file whose SHA-256 is {wanted.group(1)}",
        )


def torch_module(library: Library, checkpoint: Path | None) -> torch.nn.Module:
    """The module, in eval mode: what `main` of the library takes in, and its output out.

    Args:
        library: of which `check_weights` has found nothing wrong.
        checkpoint: the same.

    Raises:
        UserError: the checkpoint does not fit the network.
    """
    from tvmmobile.models.registry import build_torch_model

    seeded = _SEEDED.fullmatch(library.weights)
    return build_torch_model(library.spec, checkpoint, int(seeded.group(1)) if seeded else 0).module
