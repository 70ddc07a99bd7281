"""Translates LiteRT's space-to-batch operators, which split an image by each pixel's position within its block: a convolution between them
is a dilated one.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tvmmobile.networks.own.litert.layers import SAME
from tvmmobile.networks.own.litert.reader import LiteRtNetwork, LiteRtOperator, LiteRtTensor
from tvmmobile.networks.own.litert.translation import Translation, same_grid


def with_dilations(network: LiteRtNetwork) -> LiteRtNetwork:
    """Replace each convolution between `SPACE_TO_BATCH_ND` and `BATCH_TO_SPACE_ND`, if nothing else reads their results, by a dilated
    convolution of a padded image.
    """
    tensors, operators = list(network.tensors), list(network.operators)
    reads = Counter([*network.outputs, *(number for operator in operators for number in operator.inputs)])
    writers = {number: operator for operator in operators for number in operator.outputs}
    for last in network.operators:
        found = _around_convolution(tensors, writers, last) if last.kind == "BATCH_TO_SPACE_ND" else None
        if found is None or any(reads[operator.outputs[0]] > 1 for operator in found[:2]):
            continue
        first, convolution, pads, steps = found
        data, padded = tensors[first.inputs[0]], len(tensors)
        widths = np.array([(0, 0), *pads, (0, 0)], np.int32)
        shape = tuple(map(int, np.add(data.shape, widths.sum(1))))
        tensors.append(replace(data, name=f"{data.name}/padded", shape=shape))
        tensors.append(LiteRtTensor(f"{data.name}/widths", (4, 2), False, widths.dtype, widths))
        options = copy.copy(convolution.options)
        options.dilationHFactor, options.dilationWFactor = steps
        dilated = replace(convolution, inputs=(padded, *convolution.inputs[1:]), outputs=last.outputs, options=options)
        operators[operators.index(first)] = LiteRtOperator("PAD", (first.inputs[0], padded + 1), (padded,))
        operators.remove(convolution)
        operators[operators.index(last)] = dilated
    return replace(network, tensors=tensors, operators=operators)


def _around_convolution(
    tensors: list[LiteRtTensor], writers: Mapping[int, LiteRtOperator], last: LiteRtOperator
) -> tuple[LiteRtOperator, LiteRtOperator, list[tuple[int, int]], list[int]] | None:
    """Return the operators that split an image and convolve the parts that `last` reassembles, the padding of the image, and the size of
    blocks; `None` for others.
    """
    convolution = writers.get(last.inputs[0])
    if convolution is None or convolution.kind not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        return None
    first, options = writers.get(convolution.inputs[0]), convolution.options
    if first is None or first.kind != "SPACE_TO_BATCH_ND" or options.padding == SAME:
        return None
    if {options.strideH, options.strideW, options.dilationHFactor or 1, options.dilationWFactor or 1} != {1}:
        return None
    (size, added), (same_size, cut) = ([tensors[number].value for number in operator.inputs[1:]] for operator in (first, last))
    if size is None or added is None or same_size is None or cut is None or len(size) != 2 or not np.array_equal(size, same_size):
        return None
    pads = [(int(before), int(after)) for before, after in added - cut]
    pairs = [[tensors[number] for number in (operator.inputs[0], operator.outputs[0])] for operator in (first, last)]
    if min(map(min, pads)) < 0 or not all(same_grid(*pair) for pair in pairs):
        return None
    return first, convolution, pads, [int(step) for step in size]


def space_to_batch(into: Translation, operator: LiteRtOperator) -> None:
    """Append `SPACE_TO_BATCH_ND`: the pixels at one position of all blocks form an image; images come in the order of positions."""
    data, size, widths = operator.inputs
    block, pairs, (count, *shape) = into.value(size).tolist(), into.value(widths).tolist(), into.tensor(data).shape
    others = shape[len(block) :]
    result, around = into.read(data, False), [[0, *(pair[side] for pair in pairs), *(0 for _ in others)] for side in (0, 1)]
    if any(map(any, around)):
        result = into.emit("Pad", [result, into.integers(*around[0], *around[1])])
    blocks = [(extent + sum(pair)) // step for extent, pair, step in zip(shape, pairs, block, strict=False)]
    pairs_of_axes = [extent for both in zip(blocks, block, strict=True) for extent in both]
    apart = into.emit("Reshape", [result, into.integers(count, *pairs_of_axes, *others)])
    outer, inner = range(1, 2 * len(block), 2), range(2, 2 * len(block) + 1, 2)
    rest = range(2 * len(block) + 1, 2 * len(block) + 1 + len(others))
    moved = into.emit("Transpose", [apart], perm=[*inner, 0, *outer, *rest])
    result = into.emit("Reshape", [moved, into.integers(count * math.prod(block), *blocks, *others)])
    into.write(operator.outputs[0], result, False, data)


def batch_to_space(into: Translation, operator: LiteRtOperator) -> None:
    """Append `BATCH_TO_SPACE_ND`, which undoes `SPACE_TO_BATCH_ND` and cuts off the border."""
    data, size, widths = operator.inputs
    block, pairs, (count, *shape) = into.value(size).tolist(), into.value(widths).tolist(), into.tensor(data).shape
    rank, count, others = len(block), count // math.prod(block), shape[len(block) :]
    apart = into.emit("Reshape", [into.read(data, False), into.integers(*block, count, *shape)])
    both = [axis for place in range(rank) for axis in (rank + 1 + place, place)]
    moved = into.emit("Transpose", [apart], perm=[rank, *both, *range(2 * rank + 1, 2 * rank + 1 + len(others))])
    extents = [extent * step for extent, step in zip(shape, block, strict=False)]
    result = into.emit("Reshape", [moved, into.integers(count, *extents, *others)])
    if any(map(any, pairs)):
        ends = [extent - pair[1] for extent, pair in zip(extents, pairs, strict=True)]
        numbers = [into.integers(*some) for some in ([pair[0] for pair in pairs], ends, range(1, rank + 1))]
        result = into.emit("Slice", [result, *numbers])
    into.write(operator.outputs[0], result, False, data)
