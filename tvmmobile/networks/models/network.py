"""The PyTorch module of a description of blocks. It imports PyTorch, and is itself imported only where a module is made."""

from __future__ import annotations

import torch
from torch import nn

from tvmmobile.networks.models import blocks

_ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "hardswish": nn.Hardswish, "hardsigmoid": nn.Hardsigmoid}


class TorchNetwork(nn.Module):  # type: ignore[misc]  # PyTorch counts as untyped here
    """A network as `tvmmobile.networks.models.blocks` describes it: NCHW float32 `[N, 3, side, side]` in, logits `[N, classes]` out.

    Every leaf of the description is a submodule with the leaf's path; weights are as PyTorch leaves them.

    Args:
        body: the description.
        side: side of the images, in pixels. Only the size of a dense layer behind a flattened image depends on it.
    """

    def __init__(self, body: blocks.Part, side: int) -> None:
        super().__init__()
        self.body = body
        for place in blocks.placed(body, side):
            self._register(place.leaf.name, _module(place))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits of a batch of images."""
        return self._run(self.body, image)

    def _register(self, path: str, module: nn.Module) -> None:
        holder: nn.Module = self
        *folders, name = path.split(".")
        for folder in folders:
            if not hasattr(holder, folder):
                holder.add_module(folder, nn.Module())
            holder = getattr(holder, folder)
        holder.add_module(name, module)

    def _run(self, part: blocks.Part, data: torch.Tensor) -> torch.Tensor:
        match part:
            case blocks.Sequential(parts):
                for inner in parts:
                    data = self._run(inner, data)
                return data
            case blocks.Sum(branches):
                first, *others = (self._run(branch, data) for branch in branches)
                for other in others:
                    first = first + other
                return first
            case blocks.Concat(branches):
                return torch.cat([self._run(branch, data) for branch in branches], 1)
            case blocks.Gate(branch):
                return self._run(branch, data) * data
            case blocks.KeepHalf(half, branch):
                kept, rest = data.split(half, 1)
                return torch.cat([kept, self._run(branch, rest)], 1)
            case blocks.Shuffle(groups):
                batch, channels, height, width = data.shape
                grouped = data.reshape(batch, groups, channels // groups, height, width)
                return grouped.transpose(1, 2).reshape(batch, channels, height, width)
            case leaf:
                result: torch.Tensor = self.get_submodule(leaf.name)(data)
                return result


def _module(place: blocks.PlacedLeaf) -> nn.Module:
    leaf = place.leaf
    channels = place.given.channels
    match leaf:
        case blocks.Convolution():
            return nn.Conv2d(channels, leaf.out, leaf.kernel, leaf.stride, leaf.zeros, groups=leaf.groups, bias=leaf.bias)
        case blocks.BatchNorm():
            return nn.BatchNorm2d(channels, eps=leaf.eps)
        case blocks.Linear():
            return nn.Linear(channels, leaf.out, bias=leaf.bias)
        case blocks.ActivationFunction():
            return _ACTIVATIONS[leaf.function]()
        case blocks.Pooling() if leaf.mean:
            return nn.AvgPool2d(leaf.kernel, leaf.stride, leaf.padding, leaf.ceil)
        case blocks.Pooling():
            return nn.MaxPool2d(leaf.kernel, leaf.stride, leaf.padding, ceil_mode=leaf.ceil)
        case blocks.GlobalPool():
            return nn.AdaptiveAvgPool2d(1)
        case blocks.Flatten():
            return nn.Flatten(1)
