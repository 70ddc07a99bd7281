"""A small trained MobileNet: drawn digits, and MobileNet v1 0.25-32 that tells them apart.

`PYTHONPATH=.:tests/support .venv/bin/python tests/support/trained.py` trains it anew, in a minute or two, and writes `trained.npz`. Weights
are kept in bytes with a scale for each output channel: what they then are is not a number of half precision.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont

from tvmmobile.networks.models.registry import build_torch_model
from tvmmobile.networks.models.spec import ModelSpec

SIDE = 32
SPEC = ModelSpec(alpha=0.25, resolution=SIDE, classes=10)
_FILE = Path(__file__).with_name("trained.npz")
_STEPS, _BATCH, _RATE = 1200, 32, 0.05


def digit(number: int, generator: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A bright digit on a dark ground, near the middle, a little turned, with noise over it."""
    size, turn, place = int(generator.integers(22, 31)), float(generator.uniform(-12, 12)), tuple(SIDE / 2 + generator.uniform(-2, 2, 2))
    mask = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(mask).text(place, str(number), fill=255, font=ImageFont.load_default(size), anchor="mm")
    ink = np.asarray(mask.rotate(turn, Image.Resampling.BILINEAR), np.float32)[..., None] / 255
    pixels = generator.uniform(0, 90, 3) + ink * generator.uniform(90, 160, 3) + generator.normal(0, 12, (SIDE, SIDE, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def digits(count: int, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """So many digits, `[count, SIDE, SIDE, 3]`, and which they are."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 10
    return np.stack([digit(int(label), generator) for label in labels]), labels


def inputs_of(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """What a network gets of pictures, NCHW, as `evaluate` prepares them: minus 0.5, over 0.5."""
    return np.ascontiguousarray((pixels.transpose(0, 3, 1, 2) / 255 - 0.5) / 0.5, np.float32)


def write_images(folder: Path, count: int, seed: int) -> Path:
    """Digits in class folders."""
    for number, (pixels, label) in enumerate(zip(*digits(count, seed), strict=True)):
        path = folder / str(label) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


def trained() -> torch.nn.Module:
    """The network with the weights of the file, in eval mode."""
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
    module = build_torch_model(SPEC).module.train()
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d | torch.nn.Linear):
            part.reset_parameters()
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
    optimiser = torch.optim.SGD(module.parameters(), _RATE, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=_STEPS, pct_start=0.2)
    pixels, labels = digits(5000, 0)
    images, wanted = torch.from_numpy(inputs_of(pixels)), torch.from_numpy(labels)
    for _ in range(_STEPS):
        chosen = torch.randint(len(images), (_BATCH,))
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(module(images[chosen]), wanted[chosen]).backward()
        optimiser.step()
        schedule.step()
    return module.eval()


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
