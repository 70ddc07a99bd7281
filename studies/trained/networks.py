"""Networks of `--weights trained`: trained on pictures of drawn digits, and run and calibrated with others of these."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from studies.digests import digest_of
from studies.harness import ROOT
from studies.trained import digits
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.registry import build_torch_model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.networks.models.traits import TRAITS
from tvmmobile.networks.models.weights import single_thread
from tvmmobile.system.environment import cache_dir
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import made_once

if TYPE_CHECKING:
    import torch

Say = Callable[[str], None]
Array = npt.NDArray[np.float32]
#: Where a comparison's weights come from.
GENERATED, TRAINED, OWN = "generated", "trained", "own"


@dataclass(frozen=True)
class Recipe:
    """A network's training: its steps and batches.

    Attributes:
        steps: batches that it sees.
        batches: sides of the pictures, and how many are in a batch; batches of each come in turn. The network takes the first side; the
            features of others are brought to its fully connected layers' size, if that is fixed.
    """

    steps: int = 400
    batches: tuple[tuple[int, int], ...] = ((64, 32), (128, 8))


USUAL = Recipe()
#: Recipes for networks that do not learn with the usual one, or that take images of one side.
_OTHER_RECIPES = {
    "alexnet": Recipe(200, batches=((224, 16),)),
    "shufflenet_v1": Recipe(800),
    "vgg16": Recipe(120, batches=((224, 8), (112, 16))),
}
#: Highest learning rate.
_HIGHEST_RATE = 0.05
#: Digits from which pictures are made: those to train on; to calibrate with and to run; to test on.
_DRAWN, _OTHERS = 2000, 500
_TRAINING_SEED, _CALIBRATION_SEED, _TEST_SEED = range(3)
#: Pictures to calibrate with, the first of which is the input of all runs; and to test on.
CALIBRATION, TESTED = 10, 100
#: Percent of the pictures of the first side that a network has to get right.
_LEAST_TOP1 = 90.0
_TESTED_AT_ONCE = 10
_CHECKPOINT = "weights.pt"


def check_trainable(model: Model) -> None:
    """Raise `UserError` for a network whose weights are its own."""
    if model.own is not None:
        raise UserError(f"{model.own} has weights of its own.", f"Leave out --weights {TRAINED}.")


def recipe_of(spec: ModelSpec) -> Recipe:
    """Return the training of a network."""
    return _OTHER_RECIPES.get(spec.name, USUAL)


def recipes_digest() -> str:
    """Identifies all that decides trained weights, 16 hexadecimal digits."""
    programs = [Path(__file__), *(Path(__file__).with_name(name) for name in ("digits.py", "training.py"))]
    networks = sorted((ROOT / "tvmmobile/networks/models").glob("*.py"))
    return digest_of([*programs, *networks], importlib.metadata.version("torch"))


def with_trained_weights(model: Model, say: Say) -> Model:
    """Return the model with a checkpoint in the cache; trained if it is not there yet, the same for every side of the input.

    Raises:
        UserError: the network did not learn its digits.
    """
    import torch

    recipe = recipe_of(model.spec)
    spec = replace(model.spec, resolution=recipe.batches[0][0])
    folder = cache_dir() / "peers" / f"trained-{spec.variant}-{recipes_digest()}"
    with made_once(folder) as made:
        if made is not None:
            say(f"training {spec.name} {spec.alpha} on drawn digits (once, minutes) …")
            module = trained(spec)
            right = top1(module, spec.resolution)
            if right < _LEAST_TOP1:
                raise UserError(
                    f"{spec.variant} got {right:g} % of its digits right after {recipe.steps} steps.", "Leave this network out."
                )
            torch.save(module.state_dict(), made / _CHECKPOINT)
    return replace(model, checkpoint=folder / _CHECKPOINT)


def trained(spec: ModelSpec, steps: int | None = None) -> torch.nn.Module:
    """Return a network trained by its recipe, or for a number of `steps`, in eval mode."""
    import torch

    from studies.trained.training import train

    recipe = recipe_of(spec)
    drawn, _ = digits.digits(_DRAWN, _TRAINING_SEED)
    generator = np.random.default_rng(_TRAINING_SEED)

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            for side, count in recipe.batches:
                labels = generator.integers(10, size=count)
                yield torch.from_numpy(digits.inputs_of(digits.pictures(labels, side, drawn, generator))), torch.from_numpy(labels)

    module = build_torch_model(spec).module
    least, most = TRAITS[spec.name].sides
    takes_all = all(least <= side <= most for side, _ in recipe.batches)
    fitting = None if takes_all else module.get_submodule("flatten").register_forward_pre_hook(partial(_fitted, module))
    with torch.random.fork_rng(devices=[]), single_thread():
        torch.manual_seed(_TRAINING_SEED)
        module = train(module, batches(), steps or recipe.steps, _HIGHEST_RATE)
    if fitting is not None:
        fitting.remove()
    return module


def _fitted(network: torch.nn.Module, flatten: torch.nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
    """Return a hook in front of what flattens an image `[N, C, H, W]`: the image with as many pixels as the next layer takes."""
    import torch

    (image,) = inputs
    features = next(layer.in_features for layer in network.modules() if isinstance(layer, torch.nn.Linear))
    return torch.nn.functional.adaptive_avg_pool2d(image, math.isqrt(features // image.shape[1]))


def calibration_inputs(side: int) -> Array:
    """Pictures that give integers their scales, `[CALIBRATION, 3, side, side]`, one of each digit."""
    return _pictures(CALIBRATION, side, _CALIBRATION_SEED)[0]


def unseen_inputs(count: int, side: int) -> tuple[Array, npt.NDArray[np.int64]]:
    """Pictures that no network was trained or calibrated with, `[count, 3, side, side]`, and their classes."""
    return _pictures(count, side, _TEST_SEED)


def top1(module: torch.nn.Module, side: int) -> float:
    """Percent of pictures of a side that a network gets right, of `TESTED`."""
    import torch

    inputs, labels = unseen_inputs(TESTED, side)
    with torch.no_grad(), single_thread():
        parts = [module(torch.from_numpy(inputs[first : first + _TESTED_AT_ONCE])) for first in range(0, TESTED, _TESTED_AT_ONCE)]
    return 100 * float((torch.cat(parts).argmax(1).numpy() == labels).mean())


def _pictures(count: int, side: int, seed: int) -> tuple[Array, npt.NDArray[np.int64]]:
    labels = np.arange(count) % 10
    drawn, _ = digits.digits(_OTHERS, seed)
    return digits.inputs_of(digits.pictures(labels, side, drawn, np.random.default_rng(seed))), labels
