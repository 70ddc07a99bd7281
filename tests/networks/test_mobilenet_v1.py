"""MobileNet v1's table of layers and the module built from it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmmobile.networks.models.blocks import Kind
from tvmmobile.networks.models.mobilenet_v1 import channels
from tvmmobile.networks.models.registry import FAMILIES, build_torch_model, family, grid
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.system.errors import UserError

layers = FAMILIES["mobilenet_v1"].layers


def test_body_is_the_papers_table_1() -> None:
    """Table 1, with stride 1 for the last depthwise layer."""
    table = layers(ModelSpec())
    depthwise = [(layer.in_side, layer.stride, layer.in_channels) for layer in table if layer.kind is Kind.DEPTHWISE]
    assert depthwise == [
        (112, 1, 32),
        (112, 2, 64),
        (56, 1, 128),
        (56, 2, 128),
        (28, 1, 256),
        (28, 2, 256),
        *[(14, 1, 512)] * 5,
        (14, 2, 512),
        (7, 1, 1024),
    ]
    pointwise = [layer.out_channels for layer in table if layer.kind is Kind.POINTWISE]
    assert pointwise == [64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]
    assert (table[0].out_side, table[-2].out_side, table[-1].in_channels, len(table)) == (112, 7, 1024, 28)


@pytest.mark.parametrize(("base", "alpha", "expected"), [(32, 0.25, 8), (32, 0.1, 8), (64, 0.33, 21), (1024, 0.75, 768)])
def test_channels(base: int, alpha: float, expected: int) -> None:
    assert channels(base, alpha) == expected


@settings(deadline=None, max_examples=40)
@given(alpha=st.floats(0.01, 1), resolution=st.integers(32, 512))
def test_layers_fit_together_at_any_size(alpha: float, resolution: int) -> None:
    table = layers(ModelSpec(alpha=alpha, resolution=resolution))
    for before, after in pairwise(table[:-1]):
        assert (after.in_channels, after.in_side) == (before.out_channels, before.out_side)
    assert all(layer.out_side >= 1 for layer in table)


@pytest.mark.parametrize(("alpha", "resolution", "activation"), [(0.25, 33, "relu6"), (0.1, 32, "relu"), (0.5, 96, "relu6")])
def test_module_has_the_shapes_of_the_table(alpha: float, resolution: int, activation: str) -> None:
    import torch

    spec = ModelSpec(alpha=alpha, resolution=resolution, activation=activation, classes=10)
    module = family(spec.name).module(spec).eval()
    sides: dict[str, tuple[int, ...]] = {}
    for name, part in module.named_modules():
        if isinstance(part, torch.nn.Conv2d):
            part.register_forward_hook(lambda _, __, out, name=name: sides.__setitem__(name, tuple(out.shape)))
    with torch.no_grad():
        assert module(torch.zeros(2, 3, resolution, resolution)).shape == (2, 10)
    expected = {layer.name: (2, layer.out_channels, layer.out_side, layer.out_side) for layer in layers(spec)[:-1]}
    assert sides == expected


def test_parameters_of_the_module_are_those_counted() -> None:
    from tvmmobile.networks.models.costs import count

    spec = ModelSpec(alpha=0.5)
    module = family(spec.name).module(spec)
    assert sum(parameter.numel() for parameter in module.parameters()) == count(spec).parameters


def test_names_are_those_of_timm() -> None:
    names = set(family("mobilenet_v1").module(ModelSpec(alpha=0.25)).state_dict())
    assert {"conv_stem.weight", "bn1.running_var", "blocks.3.5.conv_dw.weight", "blocks.4.1.bn2.bias", "classifier.bias"} <= names


def test_grid_is_the_papers_unless_told() -> None:
    assert len(grid("mobilenet_v1")) == 16
    assert [spec.variant for spec in grid("mobilenet_v1", [1, 0.5, 1.0], [128])] == ["mobilenet_v1_1.0_128", "mobilenet_v1_0.5_128"]


def test_alpha_1_and_1_0_are_one_variant() -> None:
    assert ModelSpec(alpha=1) == ModelSpec(alpha=1.0)
    assert ModelSpec(alpha=1).variant == "mobilenet_v1_1.0_224"


def test_unknown_family() -> None:
    with pytest.raises(UserError, match="'resnet' is not known"):
        build_torch_model(ModelSpec(name="resnet"))
