"""Zeros among weights: what is made of them while a network is planned, and that what is planned computes what PyTorch computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from small_networks import Residual, SqueezeExcite, prepared, run_lowered, seeded, unit
from torch import nn

from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.lowering import Lowered, lower
from tvmmobile.graph.network import Network
from tvmmobile.graph.precision import FLOAT16, FLOAT32, Precision
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.function import kernel_function, packed_constants
from tvmmobile.kernels.reference import relative_error
from tvmmobile.schedules import template_for
from tvmmobile.tuning.plan import Plan, Price, dense_us, make_plan
from tvmmobile.tuning.regions import Region, candidate_regions
from tvmmobile.tuning.zeros import entries_of, is_sparse, left_out, planes_of, rounded_up

SHAPE = (1, 3, 24, 20)


def pruned(network: nn.Module, share: float, together: int = 1) -> nn.Module:
    """Return the network with that share of zeros among the weights of its 1×1 layers for images."""
    generator = torch.Generator().manual_seed(0)
    for part in network.modules():
        if isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1) and part.in_channels > 8 and part.out_channels > 8:
            groups = part.out_channels // together
            kept = torch.rand((groups, part.in_channels, 1, 1), generator=generator) >= share
            part.weight.data *= kept.repeat_interleave(together, 0)
    return network


def plain(share: float) -> nn.Module:
    """Return a MobileNet v1 of two blocks."""
    body = [*unit(3, 12, 3, 2), *unit(12, 12, 3, groups=12), *unit(12, 24), *unit(24, 24, 3, 2, groups=24), *unit(24, 32)]
    return pruned(seeded(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(32, 5)), share)


def inverted(share: float) -> nn.Module:
    """Two residual blocks of a MobileNet v3, one behind the other, with factors in the first."""
    first = [*unit(12, 24), *unit(24, 24, 3, groups=24), SqueezeExcite(24), *unit(24, 12, activation=nn.Identity())]
    second = [*unit(12, 24), *unit(24, 24, 5, groups=24), *unit(24, 12, activation=nn.Identity())]
    blocks = [Residual(nn.Sequential(*block)) for block in (first, second)]
    return pruned(seeded(*unit(3, 12, 3, 2), *blocks, *unit(12, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(32, 5)), share)


class Rejoining(nn.Module):
    """Additions that a plan can follow with channels first, and others: of an image that two layers add, that more layers read, or behind
    an activation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(*unit(3, 16, 3, 2))
        self.products = nn.ModuleList(nn.Sequential(*unit(16, 16, activation=nn.Identity())) for _ in range(7))
        self.last = nn.Sequential(*unit(16, 24), nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(24, 5))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        one, two, three, four, five, six, seven = self.products
        start = self.first(image)
        twice = start + two(start + one(start))
        read = three(twice + torch.relu(three(twice)))
        apart = six(read)
        return self.last(seven(read + five(four(read))) + apart)


def rejoining(share: float) -> nn.Module:
    """Layers whose sums meet in every way."""
    return pruned(seeded(Rejoining()), share)


def regions_of(network: Network, precision: Precision = FLOAT32) -> list[Region]:
    return candidate_regions(network, lambda task: template_for(task) is not None, lambda region: Task(region, precision.name))


def price_of(sparse_us: float | None) -> Callable[[Task], Price]:
    """Prices where kernels of sparse layers cost that much, others 10, a little more with an output in NHWC, and those of several layers
    are not measured.
    """

    def price(task: Task) -> Price:
        others_us = 10.0 + (getattr(task.region[0], "out_layout", "") == "NHWC")
        return Price(None if len(task.region) > 1 else sparse_us if is_sparse(task) else others_us, "made up")

    return price


def plan_of(network: Network, sparse_us: float) -> Plan:
    return make_plan(len(network.nodes), regions_of(network), price_of(sparse_us))


def error_of(network: Network, plan: Plan, module: nn.Module, folder: Path) -> float:
    """Return the error of the network that a plan makes, with each kernel's default schedule."""
    kernels = []
    for step in plan.steps:
        node, template = network.nodes[step.first], template_for(step.task)
        assert template is not None
        space = template.space(step.task)
        assert space is not None
        constants = packed_constants(step.task, space.default, (node.parameters,) if node.parameters else ())
        kernels.append(Lowered(step.first, step.last, step.task, kernel_function(step.task, space.default, None), tuple(constants)))
    image = np.random.default_rng(3).normal(0.0, 1.0, SHAPE).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(image)).numpy()
    return relative_error(run_lowered(lower(network, tuple(kernels)), image, folder / "network.so"), expected)


@pytest.mark.parametrize("made", [plain, inverted])
def test_a_plan_with_sparse_kernels_computes_the_network(tmp_path: Path, made: Callable[[float], nn.Module]) -> None:
    """All images between the first convolution and the pool have their channels first, also those that are added or scaled."""
    module = made(0.7)
    network = prepared(module, SHAPE)
    plan = plan_of(network, 1.0)
    products = [step.task for step in plan.steps if isinstance(step.task.layer, Conv2d) and step.task.layer.height > 1]
    pointwise = [task for task in products if isinstance(task.layer, Conv2d) and task.layer.is_pointwise]
    assert pointwise and all(is_sparse(task) for task in pointwise)
    assert all(isinstance(task.layer, Conv2d) and task.layer.out_layout == "NCHW" for task in products)
    assert error_of(network, plan, module, tmp_path) < 1e-5


