"""Decompositions of PyTorch's functions of numbers that Relax lacks, as in `torch_operators`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch


def special_decompositions() -> Mapping[Any, Callable[..., Any]]:
    """Return decompositions by operator."""
    aten = torch.ops.aten
    return {
        aten.copysign.Scalar: lambda x, number: -_real(x).abs() if math.copysign(1, number) < 0 else _real(x).abs(),
        aten.copysign.Tensor: _copysign,
        aten.erfc.default: lambda x: 1 - torch.erf(x),
        aten.exp2.default: lambda x: torch.exp(x * math.log(2)),
        aten.hypot.default: lambda x, y: torch.sqrt(x * x + y * y),
        aten.logaddexp.default: _logaddexp,
    }


def _real(x: torch.Tensor) -> torch.Tensor:
    return x if x.is_floating_point() else x.float()


def _copysign(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return magnitudes with the signs of other numbers, of zeros too."""
    x, size = torch.broadcast_tensors(y, _real(x).abs())
    return torch.where((x < 0) | (1 / x < 0), -size, size)


def _logaddexp(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return log(exp(x) + exp(y)); the distance of equal infinities is 0."""
    return torch.maximum(x, y) + torch.log1p(torch.exp(-torch.where(x == y, 0.0, (x - y).abs())))
