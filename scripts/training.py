"""Trains a network from scratch, in minutes."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import torch


def train(module: torch.nn.Module, batches: Iterable[tuple[torch.Tensor, torch.Tensor]], steps: int, rate: float) -> torch.nn.Module:
    """The module with weights trained by stochastic gradient descent, in eval mode; its first ones are drawn by PyTorch's generator.

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
    optimiser = torch.optim.SGD(module.parameters(), rate, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.2)
    for inputs, labels in islice(batches, steps):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(module(inputs), labels).backward()
        optimiser.step()
        schedule.step()
    return module.eval()
