"""What PyTorch does for rows without scores is left out where each row has some, in precisions that no kernel for attention takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_networks import Lambda, error_against_torch, prepared, seeded
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from tvmmobile.graph.precision import FLOAT16

IMAGE = (1, 3, 5, 5)
SOME = torch.ones(9, 9, dtype=torch.bool).tril()
NONE = SOME & (torch.arange(9) != 4)[:, None]


@pytest.mark.parametrize(("mask", "is_left_out"), [(None, True), (SOME, True), (NONE, False)], ids=["none", "some", "a whole row"])
def test_zeroed_rows(tmp_path: Path, mask: torch.Tensor | None, is_left_out: bool) -> None:
    def attended(image: torch.Tensor) -> torch.Tensor:
        tokens = image.flatten(2).transpose(1, 2)
        return scaled_dot_product_attention(tokens, tokens, tokens, mask if image.shape == (1, 12, 3, 3) else None)

    network = seeded(nn.Conv2d(3, 12, 3), Lambda(attended), nn.Linear(12, 8))
    found = [node.layer for node in prepared(network, IMAGE, precision=FLOAT16).nodes]
    assert any("softmax" in layer.name for layer in found) and any("equal" in layer.name for layer in found) != is_left_out
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= 1e-5
