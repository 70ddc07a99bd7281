"""Integer kernels under QEMU compute what `kernels.integer_reference` does, bit for bit, for any shape, constants and knobs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_kernels import check, check_extremes, in_groups, space_of, window

from tvmmobile.devices.registry import find_device
from tvmmobile.graph.integers import MOST_TOGETHER, tap_triple_sums
from tvmmobile.graph.layers import NO_CLAMP, Conv2d, Dense, Gating, IntegerFacts, Layer, Pool
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.function import kernel_function
from tvmmobile.running.bench import started_agents
from tvmmobile.running.measure import Agents
from tvmmobile.schedules import templates_for
from tvmmobile.schedules.integers.depthwise import three_fit
from tvmmobile.schedules.integers.long import order_steps

pytestmark = pytest.mark.virtual


@pytest.fixture(scope="module")
def pi5() -> Iterator[Agents]:
    """A core with SDOT."""
    with started_agents(find_device("pi5-virtual")) as found:
        yield found


@pytest.fixture(scope="module")
def pi4() -> Iterator[Agents]:
    """A core without SDOT."""
    with started_agents(find_device("pi4-virtual")) as found:
        yield found


@pytest.fixture(scope="module")
def pi3bplus() -> Iterator[Agents]:
    """A core that issues in order."""
    with started_agents(find_device("pi3bplus-virtual")) as found:
        yield found


@pytest.fixture(scope="module")
def rk3566() -> Iterator[Agents]:
    """A core with SDOT that issues in order."""
    with started_agents(find_device("rk3566-virtual")) as found:
        yield found


def product(rng: random.Random, group: int) -> Layer:
    """A 1×1 convolution or a classifier, of which input channels divide by a group; narrow, wide or converted sums, bounds or none."""
    depth, channels = group * rng.choice((1, 3, 5, 16, 96 // group, 320 // group)), rng.choice((3, 8, 12, 20, 37, 64))
    wide = depth <= 256 and rng.random() < 0.3
    if rng.random() < 0.3:
        return Dense(depth, channels, writes=rng.choice(("", "float32")), integers=IntegerFacts(wide=wide))
    stride = rng.choice((1, 1, 2))
    bounded = rng.random() < 0.5
    return Conv2d(
        rng.randint(1, 9), rng.randint(1, 9), depth, channels, stride=(stride, stride), integers=IntegerFacts(wide=wide, bounded=bounded)
    )


def depthwise(rng: random.Random) -> Conv2d:
    """Return a depthwise convolution with 3×3 windows or others, and any padding; narrow or wide sums, bounds or none."""
    height, width, channels, stride = rng.randint(3, 12), rng.randint(3, 12), 8 * rng.choice((1, 2, 5)), rng.choice((1, 1, 2))
    kernel = (3, 3) if rng.random() < 0.6 else (3, rng.randint(1, 4))
    edges = (rng.randint(0, 2), rng.randint(0, kernel[1] - 1), rng.randint(0, 2), rng.randint(0, kernel[1] - 1))
    wide, bounded = rng.random() < 0.2, rng.random() < 0.5
    return Conv2d(
        height,
        max(width, 4),
        channels,
        channels,
        kernel,
        (stride, stride),
        edges,
        channels,
        integers=IntegerFacts(wide=wide, bounded=bounded),
    )


def image(rng: random.Random) -> Conv2d:
    """Return an image's convolution: one to four channels, any width from 16 on, any padding of less than a window."""
    kernel, stride = (rng.randint(1, 3), rng.choice((1, 2, 3, 4, 7, 11))), (rng.choice((1, 2)), rng.choice((1, 2)))
    edges = (rng.randint(0, 2), rng.randint(0, kernel[1] - 1), rng.randint(0, 2), rng.randint(0, kernel[1] - 1))
    height, width, channels = rng.randint(3, 9), rng.randint(16, 40), rng.randint(1, 4)
    layout, reads = rng.choice(("NCHW", "NCHW", "NHWC")), rng.choice(("float32", "float32", "uint8", ""))
    return Conv2d(height, width, channels, rng.choice((4, 9, 24, 32)), kernel, stride, edges, in_layout=layout, reads=reads)


