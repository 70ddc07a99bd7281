"""Windows of many taps have a loop over their rows: what it computes, and how little code it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from assembly import assembly_of, hottest_loop
from host_kernels import check_layer, check_schedule, examples
from hypothesis import given
from hypothesis import strategies as st

from tvmmobile.graph.layers import Conv2d, Layer, MaxPool, MeanPool
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import template_for, templates_for
from tvmmobile.schedules.emit.window_nest import MOST_UNROLLED

sides = st.integers(1, 16)
runs = st.tuples(st.sampled_from((1, 2)), st.integers(0, 1 << 16))
RELU6 = (0.0, 6.0)


def large(side: int, window: int, channels: int = 8) -> Conv2d:
    """Return a depthwise layer whose output has its input's size."""
    return Conv2d(side, side, channels, channels, (window, window), (1, 1), (window // 2,) * 4, channels, RELU6)


@st.composite
def layers(draw: st.DrawFn) -> Conv2d:
    """Windows that reach further than the image, or lie inside it; rows and columns that differ in everything."""
    kernel = draw(st.sampled_from(((13, 13), (49, 3), (3, 49), (17, 9), (1, 145), (145, 1))))
    stride, dilation = draw(st.sampled_from(((1, 1), (2, 1), (1, 3)))), draw(st.sampled_from(((1, 1), (1, 1), (2, 1), (1, 2))))
    size, edges = [draw(sides), draw(sides)], [draw(st.integers(0, taps // 2)) for taps in (*kernel, *kernel)]
    for axis in range(2):  # so that there is an output
        size[axis] += max((kernel[axis] - 1) * dilation[axis] + 1 - size[axis] - edges[axis] - edges[axis + 2], 0)
    channels = draw(st.sampled_from((2, 3, 4, 9)))
    padding = (edges[0], edges[1], edges[2], edges[3])
    residual = draw(st.booleans())
    return Conv2d(size[0], size[1], channels, channels, kernel, stride, padding, channels, RELU6, residual=residual, dilation=dilation)


@examples(40)
@given(layers(), runs)
def test_depthwise(tmp_path: Path, layer: Layer, run: tuple[int, int]) -> None:
    check_layer(layer, *run, "depthwise", tmp_path)


@pytest.mark.parametrize(("kind", "name"), [(MaxPool, "max_pool"), (MeanPool, "mean_pool")])
@pytest.mark.parametrize("choice", [0, 5, 9])
def test_pools(tmp_path: Path, kind: type[MaxPool | MeanPool], name: str, choice: int) -> None:
    check_layer(kind(9, 11, 6, (13, 13), (2, 1), (6, 6, 6, 6)), 1, choice, name, tmp_path)
    check_layer(kind(1, 90, 5, (1, 147), (1, 2), (0, 73, 0, 73)), 2, choice, name, tmp_path)


def test_half_precision(tmp_path: Path) -> None:
    task = Task((large(9, 13, 9),), "float16", machine=machine_of("cortex-a76"))
    space = templates_for(task)[0].space(task)
    assert space is not None
    check_schedule(task, space, 3, 1.5e-2, tmp_path)


@pytest.mark.parametrize("mcpu", ["cortex-a72", "cortex-a53"])
def test_little_code(mcpu: str) -> None:
    """RepLKNet's: a loop with 31 taps of seven outputs, and as much code again for each position beside the image's edges."""
    task = Task((large(28, 31),), machine=machine_of(mcpu))
    template = template_for(task)
    space = template.space(task) if template else None
    assert space is not None
    text = assembly_of(task, space.default.values, template, mcpu)
    hot = hottest_loop(text).instructions
    assert sum(line.startswith("fmla") for line in hot) <= 31 * 7
    assert not any("[sp" in line for line in hot)
    assert text.count("\n") < 12_000


def test_windows_just_small_enough_are_unrolled() -> None:
    """Nothing but the tile's loops: each of their bodies has whole windows."""
    layer = large(40, 11)
    assert layer.kernel[0] * layer.kernel[1] <= MOST_UNROLLED
    text = assembly_of(Task((layer,)), {"rows": 1, "columns": 4, "channels": 0, "axis": 0})
    assert sum(line.startswith("fmla") for line in hottest_loop(text).instructions) == 4 * 121


def test_what_has_no_kernel_for_them() -> None:
    """Integer kernels, which read zero points beside the image, and kernels with the 1×1 layer behind."""
    assert not templates_for(Task((large(28, 31),), "int8", machine=machine_of("cortex-a76")))
    assert not templates_for(Task((large(28, 31), Conv2d(28, 28, 8, 16)), machine=machine_of("cortex-a72")))
