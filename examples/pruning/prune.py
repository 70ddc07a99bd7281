"""A MobileNet v1 that reads drawn digits: trained, pruned in three patterns, written for `tvmmobile tune`. Takes about two minutes.

PYTHONPATH=. .venv/bin/python examples/pruning/prune.py
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator
from pathlib import Path

import torch
from gradual import PATTERNS, Pattern, Pruner, prunable
from torch import nn

from studies.trained.digits import SIDE, digits, inputs_of
from studies.trained.training import train
from tvmmobile.accuracy.significance import top1_loss
from tvmmobile.networks.models.registry import build_torch_model
from tvmmobile.networks.models.spec import ModelSpec

BATCH, RATE = 32, 0.05
Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]


def drawn(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return digits and which they are. With channels last, training takes half the time."""
    pixels, labels = digits(count, seed)
    return torch.from_numpy(inputs_of(pixels)).contiguous(memory_format=torch.channels_last), torch.from_numpy(labels)


def batches_of(images: torch.Tensor, labels: torch.Tensor) -> Batches:
    """Yield random batches without end."""
    while True:
        chosen = torch.randint(len(images), (BATCH,))
        yield images[chosen], labels[chosen]


def pruned(network: nn.Module, pattern: Pattern, batches: Batches, steps: int) -> nn.Module:
    """Return a pruned copy: zeros come during two thirds of the steps, and what is left is trained during all of them."""
    network = copy.deepcopy(network).train()
    pruner = Pruner(prunable(network), pattern, last=2 * steps // 3)
    optimizer = torch.optim.SGD(network.parameters(), RATE, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(1, steps + 1):
        images, labels = next(batches)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
        schedule.step()
        pruner.after(step)
    return network.eval()


def right(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> list[bool]:
    """Return for each image whether it is classified correctly."""
    with torch.no_grad():
        classes = torch.cat([network(part).argmax(1) for part in images.split(100)])
    found: list[bool] = (classes == labels).tolist()
    return found


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="batches per pattern, twice as many before pruning (default: 300)")
    parser.add_argument("--images", type=int, default=5000, help="unseen digits to test on (default: 5000)")
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where digits_*.pt2 are written (default: here)")
    options = parser.parse_args()
    torch.set_num_threads(1)  # results do not depend on the machine's cores
    torch.manual_seed(0)
    batches, test = batches_of(*drawn(5000, seed=0)), drawn(options.images, seed=1)

    network = build_torch_model(ModelSpec(alpha=0.5, resolution=SIDE, classes=10)).module.to(memory_format=torch.channels_last)
    train(network, batches, 2 * options.steps, RATE)
    before = right(network, *test)
    print(f"before: {sum(before) / len(before):.2%} of {len(before)} unseen digits are right", flush=True)
    for name, pattern in PATTERNS.items():
        smaller = pruned(network, pattern, batches, options.steps)
        weights = torch.cat([layer.weight.flatten() for layer in prunable(smaller)])
        after = right(smaller, *test)
        loss = top1_loss(before, after)
        assert loss is not None
        path = options.out / f"digits_{name.replace(':', '-')}.pt2"
        smaller.to(memory_format=torch.contiguous_format)
        torch.export.save(torch.export.export(smaller, (torch.zeros(1, 3, SIDE, SIDE),)), path)
        # Both networks see the same digits: the interval is that of a paired difference (Agresti and Min, see `top1_loss`).
        interval = f"{loss.points - loss.margin:.2f} to {loss.points + loss.margin:.2f}"
        print(f"{name}: {(weights == 0).float().mean():.1%} zeros, {sum(after) / len(after):.2%} right, ", end="")
        print(f"{loss.points:.2f} points lost (95 % interval: {interval}): {path}", flush=True)


if __name__ == "__main__":
    main()