@pytest.mark.parametrize("seed", range(4))
def test_windows(seed: int, pi4: Agents, pi5: Agents, tmp_path: Path) -> None:
    layer = window(random.Random(seed))
    check(pi5, layer, "dot_window", tmp_path / "dot", threads=1 + seed % 2)
    check(pi4, layer, "long_window", tmp_path / "long", threads=2 - seed % 2)


@pytest.mark.parametrize("seed", range(4))
def test_windows_in_groups(seed: int, pi4: Agents, pi5: Agents, tmp_path: Path) -> None:
    """Each group of channels has a product of its own; threads share pixels, or groups."""
    layer = in_groups(random.Random(seed))
    check(pi5, layer, "dot_window", tmp_path / "dot", seed, 1 + seed % 2)
    check(pi4, layer, "long_window", tmp_path / "long", seed, 2 - seed % 2)


@pytest.mark.long
def test_windows_of_many_shapes(pi4: Agents, pi5: Agents, tmp_path: Path) -> None:
    for seed in range(4, 60):
        for layer in (window(random.Random(seed)), in_groups(random.Random(seed))):
            check(pi5, layer, "dot_window", tmp_path, seed, 1 + seed % 3)
            check(pi4, layer, "long_window", tmp_path, seed, 1 + seed % 3)


WINDOW = Conv2d(6, 7, 16, 20, (3, 3), (1, 1), (1, 1, 1, 1))


@pytest.mark.parametrize(
    "layer",
    [
        replace(WINDOW, in_channels=64, residual=True).with_facts(addend=True),
        WINDOW.with_facts(addend=True, bounded=True),
        replace(WINDOW, writes="float32"),
        Conv2d(5, 4, 24, 12, padding=(1, 0, 0, 2), stride=(2, 1)),
        Conv2d(3, 4, 8, 12, (3, 3), (1, 1), (9, 1, 12, 20)),
        Conv2d(3, 5, 6, 20, stride=(2, 1)),
    ],
    ids=lambda layer: layer.name,
)
def test_windows_of_other_kinds(layer: Conv2d, pi4: Agents, pi5: Agents, tmp_path: Path) -> None:
    """Addends, results in float32, 1×1 windows that reach into padding or have no fours of channels, windows of nothing but padding."""
    check(pi5, layer, "dot_window", tmp_path / "dot", threads=2)
    check(pi4, layer, "long_window", tmp_path / "long")


@pytest.mark.parametrize("zero", [-128, 127])
def test_extremes_of_windows(zero: int, pi4: Agents, pi5: Agents, tmp_path: Path) -> None:
    """Padding is as large as what it surrounds."""
    check_extremes(pi5, WINDOW, "dot_window", tmp_path / "dot", zero)
    check_extremes(pi4, WINDOW, "long_window", tmp_path / "long", zero)


def test_windows_in_order(pi3bplus: Agents, tmp_path: Path) -> None:
    check(pi3bplus, replace(WINDOW, in_channels=24), "long_window", tmp_path, threads=2)


def test_the_largest_windows_take_few_pixels_a_tile(pi4: Agents, tmp_path: Path) -> None:
    """Where rows of A are so long that loads do not reach many of them, tiles have few; the longest ones have no kernel."""
    layer = Conv2d(2, 2, 1536, 4, (3, 3), (1, 1), (1, 1, 1, 1))
    task = Task((layer,), "int8", machine=pi4.profile.machine)
    assert {schedule.values["rows"] for schedule in space_of(task, "long_window")} == {2}
    check(pi4, layer, "long_window", tmp_path)
    assert templates_for(Task((replace(layer, in_channels=4096),), "int8", machine=pi4.profile.machine)) == []


