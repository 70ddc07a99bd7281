"""Class scores of a detector: the sigmoid of concatenated outputs, and the steps behind the last layers, in half precision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_networks import accepted, error_of, seeded
from torch import nn

from tvmmobile.graph.layers import Conv2d, Opaque
from tvmmobile.graph.network import read_network
from tvmmobile.graph.passes.pipeline import compose, lower_to_kernels
from tvmmobile.graph.passes.split_steps import split_steps
from tvmmobile.graph.precision import FLOAT16
from tvmmobile.networks.frontend import import_torch

SHAPE = (1, 3, 8, 12)


class Head(nn.Module):
    """Scores and boxes of two levels."""

    def __init__(self, also_reads: str = "") -> None:
        super().__init__()
        self.scores = nn.ModuleList(nn.Conv2d(3, 5, 3, stride, 1) for stride in (1, 2))
        self.boxes = nn.ModuleList(nn.Conv2d(3, 4, 3, stride, 1) for stride in (1, 2))
        self.also_reads = also_reads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [layer(x).flatten(2) for layer in self.scores]
        boxes = torch.cat([layer(x).flatten(2) for layer in self.boxes], 2)
        logits = torch.cat(parts, 2)
        found = [boxes[:, 2:] - boxes[:, :2], logits.sigmoid()]
        again = torch.cat([parts[0], boxes[:, :1, parts[0].shape[2] :].repeat(1, 5, 1)], 2)
        also = {"": [], "part": [again], "concatenation": [logits]}[self.also_reads]
        return torch.cat([*found, *also], 1) * 8.0


@pytest.mark.parametrize("also_reads", ["", "part", "concatenation"])
def test_each_layer_computes_its_part_of_a_sigmoid(tmp_path: Path, also_reads: str) -> None:
    """Unless a layer's output or all of them are read without it as well."""
    network = seeded(Head(also_reads))
    composed = compose(import_torch(network, SHAPE), accepted)
    layers = dict(composed.layers)
    read = read_network(*lower_to_kernels(replace(composed, module=split_steps(accepted, layers)(composed.module), layers=layers)))
    steps = [node.layer.clamp for node in read.nodes if isinstance(node.layer, Conv2d) and node.layer.out_channels == 5]
    assert steps == ([(None, None)] * 2 if also_reads else ["sigmoid"] * 2)
    if not also_reads:
        assert error_of(read, network, SHAPE, tmp_path / "network.so") < 1e-5


def test_steps_behind_the_last_layers_are_computed_in_float32() -> None:
    """One kernel of them all, which reads what the layers store; sums before the last layer are in half precision."""
    network = seeded(nn.Conv2d(3, 3, 3, padding=1), Head())
    read = read_network(*lower_to_kernels(compose(import_torch(network, SHAPE), accepted), FLOAT16))
    assert [node.layer.writes for node in read.nodes if isinstance(node.layer, Conv2d)] == [""] * 5
    [last] = [node for node in read.nodes if isinstance(node.layer, Opaque)]
    kinds = [str(parameter.ty.dtype) for parameter in last.function.params]
    assert kinds == ["float16"] * (len(kinds) - 1) + ["float32"] and "T.float16(" not in last.function.script()
