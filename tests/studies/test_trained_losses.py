"""The study trained_losses: a network in int8 beside float32, and its row."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from trained import SPEC, trained

from studies.errors import trained_losses
from tvmmobile.networks.model import Model


def test_a_trained_network_keeps_its_classes(tmp_path: Path) -> None:
    """All of its layers are in integers, on a core with dot products."""
    torch.save(trained().state_dict(), tmp_path / "weights.pt")
    found = trained_losses.losses_of(Model(SPEC, tmp_path / "weights.pt"), 200)
    assert (found.network, found.images, found.layers, found.floats) == ("mobilenet_v1 0.25-32", 200, 29, 0)
    assert found.float32 > 98 and found.same > 98 and -1 <= found.lost <= 1 and 0 < found.margin < 2
    row = f"| mobilenet_v1 0.25-32 | 29 | 0 | {found.float32:.2f} | {found.lost:.2f} ± {found.margin:.2f} | {found.same:.2f} |"
    assert trained_losses.table([asdict(found)]).splitlines()[2] == row
