"""Products of activations: values for any size and schedule, and from networks that swap dimensions before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from host_kernels import check_schedule, examples
from hypothesis import given
from hypothesis import strategies as st
from small_networks import error_against_torch, prepared
from torch import nn

from tvmmobile.graph.layers import Product
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import template_for

LEADING = st.sampled_from(((1,), (3,), (2, 2)))
TURNED = st.tuples(st.booleans(), st.booleans())


@examples(14)
@given(LEADING, st.tuples(st.integers(1, 9), st.integers(1, 13), st.integers(1, 21)), TURNED, st.integers(1, 3), st.integers(0, 9))
def test_values(
    tmp_path: Path, leading: tuple[int, ...], extents: tuple[int, int, int], turned: tuple[bool, bool], threads: int, choice: int
) -> None:
    check(Task((Product(leading, *extents, turned),), threads=threads), choice, 1e-5, tmp_path)


@examples(8)
@given(
    LEADING,
    st.tuples(st.integers(1, 9), st.sampled_from((3, 17, 64, 65, 150, 400)), st.integers(1, 40)),
    TURNED,
    st.sampled_from((("", ""), ("float32", ""), ("", "float32"))),
    st.integers(1, 2),
    st.integers(0, 9),
)
def test_values_in_half_precision(
    tmp_path: Path,
    leading: tuple[int, ...],
    extents: tuple[int, int, int],
    turned: tuple[bool, bool],
    stored: tuple[str, str],
    threads: int,
    choice: int,
) -> None:
    layer = Product(leading, *extents, turned, reads=stored[0], writes=stored[1])
    check(Task((layer,), "float16", threads, machine_of("cortex-a76")), choice, 2e-3, tmp_path)


def check(task: Task, choice: int, tolerance: float, folder: Path) -> None:
    """One schedule computes what PyTorch computes."""
    template = template_for(task)
    assert template is not None and template.name == "batched_product"
    space = template.space(task)
    assert space is not None
    check_schedule(task, space, choice, tolerance, folder)


class Pairs(nn.Module):
    """A product of two slices of an image's rows."""

    def __init__(self, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.function(rows[:, :, :4], rows[:, :, 1:5])


CASES: list[tuple[Callable[[torch.Tensor, torch.Tensor], torch.Tensor], tuple[bool, bool]]] = [
    (lambda a, b: a @ b.transpose(-1, -2), (False, True)),
    (lambda a, b: a.transpose(-1, -2) @ b, (True, False)),
    (lambda a, b: a[..., :4] @ b, (False, False)),
    (lambda a, b: torch.bmm(a.flatten(0, 1), b.flatten(0, 1).transpose(1, 2)), (False, True)),
    (lambda a, b: torch.einsum("bhnc,bhmc->bhnm", a, b), (False, True)),
    (lambda a, b: torch.einsum("bhnc,bhnd->bhcd", a, b), (True, False)),
    (lambda a, b: torch.baddbmm(torch.ones(1, 1, 1), a.flatten(0, 1), b.flatten(0, 1).mT), (False, True)),
]


@pytest.mark.parametrize(("function", "turned"), CASES, ids=["right", "left", "none", "bmm", "einsum", "einsum, left", "baddbmm"])
def test_swapped_dimensions_are_part_of_the_kernel(
    tmp_path: Path, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], turned: tuple[bool, bool]
) -> None:
    network, shape = Pairs(function).eval(), (1, 2, 5, 6)
    layers = [node.layer for node in prepared(network, shape).nodes]
    [found] = [layer for layer in layers if isinstance(layer, Product)]
    assert found.turned == turned and not any("transpose" in layer.name for layer in layers)
    assert error_against_torch(network, shape, tmp_path / "net.so") <= 1e-5
