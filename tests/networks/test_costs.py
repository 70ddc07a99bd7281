"""Counts against the paper's figures, and the published tables."""

from __future__ import annotations

import pytest

from tvmmobile.networks.models.costs import count
from tvmmobile.networks.models.published import COMPARED, NOTES, Published, figures, paper_figures, paper_type_shares, slim_figures
from tvmmobile.networks.models.registry import FAMILIES, grid
from tvmmobile.networks.models.separable import reduction, scaled, ways
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.networks.models.traits import TRAITS
from tvmmobile.system.errors import UserError


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


#: Every variant that anything is published of.
PUBLISHED = [
    (ModelSpec(name, alpha, side), found)
    for name in FAMILIES
    for alpha in (*TRAITS[name].alphas, 1.4, 1.3, 0.75, 0.5, 0.35, 0.25)
    if alpha in TRAITS[name].alphas or alpha <= (TRAITS[name].most_alpha or 0)
    for side in (299, 224, 192, 160, 128, 96)
    if TRAITS[name].sides[0] <= side <= TRAITS[name].sides[1]
    for found in figures(name, alpha, side)
]
#: (family, label of the source): how far a count may be from what is printed, in percent: multiply-adds, parameters. NOTES says why.
FARTHER = {
    ("mobilenet_v1", "paper"): (0.0, 0.9),
    ("mobilenet_v1_full", "paper"): (0.03, 0.0),
    ("mobilenet_v1", "slim"): (12.0, 1.1),
    ("mobilenet_v2", "paper"): (0.6, 12.0),
    ("mobilenet_v2", "slim"): (0.7, 1.2),
    ("mobilenet_v3_large", "paper"): (1.2, 1.6),
    ("mobilenet_v3_small", "slim"): (15.0, 16.0),
    ("squeezenet1_0", "paper"): (52.0, 0.2),
    ("shufflenet_v2", "paper"): (1.4, 2.5),
    ("xception", "osmr"): (0.6, 0.1),
    ("googlenet", "paper"): (3.4, 2.6),
    ("vgg16", "paper"): (1.2, 0.3),
    ("alexnet", "paper"): (0.9, 1.9),
}


def _last_digit(printed: float) -> float:
    """Half of the last digit that is printed, with a little for figures that were cut off rather than rounded."""
    decimals = len(f"{printed:g}".partition(".")[2])
    return 0.95 * 10.0**-decimals


@pytest.mark.parametrize(("spec", "found"), PUBLISHED, ids=lambda value: getattr(value, "variant", None) or value.label)
def test_counts_agree_with_what_is_published(spec: ModelSpec, found: Published) -> None:
    cost = count(spec)
    macs_percent, params_percent = FARTHER.get((spec.name, found.label), (0.0, 0.0))
    if found.macs_m is not None:
        assert abs(cost.macs / 1e6 - found.macs_m) <= max(_last_digit(found.macs_m), macs_percent / 100 * found.macs_m)
    if found.params_m is not None:
        assert abs(cost.parameters / 1e6 - found.params_m) <= max(_last_digit(found.params_m), params_percent / 100 * found.params_m)


def test_parameters_and_multiply_adds_of_torchvisions_networks() -> None:
    """To the last digit, as torchvision's documentation has them."""
    expected = {
        ("mobilenet_v2", 1.0): 3504872,
        ("mobilenet_v3_large", 1.0): 5483032,
        ("mobilenet_v3_small", 1.0): 2542856,
        ("squeezenet1_0", 1.0): 1248424,
        ("squeezenet1_1", 1.0): 1235496,
        ("shufflenet_v2", 0.5): 1366792,
        ("shufflenet_v2", 1.0): 2278604,
        ("shufflenet_v2", 1.5): 3503624,
        ("shufflenet_v2", 2.0): 7393996,
        ("googlenet", 1.0): 6624904,
        ("vgg16", 1.0): 138357544,
        ("alexnet", 1.0): 61100840,
    }
    assert {key: count(ModelSpec(*key)).parameters for key in expected} == expected
    assert count(ModelSpec("xception", 1.0, 299)).parameters == 22855952  # its paper, table 3


