"""Translates LiteRT's operators that move, repeat, add or drop elements to ONNX."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from onnx import helper

from tvmmobile.networks.own.litert.reader import LiteRtOperator
from tvmmobile.networks.own.litert.translation import SIMPLER, TO_FRONT, TO_LAST, Translation, same_grid
from tvmmobile.networks.own.onnx.positions import ResizedAxis, ResizeMethod, taps_along
from tvmmobile.system.errors import UserError


def pad(into: Translation, operator: LiteRtOperator) -> None:
    """`PAD` and `PADV2`. Zeros around an image wait for the convolution that reads them."""
    data, widths, *filling = operator.inputs
    pads, front = _border(into, data, widths)
    out, around = operator.outputs[0], [*pads[2:4], *pads[6:]]
    if front and not filling and sum(pads) == sum(around) and same_grid(into.tensor(data), into.tensor(out)):
        into.padded[out] = data, around
        return
    values = [into.emit("Reshape", [into.read(number, False), into.integers()]) for number in filling if number >= 0]
    into.write(out, into.emit("Pad", [into.read(data, front), into.integers(*pads), *values]), front, data)


def mirror_pad(into: Translation, operator: LiteRtOperator) -> None:
    """Append `MIRROR_PAD`: without the border itself, or with it (`SYMMETRIC`)."""
    data, widths = operator.inputs
    (pads, front), shape = _border(into, data, widths), into.tensor(data).shape
    result = into.read(data, front)
    if operator.options.mode == 0:
        result = into.emit("Pad", [result, into.integers(*pads)], mode="reflect")
    else:
        order = TO_FRONT if front else range(len(shape))
        for axis, around in enumerate(zip(pads, pads[len(shape) :], strict=False)):
            if any(around):
                places = np.pad(np.arange(shape[order[axis]]), around, "symmetric")
                result = into.emit("Gather", [result, into.integers(*map(int, places))], axis=axis)
    into.write(operator.outputs[0], result, front, data)


def _border(into: Translation, data: int, widths: int) -> tuple[list[int], bool]:
    """Return ONNX's `pads`, and whether they are for an image with its channels first."""
    pairs, front = into.value(widths).tolist(), len(into.tensor(data).shape) == 4
    return [int(pairs[axis][side]) for side in (0, 1) for axis in (TO_FRONT if front else range(len(pairs)))], front


def reshape(into: Translation, operator: LiteRtOperator) -> None:
    """Append `RESHAPE`, `SQUEEZE` and `EXPAND_DIMS`; the file has their results' shapes, unless it leaves extents open."""
    data, out, options = operator.inputs[0], into.tensor(operator.outputs[0]).shape, operator.options
    shape = into.tensor(data).shape
    if into.is_open and math.prod(shape) != math.prod(out):
        places = np.broadcast_to(0, shape)
        if operator.kind == "RESHAPE":
            out = into.value(operator.inputs[1]).tolist() if len(operator.inputs) > 1 else shape
        elif operator.kind == "EXPAND_DIMS":
            out = np.expand_dims(places, into.value(operator.inputs[1]).item()).shape
        else:
            out = np.squeeze(places, None if options.squeezeDims is None else tuple(options.squeezeDims)).shape
    pair = [2] if into.tensor(data).dtype == np.complex64 else []
    into.write(operator.outputs[0], into.emit("Reshape", [into.in_order(data), into.integers(*out, *pair)]), False, data)


def concatenation(into: Translation, operator: LiteRtOperator) -> None:
    """Append `CONCATENATION`."""
    out = into.tensor(operator.outputs[0])
    front, axis = len(out.shape) == 4, operator.options.axis % len(out.shape)
    names = [into.read(number, front) for number in operator.inputs]
    result = into.activated(into.emit("Concat", names, axis=TO_LAST[axis] if front else axis), operator)
    same = all(same_grid(into.tensor(number), out) for number in operator.inputs)
    into.write(operator.outputs[0], result, front, operator.inputs[0] if same else None)


