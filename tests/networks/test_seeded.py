"""Generated weights, for every network: each kernel matters to the output, activations keep their spread, gates are half open."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import pytest
import torch

from tvmmobile.networks.models.registry import FAMILIES, TorchModel, build_torch_model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.networks.models.traits import TRAITS

#: 138 million weights: half a minute.
NAMES = [pytest.param(name, marks=[pytest.mark.long] * (name in ("xception", "vgg16", "alexnet"))) for name in FAMILIES]


@lru_cache
def seeded(name: str) -> TorchModel:
    """Return the network at α = 1, and the smallest side that all of its layers can be told apart at."""
    least, _ = TRAITS[name].sides
    return build_torch_model(ModelSpec(name, 1.0, max(least, 96)))


def images(model: TorchModel) -> torch.Tensor:
    """Two images."""
    side = model.spec.resolution
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(3))


def noted(model: TorchModel, kind: type[torch.nn.Module]) -> list[torch.Tensor]:
    """Return the outputs of every module of that kind for the two images."""
    found: list[torch.Tensor] = []

    def note(_part: Any, _inputs: Any, output: torch.Tensor) -> None:
        found.append(output)

    hooks = [part.register_forward_hook(note) for part in model.module.modules() if isinstance(part, kind)]
    with torch.no_grad():
        model.module(images(model))
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("name", NAMES)
def test_two_images_give_different_logits_of_a_sane_spread(name: str) -> None:
    model = seeded(name)
    with torch.no_grad():
        logits = model.module(images(model))
    assert torch.isfinite(logits).all()
    assert 0.5 < logits.std().item() < 20
    assert (logits[0] - logits[1]).std().item() > 0.1 * logits.std().item()


@pytest.mark.parametrize("name", NAMES)
def test_activations_are_neither_all_zero_nor_all_passed(name: str) -> None:
    kinds = [kind for kind in (torch.nn.ReLU, torch.nn.ReLU6) if noted(seeded(name), kind)]
    outputs = [output for kind in kinds for output in noted(seeded(name), kind)]
    # Where shortcuts add up what ReLU let pass, less and less is below zero.
    assert all(0.02 < (output <= 0).float().mean().item() < 0.9 for output in outputs)
    assert all(output.abs().max() < 500 for output in outputs)


@pytest.mark.parametrize("name", NAMES)
def test_every_convolution_matters(name: str) -> None:
    """Layer by layer, every output channel gets the weights of its neighbour."""
    model = seeded(name)
    image = images(model)[:1]
    with torch.no_grad():
        expected = model.module(image)
        for path, part in model.module.named_modules():
            if isinstance(part, torch.nn.Conv2d | torch.nn.Linear):
                part.weight.copy_(part.weight.roll(1, 0))
                change = (model.module(image) - expected).abs().max() / expected.abs().max()
                part.weight.copy_(part.weight.roll(-1, 0))
                assert change > 0.01, path


@pytest.mark.parametrize("name", ["mobilenet_v3_large", "mobilenet_v3_small"])
def test_gates_are_neither_open_nor_shut(name: str) -> None:
    gates = noted(seeded(name), torch.nn.Hardsigmoid)
    assert len(gates) in (8, 9)
    for gate in gates:
        assert ((gate > 0) & (gate < 1)).float().mean() > 0.97
        assert 0.1 < gate.std() < 0.3
        assert 0.3 < gate.mean() < 0.7


@pytest.mark.parametrize(
    ("spec", "seed", "digest"),
    [
        (ModelSpec(alpha=0.25, resolution=64, classes=100), 0, "7e0d45b61fc556dea36275c16f6187b9efdd1cc45f3065c32d26e48607a3cfd1"),
        (ModelSpec(), 0, "82c7adf5654e26c0db6866c0c3e964ea71ace44b4a67f556bda8735a7312329c"),
        (ModelSpec(alpha=0.5, resolution=96), 7, "750377fad5e7f0d0e3a5dd796e197c72ea8f564656d8098f5ec88a74f5179fc7"),
    ],
    ids=["0.25", "1.0", "0.5"],
)
def test_weights_of_v1_are_as_ever(spec: ModelSpec, seed: int, digest: str) -> None:
    """Outputs that were published, and libraries that were compared, rest on them."""
    assert digest_of(build_torch_model(spec, seed=seed)) == digest


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2"])
def test_a_seed_decides_every_bit_whatever_the_side_and_the_threads(name: str) -> None:
    first = digest_of(build_torch_model(ModelSpec(name, 1.0, 64)))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert digest_of(build_torch_model(ModelSpec(name, 1.0, 224))) == first
    finally:
        torch.set_num_threads(threads)
    assert digest_of(build_torch_model(ModelSpec(name, 1.0, 64), seed=1)) != first


def digest_of(model: TorchModel) -> str:
    """SHA-256 of every name and tensor."""
    digest = hashlib.sha256()
    for name, tensor in model.module.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()
