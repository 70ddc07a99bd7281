"""Variances in the spelling of JAX keep their digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_networks import Lambda, kernels_of, prepared, run_lowered, seeded
from torch import nn

from tvmmobile.graph.network import lower
from tvmmobile.kernels.reference import relative_error

IMAGE = (1, 3, 9, 10)


@pytest.mark.parametrize(("axes", "keeps"), [((1,), False), ((2, 3), True), ((1, 2, 3), False)])
def test_variances_of_numbers_far_from_zero(tmp_path: Path, axes: tuple[int, ...], keeps: bool) -> None:
    def spelled(x: torch.Tensor) -> torch.Tensor:
        inverse = 1 / float(np.prod([x.shape[axis] for axis in axes]))
        mean = x.sum(axes, keepdim=keeps) * inverse
        return (x * x).sum(axes, keepdim=keeps) * inverse - mean * mean

    layer = nn.Conv2d(3, 16, 3)
    network = seeded(layer, Lambda(spelled))
    assert layer.bias is not None
    layer.bias.data += 200
    image = np.random.default_rng(3).normal(0.0, 1.0, IMAGE).astype(np.float32)
    read = prepared(network, IMAGE)
    found = run_lowered(lower(read, kernels_of(read)), image, tmp_path / "net.so")
    exact = layer.double()(torch.from_numpy(image).double()).var(axes, correction=0, keepdim=keeps)
    assert relative_error(found, exact.detach().numpy()) <= 5e-5
