"""Every schedule computes what PyTorch computes, whatever the shape and the knobs, and writes its output and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from host_kernels import check_layer, examples
from hypothesis import given
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
blocks = st.sampled_from((0, 8, 16, 24, 32))


def in_blocks(block: int, channel_count: int) -> Layout:
    """Channels in blocks of this size where it divides them, else NHWC."""
    return blocked(block) if block and channel_count % block == 0 else "NHWC"


@examples(28)
@given(sides, sides, st.sampled_from((1, 2, 3, 5, 8, 17, 36, 131, 260)), channels, clamps, threads, st.integers(0, 1 << 16))
def test_pointwise(tmp_path: Path, height: int, width: int, depth: int, outputs: int, clamp: Clamp, thread_count: int, choice: int) -> None:
    check_layer(Conv2d(height, width, depth, outputs, clamp=clamp), thread_count, choice, "pointwise", tmp_path)


@examples(32)
@given(
    sides, sides, channels, st.sampled_from((3, 5)), st.sampled_from((1, 2)), clamps, threads, st.integers(0, 1 << 16), *[st.booleans()] * 2
)
def test_depthwise(
    tmp_path: Path,
    height: int,
    width: int,
    depth: int,
    kernel: int,
    stride: int,
    clamp: Clamp,
    thread_count: int,
    choice: int,
    same: bool,
    residual: bool,
) -> None:
    """`same` pads like TensorFlow: less, or nothing, before the first row."""
    before = (kernel - 1) // 2 if not same or stride == 1 else (kernel - 2) // 2
    padding = (before, before, kernel // 2, kernel // 2)
    channels, window = max(depth, 2), (kernel, kernel)
    layer = Conv2d(height, width, channels, channels, window, (stride, stride), padding, channels, clamp, residual=residual)
    if min(layer.out_height, layer.out_width) > 0:
        check_layer(layer, thread_count, choice, "depthwise", tmp_path)


@examples(24)
@given(sides, sides, st.sampled_from((32, 64, 96)), st.sampled_from((32, 48, 96)), blocks, blocks, clamps, threads, st.integers(0, 1 << 16))
def test_pointwise_in_channel_blocks(
    tmp_path: Path, height: int, width: int, depth: int, outputs: int, before: int, after: int, clamp: Clamp, thread_count: int, choice: int
) -> None:
    """0 stands for NHWC."""
    layouts = in_blocks(before, depth), in_blocks(after, outputs)
    layer = Conv2d(height, width, depth, outputs, clamp=clamp, in_layout=layouts[0], out_layout=layouts[1])
    check_layer(layer, thread_count, choice, "pointwise", tmp_path)


@examples(20)
@given(sides, sides, st.sampled_from((3, 32, 96)), st.sampled_from((5, 24, 32, 48)), blocks, clamps, threads, st.integers(0, 1 << 16))
def test_pointwise_with_a_residual(
    tmp_path: Path, height: int, width: int, depth: int, outputs: int, after: int, clamp: Clamp, thread_count: int, choice: int
) -> None:
    layer = Conv2d(height, width, depth, outputs, clamp=clamp, out_layout=in_blocks(after, outputs), residual=True)
    check_layer(layer, thread_count, choice, "pointwise", tmp_path)


@examples(32)
@given(
    st.tuples(sides, sides, st.sampled_from((1, 1, 2))),
    st.sampled_from((1, 3, 6, 16, 32, 72, 96, 131)),
    channels,
    st.tuples(blocks, blocks),
    clamps,
    threads,
    st.integers(0, 1 << 16),
    st.booleans(),
)
def test_scaled_pointwise(
    tmp_path: Path,
    size: tuple[int, int, int],
    depth: int,
    outputs: int,
    around: tuple[int, int],
    clamp: Clamp,
    thread_count: int,
    choice: int,
    residual: bool,
) -> None:
    """Its input's channels each have a factor; with several blocks of pixels and channels, remainders of each, and pixels left out."""
    *sides, stride = size
    layouts = in_blocks(around[0], depth), in_blocks(around[1], outputs)
    layer = Conv2d(*sides, depth, outputs, (1, 1), (stride, stride), (0,) * 4, 1, clamp, *layouts, residual, scaled=True)
    check_layer(layer, thread_count, choice, "pointwise", tmp_path)


