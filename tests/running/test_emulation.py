"""Libraries that are run where they were made: which outputs agree with the reference."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tvmmobile.running import emulation
from tvmmobile.running.emulation import run_here


@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
@pytest.mark.parametrize("ranked", [True, False])
def test_rows_that_nearly_tie_may_be_in_another_order(ranked: bool, machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The C program compares place by place; a detector's rows are compared as such then."""
    generator = np.random.default_rng(0)
    boxes, scores = generator.uniform(0, 100, (1, 12, 4)), np.linspace(0.9, 0.5, 12)
    scores[4] = scores[3] - 1e-6
    expected = np.concatenate([boxes, (scores if ranked else generator.permutation(scores))[None, :, None]], 2).astype(np.float32)
    swapped = expected[:, [0, 1, 2, 4, 3, *range(5, 12)]].copy()
    swapped[0, 3:5, 4] = expected[0, 3:5, 4]
    facts = SimpleNamespace(cores=("cortex-a76",), sets=(), quantised=False)
    library: Any = SimpleNamespace(facts=facts, is_c=True, tolerance=1e-4, threads=1, path=Path("net.so"))
    library.reference = lambda: ((), (expected,))
    monkeypatch.setattr(emulation.platform, "machine", lambda: machine)
    monkeypatch.setattr(emulation, "installed", lambda name: True)
    monkeypatch.setattr(emulation, "require", lambda name: Path(name))
    monkeypatch.setattr(emulation, "_check", lambda *given: 0.5)
    monkeypatch.setattr(emulation, "outputs_here", lambda *given: (swapped,))
    assert (run_here(library, 1.0).error < 1e-4) == ranked
