"""Figures of cores that `graph/machine.py` repeats for schedules: they are those of the boards' files and of the calibrations."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tvmmobile.graph.machine import is_known, machine_of
from tvmmobile.virtual.board import board_names, load_board
from tvmmobile.virtual.calibration.fit import calibration_of, memory_bytes_per_s


@pytest.mark.parametrize("name", board_names())
def test_a_core_multiplies_as_fast_for_schedules_as_in_the_boards_file(name: str) -> None:
    board = load_board(name)
    assert is_known(board.mcpu) and machine_of(board.mcpu).fma_lanes_per_cycle == board.fma_lanes_per_cycle
    named = board.cpu.lower().replace(" ", "-")  # as reports know it
    assert is_known(named) and machine_of(named) == replace(machine_of(board.mcpu), l2_bytes=machine_of(named).l2_bytes)


@pytest.mark.parametrize("name", ["pi3bplus", "rk3566"])
def test_lines_cost_in_order_cores_what_their_calibration_says(name: str) -> None:
    """In multiply-adds of a vector, one a cycle there."""
    board = load_board(name)
    fit, machine = calibration_of(board), machine_of(board.mcpu)
    assert fit is not None and board.fma_lanes_per_cycle == 4
    shares = {parameter.name: parameter.value for parameter in fit.parameters}
    copy_cycles = board.line_copy_ns * 1e-9 * board.clock_hz
    assert machine.line_read == round(shares["cache_hits"] * board.caches.l2_cycles, 1)
    assert machine.line_from_memory == round(shares["lines_read"] * copy_cycles, 1)
    assert machine.line_written == round(shares["stores"] * copy_cycles, 1)


@pytest.mark.parametrize("name", ["pi3bplus", "rk3566", "pi4", "a311d-a73", "pi5", "orion-o6", "d9300-x4"])
def test_several_cores_share_what_memory_delivers_to_them(name: str) -> None:
    board = load_board(name)
    line_s = board.caches.line_bytes / memory_bytes_per_s(board, 2)
    assert machine_of(board.mcpu).line_shared == round(line_s * board.clock_hz * board.fma_lanes_per_cycle / 4, 1)