@examples(24)
@given(
    sides,
    sides,
    st.sampled_from((1, 3, 4, 6, 16, 21, 32, 72, 96, 128)),
    st.sampled_from((0, 4, 6, 24, 32)),
    threads,
    st.integers(0, 1 << 16),
)
def test_pool(tmp_path: Path, height: int, width: int, depth: int, block: int, thread_count: int, choice: int) -> None:
    """Blocks of 6 have channels that are no whole vector."""
    check_layer(Pool(height, width, depth, in_blocks(block, depth)), thread_count, choice, "pool", tmp_path)


@examples(16)
@given(sides, sides, st.sampled_from((32, 48, 96)), blocks, blocks, st.sampled_from((1, 2)), clamps, threads, st.integers(0, 1 << 16))
def test_depthwise_in_channel_blocks(
    tmp_path: Path, height: int, width: int, depth: int, before: int, after: int, stride: int, clamp: Clamp, thread_count: int, choice: int
) -> None:
    layouts = in_blocks(before, depth), in_blocks(after, depth)
    shape = (height, width, depth, depth, (3, 3), (stride, stride), (1, 1, 1, 1), depth)
    layer = Conv2d(*shape, clamp=clamp, in_layout=layouts[0], out_layout=layouts[1])
    check_layer(layer, thread_count, choice, "depthwise", tmp_path)


@examples(30)
@given(
    sides,
    sides,
    st.integers(1, 4),
    channels,
    st.sampled_from((1, 2, 3, 5)),
    st.sampled_from((1, 2)),
    clamps,
    threads,
    st.integers(0, 1 << 16),
)
def test_image_conv(
    tmp_path: Path,
    height: int,
    width: int,
    depth: int,
    outputs: int,
    kernel: int,
    stride: int,
    clamp: Clamp,
    thread_count: int,
    choice: int,
) -> None:
    half = kernel // 2
    layer = Conv2d(height, width, depth, outputs, (kernel, kernel), (stride, stride), (half,) * 4, 1, clamp, "NCHW")
    check_layer(layer, thread_count, choice, "image_conv", tmp_path)


@examples(14)
@given(st.sampled_from((1, 3, 4, 6, 19, 64, 257)), channels, clamps, threads, st.integers(0, 1 << 16))
def test_dense(tmp_path: Path, inputs: int, outputs: int, clamp: Clamp, thread_count: int, choice: int) -> None:
    check_layer(Dense(inputs, outputs, clamp), thread_count, choice, "dense", tmp_path)


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


