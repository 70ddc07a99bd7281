"""Gradual pruning of 1×1 convolutions by magnitude, for training loops of your own; needs PyTorch alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Pattern:
    """The weights that become zero.

    Attributes:
        zeros: share of the weights.
        together: adjacent output channels that have their zeros in the same places; divides the output channels.
        fours: whether zeros are at most two of every four adjacent input channels; `zeros` is at most 0.5 then.
    """

    zeros: float
    together: int = 1
    fours: bool = False


PATTERNS = {"unstructured": Pattern(0.8), "pairs": Pattern(0.8, together=2), "2:4": Pattern(0.5, fours=True)}


def prunable(network: nn.Module) -> list[nn.Conv2d]:
    """Return all 1×1 convolutions but the first, which has few weights and much influence."""
    return [layer for layer in network.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1][1:]


def share_after(step: int, last: int, final: float) -> float:
    """Return the share of zeros after a step: it rises fast, then slower, up to `final` after the step `last`.

    This is the cubic schedule of Zhu and Gupta (arXiv 1710.01878).
    """
    return final * (1 - (1 - min(step / last, 1.0)) ** 3)


def mask_of(weight: torch.Tensor, pattern: Pattern, share: float) -> torch.Tensor:
    """Return which weights are kept, `[outputs, inputs, 1, 1]`: not the share with the smallest magnitudes, or norms of a group."""
    magnitudes = weight.detach().flatten(1).unflatten(0, (-1, pattern.together)).norm(dim=1)
    if pattern.fours:
        fours = magnitudes.unflatten(1, (-1, 4))
        magnitudes = fours.scatter(2, fours.topk(2).indices, torch.inf).flatten(1)
    kept = torch.ones_like(magnitudes, dtype=torch.bool)
    kept.view(-1)[magnitudes.flatten().argsort()[: round(share * magnitudes.numel())]] = False
    return kept.repeat_interleave(pattern.together, 0).view_as(weight)


class Pruner:
    """Makes more and more weights of some layers zero while they are trained."""

    def __init__(self, layers: Sequence[nn.Conv2d], pattern: Pattern, last: int, every: int = 10) -> None:
        """Prune nothing yet.

        Args:
            last: step after which the layers have all their zeros.
            every: steps between changes; the weights that are left adapt meanwhile.
        """
        self.layers, self.pattern, self.last, self.every = layers, pattern, last, every
        self.masks = [torch.ones_like(layer.weight, dtype=torch.bool) for layer in layers]

    def after(self, step: int) -> None:
        """Set weights to zero. Call it after each step of the optimizer, which moves weights of zero too; steps count from 1."""
        if step == self.last or (step < self.last and step % self.every == 0):
            share = share_after(step, self.last, self.pattern.zeros)
            self.masks = [mask_of(layer.weight, self.pattern, share) for layer in self.layers]
        with torch.no_grad():
            for layer, mask in zip(self.layers, self.masks, strict=True):
                layer.weight.mul_(mask)