def pack(into: Translation, operator: LiteRtOperator) -> None:
    """Translate `PACK`: tensors of one shape side by side along another dimension."""
    rank, axis = len(into.tensor(operator.outputs[0]).shape), operator.options.axis
    if any(map(into.gains_dimension, operator.inputs)):
        parts = [into.emit("Reshape", [into.read(number, False), into.integers(1)]) for number in operator.inputs]
    else:
        parts = [into.emit("Unsqueeze", [into.read(number, False), into.integers(axis % rank)]) for number in operator.inputs]
    into.write(operator.outputs[0], into.emit("Concat", parts, axis=axis % rank), False)


def unpack(into: Translation, operator: LiteRtOperator) -> None:
    """Translate `UNPACK`: the slices along a dimension, without it."""
    (data,) = operator.inputs
    for place, number in enumerate(operator.outputs):
        part = into.emit("Gather", [into.read(data, False), into.constant(np.array(place))], axis=operator.options.axis)
        into.write(number, part, False, data)


def split(into: Translation, operator: LiteRtOperator) -> None:
    """`SPLIT` (axis, data) and `SPLIT_V` (data, sizes, axis)."""
    data, which = (operator.inputs[0], operator.inputs[2]) if operator.kind == "SPLIT_V" else (operator.inputs[1], operator.inputs[0])
    rank = len(into.tensor(data).shape)
    (axis,), front, begin = into.axes(which, rank), rank == 4, 0
    for number in operator.outputs:
        end = begin + into.tensor(number).shape[axis]
        places = into.integers(begin), into.integers(end), into.integers(TO_LAST[axis] if front else axis)
        into.write(number, into.emit("Slice", [into.read(data, front), *places]), front, data)
        begin = end


def slice_of(into: Translation, operator: LiteRtOperator) -> None:
    """Append `SLICE`: sizes of -1 reach to the end."""
    data, first, size = operator.inputs
    shape = into.tensor(data).shape
    begins = into.value(first).tolist()
    ends = [extent if length < 0 else begin + length for begin, length, extent in zip(begins, into.value(size), shape, strict=True)]
    _cut(into, operator, begins, ends, [1] * len(shape))


def strided_slice(into: Translation, operator: LiteRtOperator) -> None:
    """Append `STRIDED_SLICE` of the first dimensions, with masks for the whole of a dimension and for dimensions that are left out."""
    data, options = operator.inputs[0], operator.options
    begins, ends, steps = (list(into.value(number).tolist()) for number in operator.inputs[1:4])
    if options.offset:
        ends = [begin + length for begin, length in zip(begins, ends, strict=True)]
    if options.ellipsisMask or options.newAxisMask:
        raise UserError("the network has a STRIDED_SLICE with new dimensions, which is not supported.", SIMPLER)
    for place, extent in enumerate(into.tensor(data).shape[: len(begins)]):
        backward = steps[place] < 0
        if options.beginMask >> place & 1:
            begins[place] = extent - 1 if backward else 0
        if options.shrinkAxisMask >> place & 1:
            ends[place], steps[place] = begins[place] + 1 or extent, 1
        elif options.endMask >> place & 1:
            ends[place] = -extent - 1 if backward else extent
    _cut(into, operator, begins, ends, steps)


def _cut(into: Translation, operator: LiteRtOperator, begins: Sequence[int], ends: Sequence[int], steps: Sequence[int]) -> None:
    data, out, shape = operator.inputs[0], into.tensor(operator.outputs[0]).shape, into.tensor(operator.inputs[0]).shape
    front = len(shape) == len(out) == 4
    result, axes = into.read(data, front), [TO_LAST[place] if front else place for place in range(len(begins))]
    forward = [place for place, step in enumerate(steps) if step > 0]
    if forward:
        numbers = [into.integers(*(int(values[place]) for place in forward)) for values in (begins, ends, axes, steps)]
        result = into.emit("Slice", [result, *numbers])
    for place in set(range(len(begins))) - set(forward):
        chosen = range(shape[place])[begins[place] : ends[place] : steps[place]]
        result = into.emit("Gather", [result, into.integers(*chosen)], axis=axes[place])
    if len(out) != len(shape):
        result = into.emit("Reshape", [result, into.integers(*out)])
    into.write(operator.outputs[0], result, front, data)


