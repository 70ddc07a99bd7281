"""Trains a network from scratch, in minutes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import islice

import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval


def train(module: torch.nn.Module, batches: Iterable[tuple[torch.Tensor, torch.Tensor]], steps: int, rate: float) -> torch.nn.Module:
    """Return the module with trained weights, in eval mode; its first ones are drawn by PyTorch's generator.

    A network without batch norms learns with one behind each of its layers, which its weights contain afterwards: without, it does not
    learn in minutes.

    Args:
        batches: `steps` batches at least, of inputs, NCHW, and their classes.
        rate: the highest learning rate; it rises over the first fifth of the steps, and falls after that.
    """
    module.train()
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d | torch.nn.Linear):
            part.reset_parameters()
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
    has_norms = any(isinstance(part, torch.nn.BatchNorm2d) for part in module.modules())
    layers = [] if has_norms else [part for part in module.modules() if isinstance(part, torch.nn.Conv2d | torch.nn.Linear)]
    norms = torch.nn.ModuleList(map(_norm_behind, layers))
    hooks = [layer.register_forward_hook(partial(_normed, norm)) for layer, norm in zip(layers, norms, strict=True)]
    optimiser = torch.optim.SGD([*module.parameters(), *norms.parameters()], rate, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.2)
    for inputs, labels in islice(batches, steps):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(module(inputs), labels).backward()
        optimiser.step()
        schedule.step()
    for layer, norm, hook in zip(layers, norms, hooks, strict=True):
        hook.remove()
        fold = fuse_conv_bn_eval if isinstance(layer, torch.nn.Conv2d) else fuse_linear_bn_eval
        folded = fold(layer.eval(), norm.eval())
        layer.weight, layer.bias = folded.weight, folded.bias
    return module.eval()


def _norm_behind(layer: torch.nn.Module) -> torch.nn.Module:
    if isinstance(layer, torch.nn.Conv2d):
        return torch.nn.BatchNorm2d(layer.out_channels)
    assert isinstance(layer, torch.nn.Linear)
    return torch.nn.BatchNorm1d(layer.out_features)


def _normed(norm: torch.nn.Module, layer: torch.nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
    """Return a forward hook: what `norm` makes of a layer's output."""
    return norm(output)
