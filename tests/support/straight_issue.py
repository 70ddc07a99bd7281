"""How long an in-order core takes to issue instructions once."""

from __future__ import annotations

from collections.abc import Sequence

from tvmmobile.virtual.cores.in_order import IssueStep, _Issue


def straight_issue(steps: Sequence[IssueStep]) -> int:
    """Return the cycles until all of these steps have issued once, which is what a counter read before and after them shows."""
    issue = _Issue()
    issue.add_all(steps)
    return issue.last_cycle
