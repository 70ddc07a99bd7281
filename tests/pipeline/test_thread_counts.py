"""The fastest thread count of a network, found by tuning and by timing libraries, on two cores of a phone."""

from __future__ import annotations

from pathlib import Path

import pytest

import tvmmobile

NETWORK = """
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU6(), nn.Conv2d(32, 64, 1), nn.ReLU6(), nn.Conv2d(64, 128, 3, 2, 1), nn.ReLU6())
"""


@pytest.mark.virtual
def test_the_fastest_count_is_tuned_for_and_timed(tmp_path: Path) -> None:
    file = tmp_path / "network.py"
    file.write_text(NETWORK)
    model, out = tvmmobile.load(f"{file}:make", resolution=64), tmp_path / "out"
    found = tvmmobile.tune(model, "exynos1330", trials=0, threads="best", out=out, logs=tmp_path / "logs")
    (variant,) = found.variants
    assert found.context.threads == variant.threads == 2 and list(variant.other_threads_us) == ["1"]
    assert 1.5 < variant.other_threads_us["1"] / variant.latency_us < 2.5
    libraries = tvmmobile.open_libraries(out)
    assert [library.threads for library in found.libraries] == [2]
    assert sorted(library.threads for library in libraries) == [1, 2]
    timed = tvmmobile.bench(libraries, "exynos1330")
    (again,) = timed.variants
    assert again.name == variant.name and again.latency_us == pytest.approx(variant.latency_us, rel=0.01)
    assert again.other_threads_us["1"] == pytest.approx(variant.other_threads_us["1"], rel=0.01)
    with pytest.raises(tvmmobile.UserError, match="several thread counts cannot share a report"):
        tvmmobile.regress(libraries, "exynos1330", tmp_path)