@examples(40)
@given(
    st.tuples(sides, sides),
    st.sampled_from(((5, 7, 1), (8, 16, 1), (36, 24, 1), (64, 32, 1), (6, 9, 3), (96, 48, 2), (12, 12, 4))),
    st.sampled_from(((3, 3), (1, 1), (5, 3), (2, 4), (7, 7))),
    st.sampled_from((1, 2, 3)),
    st.integers(0, 3),
    blocks,
    blocks,
    clamps,
    threads,
    st.integers(0, 1 << 16),
    st.booleans(),
)
def test_conv(
    tmp_path: Path,
    size: tuple[int, int],
    channel_counts: tuple[int, int, int],
    kernel: tuple[int, int],
    stride: int,
    padding: int,
    before: int,
    after: int,
    clamp: Clamp,
    thread_count: int,
    choice: int,
    residual: bool,
) -> None:
    inputs, outputs, groups = channel_counts
    layouts = (in_blocks(before, inputs), in_blocks(after, outputs)) if groups == 1 else ("NHWC", "NHWC")
    edges = (min(padding, kernel[0] - 1), min(padding, kernel[1] - 1), padding // 2, padding // 2)
    layer = Conv2d(*size, inputs, outputs, kernel, (stride, stride), edges, groups, clamp, *layouts, residual)
    if min(layer.out_height, layer.out_width) <= 0 or not any((*edges, groups > 1, kernel != (1, 1))):
        return
    check_layer(layer, thread_count, choice, "conv", tmp_path)


@examples(24)
@given(
    st.tuples(sides, sides, st.sampled_from((1, 3, 16, 72)), st.sampled_from((8, 12, 13, 24))),
    st.sampled_from(((2, 2), (3, 3), (2, 5))),
    st.tuples(*[st.integers(1, 2)] * 4),
    st.booleans(),
    clamps,
    threads,
    st.integers(0, 1 << 16),
)
def test_windows(
    tmp_path: Path,
    size: tuple[int, int, int, int],
    kernel: tuple[int, int],
    form: tuple[int, int, int, int],
    shuffles: bool,
    clamp: Clamp,
    thread_count: int,
    choice: int,
) -> None:
    """Four parts of the channels, shuffled or one after another, that lack the first or the last taps, or none."""
    height, width, inputs, channels = size
    *step, above, left = form
    (rows, columns), edges = kernel, (above - 1, left - 1, kernel[0] // 2, kernel[1] // 2)
    windows = ((0, rows - 1, 0, columns), (0, rows, 1, columns), (1, rows, 0, 1), (0, rows, 0, columns))
    layout = shuffled(2, 2 * channels) if shuffles else "NHWC"
    layer = Conv2d(height, width, inputs, 4 * channels, kernel, (step[0], step[1]), edges, 1, clamp, out_layout=layout, windows=windows)
    if min(layer.out_height, layer.out_width) > 0:
        check_layer(layer, thread_count, choice, "conv", tmp_path)


@examples(30)
@given(
    st.tuples(sides, sides),
    st.sampled_from((1, 3, 16, 72)),
    st.tuples(st.sampled_from((1, 2, 3)), st.sampled_from((2, 3)), st.sampled_from((2, 3, 4, 9, 16))),
    st.sampled_from(((1, 1), (3, 3), (2, 5))),
    clamps,
    threads,
    st.integers(0, 1 << 16),
    st.booleans(),
)
def test_a_shuffled_output(
    tmp_path: Path,
    size: tuple[int, int],
    inputs: int,
    parts: tuple[int, int, int],
    kernel: tuple[int, int],
    clamp: Clamp,
    thread_count: int,
    choice: int,
    residual: bool,
) -> None:
    """Blocks of whole vectors, and others."""
    edges, outputs = (kernel[0] // 2, 0, kernel[0] // 2, kernel[1] - 1), parts[0] * parts[1] * parts[2]
    layout = shuffled(parts[1], parts[2])
    layer = Conv2d(*size, inputs, outputs, kernel, padding=edges, clamp=clamp, out_layout=layout, residual=residual)
    check_layer(layer, thread_count, choice, "pointwise" if kernel == (1, 1) else "conv", tmp_path)


@examples(40)
@given(
    st.tuples(st.integers(1, 15), st.integers(1, 15)),
    st.sampled_from(((5, 7, 1), (8, 16, 1), (6, 9, 3), (32, 48, 1), (12, 12, 12), (7, 7, 7), (32, 32, 32))),
    st.sampled_from(((3, 3), (5, 3), (1, 3), (2, 4), (5, 5))),
    st.sampled_from(((2, 2), (1, 2), (3, 1), (4, 6))),
    st.sampled_from((1, 2)),
    st.tuples(*(st.integers(0, 6),) * 4),
    threads,
    st.integers(0, 1 << 16),
)
def test_dilated(
    tmp_path: Path,
    size: tuple[int, int],
    channel_counts: tuple[int, int, int],
    kernel: tuple[int, int],
    dilation: tuple[int, int],
    stride: int,
    padding: tuple[int, int, int, int],
    thread_count: int,
    choice: int,
) -> None:
    """Dense, grouped and depthwise; also where taps or whole windows are in the padding."""
    inputs, outputs, groups = channel_counts
    layer = Conv2d(*size, inputs, outputs, kernel, (stride, stride), padding, groups, RELU, dilation=dilation)
    if min(layer.out_height, layer.out_width) > 0:
        check_layer(layer, thread_count, choice, "depthwise" if layer.is_depthwise else "conv", tmp_path)


@examples(24)
@given(
    sides,
    sides,
    channels,
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(*(st.integers(0, 2),) * 4),
    threads,
    st.integers(0, 1 << 16),
    st.sampled_from((MaxPool, MeanPool)),
)
def test_pools_of_windows(
    tmp_path: Path,
    height: int,
    width: int,
    depth: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    thread_count: int,
    choice: int,
    kind: type[MaxPool | MeanPool],
) -> None:
    """Padding of less than a window, on either side."""
    top, left, bottom, right = (min(padded, kernel[place % 2] - 1) for place, padded in enumerate(padding))
    if height + top + bottom >= kernel[0] and width + left + right >= kernel[1]:
        layer = kind(height, width, depth, kernel, stride, (top, left, bottom, right))
        check_layer(layer, thread_count, choice, f"{kind.of}_pool", tmp_path)
