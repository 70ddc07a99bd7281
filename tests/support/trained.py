"""A small trained MobileNet: v1 0.25-32, which tells drawn digits apart.

`PYTHONPATH=. .venv/bin/python tests/support/trained.py` trains it anew, in a minute or two, and writes `trained.npz`. Weights
are kept in bytes with a scale for each output channel: what they then are is not a number of half precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from studies.trained.digits import SIDE, digits, inputs_of
from studies.trained.training import train
from tvmmobile.networks.models.registry import build_torch_model
from tvmmobile.networks.models.spec import ModelSpec

SPEC = ModelSpec(alpha=0.25, resolution=SIDE, classes=10)
_FILE = Path(__file__).with_name("trained.npz")
_STEPS, _BATCH, _RATE = 1200, 32, 0.05


def write_images(folder: Path, count: int, seed: int) -> Path:
    """Digits in class folders."""
    for number, (pixels, label) in enumerate(zip(*digits(count, seed), strict=True)):
        path = folder / str(label) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


def trained() -> torch.nn.Module:
    """Return the network with the weights of the file, in eval mode."""
    module = build_torch_model(SPEC).module
    kept = np.load(_FILE)
    state = {
        name: torch.from_numpy(kept[name] * kept[f"{name}/scale"] if f"{name}/scale" in kept else kept[name])
        for name in kept
        if not name.endswith("/scale")
    }
    module.load_state_dict(state, strict=True)
    return module.eval()


def _train() -> torch.nn.Module:
    torch.manual_seed(0)
    module = build_torch_model(SPEC).module
    pixels, labels = digits(5000, 0)
    images, wanted = torch.from_numpy(inputs_of(pixels)), torch.from_numpy(labels)

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            chosen = torch.randint(len(images), (_BATCH,))
            yield images[chosen], wanted[chosen]

    return train(module, batches(), _STEPS, _RATE)


def _write(module: torch.nn.Module) -> None:
    kept: dict[str, npt.NDArray[np.generic]] = {}
    for name, tensor in module.state_dict().items():
        values = tensor.numpy()
        if values.ndim > 1:
            scale = (np.abs(values).max(axis=tuple(range(1, values.ndim)), keepdims=True) / 127).astype(np.float32)
            kept[f"{name}/scale"], values = scale, np.round(values / scale).astype(np.int8)
        kept[name] = values
    np.savez_compressed(_FILE, **kept)


if __name__ == "__main__":
    _write(_train())