def resize(into: Translation, operator: LiteRtOperator) -> None:
    """Append `RESIZE_BILINEAR` and `RESIZE_NEAREST_NEIGHBOR`."""
    mode = "linear" if operator.kind == "RESIZE_BILINEAR" else "nearest"
    data, size = operator.inputs
    batch, _, _, channels = into.tensor(data).shape
    height, width = into.value(size).tolist()
    corners, centres = operator.options.alignCorners, operator.options.halfPixelCenters
    rule = "align_corners" if corners else "half_pixel" if centres else "asymmetric"
    # Of pixel centres, LiteRT rounds ⌊(i + ½) · in / out⌋.
    nearest = ("round_prefer_ceil" if corners or centres else "floor") if mode == "nearest" else "round_prefer_floor"
    if mode == "nearest" and (gathered := _nearest_pixels(into, data, (height, width), corners, centres)):
        into.write(operator.outputs[0], gathered, True, data)
        return
    inputs = [into.read(data, True), "", "", into.integers(batch, channels, height, width)]
    result = into.emit("Resize", inputs, mode=mode, coordinate_transformation_mode=rule, nearest_mode=nearest)
    into.write(operator.outputs[0], result, True, data if mode == "nearest" else None)


def _nearest_pixels(into: Translation, data: int, size: tuple[int, int], corners: bool, centres: bool) -> str:
    """Return the pixels that LiteRT's float32 arithmetic gathers if ONNX Runtime's gathers others; "" if they agree."""
    result, differs = into.read(data, True), False
    method = ResizeMethod("nearest", "align_corners" if corners else "half_pixel" if centres else "asymmetric", "round_prefer_ceil")
    method = method if corners or centres else replace(method, nearest="floor")
    chosen = []
    for inputs, outputs in zip(into.tensor(data).shape[1:3], size, strict=True):
        aligned = corners and outputs > 1
        scale = np.float32(inputs - aligned) / np.float32(outputs - aligned)
        places = (np.arange(outputs, dtype=np.float32) + np.float32(0.5 if centres else 0)) * scale
        pixels = np.floor(places.astype(np.float64) + 0.5 if corners else places)
        chosen.append(np.clip(pixels, 0, inputs - 1).astype(np.int64))
        usual = taps_along(method, ResizedAxis(inputs, outputs, np.float32(outputs) / np.float32(inputs)))
        differs |= not np.array_equal(chosen[-1], usual.pixels[:, 0])
    if not differs:
        return ""
    for axis, pixels in enumerate(chosen, 2):
        result = into.emit("Gather", [result, into.integers(*map(int, pixels))], axis=axis)
    return result


def top_k(into: Translation, operator: LiteRtOperator) -> None:
    """Translate `TOPK_V2`, along the last dimension."""
    data, count = operator.inputs
    names = [f"{into.tensor(number).name}/{number}/found" for number in operator.outputs]
    inputs = [into.read(data, False), into.integers(int(into.value(count)))]
    into.nodes.append(helper.make_node("TopK", inputs, names, axis=-1))
    into.write(operator.outputs[0], names[0], False, data)
    into.write(operator.outputs[1], into.cast(names[1], into.tensor(operator.outputs[1]).dtype), False)


def repeated(into: Translation, operator: LiteRtOperator) -> None:
    """Translate `TILE`, and `BROADCAST_TO` and `FILL` to the shape that the file has."""
    data, shape = operator.inputs if operator.kind != "FILL" else reversed(operator.inputs)
    operation, numbers = ("Tile", into.value(shape)) if operator.kind == "TILE" else ("Expand", into.tensor(operator.outputs[0]).shape)
    result = into.emit(operation, [into.read(data, False), into.integers(*map(int, numbers))])
    into.write(operator.outputs[0], result, False, data)