def test_whose_windows_are_whose() -> None:
    """Products and images keep their templates; groups of fewer than four channels, and channels in blocks, have none."""
    grouped = replace(WINDOW, in_channels=40, groups=5)
    few = replace(grouped, in_channels=12, groups=4), replace(grouped, out_channels=30)
    layers = (Conv2d(8, 8, 16, 16), IMAGE, WINDOW, grouped, *few, replace(WINDOW, in_layout="NCHW16c"))
    for mcpu, kind in (("cortex-a72", "long"), ("cortex-a76", "dot")):
        found = [[template.name for template in templates_for(Task((layer,), "int8", machine=machine_of(mcpu)))] for layer in layers]
        assert found == [[f"{kind}_product"], [f"{kind}_image"], [f"{kind}_window"], [f"{kind}_window"], [], [], []]


@pytest.mark.parametrize("seed", range(2))
def test_dot_product(seed: int, pi5: Agents, tmp_path: Path) -> None:
    check(pi5, product(random.Random(seed), 4), "dot_product", tmp_path, threads=1 + 2 * seed)


@pytest.mark.parametrize("seed", range(3))
def test_dot_product_in_order(seed: int, rk3566: Agents, tmp_path: Path) -> None:
    """The loop is in our order if there are 32 or more input channels, a multiple of 8; steps of 4 channels follow it."""
    layer = product(random.Random(seed), 4)
    check(rk3566, layer, "dot_product", tmp_path, seed, threads=1 + seed)
    check(rk3566, Conv2d(5, 4, 40 + 8 * seed, 24, stride=(1 + seed % 2, 1)), "dot_product", tmp_path, seed)


@pytest.mark.parametrize("seed", range(3))
def test_other_dot_kernels_in_order(seed: int, rk3566: Agents, tmp_path: Path) -> None:
    """They are convolutions of any window, of images, and depthwise ones."""
    check(rk3566, window(random.Random(seed)), "dot_window", tmp_path, seed, 1 + seed % 2)
    check(rk3566, in_groups(random.Random(seed)), "dot_window", tmp_path / "grouped", seed, 1 + seed % 2)
    check(rk3566, image(random.Random(seed)), "dot_image", tmp_path, seed, 1 + seed % 2)
    check(rk3566, depthwise(random.Random(seed)), "dot_depthwise", tmp_path, seed, 1 + seed % 2)


@pytest.mark.long
def test_dot_kernels_in_order_of_many_shapes(rk3566: Agents, tmp_path: Path) -> None:
    for seed in range(3, 40):
        check(rk3566, product(random.Random(seed), 4), "dot_product", tmp_path, seed, 1 + seed % 3)
        check(rk3566, pieces(random.Random(seed)), "dot_product", tmp_path, seed, 1 + seed % 3)
        test_other_dot_kernels_in_order(seed, rk3566, tmp_path)


