"""The study ablation: what it replaces is there to be replaced."""

from __future__ import annotations

from studies.kernels import ablation
from tvmmobile.pipeline import plan


def test_what_is_left_out_is_part_of_the_pipeline() -> None:
    assert {name for row in ablation.ROWS for name in row.changes if not hasattr(plan, name)} == set()


def test_a_row_is_compared_with_one_above_it() -> None:
    names = [row.left_out for row in ablation.ROWS]
    assert all(not row.against or row.against in names[:place] for place, row in enumerate(ablation.ROWS))
