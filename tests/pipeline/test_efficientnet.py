"""EfficientNet-B0 from a `.pt2`, untuned, on the virtual Pi 4: its SiLUs and sigmoids are inside the layers' kernels, and need no libm."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from commands import Command
from efficientnet import efficientnet_b0

from tvmmobile.results.file import read_results

pytestmark = [pytest.mark.virtual, pytest.mark.long]


def test_efficientnet_untuned(tmp_path: Path) -> None:
    """Within 100 ms modelled (265 with activations in kernels of their own), and nothing is asked of the system."""
    model = tmp_path / "efficientnet_b0.pt2"
    torch.export.save(torch.export.export(efficientnet_b0(), (torch.zeros(1, 3, 224, 224),)), model)
    given = ("--device", "pi4-virtual", "--out", "out")
    for words in (("compile", "--model", str(model), *given), ("bench", "out", *given)):
        command = Command(tmp_path, *words)
        code, _ = command.wait(900)
        assert code == 0, command.errors
    (library,) = (tmp_path / "out").glob("*.so")
    undefined = subprocess.run(["aarch64-linux-gnu-nm", "-D", "--undefined-only", str(library)], capture_output=True, text=True, check=True)
    assert undefined.stdout == ""
    (result,) = read_results(tmp_path / "out" / "report.json").variants
    assert result.latency_us <= 100e3 and not any(kernel.fallback for kernel in result.kernels)
