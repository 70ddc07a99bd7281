"""The table of cores by which a library for several takes one's kernels."""

from __future__ import annotations

from collections import Counter

import pytest

from tvmmobile.devices.board.parts import part_of
from tvmmobile.devices.registry import find_device
from tvmmobile.devices.similar_cores import ordered_cores, suitability
from tvmmobile.graph.machine import is_known, machine_of
from tvmmobile.system.errors import UserError
from tvmmobile.virtual.board import board_names, load_board


def test_every_core_that_devices_have_is_in_the_table_once() -> None:
    known = {relative.name: relative for relative in ordered_cores()}
    assert max(Counter(part for relative in ordered_cores() for part in relative.parts).values()) == 1 and len(known) == len(
        ordered_cores()
    )
    for board in map(load_board, board_names()):
        assert board.midr == 0 or (board.midr >> 24 << 12 | (board.midr >> 4 & 0xFFF)) in known[board.cpu].parts
        assert known[board.cpu].in_order == machine_of(board.mcpu).in_order


def test_registration_knows_every_core_of_arms_that_kernels_are_chosen_for() -> None:
    cores = [(part, relative) for relative in ordered_cores() for part in relative.parts if part >> 12 == 0x41]
    assert len(cores) > 30
    for part, relative in cores:
        design = part_of(0x41, part & 0xFFF)
        assert design.cpu == relative.name and is_known(design.mcpu) and design.machine.in_order == relative.in_order, hex(part)


def test_two_devices_need_two_cores() -> None:
    profiles = [find_device(name).profile for name in ("pi4-virtual", "pi5-virtual", "pi4-1500-virtual")]
    with pytest.raises(UserError, match=r"pi4-virtual and pi4-1500-virtual both have a Cortex-A72: a library tells cores apart\."):
        suitability(profiles)


def test_a_core_that_cannot_be_recognised_is_refused() -> None:
    from dataclasses import replace

    own = replace(find_device("pi4-virtual").profile, name="mine", cpu="AArch64 core")
    with pytest.raises(UserError, match="mine has a core called AArch64 core, which a library cannot recognise"):
        suitability([own, find_device("pi5-virtual").profile])
