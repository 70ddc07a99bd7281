"""Decompositions of PyTorch's operators that look up, count or write single elements, as in `torch_operators`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from tvmmobile.system.errors import UserError


def element_decompositions() -> Mapping[Any, Callable[..., Any]]:
    """Return decompositions by operator."""
    aten = torch.ops.aten
    return {
        **dict.fromkeys((aten._embedding_bag.default, aten._embedding_bag_forward_only.default), _embedding_bag),
        aten._pdist_forward.default: _pairwise_distances,
        aten.as_strided.default: _as_strided,
        aten.as_strided_scatter.default: _as_strided_scatter,
        aten.diagonal_scatter.default: _diagonal_scatter,
        aten.histc.default: _histogram,
        aten.masked_scatter.default: _masked_scatter,
        aten.mode.default: _mode,
        aten.searchsorted.Scalar: lambda boundaries, number, **options: _searchsorted(boundaries, torch.full((), number), **options),
        aten.searchsorted.Tensor: _searchsorted,
    }


def _embedding_bag(
    weight: torch.Tensor,
    indices: torch.Tensor,
    offsets: torch.Tensor,
    _scale_gradient: bool = False,
    mode: int = 0,
    _sparse: bool = False,
    factors: torch.Tensor | None = None,
    include_last_offset: bool = False,
    padding_index: int = -1,
) -> Any:
    """Return sums (mode 0), means (1) or maxima (2) of the rows in each bag as products with a mask; zeros for a bag of none."""
    first = offsets[:-1] if include_last_offset else offsets
    end = torch.cat([first[1:], torch.full((1,), indices.shape[0], dtype=first.dtype)])
    place = torch.arange(indices.shape[0])
    mask = (place >= first.unsqueeze(1)) & (place < end.unsqueeze(1))
    if padding_index >= 0:
        mask = mask & (indices != padding_index)
    rows = weight[indices]
    if factors is not None:
        rows = rows * factors.unsqueeze(1)
    if mode == 2:
        most = torch.where(mask.unsqueeze(2), rows, float("-inf")).amax(1)
        found = torch.where(mask.any(1, keepdim=True), most, 0.0)
    else:
        found = mask.to(rows.dtype) @ rows
        if mode == 1:
            found = found / mask.sum(1, keepdim=True).clamp(min=1)
    return found, offsets, offsets, offsets


def _pairwise_distances(x: torch.Tensor, order: float = 2) -> torch.Tensor:
    """Return the distances of all pairs of rows, each once."""
    one, other = torch.triu_indices(len(x), len(x), 1).unbind()
    return torch.linalg.vector_norm(x[one] - x[other], order, -1)


def _as_strided(x: torch.Tensor, size: Sequence[int], stride: Sequence[int], offset: int | None = None) -> Any:
    """Look up the elements of a view, by their places in memory, where PyTorch permutes only dimensions."""
    order = sorted(range(x.dim()), key=lambda axis: (-x.stride(axis), axis))
    stored = x.permute(order)
    if not stored.is_contiguous():
        raise UserError(f"the network has as_strided of a view with strides {list(x.stride())}.", "Express it with slices, or unfold.")
    if tuple(stride) == torch.empty(size, device="meta").stride() and math.prod(size) == x.numel() and not offset:
        return stored.reshape(size)
    return stored.flatten()[_places(size, stride, offset)].view(size)


def _as_strided_scatter(
    x: torch.Tensor, source: torch.Tensor, size: Sequence[int], stride: Sequence[int], offset: int | None = None
) -> Any:
    """Write the elements of a view of a tensor that lies in memory in order."""
    if not x.is_contiguous():
        return NotImplemented
    return x.flatten().index_put([_places(size, stride, offset)], source.flatten()).view(x.shape)


def _places(size: Sequence[int], stride: Sequence[int], offset: int | None) -> torch.Tensor:
    """Return the places in memory of a view's elements, in order."""
    places = torch.full((1,), offset or 0)
    for extent, step in zip(size, stride, strict=True):
        places = (places.unsqueeze(1) + torch.arange(extent) * step).flatten()
    return places


def _diagonal_scatter(x: torch.Tensor, source: torch.Tensor, offset: int = 0, first: int = 0, second: int = 1) -> torch.Tensor:
    """Write a diagonal of two dimensions."""
    place = torch.arange(source.shape[-1])
    moved = x.movedim((first, second), (0, 1))
    written = moved.index_put([place + max(-offset, 0), place + max(offset, 0)], source.movedim(-1, 0))
    return written.movedim((0, 1), (first, second))


def _histogram(x: torch.Tensor, bins: int = 100, low: float = 0, high: float = 0) -> torch.Tensor:
    """Count the numbers in each part of a range, by default that of the numbers, which is one wider on both sides if all are equal."""
    x = x.flatten()
    least, most = (x.amin(), x.amax()) if low == high else (torch.full((), float(low)), torch.full((), float(high)))
    if low == high:
        least, most = (torch.where(least == most, end + more, end) for end, more in ((least, -1.0), (most, 1.0)))
    place = torch.floor((x - least) * (bins / (most - least))).clamp(max=bins - 1)
    place = torch.where((x >= least) & (x <= most), place, -1.0)
    return (place == torch.arange(float(bins)).unsqueeze(1)).to(x.dtype).sum(1)


def _mode(x: torch.Tensor, dim: int = -1, keepdim: bool = False) -> Any:
    """Return the most frequent element, the least of several, and the last place of it."""
    if x.dim() == 0:
        return x, torch.zeros_like(x, dtype=torch.int64)
    rows = x.movedim(dim, -1)
    counts = (rows.unsqueeze(-1) == rows.unsqueeze(-2)).sum(-1)
    frequent = counts == counts.amax(-1, keepdim=True)
    found = torch.where(frequent, rows, rows.amax(-1, keepdim=True)).amin(-1, keepdim=True)
    place = torch.where(rows == found, torch.arange(rows.shape[-1]), 0).amax(-1, keepdim=True)
    return tuple(part.movedim(-1, dim) if keepdim else part.squeeze(-1) for part in (found, place))


def _masked_scatter(x: torch.Tensor, mask: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Write the first elements of another tensor where a mask is true, in order."""
    x, mask = torch.broadcast_tensors(x, mask)
    places = mask.flatten().long().cumsum(0) - 1
    return torch.where(mask, source.flatten()[places.clamp(min=0)].view(x.shape), x)


def _searchsorted(
    boundaries: torch.Tensor,
    x: torch.Tensor,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: torch.Tensor | None = None,
) -> Any:
    """Count the boundaries below each number; not above it for `right`."""
    if sorter is not None:
        boundaries = boundaries.gather(-1, sorter)
    boundaries = boundaries if boundaries.dim() == 1 else boundaries.unsqueeze(-2)
    below = torch.le if right or side == "right" else torch.lt
    return below(boundaries, x.unsqueeze(-1)).sum(-1, dtype=torch.int32 if out_int32 else torch.int64)
