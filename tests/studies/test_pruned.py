"""The study pruned: where its networks have zeros, and its page."""

from __future__ import annotations

from pathlib import Path

import torch

from studies.networks import pruned
from tvmmobile.networks.models.spec import ModelSpec

SPEC = ModelSpec("mobilenet_v1", 0.25, 32)


def test_zeros_are_in_all_pointwise_layers_but_the_first(tmp_path: Path) -> None:
    for percent, together in ((80, 1), (90, 2)):
        pruned.pruned_weights(SPEC, percent, together, tmp_path / "weights.pt")
        state = torch.load(tmp_path / "weights.pt", weights_only=True)
        pointwise = [weight for weight in state.values() if weight.ndim == 4 and weight.shape[2:] == (1, 1) and weight.shape[1] >= 8]
        shares = [float((weight == 0).float().mean()) for weight in pointwise]
        assert len(shares) == 13 and shares[0] == 0 and all(abs(share - percent / 100) < 0.01 for share in shares[1:])
        if together == 2:
            assert all(((weight[::2] == 0) == (weight[1::2] == 0)).all() for weight in pointwise[1:])


def test_the_page_compares_with_the_dense_network_of_the_same_board() -> None:
    def entry(board: str, percent: str, together: str, latency_us: float) -> dict[str, object]:
        where = dict(zip(pruned.NAMES, ("mobilenet_v1 1.0-224", board, percent, together), strict=True))
        return {**where, "latency_us": latency_us, "sparse_kernels": 12, "kernels": 27}

    entries = [entry("pi4:float32", "0", "1", 88000.0), entry("pi5:float16", "80", "1", 5000.0), entry("pi4:float32", "80", "2", 44000.0)]
    entries += [entry("pi4:float32:4", "0", "1", 25000.0), entry("pi4:float32:4", "90", "1", 10000.0)]
    text = pruned.page(entries)
    assert "| Raspberry Pi 4 Model B, float32 | 80 %, pairs | 44.00 | 0.50 | 12 of 27 |" in text
    assert "| Raspberry Pi 5, float16 | 80 % | 5.00 |  | 12 of 27 |" in text
    assert "| Raspberry Pi 4 Model B, float32, 4 threads | 90 % | 10.00 | 0.40 | 12 of 27 |" in text
