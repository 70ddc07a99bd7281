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
    by_blocks = knobs["axis"] == 0
    in_use = buffers * (task.threads if by_blocks else 1)
    read = machine.line_again(in_use)
    written = machine.line_written if buffers > machine.resident_bytes else 0.0
    k_block = min(knobs["k_block"] or depth, depth)
    stays = (block * k_block + k_block * knobs["columns"]) * size <= machine.resident_bytes // 2
    again_in = 1.0 if stays else part / knobs["columns"]
    again_out = 0.0 if (block * part) * size <= machine.resident_bytes // 2 else depth / k_block - 1
    lines_in, lines_out = points * grid.tiles * depth / line, points * grid.tiles * channels / line
    moving_in = lines_in * written
    moving_out = lines_in * read * parts * again_in + lines_out * (written + read * (1 + again_out))
    weights = points * depth * channels / line
    passed = points * depth * channels * size + in_use
    weights_moved = weights * (machine.line_from_memory + (grid.blocks - 1) * machine.line_again(passed))

    shared = multiplying + transforms_out + moving_out + weights_moved
    most_blocks = -(-grid.blocks // task.threads) if by_blocks else grid.blocks  # of one thread
    if by_blocks:
        slowest = (transforms_in + moving_in + shared) * most_blocks / grid.blocks
    else:
        slowest = transforms_in + moving_in + shared * -(-parts // task.threads) / parts
    if task.threads == 1:
        return slowest
    # Threads that share blocks read the same weights at about the same time.
    from_memory = weights * (most_blocks if passed > machine.cached_bytes else 1)
    if in_use > machine.cached_bytes:
        from_memory += lines_in * (1 + parts * again_in) + lines_out * (2 + again_out)
    return max(slowest, from_memory * machine.line_shared)
