"""Every network: the table of layers beside the PyTorch module, what variants there are, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tvmmobile.networks.models.blocks import Kind
from tvmmobile.networks.models.costs import count
from tvmmobile.networks.models.registry import FAMILIES, build_torch_model, family, grid
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.networks.models.traits import TRAITS
from tvmmobile.system.errors import UserError

NAMES = (
    *("mobilenet_v1", "mobilenet_v1_full", "mobilenet_v1_shallow", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"),
    *("squeezenet1_0", "squeezenet1_1", "shufflenet_v1", "shufflenet_v2", "xception", "googlenet", "vgg16", "alexnet"),
)
LARGE = ("xception", "googlenet", "vgg16", "alexnet")
VARIANTS = [
    *(ModelSpec(name, 1.0, TRAITS[name].native_side) for name in NAMES),
    *(ModelSpec(name, alpha, 97, classes=10) for name in NAMES[:3] for alpha in (0.1, 0.6)),
    *(ModelSpec("mobilenet_v2", alpha, side, classes=10) for alpha, side in ((1.4, 96), (1.3, 32), (0.35, 65), (0.1, 224))),
    *(ModelSpec(name, alpha, side) for name in NAMES[4:6] for alpha, side in ((0.75, 192), (1.5, 33), (0.5, 96), (0.05, 224))),
    *(ModelSpec(name, alpha, side) for name in ("shufflenet_v1", "shufflenet_v2") for alpha in (0.5, 1.5, 2.0) for side in (32, 75)),
    *(ModelSpec(name, 1.0, side) for name in ("squeezenet1_0", "squeezenet1_1", "googlenet", "xception") for side in (32, 75, 227)),
]


def test_the_families() -> None:
    assert tuple(FAMILIES) == tuple(TRAITS) == NAMES


@pytest.mark.parametrize("spec", VARIANTS, ids=lambda spec: str(spec.variant))
def test_the_module_costs_what_the_table_says(spec: ModelSpec) -> None:
    """No data is needed: PyTorch's `meta` device computes only shapes."""
    expected = count(spec)
    with torch.device("meta"):
        module = family(spec.name).module(spec).eval()
        found: dict[str, tuple[int, int, int]] = {}

        def note(name: str, part: Any, output: Any) -> None:
            assert name not in found, "executed twice"
            found[name] = (part.weight.numel(), part.weight[0].numel() * output[0].numel(), output.shape[-1] if output.dim() == 4 else 1)

        for name, part in module.named_modules():
            if isinstance(part, torch.nn.Conv2d | torch.nn.Linear):
                part.register_forward_hook(lambda part, _, output, name=name: note(name, part, output))
        assert module(torch.empty(1, 3, spec.resolution, spec.resolution)).shape == (1, spec.classes)
    assert found == {cost.layer.name: (cost.weights, cost.macs, cost.layer.out_side) for cost in expected.layers}
    assert list(found) == [cost.layer.name for cost in expected.layers], "in another order"
    assert sum(parameter.numel() for parameter in module.parameters()) == expected.parameters