def test_every_family_has_a_published_figure_and_a_place_in_the_comparison() -> None:
    assert {spec.name for spec, _ in PUBLISHED} == set(FAMILIES)
    assert {spec.name for spec in COMPARED} == set(FAMILIES)
    assert all(figures(spec.name, spec.alpha, spec.resolution) for spec in COMPARED)
    assert NOTES.keys() < set(FAMILIES)


def test_a_count_that_differs_has_a_note() -> None:
    assert {name for name, _ in FARTHER} <= NOTES.keys()


def test_thinner_beats_shallower() -> None:
    """Table 5: about as many multiply-adds and parameters, and more accurate."""
    thin, shallow = paper_figures("mobilenet_v1", 0.75, 224), paper_figures("mobilenet_v1_shallow", 1.0, 224)
    assert thin and shallow and (thin.top1, shallow.top1) == (68.4, 65.3)
    assert count(ModelSpec(alpha=0.75)).parameters < count(ModelSpec("mobilenet_v1_shallow")).parameters


def test_what_the_authors_trained() -> None:
    assert all(slim_figures(spec.name, spec.alpha, spec.resolution) for spec in (*grid("mobilenet_v1"), *grid("mobilenet_v2")))
    assert slim_figures("mobilenet_v1", 0.33, 224) is None
    assert slim_figures("mobilenet_v1", 1.0, 96) is None
    assert slim_figures("mobilenet_v2", 1.4, 192) is None
    assert slim_figures("vgg16", 1.0, 224) is None


def test_the_calculator_gives_the_papers_table_3() -> None:
    """Kernel 3, 512 channels, side 14: 462, 52.3, with α = 0.75 29.6, and with ρ = 0.714 15.1 million multiply-adds."""
    macs = {way.name: way.macs for way in ways(scaled(3, 512, 512, 14))}
    assert (macs["standard"], macs["separable"]) == (462_422_016, 52_283_392)
    assert macs["separable"] == macs["depthwise"] + macs["pointwise"]
    thin = {way.name: way for way in ways(scaled(3, 512, 512, 14, 0.75))}["separable"]
    assert (round(thin.macs / 1e6, 1), round(thin.weights / 1e6, 2)) == (29.6, 0.15)
    assert round({way.name: way.macs for way in ways(scaled(3, 512, 512, 14, 0.75, 0.714))}["separable"] / 1e6, 1) == 15.1


@pytest.mark.parametrize(("kernel", "inputs", "outputs", "side"), [(3, 32, 64, 112), (5, 7, 3, 1), (1, 1, 1, 1)])
def test_the_reduction_is_the_ratio_of_the_counts(kernel: int, inputs: int, outputs: int, side: int) -> None:
    shape = scaled(kernel, inputs, outputs, side)
    assert reduction(shape) == pytest.approx({way.name: way.ratio for way in ways(shape)}["separable"])


def test_the_calculator_counts_groups_as_the_table_of_layers_does() -> None:
    by_name = {way.name: way for way in ways(scaled(1, 240, 60, 28, groups=3))}
    (layer,) = (item for item in count(ModelSpec("shufflenet_v1")).layers if item.layer.name == "features.1.branch_main_1.0")
    assert (by_name["standard, 3 groups"].macs, by_name["standard, 3 groups"].weights) == (layer.macs, layer.weights)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((0, 8, 8, 8), "`kernel=0` is not"),
        ((3, 8, -1, 8), "`out=-1` is not"),
        ((3, 8, 8, 8, float("nan")), "`alpha` nan is not"),
        ((3, 8, 8, 8, 1.0, 0.0), "`rho=0.0` is not"),
        ((3, 8, 9, 8, 1.0, 1.0, 2), "8 input and 9 output channels cannot be divided into 2 groups"),
    ],
)
def test_the_calculator_refuses(arguments: tuple[float, ...], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        scaled(*arguments)  # type: ignore[arg-type]


def test_alpha_scales_about_quadratically_and_rho_not_the_parameters() -> None:
    """Sections 3.3 and 3.4."""
    full, half, large = count(ModelSpec()), count(ModelSpec(alpha=0.5)), count(ModelSpec(resolution=448))
    assert 0.25 < half.macs / full.macs < 0.28
    assert large.parameters == full.parameters
    assert large.macs / full.macs == pytest.approx(4, abs=0.01)
