"""Cache blocks of integer products: the estimate that ranks them, beside what the modelled boards take."""

from __future__ import annotations

import pytest

from tvmmobile.devices.registry import find_device
from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import templates_for
from tvmmobile.schedules.integers.blocks import Blocks

#: 14² × 512 → 512 on the Pi 4: (m_block, n_block, outer, order), and modelled µs of cache misses but for lines from memory.
MEASURED = {
    (0, 2, 1, 0): 122.0,
    (8, 2, 0, 0): 158.3,
    (4, 4, 1, 1): 164.0,
    (8, 1, 0, 0): 195.8,
    (8, 4, 1, 1): 211.3,
    (0, 4, 1, 1): 231.2,
}


def test_blocks_that_write_lines_again_cost_more() -> None:
    """A line of C goes if all pixels' data, or a block's and the next panel's weights, pass before the next panels of it come."""
    blocks = Blocks(196, 512, 512, find_device("pi4-virtual").profile.machine)
    estimated = {
        place: blocks.moving({"rows": 4, "columns": 16, **dict(zip(("m_block", "n_block", "outer", "order"), place, strict=True))})
        for place in MEASURED
    }
    best = min(MEASURED, key=MEASURED.__getitem__)
    assert min(estimated, key=estimated.__getitem__) == best
    for one, other in (((8, 2, 0, 0), (8, 1, 0, 0)), ((8, 2, 0, 0), (0, 4, 1, 1))):
        assert MEASURED[one] < MEASURED[other] and estimated[one] < estimated[other]


@pytest.mark.parametrize(("board", "size", "wanted"), [("pi4-virtual", (14, 512), (0, 2, 1)), ("pi5-virtual", (7, 1024), (0, 2, 1))])
def test_a_search_begins_with_good_blocks(board: str, size: tuple[int, int], wanted: tuple[int, int, int]) -> None:
    """On the Pi 4, 2 % faster than with blocks of one panel; on the Pi 5, where lines wait in the second level, 12 %."""
    side, channels = size
    task = Task((Conv2d(side, side, channels, channels),), "int8", 1, find_device(board).profile.machine)
    (template,) = templates_for(task)
    space = template.space(task)
    assert space is not None
    knobs = space.default.values
    assert (knobs["m_block"], knobs["n_block"], knobs["outer"]) == wanted
