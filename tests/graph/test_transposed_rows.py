"""Heads of detectors whose boxes are rows in the end: parts are turned, and nothing is moved."""

from __future__ import annotations

from pathlib import Path

import torch
from small_networks import error_against_torch, prepared, seeded, unit
from torch import nn

from tvmmobile.graph.layers import Conv2d, Opaque

IMAGE = (1, 3, 12, 16)


class Head(nn.Module):
    """Boxes and scores of an image and a smaller one, as ultralytics' end-to-end networks join, turn and cut them."""

    def __init__(self) -> None:
        super().__init__()
        self.smaller = nn.Conv2d(8, 8, 3, 2, 1)
        self.boxes, self.scores = (nn.ModuleList([nn.Conv2d(8, count, 1) for _ in range(2)]) for count in (4, 6))

    @staticmethod
    def joined(layers: nn.ModuleList, images: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return torch.cat([layer(each).flatten(2) for layer, each in zip(layers, images, strict=True)], 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        images = image, self.smaller(image)
        boxes, scores = (self.joined(layers, images) for layers in (self.boxes, self.scores))
        rows = torch.cat((boxes * 0.5, scores.sigmoid()), 1).transpose(1, 2)
        box, score = rows.split((4, 6), 2)
        return torch.cat((box * score.amax(2, keepdim=True), score), 2)


def test_rows_are_not_turned(tmp_path: Path) -> None:
    network = seeded(*unit(3, 8, 3), Head())
    layers = [node.layer for node in prepared(network, IMAGE).nodes]
    assert {layer.out_layout for layer in layers if isinstance(layer, Conv2d) and layer.out_channels == 6} == {"NHWC"}
    moves = [layer.operator for layer in layers if isinstance(layer, Opaque)]
    assert not [operator for operator in moves if operator in ("transpose", "strided_slice")]
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= 1e-5
