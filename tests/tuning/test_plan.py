"""The cheapest cover of a network, with made-up layers and prices."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmmobile.graph.layers import Conv2d, Dense, Layer, Pool
from tvmmobile.graph.layouts import Layout
from tvmmobile.graph.network import Network, Node
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import template_for
from tvmmobile.tuning.plan import Plan, PlannedKernel, Price, detours, make_plan
from tvmmobile.tuning.regions import MAX_REGION, Region, candidate_regions, edge_layouts


def network_of(count: int, alone: tuple[int, ...] = ()) -> Network:
    """`count` layers in a row, told apart by their sizes; those in `alone` cannot be fused with the next."""
    return Network(tuple(Node(Dense(index + 1, index + 2), None, None, index in alone) for index in range(count)), None)


def spans(plan: Plan) -> list[tuple[int, int]]:
    return [(step.first, step.last) for step in plan.steps]


def region_of(task: Task) -> tuple[int, int]:
    """First and last node of a task of `network_of`."""
    inputs = [layer.input_shape[1] for layer in task.region]
    return inputs[0] - 1, inputs[-1] - 1


def plan_with(count: int, prices: Mapping[tuple[int, int], float | None], alone: tuple[int, ...] = ()) -> Plan:
    """Return the plan where regions cost what `prices` says; regions of several layers that are not in it are taken by no template."""
    network = network_of(count, alone)
    regions = candidate_regions(network, lambda task: region_of(task) in prices, Task)
    return make_plan(len(network.nodes), regions, lambda task: Price(prices.get(region_of(task)), "made up"))


def test_every_layer_alone_where_nothing_is_fused() -> None:
    plan = plan_with(3, {(0, 0): 5.0, (1, 1): 6.0, (2, 2): 7.0})
    assert spans(plan) == [(0, 0), (1, 1), (2, 2)]
    assert [step.price.latency_us for step in plan.steps] == [5.0, 6.0, 7.0]
    assert "only kernel" in plan.steps[0].reason


@pytest.mark.parametrize(
    ("fused", "expected"),
    [
        ({(0, 1): 9.0}, [(0, 1), (2, 2), (3, 3)]),
        ({(0, 1): 11.0}, [(0, 0), (1, 1), (2, 2), (3, 3)]),
        ({(0, 1): 9.0, (1, 3): 14.0}, [(0, 0), (1, 3)]),
        ({(0, 1): 9.0, (1, 2): 3.0, (2, 3): 9.0}, [(0, 0), (1, 2), (3, 3)]),
        ({(0, 1): 9.0, (1, 2): 9.5, (2, 3): 9.0}, [(0, 1), (2, 3)]),
        ({(0, 2): 16.0, (1, 3): 13.5, (2, 3): 9.0}, [(0, 0), (1, 3)]),
        ({(0, 3): 19.9, (0, 1): 9.0, (2, 3): 11.0}, [(0, 1), (2, 2), (3, 3)]),
        ({(0, 3): 18.0, (0, 1): 9.0, (2, 3): 9.5}, [(0, 3)]),
    ],
)
def test_the_cheapest_cover(fused: Mapping[tuple[int, int], float], expected: list[tuple[int, int]]) -> None:
    singles = {(index, index): 5.0 for index in range(4)}
    plan = plan_with(4, {**singles, **fused})
    assert spans(plan) == expected


def test_the_reason_names_the_rivals() -> None:
    plan = plan_with(2, {(0, 0): 5.0, (1, 1): 5.0, (0, 1): 8.0})
    assert plan.steps[0].reason == "cheapest cover: 8.0 us, made up; instead of nodes 0 to 0 5.0 us"


def test_the_reason_where_the_rival_was_never_measured() -> None:
    plan = plan_with(2, {(0, 0): None, (1, 1): 5.0, (0, 1): 8.0})
    assert spans(plan) == [(0, 1)]
    assert plan.steps[0].reason.startswith("cheapest cover: 8.0 us") and not plan.steps[0].reason.endswith("instead of ")


def test_a_region_never_measured_is_not_chosen() -> None:
    plan = plan_with(2, {(0, 0): 5.0, (1, 1): 5.0, (0, 1): None})
    assert spans(plan) == [(0, 0), (1, 1)]


def test_a_layer_never_measured_is_taken_only_where_nothing_covers_it() -> None:
    plan = plan_with(3, {(0, 0): 5.0, (1, 1): None, (2, 2): 5.0})
    assert spans(plan) == [(0, 0), (1, 1), (2, 2)]
    assert plan.steps[1].price.latency_us is None and plan.steps[1].reason == "no measurement yet; made up"
    # Not free: a measured region is preferred, whatever it costs.
    assert spans(plan_with(3, {(0, 0): 5.0, (1, 1): None, (2, 2): 5.0, (1, 2): 99.0})) == [(0, 0), (1, 2)]


def test_regions_do_not_cross_a_branch() -> None:
    network = network_of(5, alone=(1, 4))
    regions = candidate_regions(network, lambda task: True, lambda region: Task(region, threads=2))
    fused = {(region.first, region.last) for region in regions if region.first != region.last}
    assert fused == {(0, 1), (2, 3), (2, 4), (3, 4)}
    assert all(region.task.threads == 2 and region.task.dtype == "float32" for region in regions)
    assert any(region.first == region.last for region in regions) and len({region.first for region in regions}) == 5


def test_regions_have_a_longest_length() -> None:
    regions = candidate_regions(network_of(MAX_REGION + 3), lambda task: True, Task)
    assert max(region.last - region.first + 1 for region in regions) == MAX_REGION


def test_templates_are_asked_about_several_layers_only() -> None:
    asked: list[Task] = []

    def accepts(task: Task) -> bool:
        asked.append(task)
        return False

    regions = candidate_regions(network_of(3), accepts, Task)
    assert [(region.first, region.last) for region in regions] == [(0, 0), (1, 1), (2, 2)]
    assert asked and all(len(task.region) > 1 for task in asked)


@settings(max_examples=80, derandomize=True, database=None, deadline=None)
@given(st.integers(1, 7), st.data())
def test_no_cover_is_cheaper(count: int, data: st.DataObject) -> None:
    """Against every cover, by brute force; unmeasured layers first, then the sum."""
    maybe = st.one_of(st.none(), st.integers(1, 40).map(float))
    prices: dict[tuple[int, int], float | None] = {}
    for first, last in itertools.combinations_with_replacement(range(count), 2):
        if first == last or data.draw(st.booleans()):
            prices[first, last] = data.draw(maybe)
    plan = plan_with(count, prices)
    steps: list[PlannedKernel] = list(plan.steps)
    assert [node for step in steps for node in range(step.first, step.last + 1)] == list(range(count))

    def cost(cover: list[tuple[int, int]]) -> tuple[int, float]:
        return sum(prices[region] is None for region in cover), sum(prices[region] or 0.0 for region in cover)

    def covers(start: int) -> list[list[tuple[int, int]]]:
        if start == count:
            return [[]]
        usable = [
            region
            for region, price in prices.items()
            if region[0] == start and region[1] - start < MAX_REGION and (region[1] == start or price is not None)
        ]
        return [[region, *rest] for region in usable for rest in covers(region[1] + 1)]

    assert cost(spans(plan)) == min(map(cost, covers(0)))


def chain_of(channels: int, count: int) -> Network:
    """Alternately depthwise and 1×1 layers of 8×8 pixels."""
    layers = [
        Conv2d(8, 8, channels, channels, (3, 3), (1, 1), (1, 1, 1, 1), channels) if index % 2 == 0 else Conv2d(8, 8, channels, channels)
        for index in range(count)
    ]
    return Network(tuple(Node(layer, None, None, False) for layer in layers), None)


def layouts(plan: Plan) -> list[tuple[Layout, Layout]]:
    """Return the layouts that each step reads and writes."""
    ends = [(step.task.region[0], step.task.region[-1]) for step in plan.steps]
    return [(first.in_layout, last.out_layout) for first, last in ends if isinstance(first, Conv2d) and isinstance(last, Conv2d)]


def single(task: Task) -> bool:
    """Return whether a task has one layer, as if no template took several."""
    return len(task.region) == 1


@pytest.mark.parametrize(("cost", "expected"), [(0.0, "NCHW32c"), (2.0, "NHWC")])
def test_layouts_agree_on_every_edge_and_cost_least(cost: float, expected: Layout) -> None:
    """`cost` is what a kernel with channel blocks at an end takes longer."""
    network = chain_of(64, 4)
    regions = candidate_regions(network, single, Task)

    def price(task: Task) -> Price:
        first = task.region[0]
        assert isinstance(first, Conv2d)
        return Price(5.0 + cost * ("c" in first.in_layout) + (cost - 1.0) * ("c" in first.out_layout), "made up")

    found = layouts(make_plan(len(network.nodes), regions, price))
    assert [after for _, after in found[:-1]] == [before for before, _ in found[1:]] == [expected] * 3
    assert found[0][0] == found[-1][1] == "NHWC"


def test_unmeasured_kernels_take_the_layout_named_first() -> None:
    network = chain_of(64, 3)
    plan = make_plan(len(network.nodes), candidate_regions(network, single, Task), lambda task: Price(None, "never"))
    assert layouts(plan) == [("NHWC", "NCHW32c"), ("NCHW32c", "NCHW32c"), ("NCHW32c", "NHWC")]


@pytest.mark.parametrize(("channels", "expected"), [(32, ("NHWC",)), (64, ("NCHW32c", "NHWC")), (512, ("NCHW32c",)), (144, ("NCHW48c",))])
def test_layouts_behind_a_product(channels: int, expected: tuple[Layout, ...]) -> None:
    product, depthwise = chain_of(channels, 3).nodes[1].layer, chain_of(channels, 3).nodes[2].layer
    assert edge_layouts(product, depthwise) == expected
    assert edge_layouts(depthwise, Dense(4, 4)) == ("NHWC",)


def test_no_blocks_where_none_divide_the_channels() -> None:
    layer: Layer = Conv2d(8, 8, 184, 184)
    assert edge_layouts(layer, layer) == ("NHWC",)


def test_no_blocks_in_front_of_joined_channels() -> None:
    """The blocks of the first of two tensors do not divide the channels of both, as in a convolutional GRU."""
    joined = Conv2d(8, 8, 242, 96, (3, 3), padding=(1, 1, 1, 1), sources=(96, 146), pieces=((0, 0, 96), (1, 0, 146)))
    network = Network(tuple(Node(layer, None, None, False) for layer in (Conv2d(8, 8, 96, 96), joined)), None)
    regions = candidate_regions(network, lambda task: template_for(task) is not None, Task)
    assert {(region.before, region.after) for region in regions} == {("NHWC", "NHWC")}


def test_blocks_are_whole_vectors() -> None:
    """Eight lanes of half precision do not divide 44 or 20."""
    for channels in (88, 100):
        layer: Layer = Conv2d(8, 8, channels, channels)
        assert edge_layouts(layer, layer) != ("NHWC",) and edge_layouts(layer, layer, 8) == ("NHWC",)
    network = Network(tuple(Node(Conv2d(8, 8, 88, 88), None, None, False) for _ in range(2)), None)
    found = {region.after for region in candidate_regions(network, lambda task: True, lambda layers: Task(layers, "float16"))}
    assert found == {"NHWC"}


def test_detours() -> None:
    """Singles take 5 us each, so that a plan with the pair of 12 takes 2 more, and the pair of 9 is the best plan's."""
    prices = {**{(index, index): 5.0 for index in range(4)}, (0, 1): 12.0, (2, 3): 9.0, (1, 2): None}
    regions = candidate_regions(network_of(4), lambda task: region_of(task) in prices, Task)
    costs = detours(4, regions, lambda task: prices.get(region_of(task)))
    found = {(region.first, region.last): detour for region, detour in costs.items()}
    assert found == pytest.approx({(0, 0): 0, (1, 1): 0, (2, 2): 1, (3, 3): 1, (0, 1): 2, (2, 3): 0})