def test_images_that_are_added_elsewhere_keep_their_layout(tmp_path: Path) -> None:
    """Where a tensor that is added cannot have its channels first, neither has what it is added to."""
    module = rejoining(0.7)
    network = prepared(module, SHAPE)
    for price in (1.0, 9.0, 40.0):
        assert error_of(network, plan_of(network, price), module, tmp_path) < 1e-5


def test_a_layer_between_changes_the_layout(tmp_path: Path) -> None:
    """Where the first layers are faster with their channels last."""
    module = plain(0.7)
    network = prepared(module, SHAPE)

    def price(task: Task) -> Price:
        layer = task.region[0]
        early = isinstance(layer, Conv2d) and layer.out_layout == "NCHW" and layer.out_channels < 24
        return Price(None if len(task.region) > 1 else 20.0 if early else 1.0 if is_sparse(task) else 10.0, "made up")

    plan = make_plan(len(network.nodes), regions_of(network), price)
    layouts = [step.task.layer.out_layout for step in plan.steps if isinstance(step.task.layer, Conv2d)]
    assert layouts[0] == "NHWC" and layouts[-1] == "NCHW"
    assert error_of(network, plan, module, tmp_path) < 1e-5


@pytest.mark.parametrize("made", [plain, inverted])
def test_dense_kernels_are_taken_where_they_are_cheaper(made: Callable[[float], nn.Module]) -> None:
    network = prepared(made(0.7), SHAPE)
    assert not any(is_sparse(step.task) for step in plan_of(network, 40.0).steps)


def test_the_best_plan_without_sparse_kernels() -> None:
    """Its latency is known where all its kernels were measured, and worked out only where the plan has sparse kernels."""
    network = prepared(plain(0.7), SHAPE)
    regions, nodes = regions_of(network), len(network.nodes)
    plan, dense = plan_of(network, 1.0), plan_of(network, 40.0)
    assert plan.latency_us is not None and dense.latency_us is not None and plan.latency_us < dense.latency_us
    assert dense_us(plan, nodes, regions, price_of(1.0)) == dense.latency_us
    assert dense_us(dense, nodes, regions, price_of(40.0)) is None

    def unmeasured(task: Task) -> Price:
        return price_of(1.0)(task) if is_sparse(task) else Price(None, "never")

    half = make_plan(nodes, regions, unmeasured)
    assert half.latency_us is None and any(is_sparse(step.task) for step in half.steps)
    assert dense_us(half, nodes, regions, unmeasured) is None


@pytest.mark.parametrize("made", [plain, inverted])
@pytest.mark.parametrize("share", [0.0, 0.2])
def test_few_zeros_change_nothing(made: Callable[[float], nn.Module], share: float) -> None:
    network = prepared(made(share), SHAPE)
    assert not planes_of(network) and not any("NCHW" in (region.before, region.after) for region in regions_of(network))


@pytest.mark.parametrize("precision", [FLOAT32, FLOAT16], ids=lambda one: one.name)
def test_unmeasured_networks_stay_as_they_were(precision: Precision) -> None:
    network = prepared(plain(0.9), SHAPE)
    plan = make_plan(len(network.nodes), regions_of(network, precision), lambda task: Price(None, "never"))
    assert not any(is_sparse(step.task) for step in plan.steps)


def test_entries_are_counted_in_groups_of_outputs_with_equal_zeros() -> None:
    generator = np.random.default_rng(0)
    kept = generator.random((1, 1, 64, 32)) < 0.2
    weight = generator.normal(size=(1, 1, 64, 128)).astype(np.float32)
    assert entries_of(weight) == (64 * 32, 4)
    assert entries_of(weight * kept.repeat(4, 3)) == (rounded_up(int(kept.sum())), 4)
    assert entries_of(weight[..., :64] * kept.repeat(2, 3)) == (rounded_up(int(kept.sum())), 2)
    assert entries_of(weight[..., :32] * kept) == (rounded_up(int(kept.sum())), 1)
    assert entries_of(0 * weight) == (0, 1)
    assert entries_of(weight.astype(np.int8)) == (64 * 32, 4)


def test_the_share_that_is_left_out_is_of_whole_groups() -> None:
    """It is counted in the weights, not in the task's rounded number of entries."""
    weight = np.ones((1, 1, 5, 4), np.float32)
    weight[0, 0, 0, :3] = weight[0, 0, 1] = 0.0
    assert [left_out(weight, together) for together in (1, 2, 4)] == pytest.approx([7 / 20, 6 / 20, 4 / 20])
    assert left_out(0 * weight, 1) == 1.0 and left_out(weight.astype(np.int8), 1) == 0.0


def test_about_equal_counts_are_one_task() -> None:
    found = {rounded_up(count) for count in range(1, 5000)}
    assert len(found) < 16 * 13 and all(count <= rounded_up(count) <= 1 + 1.045 * count for count in range(1, 5000))
    assert rounded_up(0) == 0
