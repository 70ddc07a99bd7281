"""Operators on tensors of several types, and with numbers of another type, compute in the type that PyTorch computes in."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from onnx_campaign import built, difference_of, run
from torch import nn

from tvmmobile.networks.frontend import decomposed, export_torch, import_program


class Mixed(nn.Module):
    def forward(self, i: torch.Tensor, x: torch.Tensor) -> Any:
        return {
            "products": (i * 0.5, 2.5 * i, i.int() * i, (x > 0) * 0.5, (x > 0) * i),
            "sums": (i + 0.5, i - 0.25, 0.75 - i, i + x, i.to(torch.uint8) - 127.5),
            "quotients": (i / 4, i / (i.abs() + 1), 1 / (i.abs() + 1), i.to(torch.uint8) / 255, i % 1.5),
            "powers": (i.abs() ** 0.5, i**2, i.abs().sqrt(), i.sigmoid(), torch.exp(i)),
            "comparisons": [each.float() for each in (i > 0.5, i < 1.5, i == 0.5, i <= x, torch.logical_and(i, x))],
            "masks": [
                each.float()
                for each in (
                    (x > 0) * (i > 0),
                    (lambda m: m * m)(x > 0),
                    (x > 0) + (i > 0),
                    torch.maximum(x > 0, i > 0),
                    torch.minimum(x > 0, i > 0),
                )
            ],
            "choices": (torch.where(x > 0, i, x), torch.where(x > 0, i, 0.5), x.masked_fill(i > 0, 0.5), torch.minimum(i, x)),
            "bounds": (i.clamp(max=1.5), i.clamp(max=1), i.clamp(min=0), i.int().clamp(-1, 2)),
            "all": (torch.cat([i, x]), i.int().sum(), i.int().cumsum(0), (x > 0).sum()),
            "alpha": (torch.add(x, x * x, alpha=3), torch.sub(x, 2, alpha=3), torch.rsub(x, 2, alpha=3), torch.add(i, x, alpha=2)),
        }


def test_types_are_those_of_pytorch() -> None:
    from tvm import relax

    random, module = np.random.default_rng(1), Mixed()
    given = random.integers(-5, 6, 12), random.normal(0, 2, 12).astype(np.float32)
    example = [torch.from_numpy(array) for array in given]
    machine = built([relax.transform.LegalizeOps()(import_program(decomposed(export_torch(module, example))))])
    wanted = torch.utils._pytree.tree_flatten_with_path(module(*example))[0]
    for (path, expected), found in zip(wanted, run(machine, "main_0", given), strict=True):
        assert found.dtype == expected.numpy().dtype, path
        assert difference_of(found, expected.numpy()) <= 1e-5, (path, found, expected)
