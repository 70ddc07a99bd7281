"""A network of layers that MobileNets do not have, through the whole pipeline to a library that runs on a virtual board."""

from __future__ import annotations

from pathlib import Path

import pytest

import tvmmobile
from tvmmobile.kernels.reference import relative_error

NETWORK = """
import torch
from torch import nn

class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.linear = nn.RMSNorm(12), nn.Linear(12, 12)

    def forward(self, image):
        rows = image.flatten(2).transpose(1, 2)
        return (rows + self.linear(self.norm(rows))).transpose(1, 2).reshape(image.shape)

def make():
    first = nn.Conv2d(3, 12, 3, 2, 1), nn.GroupNorm(3, 12), nn.PReLU(12), nn.Conv2d(12, 12, 3, 1, 1, groups=12), nn.LeakyReLU(0.1)
    network = nn.Sequential(*first, Tokens(), nn.Conv2d(12, 7, 1), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Softmax(1))
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
        elif getattr(module, "weight", None) is not None:
            nn.init.uniform_(module.weight, 0.2, 1.5)
    return network
"""


@pytest.mark.virtual
@pytest.mark.parametrize(("dtype", "threads", "error"), [("float32", 1, 1e-5), ("float32", 4, 1e-5), ("float16", 1, 2e-2)])
def test_it_runs_on_a_board(tmp_path: Path, dtype: str, threads: int, error: float) -> None:
    file = tmp_path / "network.py"
    file.write_text(NETWORK)
    model = tvmmobile.load(f"{file}:make", resolution=24)
    library = tvmmobile.compile(model, "pi5", dtype=dtype, threads=threads, out=tmp_path / "out", logs=tmp_path)
    names = [kernel["name"].partition("_")[0] for kernel in library.manifest()["kernels"]]
    assert {"groupnorm", "rmsnorm", "softmax", "resize"} <= set(names)
    assert sum("transpose" in kernel["name"] for kernel in library.manifest()["kernels"]) == 1  # the output's
    assert relative_error(library.run(library.reference().inputs, "pi5"), library.reference().outputs[0]) < error
