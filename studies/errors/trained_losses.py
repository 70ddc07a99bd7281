"""Measures what int8 costs trained networks: points of top-1 against float32.

    ./studies/run trained_losses                                 # as studies/results/trained-losses.json; networks already there stay
    ./studies/run trained_losses --images 500 --out losses.json  # all of them, on fewer pictures

Networks are trained on drawn digits for minutes (once), calibrated with other ones as `--calibrate` does it, and tested on ones that
nothing has seen. Integers are computed exactly on this machine, as int8 kernels compute them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from studies.errors.integer_losses import DEVICE
from studies.harness import RESULTS, completed, title
from studies.trained.digits import digits, inputs_of, pictures
from studies.trained.networks import USUAL, with_trained_weights
from tvmmobile.accuracy.significance import top1_loss
from tvmmobile.devices.registry import find_device
from tvmmobile.graph.layers import Array
from tvmmobile.graph.precision import INT8
from tvmmobile.networks.frontend import imported_torch
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.registry import build_torch_model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.networks.preprocessing import Preprocessing
from tvmmobile.pipeline.job import variant_job
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.prepared import prepared
from tvmmobile.quantisation.data import calibration_data
from tvmmobile.system.entry_points import progress, telling
from tvmmobile.system.markdown import markdown_table

FILE = RESULTS / "trained-losses.json"
#: Pixels of a side of the smaller pictures that networks are trained on.
_SIDE = USUAL.batches[0][0]
NETWORKS = (
    ModelSpec("mobilenet_v1", 0.25, _SIDE),
    ModelSpec("mobilenet_v2", 1.0, _SIDE),
    ModelSpec("mobilenet_v3_small", 1.0, _SIDE),
    ModelSpec("mobilenet_v3_large", 1.0, _SIDE),
)
#: Digits; training has those of seed 0.
_CALIBRATION, _CALIBRATION_SEED, _TEST_SEED = 200, 1, 2
_AT_ONCE = 100


@dataclass(frozen=True)
class TrainedLosses:
    """One trained network in int8.

    Attributes:
        network: the variant, e.g. `mobilenet_v1 0.25-64`.
        images: on which it is tested.
        layers, floats: in int8 and in float32.
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


def losses_of(model: Model, images: int) -> TrainedLosses:
    """Quantise a network and compare its classes with those of float32."""
    spec = model.spec
    imported = imported_torch(spec, build_torch_model(spec, model.checkpoint).module, "")
    with tempfile.TemporaryDirectory(prefix="tvmmobile-losses-") as folder:
        place = Path(folder) / "pictures.npy"
        np.save(place, _pictures(_CALIBRATION, spec.resolution, _CALIBRATION_SEED)[0])
        data = calibration_data(str(place), Preprocessing(spec.resolution), generated=False)
        job = variant_job(model, find_device(DEVICE).profile, (), Path(), LibraryOptions(precision=INT8), calibration=data)
        ready = prepared(imported, job, None)
    network = ready.integers
    assert network is not None
    inputs, labels = _pictures(images, spec.resolution, _TEST_SEED)
    exact, found = (_classes(one, inputs) for one in (network.flow, network))
    loss = top1_loss(list(exact == labels), list(found == labels))
    assert loss is not None
    right, same = (100 * float(np.mean(exact == other)) for other in (labels, found))
    return TrainedLosses(title(spec), images, len(network.steps), len(ready.network.kept), right, loss.points, loss.margin, same)


def _pictures(count: int, side: int, seed: int) -> tuple[Array, Array]:
    """Return pictures of `count` digits, `[count, 3, side, side]`, and their classes."""
    drawn, labels = digits(count, seed)
    return inputs_of(pictures(labels, side, drawn, np.random.default_rng(seed))), labels


def _classes(network: Any, inputs: Array) -> Array:
    parts = [network.outputs(inputs[first : first + _AT_ONCE]).argmax(1) for first in range(0, len(inputs), _AT_ONCE)]
    return np.concatenate(parts)


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the figures of a file as Markdown."""
    headings = ["network", "layers in int8", "in float32", "right in float32, %", "top-1 lost", "same class, %"]
    rows = []
    for one in (TrainedLosses(**entry) for entry in found):
        words = [one.network, str(one.layers), str(one.floats), f"{one.float32:.2f}", f"{one.lost:.2f} ± {one.margin:.2f}"]
        rows.append([*words, f"{one.same:.2f}"])
    return "\n".join(markdown_table(headings, rows))


@telling
def main() -> int:
    """Compute what is missing; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000, metavar="N", help="pictures to test on (default 5000)")
    parser.add_argument("--out", type=Path, default=FILE, metavar="FILE", help="where the figures are")
    options = parser.parse_args()

    def computed(spec: ModelSpec) -> dict[str, Any]:
        return asdict(losses_of(with_trained_weights(Model(spec), progress), options.images))

    print(table(completed(options.out, {(title(spec),): partial(computed, spec) for spec in NETWORKS})))
    return 0


if __name__ == "__main__":
    sys.exit(main())