def pieces(rng: random.Random) -> Conv2d:
    """Return a 1×1 convolution of slices of several tensors, any of them more than once, whose channels divide by 4."""
    sources = tuple(4 * rng.randint(1, 12) for _ in range(rng.randint(1, 3)))
    cuts = [(source, first := 4 * rng.randrange(sources[source] // 4), 4 * rng.randint(1, (sources[source] - first) // 4))
            for source in (*range(len(sources)), rng.randrange(len(sources)))]  # fmt: skip
    size, depth = (rng.randint(1, 9), rng.randint(1, 9)), sum(count for *_, count in cuts)
    return Conv2d(*size, depth, rng.choice((3, 8, 20)), clamp=rng.choice((NO_CLAMP, "lookup")), sources=sources, pieces=tuple(cuts))


@pytest.mark.parametrize("seed", range(3))
def test_dot_product_of_pieces(seed: int, pi5: Agents, rk3566: Agents, tmp_path: Path) -> None:
    layer = pieces(random.Random(seed))
    check(pi5, layer, "dot_product", tmp_path, seed, 1 + seed)
    check(rk3566, layer, "dot_product", tmp_path, seed)
    cuts, sources = layer.pieces, layer.sources
    uneven = replace(layer, in_channels=layer.in_channels + 2, sources=(*sources, 2), pieces=(*cuts, (len(sources), 0, 2)))
    assert not templates_for(Task((uneven,), "int8", machine=machine_of("cortex-a76")))


@pytest.mark.parametrize("seed", range(2))
def test_long_product(seed: int, pi4: Agents, tmp_path: Path) -> None:
    check(pi4, product(random.Random(seed), 8), "long_product", tmp_path, threads=1 + 2 * seed)


#: A residual, a curve or both; channels that do not divide by 4; sums that are converted.
STEPS = (
    Conv2d(3, 5, 16, 24, residual=True),
    Conv2d(2, 3, 264, 13, residual=True, integers=IntegerFacts(bounded=True)),
    Conv2d(3, 3, 24, 37, residual=True, clamp="hswish"),
    Conv2d(4, 3, 32, 20, clamp="hswish"),
    Conv2d(1, 1, 24, 16, clamp="hsigmoid", integers=IntegerFacts(wide=True)),
    Dense(264, 19, clamp="hswish"),
)
#: Addends: of sums that are converted or not, with a residual, a curve, in float32.
ADDENDS = (
    Conv2d(3, 5, 16, 23, integers=IntegerFacts(addend=True, bounded=True)),
    Conv2d(2, 3, 264, 13, integers=IntegerFacts(addend=True)),
    Conv2d(3, 5, 16, 24, residual=True, integers=IntegerFacts(addend=True)),
    Conv2d(3, 3, 264, 37, residual=True, clamp="hswish", integers=IntegerFacts(addend=True)),
    Dense(24, 19, writes="float32", integers=IntegerFacts(addend=True)),
)
WINDOWS = (
    Conv2d(7, 6, 16, 16, (3, 3), (1, 1), (1, 1, 1, 1), 16, clamp="hswish"),
    Conv2d(7, 6, 24, 24, (3, 3), (2, 2), (1, 1, 1, 1), 24, clamp="hsigmoid", integers=IntegerFacts(wide=True)),
    Conv2d(6, 6, 16, 16, (3, 3), (1, 1), (1, 1, 1, 1), 16, residual=True),
)
IMAGE = Conv2d(6, 17, 3, 12, (3, 3), (2, 2), (0, 0, 1, 1), in_layout="NCHW", reads="float32", clamp="hswish")


@pytest.mark.parametrize("layer", STEPS, ids=lambda layer: layer.name)
def test_steps_of_products(layer: Layer, pi4: Agents, pi5: Agents, tmp_path: Path) -> None:
    check(pi5, layer, "dot_product", tmp_path / "dot")
    check(pi4, layer, "long_product", tmp_path / "long", threads=2)


@pytest.mark.parametrize("layer", ADDENDS, ids=lambda layer: layer.name)
def test_addends_of_products(layer: Layer, pi4: Agents, pi5: Agents, tmp_path: Path) -> None:
    check(pi5, layer, "dot_product", tmp_path / "dot")
    check(pi4, layer, "long_product", tmp_path / "long")


@pytest.mark.parametrize("layer", [*STEPS[:3], *ADDENDS[:2]], ids=lambda layer: layer.name)
def test_steps_of_products_in_order(layer: Layer, rk3566: Agents, tmp_path: Path) -> None:
    check(rk3566, layer, "dot_product", tmp_path)


def test_addends_of_other_layers(pi4: Agents, pi5: Agents, tmp_path: Path) -> None:
    depthwise = replace(WINDOWS[0], clamp=(None, None)).with_facts(addend=True)
    for agents, kind in ((pi4, "long"), (pi5, "dot")):
        check(agents, depthwise, f"{kind}_depthwise", tmp_path / kind)
        check(agents, replace(IMAGE, clamp=(None, None)).with_facts(addend=True), f"{kind}_image", tmp_path / kind)
    for layer, name in (
        (Pool(3, 5, 24, integers=IntegerFacts(addend=True)), "integer_pool"),
        (Gating(3, 5, 24, integers=IntegerFacts(addend=True)), "integer_gate"),
    ):
        check(pi4, layer, name, tmp_path / "other")
        check(pi4, layer.with_facts(wide=True), name, tmp_path / "other")


@pytest.mark.parametrize("layer", WINDOWS, ids=lambda layer: layer.name)
def test_steps_of_depthwise(layer: Layer, pi4: Agents, pi5: Agents, tmp_path: Path) -> None:
    check(pi5, layer, "dot_depthwise", tmp_path / "dot")
    check(pi4, layer, "long_depthwise", tmp_path / "long")


@pytest.mark.parametrize(("kernel", "stride"), [((5, 5), 1), ((5, 3), 2), ((7, 2), 1), ((7, 7), 2)])
def test_tall_windows_of_depthwise(kernel: tuple[int, int], stride: int, pi5: Agents, tmp_path: Path) -> None:
    """Two words of rows, of which the second one is in part beyond the window and the image."""
    layer = Conv2d(9, 8, 16, 16, kernel, (stride, stride), (kernel[0] // 2, kernel[1] // 2) * 2, 16)
    check(pi5, layer, "dot_depthwise", tmp_path, threads=stride)
    check_extremes(pi5, layer, "dot_depthwise", tmp_path)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("reads", ["uint8", ""])
def test_images_of_bytes(reads: str, layout: str, pi4: Agents, pi5: Agents, tmp_path: Path) -> None:
    """Bytes are signed or unsigned; padding holds the zero point of signed ones."""
    layer = replace(IMAGE, in_layout=layout, reads=reads, clamp=(None, None))
    for agents, kind in ((pi4, "long"), (pi5, "dot")):
        check(agents, layer, f"{kind}_image", tmp_path / kind, threads=2)
        check(agents, layer.with_facts(addend=True), f"{kind}_image", tmp_path / kind)


def test_steps_of_images(pi4: Agents, pi5: Agents, tmp_path: Path) -> None:
    check(pi5, IMAGE, "dot_image", tmp_path / "dot")
    check(pi4, IMAGE, "long_image", tmp_path / "long")


@pytest.mark.parametrize("seed", range(2))
def test_depthwise(seed: int, pi4: Agents, pi5: Agents, tmp_path: Path) -> None:
    layer = depthwise(random.Random(seed))
    check(pi5, layer, "dot_depthwise", tmp_path / "dot", threads=1 + 2 * seed)
    check(pi4, layer, "long_depthwise", tmp_path / "long", threads=1 + 2 * seed)


@pytest.mark.long
def test_depthwise_of_many_shapes(pi4: Agents, pi5: Agents, tmp_path: Path) -> None:
    for seed in range(2, 40):
        layer = depthwise(random.Random(seed))
        check(pi5, layer, "dot_depthwise", tmp_path, seed, 1 + seed % 3)
        check(pi4, replace(layer, kernel=(2 + seed % 3, layer.kernel[1])), "long_depthwise", tmp_path, seed, 1 + seed % 3)


@pytest.mark.parametrize(
    "layer",
    [
        image(random.Random(0)),
        Conv2d(8, 32, 3, 16, (3, 3), (2, 2), (1, 1, 1, 1), in_layout="NCHW", reads="float32"),
        Conv2d(9, 17, 3, 16, (7, 7), (2, 2), (3, 3, 3, 3), in_layout="NCHW", reads="float32"),
        Conv2d(15, 16, 4, 12, (11, 11), (4, 4), (2, 2, 2, 2), in_layout="NHWC", reads="uint8"),
    ],
    ids=lambda layer: layer.name,
)
def test_image(layer: Conv2d, pi4: Agents, pi5: Agents, tmp_path: Path) -> None:
    check(pi5, layer, "dot_image", tmp_path / "dot")
    check(pi4, layer, "long_image", tmp_path / "long", threads=2)


@pytest.mark.long
def test_image_of_many_shapes(pi4: Agents, pi5: Agents, tmp_path: Path) -> None:
    for seed in range(1, 30):
        layer = image(random.Random(seed))
        check(pi5, layer, "dot_image", tmp_path, seed, 1 + seed % 3)
        check(pi4, layer, "long_image", tmp_path, seed, 1 + seed % 3)


@pytest.mark.parametrize("layer", [Pool(7, 7, 40), Pool(17, 16, 72)], ids=lambda layer: layer.name)
def test_pool(layer: Pool, pi5: Agents, tmp_path: Path) -> None:
    """Up to 255 pixels, of which sums fit in 16 bits, and more; vectors of channels and eight that remain; the largest sums."""
    check(pi5, layer, "integer_pool", tmp_path, threads=2)
    check_extremes(pi5, layer, "integer_pool", tmp_path)


@pytest.mark.parametrize(
    "layer", [Gating(5, 7, 40), Gating(3, 3, 136), Gating(1, 2, 8, integers=IntegerFacts(wide=True))], ids=lambda layer: layer.name
)
def test_gate(layer: Gating, pi4: Agents, pi5: Agents, tmp_path: Path) -> None:
    """Vectors of channels and eight that remain; more threads than pixels; results beyond 16 bits."""
    check(pi4, layer, "integer_gate", tmp_path / "pi4")
    check(pi5, layer, "integer_gate", tmp_path / "pi5", threads=2)


@pytest.mark.parametrize("zero", [-128, 127])
def test_extremes_of_depthwise(zero: int, pi4: Agents, pi5: Agents, tmp_path: Path) -> None:
    """Padding is as large as what it surrounds."""
    layer = Conv2d(4, 5, 16, 16, (3, 3), (1, 1), (1, 1, 1, 1), 16)
    check_extremes(pi5, layer, "dot_depthwise", tmp_path / "dot", zero)
    check_extremes(pi4, layer, "long_depthwise", tmp_path / "long", zero)


def test_three_products_that_just_fit_in_16_bits(pi4: Agents, tmp_path: Path) -> None:
    """The first eight channels' products fit; of the next ones a weight is too large by 1 in one channel, whose sum would be 2^15."""
    layer, weight = Conv2d(4, 5, 24, 24, (3, 3), (1, 1), (1, 1, 1, 1), 24), np.full((3, 3, 1, 24), 127, np.int8)
    weight[:, 1, :, :16] = 1
    assert (tap_triple_sums(weight)[:, :16] == MOST_TOGETHER).all()
    weight[2, 1, 0, 11] += 1
    assert three_fit(weight).tolist() == [True, False, False]
    for zero in (-128, 127):
        check_extremes(pi4, layer, "long_depthwise", tmp_path, zero, weight)


@pytest.mark.long
def test_products_of_many_shapes(pi4: Agents, pi5: Agents, tmp_path: Path) -> None:
    for seed in range(2, 60):
        check(pi5, product(random.Random(seed), 4), "dot_product", tmp_path, seed, 1 + seed % 3)
        check(pi4, product(random.Random(seed), 8), "long_product", tmp_path, seed, 1 + seed % 3)


#: 256 of the largest products are just below 2^22, where sums begin at the bits of a float; two of these just fit in 16 bits.
LARGEST = (Conv2d(2, 3, 256, 12), Dense(1024, 12, writes="float32"))


@pytest.mark.parametrize("layer", LARGEST, ids=lambda layer: layer.name)
def test_extremes_of_dot_products(layer: Layer, pi5: Agents, tmp_path: Path) -> None:
    check_extremes(pi5, layer, "dot_product", tmp_path)


@pytest.mark.parametrize(("layer", "name"), [(Conv2d(2, 3, 240, 12), "dot_product"), (WINDOW, "dot_window")], ids=["product", "window"])
def test_the_least_weight(layer: Layer, name: str, pi5: Agents, tmp_path: Path) -> None:
    check_extremes(pi5, layer, name, tmp_path, largest=128)


@pytest.mark.parametrize("layer", LARGEST, ids=lambda layer: layer.name)
def test_extremes_of_long_products(layer: Layer, pi4: Agents, tmp_path: Path) -> None:
    check_extremes(pi4, layer, "long_product", tmp_path)


@pytest.mark.parametrize(("depth", "rows", "largest"), [(352, 4, 60), (152, 5, 64), (24, 6, 63), (56, 4, 127)])
def test_steps_in_order(depth: int, rows: int, largest: int, pi3bplus: Agents, tmp_path: Path) -> None:
    """Pairs of steps alone, none, half a step with a partner and without: tiles whose loop is written for a core that issues in order."""
    task = Task((Conv2d(3, 3, depth, 12),), "int8", machine=pi3bplus.profile.machine)
    found = next(schedule for schedule in space_of(task, "long_product") if schedule.values["rows"] == rows)
    assert f"tvmmobile_steps_{rows}_{found.values['columns']}_{depth}_{depth // 16}_" in str(kernel_function(task, found, None))
    check_extremes(pi3bplus, task.layer, "long_product", tmp_path, largest=largest, schedule=found)


@pytest.mark.parametrize("largest", [63, 64])
def test_extremes_of_pairs_of_steps(largest: int, pi4: Agents, tmp_path: Path) -> None:
    """Four of the smaller weights fit in 16 bits with the lowest inputs, four of the larger ones do not, by one."""
    assert order_steps([np.full((4, 16), largest, np.int8)] * 6)[1][:2] == ([3, 0] if largest == 63 else [0, 6])
    check_extremes(pi4, Conv2d(2, 3, 96, 12), "long_product", tmp_path, largest=largest)


@given(st.tuples(st.integers(1, 9), st.integers(1, 9)), st.integers(0, 2**32 - 1), st.sampled_from([60, 80, 90, 127]), st.booleans())
@settings(max_examples=200, derandomize=True, database=None, deadline=None)
def test_pairs_of_steps_fit_in_16_bits(extents: tuple[int, int], seed: int, largest: int, half: bool) -> None:
    """Every step is there once; the largest sums of a lane's products are those of inputs with the signs of the weights."""
    numbers = np.random.default_rng(seed)
    weight = numbers.integers(-largest, largest, (*extents, 16), np.int8, endpoint=True)
    weight[numbers.random(weight.shape) < numbers.choice([0, 0.5])] = largest  # as large in many places
    weight[:, :, ::2] //= 3
    steps = [*weight[: len(weight) - half], *([weight[-1, :, :8]] if half else [])]
    order, (pairs, singles, *table) = order_steps(steps)
    joined, last = (table[2 * pairs + singles], [len(steps) - 1]) if half else (0, [])
    places = [*table[: 2 * pairs + singles], *table[2 * pairs + singles + 1 :]]
    assert sorted(order) == list(range(len(steps))) and order == [*(place // 16 for place in places), *last]
    found = [order[2 * pair : 2 * pair + 2] for pair in range(pairs)] + [order[-2:]] * joined
    for pair in found:
        one, other = (np.abs(np.pad(steps[step].astype(int), ((0, 0), (0, 16 - steps[step].shape[1])))) for step in pair)
        assert (128 * (one[:, :8] + one[:, 8:] + other[:, :8] + other[:, 8:])).max() < 1 << 15


@pytest.mark.long
def test_extremes_of_wide_products(pi4: Agents, pi5: Agents, tmp_path: Path) -> None:
    for agents, name in ((pi4, "long_product"), (pi5, "dot_product")):
        check_extremes(agents, Conv2d(2, 3, 64, 12).with_facts(wide=True), name, tmp_path / name)
