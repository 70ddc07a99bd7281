"""The study half_errors: what one network's errors are, and the page of several."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from studies.errors import half_errors
from studies.trained.networks import TRAINED
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.spec import ModelSpec


@pytest.mark.long
def test_half_precision_is_a_little_off_and_no_better_than_storing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network runs here, with pictures and their classes."""
    monkeypatch.setattr(half_errors, "STORED", 1)
    found = half_errors.errors_of(Model(ModelSpec("mobilenet_v1", 0.25, 32)), TRAINED, 3)
    assert (found.network, found.inputs, found.kept) == ("mobilenet_v1 0.25-32", 3, 0)
    assert 1e-4 < found.mean <= found.largest < 0.05
    assert 1e-4 < found.storing < 0.05
    assert found.same_top <= 3
    assert found.right is not None and 0 <= found.right <= 100


def test_a_page_has_a_table_for_each_kind_of_weights() -> None:
    """Only those there are, and only trained ones with a share of right answers."""
    generated = half_errors.Errors("mobilenet_v1 1.0-224", "generated", 256, 0.02, 0.0071, 0.011, 250, None, 0)
    trained = half_errors.Errors("mobilenet_v1 0.25-128", "trained", 256, 0.0032, 0.0013, 0.0012, 256, 99.6, 1)
    text = half_errors.page([asdict(generated), asdict(trained)])
    assert "| mobilenet_v1 1.0-224 | 256 | 2.00 | 0.71 | 1.10 | 250 | 0 |\n" in text
    assert "| mobilenet_v1 0.25-128 | 256 | 0.32 | 0.13 | 0.12 | 256 | 1 | 99.6 |\n" in text
    assert text.index("## Trained weights") < text.index("## Generated weights")
    assert "## Trained" not in half_errors.page([asdict(generated)])
