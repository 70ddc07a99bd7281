"""Trains a network from scratch, in minutes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

import torch


def train(module: torch.nn.Module, batches: Iterable[tuple[torch.Tensor, torch.Tensor]], steps: int, rate: float) -> torch.nn.Module:
    """The module with trained weights, in eval mode; its first ones are drawn by PyTorch's generator.

    Stochastic gradient descent, or Adam where there are no batch norms: the gradients of such networks differ too much from layer to layer.

    Args:
        batches: at least `steps` of inputs, NCHW, and their classes.
        rate: the highest learning rate; it rises over the first fifth of the steps, and falls after that.
    """
    module.train()
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d | torch.nn.Linear):
            part.reset_parameters()
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
    optimiser: torch.optim.Optimizer
    if any(isinstance(part, torch.nn.BatchNorm2d) for part in module.modules()):
        optimiser = torch.optim.SGD(module.parameters(), rate, momentum=0.9, nesterov=True)
    else:
        _start_without_norms([part for part in module.modules() if isinstance(part, torch.nn.Conv2d | torch.nn.Linear)])
        optimiser = torch.optim.Adam(module.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.2)
    for inputs, labels in islice(batches, steps):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(module(inputs), labels).backward()
        optimiser.step()
        schedule.step()
    return module.eval()


def _start_without_norms(layers: Sequence[torch.nn.Conv2d | torch.nn.Linear]) -> None:
    """First weights with which values keep their spread from layer to layer, and all classes begin alike: above 0, for there may be a ReLU
    behind them.
    """
    for layer in layers:
        torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            torch.nn.init.zeros_(layer.bias)
    torch.nn.init.normal_(layers[-1].weight, std=0.01)
    if layers[-1].bias is not None:
        torch.nn.init.ones_(layers[-1].bias)
