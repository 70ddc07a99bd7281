"""Estimates the cost of a Winograd convolution from its multiplications, transforms and cache traffic, to rank candidates."""

from __future__ import annotations

from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.matmul_cost import LINE_BYTES, MatrixProduct
from tvmmobile.schedules.floats.winograd_nest import IN_TURN, TileGrid
from tvmmobile.schedules.floats.winograd_transform import TAPS
from tvmmobile.schedules.space import Knobs

#: Vector operations of one transform along a line of a tile, by m: of its input and its output, with loads and stores that do not overlap.
_INPUT_OPERATIONS = {2: 6, 4: 16, 5: 26, 6: 30, 7: 44}
_OUTPUT_OPERATIONS = {2: 8, 4: 15, 5: 21, 6: 27, 7: 37}


def cycles(task: Task, grid: TileGrid, knobs: Knobs) -> float:
    """Return the estimated time of the slowest thread, in vector multiply-adds, with these knobs of `Winograd` and their tiles `grid`."""
    layer, machine = grid.layer, task.machine
    height, width = grid.sides
    points, line = grid.points, LINE_BYTES // task.precision.bytes
    depth, channels, parts = layer.in_channels, layer.out_channels, knobs["parts"]
    part, block, size = channels // parts, grid.block, task.precision.bytes
    product = MatrixProduct(block, depth, part, False, task.lanes, size, machine)
    multiplying = points * grid.blocks * parts * product.multiplying(knobs["rows"], knobs["columns"], knobs["k_block"])

    lines, columns = height + TAPS - 1, width + TAPS - 1
    operations_in = lines * _INPUT_OPERATIONS[width] + columns * _INPUT_OPERATIONS[height]
    operations_out = columns * _OUTPUT_OPERATIONS[height] + height * _OUTPUT_OPERATIONS[width]
    transforms_in, transforms_out = (
        grid.tiles * count / task.lanes * operations for count, operations in ((depth, operations_in), (channels, operations_out))
    )

    axis, threads = knobs["axis"], task.threads
    inputs, products = points * block * depth * size, points * block * part * size  # buffers, in bytes
    in_use = products * threads + inputs * (1 if axis == IN_TURN else threads)
    read = machine.line_again(in_use)
    written = machine.line_written if inputs + products > machine.resident_bytes else 0.0
    k_block = min(knobs["k_block"] or depth, depth)
    stays = (block * k_block + k_block * knobs["columns"]) * size <= machine.resident_bytes // 2
    again_in = 1.0 if stays else part / knobs["columns"]
    again_out = 0.0 if (block * part) * size <= machine.resident_bytes // 2 else depth / k_block - 1
    lines_in, lines_out = points * grid.tiles * depth / line, points * grid.tiles * channels / line
    moving_in = lines_in * written
    moving_out = lines_in * read * parts * again_in + lines_out * (written + read * (1 + again_out))
    weights, weight_bytes = points * depth * channels / line, points * depth * channels * size
    passed = weight_bytes + in_use
    weights_moved = weights * (machine.line_from_memory + (grid.blocks - 1) * machine.line_again(passed))

    transforming, shared = transforms_in + moving_in, multiplying + transforms_out + moving_out + weights_moved
    if axis == 0:
        slowest = (transforming + shared) * -(-grid.blocks // threads) / grid.blocks
    else:
        chunks = -(-depth // line)
        most_inputs = -(-chunks // threads) / chunks if axis == IN_TURN else 1.0
        slowest = transforming * most_inputs + shared * -(-parts // threads) / parts
    if threads == 1:
        return slowest
    # Weights that do not stay in the cache are read from memory for each block: threads with blocks of their own are never in step.
    from_memory = weights * (grid.blocks if passed > machine.cached_bytes else 1)
    if in_use + threads / parts * weight_bytes > machine.cached_bytes:  # between two uses of a transformed input
        copies, readers = (1, parts / threads) if axis == IN_TURN else (threads if axis == 1 else 1, parts)
        from_memory += lines_in * (2 * copies + readers) + lines_out * 3
    return max(slowest, from_memory * machine.line_shared)
