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
from tvmmobile.networks.models.spec import ModelSpec


def test_each_network_with_generated_weights_is_a_row() -> None:
    entry = {"network": "net 1.0-32", "inputs": 8, "layers": 5, "floats": 1, "equalised": True}
    entry |= {"decibels": 20.04, "least": 11.96, "same_top": 7}
    assert int8_losses.generated_table([entry]).splitlines()[2] == "| net 1.0-32 | yes | 5 | 1 | 20.0 | 12.0 | 7 of 8 |"


def test_a_network_with_generated_weights_is_compared_on_other_noise() -> None:
    """Its worst layer is no better than its output."""
    found = int8_losses.generated_losses(ModelSpec("mobilenet_v1", 0.25, 32), 4)
    assert (found.network, found.inputs, found.layers, found.floats) == ("mobilenet_v1 0.25-32", 4, 29, 0)
    assert 5 < found.least <= found.decibels and found.same_top in range(5)


def test_a_trained_network_keeps_its_classes(tmp_path: Path) -> None:
    """All of its layers are in integers, on a core with dot products."""
    torch.save(trained().state_dict(), tmp_path / "weights.pt")
    found = int8_losses.trained_losses(Model(SPEC, tmp_path / "weights.pt"), 200)
    assert (found.network, found.images, found.layers, found.floats) == ("mobilenet_v1 0.25-32", 200, 29, 0)
    assert found.float32 > 98 and found.same > 98 and -1 <= found.lost <= 1 and 0 < found.margin < 2
    row = f"| mobilenet_v1 0.25-32 | 29 | 0 | {found.float32:.2f} | {found.lost:.2f} ± {found.margin:.2f} | {found.same:.2f} |"
    assert int8_losses.trained_table([asdict(found)]).splitlines()[2] == row


@pytest.mark.parametrize("source", int8_losses.SOURCES)
def test_networks_that_a_file_has_are_not_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: str
) -> None:
    known = int8_losses.SOURCES[source]
    (tmp_path / "known.json").write_text(known.file.read_text())
    monkeypatch.setattr(sys, "argv", ["int8_losses", "--source", source, "--out", str(tmp_path / "known.json")])
    assert int8_losses.main() == 0
    assert capsys.readouterr().out == known.table(json.loads(known.file.read_text())) + "\n"
