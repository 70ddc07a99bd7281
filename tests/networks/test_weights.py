"""Generated weights make every kernel matter; checkpoints that do not fit are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tvmmobile.networks.models.registry import TorchModel, build_torch_model, family
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.networks.models.weights import seed_weights
from tvmmobile.system.errors import UserError

SMALL = ModelSpec(alpha=0.25, resolution=64, classes=100)


def _state_sum(model: TorchModel) -> str:
    import hashlib

    digest = hashlib.sha256()
    for name, tensor in model.module.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def test_a_seed_decides_every_bit_and_leaves_the_global_state_alone() -> None:
    import torch

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = _state_sum(build_torch_model(SMALL, seed=1))
    assert torch.equal(torch.rand(3), expected)
    assert _state_sum(build_torch_model(SMALL, seed=1)) == first
    assert _state_sum(build_torch_model(SMALL, seed=2)) != first


def test_weights_do_not_depend_on_the_resolution_or_threads() -> None:
    import torch

    first = _state_sum(build_torch_model(SMALL))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert _state_sum(build_torch_model(ModelSpec(alpha=0.25, resolution=160, classes=100))) == first
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(("alpha", "resolution"), [(1.0, 224), (0.25, 128)])
def test_activations_neither_vanish_nor_explode(alpha: float, resolution: int) -> None:
    import torch

    model = build_torch_model(ModelSpec(alpha=alpha, resolution=resolution))
    assert model.weights == "seeded kaiming, seed 0"
    assert not model.module.training
    clipped: list[float] = []
    zeros: list[float] = []

    def note(_: Any, __: Any, out: Any) -> None:
        clipped.append((out >= 6).float().mean().item())
        zeros.append((out <= 0).float().mean().item())

    for part in model.module.modules():
        if isinstance(part, torch.nn.ReLU6):
            part.register_forward_hook(note)
    images = torch.randn(2, 3, resolution, resolution, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        logits = model.module(images)
    assert len(clipped) == 27
    assert 0.01 < sum(clipped) / 27 < 0.08 and max(clipped) < 0.15
    assert all(0.15 < share < 0.65 for share in zeros)
    assert 0.5 < logits.std().item() < 5
    # Another image gives other logits: the output is not just a constant of the weights.
    assert (logits[0] - logits[1]).std().item() > 0.1 * logits.std().item()


def test_norms_of_tokens_are_settled_and_those_of_a_vector_for_each_image_are_not() -> None:
    import torch
    from torch import nn

    def normed(rows: int) -> nn.BatchNorm1d:
        folded = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Unflatten(1, (-1, rows)), nn.Flatten(0, 1), nn.BatchNorm1d(rows))
        seed_weights(folded, 0, probe=(3, 18, 18))
        norm = folded[-1]
        assert isinstance(norm, nn.BatchNorm1d)
        return norm

    tokens, alone = normed(16), normed(1024)
    assert tokens.weight.min() >= 0.4 and tokens.weight.max() <= 0.8 and (tokens.running_mean != 0).all()
    assert torch.equal(alone.weight, torch.ones(1024)) and not alone.running_mean.any()


def test_a_checkpoint_gives_its_weights(tmp_path: Path) -> None:
    import torch

    model = build_torch_model(SMALL, seed=9)
    path = tmp_path / "weights.pt"
    torch.save(model.module.state_dict(), path)
    loaded = build_torch_model(SMALL, checkpoint=path)
    assert loaded.weights.startswith("checkpoint sha256 ") and len(loaded.weights.split()[-1]) == 64
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.module(image), loaded.module(image))


def _missing(state: dict[str, Any]) -> None:
    del state["blocks.0.0.bn1.weight"]


def _extra(state: dict[str, Any]) -> None:
    state["head.weight"] = state["classifier.weight"]


def _shape(state: dict[str, Any]) -> None:
    state["classifier.weight"] = state["classifier.weight"][:7]


def _not_finite(state: dict[str, Any]) -> None:
    state["bn1.running_mean"][0] = float("nan")


def _not_a_tensor(state: dict[str, Any]) -> None:
    state["bn1.bias"] = 3


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (_missing, r"lacks blocks\.0\.0\.bn1\.weight"),
        (_extra, r"has unknown head\.weight"),
        (_shape, r"classifier\.weight is 7×256, but this variant needs 100×256"),
        (_not_finite, r"bn1\.running_mean holds NaN"),
        (_not_a_tensor, r"bn1\.bias is not a tensor"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(
    tmp_path: Path, damage: Callable[[dict[str, Any]], None], complaint: str
) -> None:
    import torch

    state = dict(family(SMALL.name).module(SMALL).state_dict())
    damage(state)
    path = tmp_path / "weights.pt"
    torch.save(state, path)
    with pytest.raises(UserError, match=complaint) as caught:
        build_torch_model(SMALL, checkpoint=path)
    assert caught.value.exit_code == 1 and caught.value.remedy


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 torn zip"])
def test_a_corrupt_checkpoint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        build_torch_model(SMALL, checkpoint=path)


def test_a_torn_checkpoint_and_a_whole_model(tmp_path: Path) -> None:
    import torch

    path = tmp_path / "weights.pt"
    module = family(SMALL.name).module(SMALL)
    torch.save(module.state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="cannot be read"):
        build_torch_model(SMALL, checkpoint=path)
    torch.save(module, path)  # a pickled object: refused, not run
    with pytest.raises(UserError, match="cannot be read"):
        build_torch_model(SMALL, checkpoint=path)
    torch.save([1, 2], path)
    with pytest.raises(UserError, match="holds list"):
        build_torch_model(SMALL, checkpoint=path)


def test_no_such_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a file"):
        build_torch_model(SMALL, checkpoint=tmp_path / "nowhere.pt")