def test_nodes_without_a_region_cost_nothing() -> None:
    """Four layers, and nodes that need no kernel in front of them, in the middle and behind them: the same plan and detours."""
    prices = {**{(index, index): 5.0 for index in range(4)}, (0, 1): 12.0, (2, 3): 9.0}
    moved = (1, 2, 4, 5)
    regions = candidate_regions(network_of(4), lambda task: region_of(task) in prices, Task)
    apart = {region: replace(region, first=moved[region.first], last=moved[region.last]) for region in regions}
    plan = make_plan(7, list(apart.values()), lambda task: Price(prices[region_of(task)], "made up"))
    assert spans(plan) == [(1, 1), (2, 2), (4, 5)]
    found = detours(7, list(apart.values()), lambda task: prices[region_of(task)])
    expected = detours(4, regions, lambda task: prices[region_of(task)])
    assert found == {apart[region]: detour for region, detour in expected.items()}


def squeeze_and_excite(channels: int) -> Network:
    """1×1, depthwise, pool, two 1×1 of one pixel, and a 1×1 that reads the depthwise layer's output once more."""
    layers = (
        Conv2d(8, 8, 16, channels),
        Conv2d(8, 8, channels, channels, (3, 3), (1, 1), (1, 1, 1, 1), channels),
        Pool(8, 8, channels),
        Conv2d(1, 1, channels, 128),
        Conv2d(1, 1, 128, channels),
        Conv2d(8, 8, channels, 16, scaled=True),
    )
    alone = (1, 4, 5)
    return Network(tuple(Node(layer, None, None, index in alone, 5 if index == 1 else None) for index, layer in enumerate(layers)), None)