@pytest.mark.parametrize(
    "spec",
    [pytest.param(ModelSpec(name, 1.0, TRAITS[name].sides[0]), marks=[pytest.mark.long] * (name in LARGE), id=name) for name in NAMES],
)
def test_exports_at_a_static_shape(spec: ModelSpec) -> None:
    module = build_torch_model(spec).module
    image = torch.randn(1, 3, spec.resolution, spec.resolution, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        program = torch.export.export(module, (image,))
        assert torch.allclose(program.module()(image), module(image), rtol=1e-4, atol=1e-4)


def test_squeeze_and_excite_is_counted_for_one_pixel() -> None:
    gates = [layer for layer in family("mobilenet_v3_small").layers(ModelSpec("mobilenet_v3_small")) if layer.kind is Kind.SQUEEZE]
    assert len(gates) == 2 * 9 and all((layer.in_side, layer.out_side) == (1, 1) for layer in gates)
    assert [(layer.in_channels, layer.out_channels) for layer in gates[:4]] == [(16, 8), (8, 16), (96, 24), (24, 96)]


def test_the_full_network_has_no_depthwise_layer_and_the_shallow_one_five_blocks_less() -> None:
    def kinds(name: str) -> list[Kind]:
        return [layer.kind for layer in family(name).layers(ModelSpec(name))]

    assert kinds("mobilenet_v1_full") == [*[Kind.CONV] * 14, Kind.DENSE]
    assert kinds("mobilenet_v1_shallow").count(Kind.DEPTHWISE) == kinds("mobilenet_v1").count(Kind.DEPTHWISE) - 5


def test_shufflenets_first_pointwise_convolution_has_no_groups() -> None:
    layers = family("shufflenet_v1").layers(ModelSpec("shufflenet_v1"))
    assert [layer.groups for layer in layers[1:6]] == [1, 60, 3, 3, 60]


@pytest.mark.parametrize(
    ("name", "alphas", "sides", "expected"),
    [
        ("mobilenet_v1", [0.33], [], [(0.33, 224), (0.33, 192), (0.33, 160), (0.33, 128)]),
        ("mobilenet_v1", [], [96], [(1.0, 96), (0.75, 96), (0.5, 96), (0.25, 96)]),
        (
            "mobilenet_v2",
            [],
            [],
            [(1.4, 224), (1.0, 224), (1.0, 192), (1.0, 160), (1.0, 128), (0.75, 224), (0.5, 224), (0.35, 224)],
        ),
        ("mobilenet_v2", [0.5], [], [(0.5, 224)]),
        ("mobilenet_v2", [], [96], [(1.0, 96)]),
        ("mobilenet_v3_large", [], [], [(1.0, 224), (0.75, 224)]),
        ("mobilenet_v3_small", [], [192], [(1.0, 192), (0.75, 192)]),
        ("shufflenet_v1", [], [], [(1.0, 224)]),
        ("xception", [], [], [(1.0, 299)]),
        ("xception", [1.0], [], [(1.0, 299)]),
        ("vgg16", [], [], [(1.0, 224)]),
    ],
)
def test_variants_that_a_run_takes(name: str, alphas: list[float], sides: list[int], expected: list[tuple[float, int]]) -> None:
    assert [(spec.alpha, spec.resolution) for spec in grid(name, alphas, sides)] == expected


@pytest.mark.parametrize(
    ("name", "alpha", "side", "complaint"),
    [
        ("mobilenet_v1", 1.1, 224, r"width multiplier 1\.1 is outside \(0, 1\] of mobilenet_v1"),
        ("mobilenet_v2", 1.5, 224, r"width multiplier 1\.5 is outside \(0, 1\.4\] of mobilenet_v2"),
        ("mobilenet_v2", 0.0, 224, r"width multiplier 0\.0 is outside \(0, 1\.4\]"),
        ("mobilenet_v3_small", 1.6, 224, r"outside \(0, 1\.5\] of mobilenet_v3_small"),
        ("shufflenet_v2", 0.75, 224, r"width multiplier 0\.75 is not one of shufflenet_v2's(.|\n)*0\.5, 1\.0, 1\.5, 2\.0"),
        ("googlenet", 0.5, 224, "googlenet has no width multiplier, but `alpha` is 0.5"),
        ("alexnet", 1.0, 192, r"alexnet takes only images of side 224, not 192(.|\n)*`resolution=224`"),
        ("xception", 1.0, 600, "resolution 600 is outside 32 to 512 of xception"),
    ],
)
def test_a_variant_that_does_not_exist_is_refused_with_those_that_do(name: str, alpha: float, side: int, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        grid(name, [alpha], [side])


def test_only_v1_has_a_choice_of_activation() -> None:
    assert ModelSpec(activation="relu") != ModelSpec() == ModelSpec(activation="relu6")
    assert ModelSpec("mobilenet_v3_large").activation == "hardswish"
    with pytest.raises(UserError, match=r"activation 'relu' is not one of mobilenet_v2's(.|\n)*relu6"):
        grid("mobilenet_v2", activation="relu")


def test_names_of_files_are_as_ever() -> None:
    assert ModelSpec("mobilenet_v1", 0.25, 128).variant == "mobilenet_v1_0.25_128"
    assert ModelSpec("mobilenet_v2", 1.4).variant == "mobilenet_v2_1.4_224"


@pytest.mark.parametrize(("classes", "complaint"), [(0, "few"), (99_999_999_999, "many")])
def test_how_many_classes_there_are(classes: int, complaint: str) -> None:
    with pytest.raises(UserError, match=f"^{classes} classes are too {complaint}"):
        ModelSpec(classes=classes)
