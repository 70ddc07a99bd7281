"""Operators whose form in TVM's importer is missing or wrong give PyTorch's values: writes, maxima's places, running results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from onnx_campaign import built, difference_of, run
from torch import nn
from torch.nn import functional as F  # noqa: N812

from tvmmobile.networks.frontend import decomposed, export_torch, import_program

Function = Callable[[torch.Tensor], Any]
PLACES = torch.tensor([0, -2])
PLACES_IN_BAGS = torch.tensor([0, 5, 1, 1, 1, 3, 3, 2])
BOUNDARIES = torch.linspace(-1, 1, 9)
SIGNED = torch.tensor([0.0, -0.0, 1.0, -1.0, torch.inf, -torch.inf, 2.0])
GRID = 1.4 * torch.linspace(0, 40, 2 * 3 * 4 * 3).sin().reshape(1, 2, 3, 4, 3)
KERNEL = torch.linspace(-1, 1, 4 * 3 * 2 * 3 * 3).sin().reshape(4, 3, 2, 3, 3)


def writing(write: Callable[[torch.Tensor], Any]) -> Function:
    """Return a function that changes a copy of its input in place."""

    def written(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        write(x)
        return x

    return written


#: Of 1 × 4 × 6 × 7 numbers, by what they are.
FUNCTIONS: dict[str, Function] = {
    "where a mask is true": writing(lambda x: x.__setitem__(x < 0, 0.5)),
    "where a mask of channels is true": writing(lambda x: x.__setitem__((slice(None), x[0].mean((1, 2)) > 0), 1.5)),
    "parts, where a mask of pixels is true": writing(lambda x: x.__setitem__((slice(None), slice(None), x[0, 0] > 0), x[:, :, :1, 0])),
    "a number at places": writing(lambda x: x.__setitem__((slice(None), PLACES), 7.0)),
    "at places in the last dimensions": writing(lambda x: x.__setitem__((..., PLACES, torch.tensor([1, -2])), x[:, :, :2, 0])),
    "at places in dimensions apart": writing(lambda x: x.__setitem__((slice(None), PLACES, slice(None), PLACES), 5.0)),
    "sums at places": lambda x: x[0, 0].index_put((torch.tensor([0, 0, 3, -1]),), x[0, 1, :4], accumulate=True),
    "logaddexp of infinities": lambda x: (
        torch.logaddexp(torch.where(x > 0, -torch.inf, x), torch.where(x > 1, -torch.inf, x + 1)),
        torch.logaddexp(torch.where(x > 0, torch.inf, x), torch.where(x > -1, torch.inf, -torch.inf)),
    ),
    "index_add, index_copy, index_fill": lambda x: (
        x.index_add(1, torch.tensor([0, 2, 0]), x[:, :3]),
        x.index_copy(1, torch.tensor([3, 0]), x[:, :2]),
        x.index_fill(1, PLACES, 9.0),
    ),
    "scatter of a part": lambda x: (
        x.scatter(3, torch.ones(1, 2, 3, 1, dtype=torch.long), 4.0),
        x.scatter(-1, torch.full((1, 2, 3, 1), 2), x),
    ),
    "scatter_add": lambda x: x.scatter_add(3, torch.zeros(1, 4, 6, 2, dtype=torch.long), x),
    **{
        f"scatter_reduce {how} {own}": lambda x, how=how, own=own: x.scatter_reduce(  # type: ignore[misc]
            1, torch.ones(1, 2, 6, 7, dtype=torch.long), x, how, include_self=own
        )
        for how in ("sum", "prod", "amax", "mean")
        for own in (True, False)
    },
    "any, all": lambda x: [part.float() for part in ((-x.abs()).any(1), (x > 3).any(), x.any(), x.all(), x.relu().all(2))],
    "bounds with more elements": lambda x: (x[:, :1].clamp(x, x + 0.1), x.clamp(max=torch.tensor(0.3)), x.clamp(x.mean())),
    "descending numbers": lambda x: (torch.arange(6, -1, -1) * x, torch.arange(5, 0, -2) * x[..., :3], torch.arange(3.0, 0, -0.5)),
    "running products": lambda x: (x.cumprod(1), x.cumprod(-1)),
    "rolled": lambda x: (x.roll((-2, 10), (2, -1)), x.roll(5), x.roll((1, 2), (3, 3)), x.roll(-7, 3)),
    "running maxima": lambda x: (x.cummax(2)[0], x.cummin(-1)[0], x.logcumsumexp(2)),
    "median of all": lambda x: x.median(),
    "norm of order 0": lambda x: x.relu().norm(p=0, dim=1),
    "topk in any order": lambda x: x.topk(3, 1, sorted=False)[0].sum(1),
    "places of maxima": lambda x: F.max_pool2d(x, 2, return_indices=True),
    "places in padded, dilated windows": lambda x: F.max_pool2d(x, (2, 3), (3, 1), (1, 1), (2, 1), True, return_indices=True),
    "unpooled": lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2, output_size=(6, 7)),
    "adaptive max pool of a signal": lambda x: F.adaptive_max_pool1d(x[0], 4),
    "places in uneven windows": lambda x: F.adaptive_max_pool2d(x, (4, 3), return_indices=True),
    "adaptive max pool of a volume": lambda x: F.adaptive_max_pool3d(x, (2, 4, 3), return_indices=True),
    "average of a volume by a divisor": lambda x: F.avg_pool3d(x, 2, (1, 2, 2), 1, True, divisor_override=3),
    "fold without a batch": lambda x: F.fold(F.unfold(x[0], 3, padding=1, stride=2), (6, 7), 3, padding=1, stride=2),
    "transposed convolution of a volume": lambda x: F.conv_transpose3d(
        x[:, :, None, :3, :2].expand(1, 4, 2, 3, 2), KERNEL, x[0, 0, :, 0], (1, 2, 3), (0, 1, 1), (0, 1, 0), 2, (2, 1, 1)
    ),
    "output padding above the stride": lambda x: F.conv_transpose2d(x, KERNEL[:, :, 0], None, 1, 1, 1, 2, 2),
    "places in order": lambda x: (torch.argsort(x, stable=True, dim=1), x.sort(stable=True, descending=True)[0], x.kthvalue(2, 1, True)),
    "masks": lambda x: [
        part.float() for part in (torch.cat([x > 0, x > 1], 1), (x > 0).amax(1), (x > 0).int().amin((2, 3)), (x > 1).max(1)[0])
    ],
    "powers and remainders of numbers": lambda x: (2 ** torch.arange(6), torch.arange(1, 5) ** (x[0, :, 0, 0] > 0).long(), 2.5 % x),
    "bilinear": lambda x: F.bilinear(x[0, 0], x[0, 1], KERNEL.reshape(-1)[:98].reshape(2, 7, 7)),
    "rrelu": F.rrelu,
    "scaled sums of products": lambda x: torch.addmm(x[0, 0, :, :6], x[0, 1], x[0, 2].T, beta=0.3, alpha=0.7),
    "volumes sampled": lambda x: [
        F.grid_sample(torch.stack([x, 2 * x, x.cos()], 2), GRID, mode, padding, corners)
        for mode, padding, corners in (("bilinear", "zeros", False), ("nearest", "border", True), ("bilinear", "reflection", True))
    ],
    "bags of rows": lambda x: [
        *(F.embedding_bag(PLACES_IN_BAGS, x[0, 0], torch.tensor([0, 3, 3, 5]), mode=how, padding_idx=1) for how in ("sum", "mean", "max")),
        F.embedding_bag(PLACES_IN_BAGS.view(2, 4), x[0, 0], mode="sum", per_sample_weights=x[0, 1, :2, :4]),
    ],
    "distances of pairs": lambda x: (F.pdist(x[0, 0]), F.pdist(x[0, 1], 1.0)),
    "bits moved": lambda x: (
        ((x > 0).long() << 2, (x * 9).int() >> 1),
        torch.bitwise_left_shift((x > 0).int(), (x > 1).int()) + torch.bitwise_right_shift((x * 50).int(), (x > 1).int()),
    ),
    "diagonals": lambda x: (x.diagonal_scatter(x[..., 0], 1, 2, 3), x[0, 0].clone().fill_diagonal_(3.0)),
    "views by strides": lambda x: (x.as_strided((2, 3, 4), (42, 7, 1), 5), x.transpose(1, 3).as_strided((4, 6, 2), (42, 1, 7))),
    "places among boundaries": lambda x: (
        torch.searchsorted(BOUNDARIES, x),
        torch.searchsorted(x.sort(-1)[0], x, right=True, out_int32=True),
        torch.searchsorted(BOUNDARIES.flip(0), x, sorter=torch.arange(8, -1, -1)),
    ),
    "as many values as a mask selects": lambda x: x.masked_scatter(x[:, :1] > 0, x.exp()),
    "triangles": lambda x: x[0, 0][tuple(torch.tril_indices(6, 7, -1))],
    "magnitudes with other signs": lambda x: (
        x.copysign(x.flip(3)),
        x.copysign(-2.0),
        torch.copysign(torch.arange(7), x[0, 0, 0]),
        x[0].copysign(SIGNED),
    ),
    "histograms": lambda x: (x.histc(8), x.histc(5, -1, 1), x.mul(0).histc(4), x.round().histc(4, -2, 2)),
    "most frequent elements": lambda x: (x.round().mode(3), x.round().mode(1, True), x.round().int().flatten().mode()[0]),
    "nothing": lambda x: (
        torch.cat([torch.empty(0), x], 1),
        x.index_fill(1, torch.tensor([], dtype=torch.long), 2.0).index_copy(1, torch.tensor([], dtype=torch.long), x[:, 3:3]),
    ),
}


class Many(nn.Module):
    """All functions of one tensor."""

    def forward(self, x: torch.Tensor) -> Any:
        return {name: function(x) for name, function in FUNCTIONS.items()}


def test_values_are_those_of_pytorch() -> None:
    from tvm import relax

    image, module = np.random.default_rng(1).normal(0, 1, (1, 4, 6, 7)).astype(np.float32), Many()
    example = [torch.from_numpy(image)]
    machine = built([relax.transform.LegalizeOps()(import_program(decomposed(export_torch(module, example))))])
    wanted = torch.utils._pytree.tree_flatten_with_path(module(*example))[0]
    for (path, expected), found in zip(wanted, run(machine, "main_0", [image]), strict=True):
        assert found.dtype == expected.numpy().dtype, path
        assert difference_of(found, expected.numpy()) <= 1e-5, (path, found, expected)


def test_a_view_by_strides_of_elements_apart_is_refused() -> None:
    from tvmmobile.system.errors import UserError

    class Network(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, 1:].as_strided((2, 3), (4, 1))

    with pytest.raises(UserError, match=r"as_strided of a view with strides \[4, 1\]"):
        import_program(decomposed(export_torch(Network(), [torch.ones(3, 4)])))


def test_a_pool_of_random_windows_is_refused() -> None:
    from tvmmobile.system.errors import UserError

    network = nn.FractionalMaxPool2d(2, output_size=2)
    with pytest.raises(UserError, match="fractional max pool, which draws its windows at random"):
        import_program(decomposed(export_torch(network, [torch.ones(1, 3, 6, 6)])))


def test_as_many_values_as_a_mask_selects_are_refused() -> None:
    from tvmmobile.system.errors import UserError

    class Network(nn.Module):
        def forward(self, x: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
            return x.index_put((x > 0,), values)

    with pytest.raises(UserError, match=r"index_put.*a value for each true element"):
        import_program(decomposed(export_torch(Network(), [torch.ones(3), torch.ones(3)])))
