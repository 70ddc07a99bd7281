"""Measures what int8 costs networks that have learned drawn digits, in points of top-1.

    ./studies/run int8_losses                                  # as studies/results/trained-losses.json; networks already there stay
    ./studies/run int8_losses --inputs 500 --out losses.json   # all of them, on fewer pictures

Integers are computed exactly on this machine, as int8 kernels compute them. Training takes minutes, once. Networks are calibrated on other
digits, and tested on ones that nothing has seen.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from studies.errors.losses import answer_loss
from studies.harness import RESULTS, Entry, Options, completed, option, study, title
from studies.int8_networks import quantised
from studies.trained.digits import digits, inputs_of, pictures
from studies.trained.networks import USUAL, with_trained_weights
from tvmmobile.graph.layers import Array
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.networks.preprocessing import Preprocessing
from tvmmobile.quantisation.data import calibration_data
from tvmmobile.system.entry_points import progress
from tvmmobile.system.markdown import markdown_table

FILE = RESULTS / "trained-losses.json"
#: Digits that calibrate a network; training has those of seed 0.
_CALIBRATION, _CALIBRATION_SEED, _TEST_SEED = 200, 1, 2
_AT_ONCE = 100
#: Pixels of a side of the smaller pictures that networks are trained on.
_SIDE = USUAL.batches[0][0]
_ALPHAS = (("mobilenet_v1", 0.25), ("mobilenet_v2", 1.0), ("mobilenet_v3_small", 1.0), ("mobilenet_v3_large", 1.0))
NETWORKS = tuple(ModelSpec(name, alpha, _SIDE) for name, alpha in _ALPHAS)


@dataclass(frozen=True)
class TrainedLosses:
    """One trained network in int8.

    Attributes:
        network: the variant, e.g. `mobilenet_v1 0.25-64`.
        images: number of images on which it is tested.
        layers, floats: number of layers in int8 and in float32.
        float32: percent of the images that it classifies correctly in float32.
        lost, margin: points of top-1 that int8 loses, and half the width of their 95 % interval.
        same: percent of the images with the same class.
    """

    network: str
    images: int
    layers: int
    floats: int
    float32: float
    lost: float
    margin: float
    same: float


def trained_losses(model: Model, images: int) -> TrainedLosses:
    """Quantise a trained network and compare its classes with those of float32."""
    spec = model.spec
    with tempfile.TemporaryDirectory(prefix="tvmmobile-losses-") as folder:
        place = Path(folder) / "pictures.npy"
        np.save(place, _pictures(_CALIBRATION, spec.resolution, _CALIBRATION_SEED)[0])
        found = quantised(model, calibration_data(str(place), Preprocessing(spec.resolution), generated=False))
    inputs, labels = _pictures(images, spec.resolution, _TEST_SEED)
    exact, ours = (_classes(one, inputs) for one in (found.integers.flow, found.integers))
    loss = answer_loss(labels, exact, ours)
    return TrainedLosses(title(spec), images, found.layers, found.floats, loss.float32, loss.lost, loss.margin, loss.same)


def _pictures(count: int, side: int, seed: int) -> tuple[Array, Array]:
    """Return pictures of `count` digits, `[count, 3, side, side]`, and their classes."""
    drawn, labels = digits(count, seed)
    return inputs_of(pictures(labels, side, drawn, np.random.default_rng(seed))), labels


def _classes(network: Any, inputs: Array) -> Array:
    parts = [network.outputs(inputs[first : first + _AT_ONCE]).argmax(1) for first in range(0, len(inputs), _AT_ONCE)]
    return np.concatenate(parts)


def trained_table(found: Sequence[Entry]) -> str:
    """Return the figures of trained networks as Markdown."""
    headings = ["network", "layers in int8", "in float32", "right in float32, %", "top-1 lost", "same class, %"]
    rows = []
    for one in (TrainedLosses(**entry) for entry in found):
        words = [one.network, str(one.layers), str(one.floats), f"{one.float32:.2f}", f"{one.lost:.2f} ± {one.margin:.2f}"]
        rows.append([*words, f"{one.same:.2f}"])
    return "\n".join(markdown_table(headings, rows))


@study(
    option("--inputs", 5000, "pictures to test each network on", metavar="N"),
    option("--out", FILE, "where the figures are", metavar="FILE"),
)
def main(options: Options) -> None:
    """Compute what is missing, and print the table."""

    def computed(spec: ModelSpec) -> Entry:
        return asdict(trained_losses(with_trained_weights(Model(spec), progress), options.inputs))

    print(trained_table(completed(options.out, {(title(spec),): partial(computed, spec) for spec in NETWORKS})))
