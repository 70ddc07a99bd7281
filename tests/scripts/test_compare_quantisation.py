"""scripts/compare_quantisation: what counts as lost, and how sure that is."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import compare_quantisation


def test_what_is_lost_is_counted_on_the_same_images() -> None:
    """Six images that only float32 knows, two that only integers know; others do not matter but for their number."""
    labels = np.zeros(1000, int)
    exact, found = np.zeros(1000, int), np.zeros(1000, int)
    found[:6] = exact[6:8] = 1
    exact[900:] = found[900:] = 2
    lost, interval = compare_quantisation.loss(labels, exact, found)
    assert lost == pytest.approx(0.4) and 0.5 < interval < 0.7
    assert compare_quantisation.loss(labels, exact, exact)[0] == 0 < compare_quantisation.loss(labels, exact, exact)[1] < 0.3


def test_each_method_is_a_row_with_both_networks() -> None:
    row = {"ranges": "percentile", "per_channel": True, "equalised": True, "corrected": False}
    row |= {"lost": 0.125, "interval": 0.5, "same": 99.0, "signal_to_noise_db": 30.04}
    lines = compare_quantisation.table({"rows": [row, row | {"lost": 2.0}]}).splitlines()
    assert (
        lines[2] == "| percentile | per channel | yes | no | 0.12 ± 0.50 | 99.00 | 30.0 | 2.00 ± 0.50 | 99.00 | 30.0 |" and len(lines) == 3
    )
    assert len(list(compare_quantisation.methods())) == len(set(compare_quantisation.methods())) == 14
