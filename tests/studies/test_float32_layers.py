"""The study float32_layers: what both rules choose, and its page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from trained import SPEC, trained

from studies.errors import float32_layers
from studies.harness import RESULTS
from tvmmobile.networks.model import Model
from tvmmobile.quantisation.assignment import KernelSpan, Programme


def test_both_rules_choose_layers_within_one_limit(tmp_path: Path) -> None:
    """The programme's layers cost no more by its figures than the noisiest ones, and its bound is no higher."""
    torch.save(trained().state_dict(), tmp_path / "weights.pt")
    np.save(tmp_path / "images.npy", np.random.default_rng(0).normal(size=(4, *SPEC.input_shape[1:])).astype(np.float32))
    found = float32_layers.figures_of(Model(SPEC, tmp_path / "weights.pt"), "pi5-virtual", 3.0, tmp_path / "images.npy")
    noisiest, programme = found["noisiest"], found["programme"]
    limit = float(found["limit"].removesuffix("dB"))
    assert limit == round(found["int8_db"] + 3) and noisiest["db"] >= limit and programme["db"] >= limit
    assert noisiest["kept"] and programme["kept"]
    assert found["int8_us"] < programme["predicted_us"] and programme["bound_us"] <= programme["predicted_us"]


def test_a_fixed_choice_takes_the_kernels_of_its_layers() -> None:
    """Layer 0 has kernels of both kinds, as has 1, whose float32 kernel also computes 2; 3 has none in integers."""
    pieces = [KernelSpan(0, 0, True, 1.0), KernelSpan(0, 0, False, 5.0), KernelSpan(1, 1, True, 1.0), KernelSpan(2, 2, True, 1.0)]
    pieces += [KernelSpan(1, 2, False, 3.0), KernelSpan(3, 3, False, 2.0)]
    programme = Programme(4, tuple(pieces), (), {})
    assert float32_layers.fixed_choice(programme, {0}).latency_us == 5 + 1 + 1 + 2


def test_the_page_is_of_the_figures() -> None:
    entries = json.loads((RESULTS / "float32-layers.json").read_text(encoding="utf-8"))
    assert float32_layers.page(entries) == (RESULTS / "float32-layers.md").read_text(encoding="utf-8")
