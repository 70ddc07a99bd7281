"""Heads that keep the best boxes compute the sigmoids of these alone, and those that return all scores compute all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_networks import error_against_torch, prepared, seeded, unit
from torch import nn

from tvmmobile.graph.tasks import Task

IMAGE = (1, 3, 12, 16)
BEST = 5


class BestBoxes(nn.Module):
    """The best boxes by their greatest scores, then the best pairs of a box and a class, as in ultralytics' networks."""

    def __init__(self, *, all_scores: bool) -> None:
        super().__init__()
        self.all_scores, self.scores = all_scores, nn.Conv2d(8, 6, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        scores = self.scores(image).flatten(2).transpose(1, 2).sigmoid()
        if self.all_scores:
            return scores * scores.amax(2, keepdim=True)
        _, boxes = scores.amax(2).topk(BEST, 1)
        chosen = scores.gather(1, boxes[..., None].expand(-1, -1, 6))
        best, pairs = chosen.flatten(1).topk(BEST, 1)
        return torch.stack((best, boxes.gather(1, pairs // 6).float(), (pairs % 6).float()), 2)


@pytest.mark.parametrize("all_scores", [False, True])
def test_sigmoids_are_computed_of_what_is_kept(all_scores: bool, tmp_path: Path) -> None:
    network = seeded(*unit(3, 8, 3), BestBoxes(all_scores=all_scores))
    kernels = [Task((node.layer,), "float32", 1).name for node in prepared(network, IMAGE).nodes]
    (sigmoid,) = [name for name in kernels if "sigmoid" in name]
    assert f"sigmoid_1x{'192x6' if all_scores else BEST}_" in sigmoid, kernels
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= 1e-5