@pytest.mark.parametrize(("cost", "expected"), [(0.0, "NCHW32c"), (2.0, "NHWC")])
def test_both_readers_of_a_gated_layer_read_what_it_writes(cost: float, expected: Layout) -> None:
    """`cost` is what a kernel with channel blocks at an end takes longer, but for what is written, which is 1 us faster."""
    network = squeeze_and_excite(96)

    def latency_us(task: Task) -> float:
        written = isinstance(task.layer, Conv2d) and "c" in task.layer.out_layout
        assert isinstance(task.layer, Conv2d | Pool)
        return 5.0 + cost * ("c" in task.layer.in_layout) + (cost - 1.0) * written

    regions = candidate_regions(network, single, Task)
    plan = make_plan(len(network.nodes), regions, lambda task: Price(latency_us(task), "made up"))
    assert spans(plan) == [(index, index) for index in range(6)]
    _, depthwise, pool, reduce, expand, last = (step.task.layer for step in plan.steps)
    assert isinstance(depthwise, Conv2d) and isinstance(pool, Pool) and isinstance(last, Conv2d)
    assert depthwise.out_layout == pool.in_layout == last.in_layout == expected
    # What passes by them does not reach the layers in between.
    assert (reduce, expand) == (network.nodes[3].layer, network.nodes[4].layer)
    least = sum(latency_us(step.task) for step in plan.steps)
    for region, detour in detours(6, regions, latency_us).items():
        assert detour == pytest.approx(least_with(region, regions, latency_us) - least)


def least_with(member: Region, regions: list[Region], latency_us: Callable[[Task], float]) -> float:
    """Return the least sum of regions of one layer each that agree at their ends and have `member` among them."""
    reached: dict[Layout, float] = {"NHWC": 0.0}
    for index in range(6):
        onwards: dict[Layout, float] = {}
        for region in regions:
            if region.first == index and region.before in reached and (index != member.first or region == member):
                total = reached[region.before] + latency_us(region.task)
                onwards[region.after] = min(onwards.get(region.after, math.inf), total)
        reached = onwards
    return reached["NHWC"]


def test_a_gated_layer_writes_what_all_its_readers_take() -> None:
    def accepts(task: Task) -> bool:
        return single(task) and not (isinstance(task.layer, Conv2d) and task.layer.scaled and task.layer.in_layout != "NHWC")

    regions = list(candidate_regions(squeeze_and_excite(96), accepts, Task))
    assert any(region.after == "NCHW32c" for region in regions)
    for region in regions:
        assert (region.first, region.after) != (1, "NCHW32c") and (region.first, region.before) != (2, "NCHW32c")
