"""Tests of templates' choices for each core: tiles by its multipliers, cache blocks by its caches."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tvmmobile.devices.registry import find_device
from tvmmobile.graph.layers import Conv2d, Layer
from tvmmobile.graph.machine import Machine, machine_of
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import Space, template_named
from tvmmobile.schedules.emit.matmul import good_tile
from tvmmobile.schedules.emit.matmul_cost import MatrixProduct

RELU6, BLOCKS = (0.0, 6.0), "NCHW32c"
PI4, PI5, PI3 = (find_device(name).profile.machine for name in ("pi4-virtual", "pi5-virtual", "pi3bplus-virtual"))
#: Template and version by name.
VERSIONS = {"pointwise": 2, "strassen": 1, "chain": 1, "separable": 2}


def pointwise(side: int, inputs: int, outputs: int) -> Conv2d:
    return Conv2d(side, side, inputs, outputs, clamp=RELU6, in_layout=BLOCKS, out_layout=BLOCKS)


def depthwise(side: int, channels: int, stride: int = 1) -> Conv2d:
    return Conv2d(side, side, channels, channels, (3, 3), (stride, stride), (1, 1, 1, 1), channels, RELU6)


def space_for(machine: Machine, name: str, *region: Layer) -> Space:
    template = template_named(name, VERSIONS[name])
    assert template is not None
    space = template.space(Task(region, machine=machine))
    assert space is not None
    return space


def test_a_virtual_board_says_what_its_core_and_caches_are() -> None:
    assert (PI4.l1d_bytes, PI4.l1d_ways, PI4.l2_bytes, PI4.l3_bytes) == (32 << 10, 2, 1 << 20, 0)
    assert (PI5.l1d_bytes, PI5.l1d_ways, PI5.l2_bytes, PI5.l3_bytes) == (64 << 10, 4, 512 << 10, 2 << 20)
    for board, mcpu in ((PI4, "cortex-a72"), (PI5, "cortex-a76"), (PI3, "cortex-a53")):
        assert board == machine_of(mcpu)


def test_what_stays_follows_from_the_caches() -> None:
    assert (PI4.resident_bytes, PI4.cached_bytes) == (26 << 10, 768 << 10)
    assert (PI5.resident_bytes, PI5.cached_bytes) == (52 << 10, 1536 << 10)
    assert replace(PI5, l3_bytes=0).cached_bytes == 384 << 10


@pytest.mark.parametrize(("machine", "rows", "columns", "good"), [(PI4, 4, 8, False), (PI5, 4, 8, True), (PI5, 3, 8, False)])
def test_tiles_hide_the_latency_of_the_core_multiplications(machine: Machine, rows: int, columns: int, good: bool) -> None:
    """12 sums on the Cortex-A72, 4 cycles × 2 pipelines on the Cortex-A76."""
    assert good_tile(machine, 4, rows, columns, 196, 512) == good
    assert good_tile(machine, 4, 7, 8, 196, 512) and good_tile(machine, 4, 6, 16, 196, 512)
    assert not good_tile(machine, 4, 8, 16, 196, 512)


@pytest.mark.parametrize(
    ("machine", "side", "channels", "usual"),
    [
        (PI4, 14, 512, {"parts": 1, "m_block": 7, "k_block": 64}),
        (PI5, 14, 512, {"parts": 1, "m_block": 0, "k_block": 128}),
        (PI4, 28, 256, {"parts": 2, "m_block": 7, "k_block": 64}),
        (PI5, 28, 256, {"parts": 1, "m_block": 7, "k_block": 0}),
    ],
)
def test_strassens_sums_fill_the_cache_as_far_as_its_ways_allow(machine: Machine, side: int, channels: int, usual: dict[str, int]) -> None:
    """Data that a part of the pixels reads again have to stay too, in the third level where there is one."""
    space = space_for(machine, "strassen", pointwise(side, channels, channels))
    assert usual.items() <= space.default.values.items()
    largest = max(sum_bytes(side, channels // 2, schedule.values) for schedule in space)
    assert (13000 < largest <= machine.resident_bytes) == (machine.l1d_ways > 2)


def sum_bytes(side: int, depth: int, knobs: dict[str, int]) -> int:
    part = -(-side * side // knobs["parts"])
    half = part - part // 2
    return 4 * min(knobs["m_block"] * knobs["rows"] or half, half) * min(knobs["k_block"] or depth, depth)


def test_blocks_of_k_are_for_cores_whose_stores_do_not_take_the_multipliers() -> None:
    """Partial sums cost the Cortex-A76 a slot of its multipliers each, and lines of its own second level next to nothing."""
    task = Task((pointwise(14, 512, 512),), machine=PI5)
    knobs = {"rows": 7, "columns": 8, "m_block": 0, "n_block": 8, "outer": 1}
    for machine, better in ((PI4, 64), (PI5, 0)):
        product = MatrixProduct.of(pointwise(14, 512, 512), replace(task, machine=machine))
        costs = {k_block: product.cycles({**knobs, "k_block": k_block}) for k_block in (0, 64)}
        assert min(costs, key=costs.__getitem__) == better


def test_rings_and_strips_fill_the_first_level() -> None:
    """Twice the cache, twice the strip; and fewer blocks of channels, each of which reads all of the input."""
    region = (pointwise(56, 128, 128), depthwise(56, 128, 2))
    region = (replace(region[0], out_layout="NHWC"), region[1])
    blocks = {machine: min(schedule.values["blocks"] for schedule in space_for(machine, "chain", *region)) for machine in (PI4, PI5)}
    assert blocks == {PI4: 4, PI5: 2}
    pair = (depthwise(28, 128), replace(pointwise(28, 128, 128), in_layout="NHWC"))
    strips = {machine: max(strip_bytes(schedule.values) for schedule in space_for(machine, "separable", *pair)) for machine in (PI4, PI5)}
    assert strips[PI4] <= 16384 < strips[PI5] <= 32768


def strip_bytes(knobs: dict[str, int]) -> int:
    return 4 * 128 * knobs["strip"] * -(-28 // knobs["parts"])


@pytest.mark.parametrize("channels", [64, 128, 256])
def test_a_log_is_read_without_knowing_its_core(channels: int) -> None:
    """Every core's members are schedules of a task that says nothing of the core."""
    pair = (replace(pointwise(28, channels, channels), out_layout="NHWC"), depthwise(28, channels))
    for name, region in (("chain", pair), ("strassen", pair[:1]), ("pointwise", pair[:1])):
        if name == "strassen" and channels < 128:
            continue
        plain = space_for(Machine(), name, *region)
        for machine in (PI4, PI5, PI3):
            assert all(schedule in plain for schedule in space_for(machine, name, *region))
