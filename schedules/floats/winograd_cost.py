"""Estimates the cost of a Winograd convolution from its multiplications, transforms and cache traffic, to rank candidates."""

from __future__ import annotations

from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.matmul_cost import LINE_BYTES, MatrixProduct
from tvmmobile.schedules.floats.winograd_nest import TileGrid
from tvmmobile.schedules.floats.winograd_transform import TAPS
from tvmmobile.schedules.space import Knobs

#: Vector operations of one transform along a line of a tile, by m: of its input and its output, with loads and stores that do not overlap.
_INPUT_OPERATIONS = {2: 6, 4: 16, 5: 26, 6: 30, 7: 44}
_OUTPUT_OPERATIONS = {2: 8, 4: 15, 5: 21, 6: 27, 7: 37}


def cycles(task: Task, grid: TileGrid, knobs: Knobs) -> float:
    """Return the estimated time of the slowest thread, in vector multiply-adds, with these knobs of `Winograd` and their tiles `grid`."""
    layer, machine = grid.layer, task.machine
    side = knobs["size"] + TAPS - 1
    points, line = side * side, LINE_BYTES // task.precision.bytes
    depth, channels, parts = layer.in_channels, layer.out_channels, knobs["parts"]
    part, block, size = channels // parts, grid.block, task.precision.bytes
    product = MatrixProduct(block, depth, part, False, task.lanes, size, machine)
    multiplying = points * grid.blocks * parts * product.multiplying(knobs["rows"], knobs["columns"], knobs["k_block"])

    transforms_in = grid.tiles * depth / task.lanes * 2 * side * _INPUT_OPERATIONS[knobs["size"]]
    transforms_out = grid.tiles * channels / task.lanes * (side + knobs["size"]) * _OUTPUT_OPERATIONS[knobs["size"]]

    buffers = points * block * (depth + part) * size
    read = machine.line_again(buffers)
    written = machine.line_written if buffers > machine.resident_bytes else 0.0
    k_block = min(knobs["k_block"] or depth, depth)
    stays = (block * k_block + k_block * knobs["columns"]) * size <= machine.resident_bytes // 2
    again_in = 1.0 if stays else part / knobs["columns"]
    again_out = 0.0 if (block * part) * size <= machine.resident_bytes // 2 else depth / k_block - 1
    lines_in, lines_out = points * grid.tiles * depth / line, points * grid.tiles * channels / line
    moving_in = lines_in * written
    moving_out = lines_in * read * parts * again_in + lines_out * (written + read * (1 + again_out))
    weights = points * depth * channels / line
    later = machine.line_again(points * depth * channels * size + buffers)
    weights_moved = weights * (machine.line_from_memory + (grid.blocks - 1) * later)

    shared = multiplying + transforms_out + moving_out + weights_moved
    if knobs["axis"] == 0:  # the slowest thread's blocks
        return (transforms_in + moving_in + shared) * -(-grid.blocks // task.threads) / grid.blocks
    return transforms_in + moving_in + shared * -(-parts // task.threads) / parts
