"""Every schedule computes what PyTorch computes, whatever the shape and the knobs, and writes its output and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from host_kernels import check_layer, examples
from hypothesis import assume, given
from hypothesis import strategies as st

from tvmmobile.graph.layers import NO_CLAMP, Clamp, Conv2d, Dense, Layer, MaxPool, MeanPool, Pool
from tvmmobile.graph.layouts import Layout, blocked, shuffled

RELU: Clamp = (0.0, None)
RELU6: Clamp = (0.0, 6.0)

clamps = st.sampled_from((NO_CLAMP, RELU, RELU6, (-1.0, 1.0), "hswish", "hsigmoid"))
sides = st.integers(1, 9)
#: Odd, below a vector, not a multiple of 4, and whole vectors.
channels = st.sampled_from((1, 2, 3, 4, 5, 7, 8, 10, 13, 16, 21, 24, 36))
threads = st.sampled_from((1, 2, 3))
#: Sizes of blocks of channels; 0 stands for NHWC.
blocks = st.sampled_from((0, 8, 16, 24, 32))
#: A number of threads, and the choice of knobs.
Run = tuple[int, int]
runs = st.tuples(threads, st.integers(0, 1 << 16))


def in_blocks(block: int, channel_count: int) -> Layout:
    """Channels in blocks of this size where it divides them, else NHWC."""
    return blocked(block) if block and channel_count % block == 0 else "NHWC"


def with_outputs(layer: Conv2d) -> Conv2d:
    """Return the layer, if it has an output pixel."""
    assume(min(layer.out_height, layer.out_width) > 0)
    return layer


@st.composite
def pointwise_layers(draw: st.DrawFn) -> Conv2d:
    depth = draw(st.sampled_from((1, 2, 3, 5, 8, 17, 36, 131, 260)))
    return Conv2d(draw(sides), draw(sides), depth, draw(channels), clamp=draw(clamps))


@examples(28)
@given(pointwise_layers(), runs)
def test_pointwise(tmp_path: Path, layer: Layer, run: Run) -> None:
    check_layer(layer, *run, "pointwise", tmp_path)


@st.composite
def depthwise_layers(draw: st.DrawFn) -> Conv2d:
    """Padding may be as TensorFlow's for `same`: less, or nothing, before the first row."""
    size, kernel, stride = (draw(sides), draw(sides)), draw(st.sampled_from((3, 5))), draw(st.sampled_from((1, 2)))
    before = (kernel - 1) // 2 if stride == 1 or draw(st.booleans()) else (kernel - 2) // 2
    padding, depth = (before, before, kernel // 2, kernel // 2), max(draw(channels), 2)
    window, clamp, residual = (kernel, kernel), draw(clamps), draw(st.booleans())
    return with_outputs(Conv2d(*size, depth, depth, window, (stride, stride), padding, depth, clamp, residual=residual))


@examples(32)
@given(depthwise_layers(), runs)
def test_depthwise(tmp_path: Path, layer: Layer, run: Run) -> None:
    check_layer(layer, *run, "depthwise", tmp_path)


@st.composite
def blocked_pointwise_layers(draw: st.DrawFn) -> Conv2d:
    depth, outputs = draw(st.sampled_from((32, 64, 96))), draw(st.sampled_from((32, 48, 96)))
    before, after = in_blocks(draw(blocks), depth), in_blocks(draw(blocks), outputs)
    return Conv2d(draw(sides), draw(sides), depth, outputs, clamp=draw(clamps), in_layout=before, out_layout=after)


@examples(24)
@given(blocked_pointwise_layers(), runs)
def test_pointwise_in_channel_blocks(tmp_path: Path, layer: Layer, run: Run) -> None:
    check_layer(layer, *run, "pointwise", tmp_path)


@st.composite
def residual_pointwise_layers(draw: st.DrawFn) -> Conv2d:
    depth, outputs = draw(st.sampled_from((3, 32, 96))), draw(st.sampled_from((5, 24, 32, 48)))
    layout = in_blocks(draw(blocks), outputs)
    return Conv2d(draw(sides), draw(sides), depth, outputs, clamp=draw(clamps), out_layout=layout, residual=True)


@examples(20)
@given(residual_pointwise_layers(), runs)
def test_pointwise_with_a_residual(tmp_path: Path, layer: Layer, run: Run) -> None:
    check_layer(layer, *run, "pointwise", tmp_path)


@st.composite
def scaled_pointwise_layers(draw: st.DrawFn) -> Conv2d:
    """Each input channel has a factor; with several blocks of pixels and channels, remainders of each, and pixels left out."""
    size, stride = (draw(sides), draw(sides)), draw(st.sampled_from((1, 1, 2)))
    depth, outputs = draw(st.sampled_from((1, 3, 6, 16, 32, 72, 96, 131))), draw(channels)
    layouts, residual = (in_blocks(draw(blocks), depth), in_blocks(draw(blocks), outputs)), draw(st.booleans())
    return Conv2d(*size, depth, outputs, (1, 1), (stride, stride), (0,) * 4, 1, draw(clamps), *layouts, residual, scaled=True)


@examples(32)
@given(scaled_pointwise_layers(), runs)
def test_scaled_pointwise(tmp_path: Path, layer: Layer, run: Run) -> None:
    check_layer(layer, *run, "pointwise", tmp_path)


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    """Blocks of 6 channels are no whole vectors."""
    depth = draw(st.sampled_from((1, 3, 4, 6, 16, 21, 32, 72, 96, 128)))
    return Pool(draw(sides), draw(sides), depth, in_blocks(draw(st.sampled_from((0, 4, 6, 24, 32))), depth))


@examples(24)
@given(pools(), runs)
def test_pool(tmp_path: Path, layer: Layer, run: Run) -> None:
    check_layer(layer, *run, "pool", tmp_path)


@st.composite
def blocked_depthwise_layers(draw: st.DrawFn) -> Conv2d:
    size, depth, stride = (draw(sides), draw(sides)), draw(st.sampled_from((32, 48, 96))), draw(st.sampled_from((1, 2)))
    layouts = in_blocks(draw(blocks), depth), in_blocks(draw(blocks), depth)
    return Conv2d(*size, depth, depth, (3, 3), (stride, stride), (1, 1, 1, 1), depth, draw(clamps), *layouts)


@examples(16)
@given(blocked_depthwise_layers(), runs)
def test_depthwise_in_channel_blocks(tmp_path: Path, layer: Layer, run: Run) -> None:
    check_layer(layer, *run, "depthwise", tmp_path)


@st.composite
def image_layers(draw: st.DrawFn) -> Conv2d:
    size, depth, outputs = (draw(sides), draw(sides)), draw(st.integers(1, 4)), draw(channels)
    kernel, stride = draw(st.sampled_from((1, 2, 3, 5))), draw(st.sampled_from((1, 2)))
    return Conv2d(*size, depth, outputs, (kernel, kernel), (stride, stride), (kernel // 2,) * 4, 1, draw(clamps), "NCHW")


@examples(30)
@given(image_layers(), runs)
def test_image_conv(tmp_path: Path, layer: Layer, run: Run) -> None:
    check_layer(layer, *run, "image_conv", tmp_path)


@st.composite
def dense_layers(draw: st.DrawFn) -> Dense:
    return Dense(draw(st.sampled_from((1, 3, 4, 6, 19, 64, 257))), draw(channels), draw(clamps))


@examples(14)
@given(dense_layers(), runs)
def test_dense(tmp_path: Path, layer: Layer, run: Run) -> None:
    check_layer(layer, *run, "dense", tmp_path)


@pytest.mark.parametrize(
    ("layer", "template"),
    [
        # A kernel larger than the image, borders on every side of every pixel.
        (Conv2d(1, 1, 6, 6, (5, 5), (1, 1), (2, 2, 2, 2), 6, RELU6), "depthwise"),
        # Outputs that see padding only.
        (Conv2d(2, 2, 5, 5, (3, 3), (1, 1), (3, 3, 3, 3), 5), "depthwise"),
        (Conv2d(2, 3, 2, 5, (3, 3), (2, 2), (3, 3, 3, 3), 1, NO_CLAMP, "NCHW"), "image_conv"),
        # Unlike in both directions.
        (Conv2d(6, 5, 7, 7, (3, 5), (2, 1), (1, 0, 0, 2), 7, RELU), "depthwise"),
        (Conv2d(5, 8, 3, 9, (5, 3), (1, 2), (0, 1, 2, 0), 1, RELU, "NCHW"), "image_conv"),
        # Every other pixel of every other, or every, line.
        (Conv2d(7, 9, 12, 20, stride=(2, 2), clamp=RELU6), "pointwise"),
        (Conv2d(8, 5, 6, 8, stride=(1, 3)), "pointwise"),
        # Several K blocks and panel blocks with a remainder of each.
        (Conv2d(3, 3, 300, 44, clamp=RELU6), "pointwise"),
    ],
)
@pytest.mark.parametrize("thread_count", [1, 2])
def test_edge_shapes(tmp_path: Path, layer: Layer, template: str, thread_count: int) -> None:
    check_layer(layer, thread_count, -1, template, tmp_path)
    check_layer(layer, thread_count, 1009, template, tmp_path)


@st.composite
def convolutions(draw: st.DrawFn) -> Conv2d:
    channel_counts = (5, 7, 1), (8, 16, 1), (36, 24, 1), (64, 32, 1), (6, 9, 3), (96, 48, 2), (12, 12, 4)
    size, (inputs, outputs, groups) = (draw(sides), draw(sides)), draw(st.sampled_from(channel_counts))
    kernel = draw(st.sampled_from(((3, 3), (1, 1), (5, 3), (2, 4), (7, 7))))
    stride, padding = draw(st.sampled_from((1, 2, 3))), draw(st.integers(0, 3))
    layouts = (in_blocks(draw(blocks), inputs), in_blocks(draw(blocks), outputs)) if groups == 1 else ("NHWC", "NHWC")
    edges = (min(padding, kernel[0] - 1), min(padding, kernel[1] - 1), padding // 2, padding // 2)
    assume(any((*edges, groups > 1, kernel != (1, 1))))
    clamp, residual = draw(clamps), draw(st.booleans())
    return with_outputs(Conv2d(*size, inputs, outputs, kernel, (stride, stride), edges, groups, clamp, *layouts, residual))


@examples(40)
@given(convolutions(), runs)
def test_conv(tmp_path: Path, layer: Layer, run: Run) -> None:
    check_layer(layer, *run, "conv", tmp_path)


@st.composite
def windowed_convolutions(draw: st.DrawFn) -> Conv2d:
    """Four parts of the channels, shuffled or one after another, that lack the first or the last taps, or none."""
    size, depth, part = (draw(sides), draw(sides)), draw(st.sampled_from((1, 3, 16, 72))), draw(st.sampled_from((8, 12, 13, 24)))
    (rows, columns), few = draw(st.sampled_from(((2, 2), (3, 3), (2, 5)))), st.integers(1, 2)
    stride, edges = (draw(few), draw(few)), (draw(few) - 1, draw(few) - 1, rows // 2, columns // 2)
    windows = ((0, rows - 1, 0, columns), (0, rows, 1, columns), (1, rows, 0, 1), (0, rows, 0, columns))
    layout = shuffled(2, 2 * part) if draw(st.booleans()) else "NHWC"
    clamp, kernel = draw(clamps), (rows, columns)
    return with_outputs(Conv2d(*size, depth, 4 * part, kernel, stride, edges, 1, clamp, out_layout=layout, windows=windows))


@examples(24)
@given(windowed_convolutions(), runs)
def test_windows(tmp_path: Path, layer: Layer, run: Run) -> None:
    check_layer(layer, *run, "conv", tmp_path)


@st.composite
def shuffled_convolutions(draw: st.DrawFn) -> Conv2d:
    """Blocks of whole vectors, and others."""
    size, depth = (draw(sides), draw(sides)), draw(st.sampled_from((1, 3, 16, 72)))
    groups, rows, block = (draw(st.sampled_from(counts)) for counts in ((1, 2, 3), (2, 3), (2, 3, 4, 9, 16)))
    kernel = draw(st.sampled_from(((1, 1), (3, 3), (2, 5))))
    outputs, edges = groups * rows * block, (kernel[0] // 2, 0, kernel[0] // 2, kernel[1] - 1)
    layout, clamp, residual = shuffled(rows, block), draw(clamps), draw(st.booleans())
    return Conv2d(*size, depth, outputs, kernel, padding=edges, clamp=clamp, out_layout=layout, residual=residual)


@examples(30)
@given(shuffled_convolutions(), runs)
def test_a_shuffled_output(tmp_path: Path, layer: Conv2d, run: Run) -> None:
    check_layer(layer, *run, "pointwise" if layer.kernel == (1, 1) else "conv", tmp_path)


@st.composite
def dilated_convolutions(draw: st.DrawFn) -> Conv2d:
    """Dense, grouped and depthwise; also where taps or whole windows are in the padding."""
    channel_counts = (5, 7, 1), (8, 16, 1), (6, 9, 3), (32, 48, 1), (12, 12, 12), (7, 7, 7), (32, 32, 32)
    size, (inputs, outputs, groups) = draw(st.tuples(*[st.integers(1, 15)] * 2)), draw(st.sampled_from(channel_counts))
    kernel = draw(st.sampled_from(((3, 3), (5, 3), (1, 3), (2, 4), (5, 5))))
    dilation = draw(st.sampled_from(((2, 2), (1, 2), (3, 1), (4, 6))))
    stride, padding = draw(st.sampled_from((1, 2))), draw(st.tuples(*[st.integers(0, 6)] * 4))
    return with_outputs(Conv2d(*size, inputs, outputs, kernel, (stride, stride), padding, groups, RELU, dilation=dilation))


@examples(40)
@given(dilated_convolutions(), runs)
def test_dilated(tmp_path: Path, layer: Conv2d, run: Run) -> None:
    check_layer(layer, *run, "depthwise" if layer.is_depthwise else "conv", tmp_path)


@st.composite
def window_pools(draw: st.DrawFn) -> MaxPool | MeanPool:
    """Padding of less than a window, on either side."""
    kind, (height, width, depth) = draw(st.sampled_from((MaxPool, MeanPool))), (draw(sides), draw(sides), draw(channels))
    kernel, stride = (draw(st.tuples(*[st.integers(1, 3)] * 2)) for _ in range(2))
    top, left, bottom, right = (draw(st.integers(0, min(2, kernel[place % 2] - 1))) for place in range(4))
    assume(height + top + bottom >= kernel[0] and width + left + right >= kernel[1])
    return kind(height, width, depth, kernel, stride, (top, left, bottom, right))


@examples(24)
@given(window_pools(), runs)
def test_pools_of_windows(tmp_path: Path, layer: MaxPool | MeanPool, run: Run) -> None:
    check_layer(layer, *run, f"{layer.of}_pool", tmp_path)
