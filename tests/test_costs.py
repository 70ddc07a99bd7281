"""Counts against the paper's figures, and the published tables."""

from __future__ import annotations

import pytest

from tvmmobile.models.costs import count
from tvmmobile.models.published import paper_figures, paper_type_shares, slim_figures
from tvmmobile.models.registry import grid
from tvmmobile.models.spec import ModelSpec


def test_the_full_network() -> None:
    cost = count(ModelSpec())
    assert cost.macs == 568_740_352
    assert cost.weights == 4_209_088
    assert cost.parameters == 4_231_976


def test_shares_by_layer_type() -> None:
    """Table 2, with 1.91 where the paper prints 1.19."""
    types = count(ModelSpec()).by_type()
    shares = [(item.label, round(item.macs_percent, 2), round(item.weights_percent, 2), item.layers) for item in types]
    assert shares == [
        ("conv 1×1", 94.86, 74.59, 13),
        ("depthwise 3×3", 3.06, 1.06, 13),
        ("conv 3×3", 1.91, 0.02, 1),
        ("fully connected", 0.18, 24.33, 1),
    ]


def test_the_papers_table_is_kept_as_printed() -> None:
    shares = paper_type_shares("mobilenet_v1", 1.0, 224)
    assert shares["conv 3×3"].macs == 1.19
    assert round(sum(share.macs for share in shares.values()), 2) == 99.29
    assert paper_type_shares("mobilenet_v1", 0.5, 224) == {}


PUBLISHED = [spec for spec in grid("mobilenet_v1") if paper_figures(spec.name, spec.alpha, spec.resolution)]


@pytest.mark.parametrize("spec", PUBLISHED, ids=lambda spec: str(spec.variant))
def test_counts_agree_with_the_paper(spec: ModelSpec) -> None:
    paper = paper_figures(spec.name, spec.alpha, spec.resolution)
    assert paper
    cost = count(spec)
    assert abs(cost.macs / 1e6 - paper.macs_m) < 1
    assert abs(cost.parameters / 1e6 - paper.params_m) < 0.05


def test_every_variant_was_retrained() -> None:
    assert all(slim_figures(spec.name, spec.alpha, spec.resolution) for spec in grid("mobilenet_v1"))
    assert slim_figures("mobilenet_v1", 0.33, 224) is None
    assert slim_figures("mobilenet_v2", 1.0, 224) is None


def test_alpha_scales_about_quadratically_and_rho_not_the_parameters() -> None:
    """Sections 3.3 and 3.4."""
    full, half, large = count(ModelSpec()), count(ModelSpec(alpha=0.5)), count(ModelSpec(resolution=448))
    assert 0.25 < half.macs / full.macs < 0.28
    assert large.parameters == full.parameters
    assert large.macs / full.macs == pytest.approx(4, abs=0.01)
