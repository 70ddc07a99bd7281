"""State dicts with the names and shapes that torchvision and timm publish: loaded, or refused by the file's own names."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from originals import FOLDER, generated, image_of, original

from tvmmobile.networks.models.registry import TorchModel, build_torch_model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.system.errors import UserError

FILES = sorted(path.stem for path in FOLDER.glob("*.json"))
#: 138 million parameters: a minute with all the rest.
SLOW = {"torchvision-vgg16"}
PARAMETERS = [pytest.param(file, marks=pytest.mark.long) if file in SLOW else file for file in FILES]


def loaded(file: str, folder: Path, **changes: Any) -> TorchModel:
    """Our network with the generated weights of `file`, of which some are changed, or left out where `None`."""
    network = original(file)
    state = {**generated(network.tensors), **changes}
    path = folder / "weights.pt"
    torch.save({name: value for name, value in state.items() if value is not None}, path)
    return build_torch_model(ModelSpec(network.name, network.alpha, network.side), checkpoint=path)


@pytest.mark.parametrize("file", PARAMETERS)
def test_the_same_weights_give_the_same_logits(tmp_path: Path, file: str) -> None:
    network = original(file)
    model = loaded(file, tmp_path)
    with torch.no_grad():
        logits = model.module(image_of(network.side))[0, : len(network.logits)]
    assert logits.tolist() == pytest.approx(network.logits, abs=1e-5)


@pytest.mark.parametrize(
    ("file", "name", "shape"),
    [
        ("timm-mobilenetv1_100", "blocks.3.5.bn2.running_var", "512"),
        ("torchvision-mobilenet_v2", "features.18.0.weight", "1280×320×1×1"),
        ("timm-mobilenetv2_100", "blocks.1.0.conv_pwl.weight", "24×96×1×1"),
        ("torchvision-mobilenet_v3_large", "features.4.block.2.fc1.bias", "24"),
        ("timm-mobilenetv3_large_100", "blocks.2.0.se.conv_reduce.bias", "24"),
        ("torchvision-mobilenet_v3_small", "classifier.0.weight", "1024×576"),
        ("timm-mobilenetv3_small_100", "conv_head.weight", "1024×576×1×1"),
        ("torchvision-googlenet", "inception4b.branch3.1.conv.weight", "64×24×3×3"),
    ],
)
def test_a_tensor_that_is_missing_new_or_of_another_shape_is_named_as_in_the_file(tmp_path: Path, file: str, name: str, shape: str) -> None:
    with pytest.raises(UserError, match=rf"weights\.pt lacks {name}\.\n"):
        loaded(file, tmp_path, **{name: None})
    with pytest.raises(UserError, match=rf"weights\.pt has unknown {name}x\.\n"):
        loaded(file, tmp_path, **{f"{name}x": torch.zeros(1)})
    with pytest.raises(UserError, match=f"{name} is 7×3, but this variant needs {shape}"):
        loaded(file, tmp_path, **{name: torch.zeros(7, 3)})


def test_counters_of_batches_and_heads_for_training_may_be_there(tmp_path: Path) -> None:
    network = original("torchvision-googlenet")
    assert any(name.startswith("aux1.") for name in network.tensors)
    loaded("torchvision-googlenet", tmp_path, **{"conv1.bn.num_batches_tracked": torch.tensor(7)})


def test_a_head_for_training_is_unknown_to_other_networks(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has unknown aux1\.fc1\.bias"):
        loaded("torchvision-mobilenet_v2", tmp_path, **{"aux1.fc1.bias": torch.zeros(3)})


def test_weights_of_another_network(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(generated(original("timm-mobilenetv3_small_100").tensors), path)
    with pytest.raises(UserError, match=r"weights\.pt lacks"):
        build_torch_model(ModelSpec("mobilenet_v3_large"), checkpoint=path)


def test_weights_of_another_width(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(generated(original("timm-mobilenetv2_140").tensors), path)
    with pytest.raises(UserError, match="but this variant needs"):
        build_torch_model(ModelSpec("mobilenet_v2"), checkpoint=path)


def test_a_checkpoint_that_fills_memory_when_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(70 << 20))
    with pytest.raises(UserError, match=r"weights\.pt has .* bytes and unpacks to 73,400,320"):
        build_torch_model(ModelSpec("mobilenet_v1", 0.25, 32), checkpoint=path)
