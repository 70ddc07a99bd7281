"""Measures what int8 costs networks: signal to noise with generated weights, points of top-1 with trained ones.

    ./studies/run int8_losses                    # as studies/results/integer-losses.json; networks already there stay
    ./studies/run int8_losses --source trained   # as studies/results/trained-losses.json
    ./studies/run int8_losses --source trained --inputs 500 --out losses.json   # all of them, on fewer pictures

Integers are computed exactly on this machine, as int8 kernels compute them. Networks with generated weights are calibrated on noise and
compared on other noise, as a whole and in their worst layer. Trained ones have learned drawn digits (minutes, once); they are calibrated on
other digits, and tested on ones that nothing has seen.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
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

#: Inputs of noise that calibrate a network with generated weights.
_NOISE = 16
#: Digits that calibrate a trained network; training has those of seed 0.
_CALIBRATION, _CALIBRATION_SEED, _TEST_SEED = 200, 1, 2
_AT_ONCE = 100
#: Pixels of a side of the smaller pictures that networks are trained on.
_SIDE = USUAL.batches[0][0]


@dataclass(frozen=True)
class GeneratedLosses:
    """One network with generated weights in int8.

    Attributes:
        network: the variant, e.g. `mobilenet_v1 1.0-224`.
        inputs: number of inputs on which it is compared with float32.
        layers, floats: number of layers in int8 and in float32.
        equalised: whether that was better.
        decibels, least: signal to noise of the output, and of the layer where it is worst.
        same_top: inputs whose largest output is the same.
    """

    network: str
    inputs: int
    layers: int
    floats: int
    equalised: bool
    decibels: float
    least: float
    same_top: int


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


def generated_losses(spec: ModelSpec, inputs: int) -> GeneratedLosses:
    """Quantise a network with generated weights and compare it with float32."""
    preprocessing = Preprocessing(spec.resolution, channels=spec.channels)
    found = quantised(Model(spec), calibration_data(f"noise:{_NOISE}", preprocessing, generated=True))
    network = found.integers
    seen = calibration_data(f"noise:{_NOISE + inputs}", preprocessing, generated=True).images()
    others = seen.part(range(_NOISE, _NOISE + inputs))
    ratios = network.signal_to_noise_db(others.batches(), network.flow)
    same = sum(int(np.sum(network.outputs(batch).argmax(1) == network.flow.outputs(batch).argmax(1))) for batch in others.batches())
    decibels = ratios[network.flow.steps[-1].number]
    return GeneratedLosses(title(spec), inputs, found.layers, found.floats, found.equalised, decibels, min(ratios.values()), same)


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


def generated_table(found: Sequence[Entry]) -> str:
    """Return the figures of networks with generated weights as Markdown."""
    headings = ["network", "equalised", "layers in int8", "in float32", "output, dB", "worst layer, dB", "same class"]
    rows = []
    for one in (GeneratedLosses(**entry) for entry in found):
        words = [one.network, "yes" if one.equalised else "no", str(one.layers), str(one.floats), f"{one.decibels:.1f}", f"{one.least:.1f}"]
        rows.append([*words, f"{one.same_top} of {one.inputs}"])
    return "\n".join(markdown_table(headings, rows, texts=2))


def trained_table(found: Sequence[Entry]) -> str:
    """Return the figures of trained networks as Markdown."""
    headings = ["network", "layers in int8", "in float32", "right in float32, %", "top-1 lost", "same class, %"]
    rows = []
    for one in (TrainedLosses(**entry) for entry in found):
        words = [one.network, str(one.layers), str(one.floats), f"{one.float32:.2f}", f"{one.lost:.2f} ± {one.margin:.2f}"]
        rows.append([*words, f"{one.same:.2f}"])
    return "\n".join(markdown_table(headings, rows))


@dataclass(frozen=True)
class Source:
    """Where networks have their weights from.

    Attributes:
        file: the committed figures.
        networks: the variants, each an entry.
        inputs: number of inputs for each network, unless others are asked for.
        losses: measures a variant on so many inputs.
        table: makes Markdown of the figures.
    """

    file: Path
    networks: tuple[ModelSpec, ...]
    inputs: int
    losses: Callable[[ModelSpec, int], GeneratedLosses | TrainedLosses]
    table: Callable[[Sequence[Entry]], str]


_LATER = (("mobilenet_v2", 1.0), ("mobilenet_v3_small", 1.0), ("mobilenet_v3_large", 1.0))
SOURCES = {
    "generated": Source(
        RESULTS / "integer-losses.json",
        tuple(ModelSpec(name, alpha, 128) for name, alpha in (("mobilenet_v1", 0.25), ("mobilenet_v1", 1.0), *_LATER)),
        32,
        generated_losses,
        generated_table,
    ),
    "trained": Source(
        RESULTS / "trained-losses.json",
        tuple(ModelSpec(name, alpha, _SIDE) for name, alpha in (("mobilenet_v1", 0.25), *_LATER)),
        5000,
        lambda spec, images: trained_losses(with_trained_weights(Model(spec), progress), images),
        trained_table,
    ),
}
_COUNTS = ", ".join(f"{source.inputs} for {name} weights" for name, source in SOURCES.items())


@study(
    option("--source", "generated", "of the weights", choices=SOURCES),
    option("--inputs", None, f"to compare each network on (default: {_COUNTS})", type=int, metavar="N"),
    option("--out", None, "the figures (default: the source's in studies/results)", type=Path, metavar="FILE"),
)
def main(options: Options) -> None:
    """Compute what is missing, and print the table."""
    source = SOURCES[options.source]

    def computed(spec: ModelSpec) -> Entry:
        return asdict(source.losses(spec, options.inputs or source.inputs))

    print(source.table(completed(options.out or source.file, {(title(spec),): partial(computed, spec) for spec in source.networks})))
