"""The study int8_losses: networks in int8 beside float32, and their rows."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from trained import SPEC, trained

from studies.errors import int8_losses
from tvmmobile.networks.model import Model


def test_a_trained_network_keeps_its_classes(tmp_path: Path) -> None:
    """All of its layers are in integers, on a core with dot products."""
    torch.save(trained().state_dict(), tmp_path / "weights.pt")
    found = int8_losses.trained_losses(Model(SPEC, tmp_path / "weights.pt"), 200)
    assert (found.network, found.images, found.layers, found.floats) == ("mobilenet_v1 0.25-32", 200, 29, 0)
    assert found.float32 > 98 and found.same > 98 and -1 <= found.lost <= 1 and 0 < found.margin < 2
    row = f"| mobilenet_v1 0.25-32 | 29 | 0 | {found.float32:.2f} | {found.lost:.2f} ± {found.margin:.2f} | {found.same:.2f} |"
    assert int8_losses.trained_table([asdict(found)]).splitlines()[2] == row


def test_networks_that_a_file_has_are_not_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = int8_losses.FILE.read_text()
    (tmp_path / "known.json").write_text(known)
    monkeypatch.setattr(sys, "argv", ["int8_losses", "--out", str(tmp_path / "known.json")])
    assert int8_losses.main() == 0
    assert capsys.readouterr().out == int8_losses.trained_table(json.loads(known)) + "\n"
