"""Operators that slide a window over pixels."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from random_onnx.draw import Draw, Impossible, unit
from random_onnx.registry import draws

draw_kind = partial(draws, "windows")


def window(draw: Draw, image: list[int], dilated: bool, most: int = 3) -> dict[str, Any]:
    """Kernel, strides, dilations and pads that leave at least one output."""
    kernel = [draw.integer(1, min(most, extent)) for extent in image]
    given: dict[str, Any] = {"kernel_shape": kernel}
    if draw.chance(0.7):
        given["strides"] = [draw.integer(1, 3) for _ in image]
    if dilated and draw.chance(0.4):
        dilations = [draw.integer(1, 2) for _ in image]
        if all(dilation * (size - 1) + 1 <= extent for dilation, size, extent in zip(dilations, kernel, image, strict=True)):
            given["dilations"] = dilations
    mode = draw.pick(["pads", "pads", "none", "SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
    if mode == "pads":
        given["pads"] = [draw.integer(0, max(0, size - 1)) for size in kernel * 2]
    elif mode != "none":
        given["auto_pad"] = mode
    return given


@draw_kind("MaxPool", "AveragePool", "LpPool")
def pool(draw: Draw) -> None:
    shape = draw.image(draw.pick([1, 2, 2, 2, 2, 3]))
    operator = draw.operator
    given = window(draw, shape[2:], dilated=(operator == "MaxPool" and draw.since >= 10) or draw.since >= 18 + (operator == "AveragePool"))
    if (operator != "LpPool" and draw.since >= 10) or draw.since >= 18:
        given["ceil_mode"] = draw.pick([None, 0, 1])
    if operator == "AveragePool":
        given["count_include_pad"] = draw.pick([None, 0, 1])
    if operator == "LpPool":
        given["p"] = draw.pick([None, 1, 2, 3])
    if operator == "MaxPool":
        given["storage_order"] = draw.pick([None, None, 0, 1])
    draw.apply([draw.data(shape)], 2 if operator == "MaxPool" and draw.chance(0.2) else 1, **given)


@draw_kind("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(draw: Draw) -> None:
    given = {"p": draw.pick([None, 1, 2, 3])} if draw.operator == "GlobalLpPool" else {}
    draw.apply([draw.data(draw.image(draw.pick([1, 2, 2, 3])))], **given)


@draw_kind("Conv")
def convolution(draw: Draw) -> None:
    shape = draw.image(draw.pick([1, 2, 2, 2, 3]))
    groups = draw.pick([1, 1, 2, shape[1]])
    if shape[1] % groups:
        groups = 1
    given = window(draw, shape[2:], dilated=True)
    outputs = groups * draw.integer(1, 3)
    weights = draw.weights([outputs, shape[1] // groups, *given["kernel_shape"]])
    if draw.chance(0.3):
        del given["kernel_shape"]
    inputs = [draw.data(shape), weights]
    if draw.chance():
        inputs.append(draw.constant(draw.random.normal(0, 1, outputs)))
    draw.apply(inputs, group=None if groups == 1 else groups, **given)


@draw_kind("ConvTranspose")
def transposed(draw: Draw) -> None:
    shape = draw.image(draw.pick([1, 2, 2, 2, 3]), most=5)
    groups = draw.pick([1, 1, 2, shape[1]])
    if shape[1] % groups:
        groups = 1
    given = window(draw, shape[2:], dilated=True)
    count = len(shape) - 2
    strides, dilations = given.get("strides", [1] * count), given.get("dilations", [1] * count)
    kernel = given["kernel_shape"]
    if draw.chance(0.3):
        given["output_padding"] = [draw.integer(0, max(step, dilation) - 1) for step, dilation in zip(strides, dilations, strict=True)]
    elif draw.chance(0.25):
        given.pop("pads", None)
        natural = [
            (extent - 1) * step + (size - 1) * dilation + 1
            for extent, step, size, dilation in zip(shape[2:], strides, kernel, dilations, strict=True)
        ]
        given["output_shape"] = [extent - draw.integer(0, min(1, extent - 1)) for extent in natural]
    each = draw.integer(1, 3)
    inputs = [draw.data(shape), draw.weights([shape[1], each, *kernel])]
    if draw.chance():
        inputs.append(draw.constant(draw.random.normal(0, 1, each * groups)))
    if draw.chance(0.3):
        del given["kernel_shape"]
    draw.apply(inputs, group=None if groups == 1 else groups, **given)


@draw_kind("LRN")
def local_response(draw: Draw) -> None:
    given = {"alpha": draw.pick([None, 0.01]), "beta": draw.pick([None, 0.5]), "bias": draw.pick([None, 2.0])}
    draw.apply([draw.data(draw.image(draw.pick([1, 2, 2, 3])))], size=draw.integer(1, 5), **given)


@draw_kind("GridSample")
def grid_sample(draw: Draw) -> None:
    shape = draw.image(3 if draw.since >= 20 and draw.chance(0.2) else 2)
    extents = [draw.integer(1, 5) for _ in shape[2:]]
    modes = [None, "linear", "nearest", "cubic"] if draw.since >= 20 else [None, "bilinear", "nearest", "bicubic"]
    if len(extents) == 3:
        modes = modes[:3]
    scale = draw.pick([0.9, 1.6])
    grid = draw.data([shape[0], *extents, len(extents)], lambda random, sizes: scale * unit(random, sizes), constant=0.4)
    draw.apply(
        [draw.data(shape), grid],
        mode=draw.pick(modes),
        padding_mode=draw.pick([None, "zeros", "border", "reflection"]),
        align_corners=draw.pick([None, 0, 1]),
    )


@draw_kind("AffineGrid")
def affine_grid(draw: Draw) -> None:
    size = draw.image(draw.pick([2, 2, 3]))
    rank = len(size) - 2
    draw.apply([draw.data([size[0], rank, rank + 1]), draw.integers(size)], align_corners=draw.pick([None, 0, 1]))


@draw_kind("DepthToSpace", "SpaceToDepth")
def depth_and_space(draw: Draw) -> None:
    block, batch, channels, rows, columns = draw.integer(1, 3), draw.pick([1, 1, 2]), *(draw.integer(1, 3) for _ in range(3))
    if draw.operator == "SpaceToDepth":
        draw.apply([draw.data([batch, channels, rows * block, columns * block])], blocksize=block)
        return
    mode = draw.pick([None, "DCR", "CRD"]) if draw.since >= 11 else None
    draw.apply([draw.data([batch, channels * block * block, rows, columns])], blocksize=block, mode=mode)


@draw_kind("RoiAlign", "MaxRoiPool")
def regions(draw: Draw) -> None:
    shape = draw.image(2, 5, 9)
    count = draw.integer(1, 3)
    first = draw.random.uniform(0, 4, (count, 2))
    boxes = np.concatenate([first, first + draw.random.uniform(1, 5, (count, 2))], 1)
    batch = draw.random.integers(0, shape[0], count)
    if draw.operator == "MaxRoiPool":
        rois = draw.constant(np.concatenate([batch[:, None], boxes.round()], 1))
        draw.apply([draw.data(shape), rois], pooled_shape=[draw.integer(1, 3), draw.integer(1, 3)], spatial_scale=draw.pick([None, 0.5]))
        return
    rois = draw.constant(boxes) if draw.chance() else draw.input([count, 4], lambda random, sizes: boxes)
    given = {
        "output_height": draw.pick([None, 2, 3]),
        "output_width": draw.pick([None, 2, 3]),
        "sampling_ratio": draw.pick([None, 0, 1, 2]),
        "spatial_scale": draw.pick([None, 0.5, 1.0]),
        "mode": draw.pick([None, "avg", "max"]),
    }
    if draw.since >= 16:
        given["coordinate_transformation_mode"] = draw.pick([None, "half_pixel", "output_half_pixel"])
    draw.apply([draw.data(shape), rois, draw.integers(batch)], **given)


@draw_kind("MaxUnpool")
def unpool(draw: Draw) -> None:
    shape = [1, draw.integer(1, 3), draw.integer(2, 4), draw.integer(2, 4)]
    pixels = 4 * shape[2] * shape[3]
    places = np.stack([np.sort(draw.random.permutation(pixels)[: shape[2] * shape[3]]) for _ in range(shape[1])])
    places = places + np.arange(shape[1])[:, None] * pixels
    draw.apply([draw.data(shape), draw.integers(places.reshape(shape))], kernel_shape=[2, 2], strides=[2, 2])


@draw_kind("Col2Im")
def col2im(draw: Draw) -> None:
    image, block = [draw.integer(3, 6), draw.integer(3, 6)], [draw.integer(1, 3), draw.integer(1, 3)]
    batch, channels = draw.pick([1, 2]), draw.integer(1, 3)
    strides, dilations, pads = (
        ([draw.integer(1, 2) for _ in image], [1, 1], [0, 0, 0, 0]) if draw.chance() else ([1, 1], [1, 1], [1, 0, 1, 0])
    )
    counts = [(extent + pads[place] + pads[place + 2] - block[place]) // strides[place] + 1 for place, extent in enumerate(image)]
    if min(counts) < 1:
        raise Impossible("no blocks")
    data = draw.data([batch, channels * block[0] * block[1], counts[0] * counts[1]])
    draw.apply([data, draw.integers(image), draw.integers(block)], strides=strides, pads=pads, dilations=dilations)
