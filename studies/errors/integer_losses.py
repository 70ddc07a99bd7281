"""Measures what int8 costs networks with generated weights as a whole, and in their worst layer.

    ./studies/run integer_losses                                # as studies/results/integer-losses.json; networks already there stay
    ./studies/run integer_losses --inputs 8 --out losses.json   # all of them, over fewer inputs

Integers are computed exactly on this machine, as int8 kernels compute them. Calibration data and inputs are different noise.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from studies.harness import RESULTS, completed, title
from tvmmobile.devices.registry import find_device
from tvmmobile.graph.precision import INT8
from tvmmobile.networks.frontend import imported_torch
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.registry import build_torch_model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.networks.preprocessing import Preprocessing
from tvmmobile.pipeline.job import variant_job
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.prepared import prepared
from tvmmobile.quantisation.calibration import Images
from tvmmobile.quantisation.data import calibration_data
from tvmmobile.quantisation.integers import IntegerNetwork
from tvmmobile.system.entry_points import telling
from tvmmobile.system.markdown import markdown_table

DEVICE, CALIBRATION = "pi5-virtual", 16
FILE = RESULTS / "integer-losses.json"
NETWORKS = (
    ModelSpec("mobilenet_v1", 0.25, 128),
    ModelSpec("mobilenet_v1", 1.0, 128),
    ModelSpec("mobilenet_v2", 1.0, 128),
    ModelSpec("mobilenet_v3_small", 1.0, 128),
    ModelSpec("mobilenet_v3_large", 1.0, 128),
)


@dataclass(frozen=True)
class Losses:
    """One network in int8.

    Attributes:
        network: the variant, e.g. `mobilenet_v1 1.0-224`.
        inputs: on which it is compared with float32.
        layers, floats: in int8 and in float32.
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


def losses_of(spec: ModelSpec, inputs: int) -> Losses:
    """Quantise a network and compare it with float32."""
    imported = imported_torch(spec, build_torch_model(spec, None, 0).module, "")
    preprocessing = Preprocessing(spec.resolution, channels=spec.channels)
    data = calibration_data(f"noise:{CALIBRATION}", preprocessing, generated=True)
    job = variant_job(Model(spec), find_device(DEVICE).profile, (), Path(), LibraryOptions(precision=INT8), calibration=data)
    seen = calibration_data(f"noise:{CALIBRATION + inputs}", preprocessing, generated=True).images()
    others = seen.part(range(CALIBRATION, CALIBRATION + inputs))
    ready = prepared(imported, job, None)
    network = ready.integers
    assert network is not None
    ratios = network.signal_to_noise_db(others.batches(), network.flow)
    last = network.flow.steps[-1].number
    return Losses(
        title(spec),
        inputs,
        len(network.steps),
        len(ready.network.kept),
        bool(ready.details["quantisation"]["equalised"]),
        ratios[last],
        min(ratios.values()),
        _same_top(network, others),
    )


def _same_top(network: IntegerNetwork, images: Images) -> int:
    """Count the images whose largest output is the same in float32 and in integers."""
    pairs = ((network.outputs(batch), network.flow.outputs(batch)) for batch in images.batches())
    return sum(int(np.sum(found.argmax(1) == wanted.argmax(1))) for found, wanted in pairs)


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the figures of a file as Markdown."""
    headings = ["network", "equalised", "layers in int8", "in float32", "output, dB", "worst layer, dB", "same class"]
    rows = []
    for one in (Losses(**entry) for entry in found):
        words = [one.network, "yes" if one.equalised else "no", str(one.layers), str(one.floats), f"{one.decibels:.1f}", f"{one.least:.1f}"]
        rows.append([*words, f"{one.same_top} of {one.inputs}"])
    return "\n".join(markdown_table(headings, rows, texts=2))


@telling
def main() -> int:
    """Compute what is missing; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=32, metavar="N", help="inputs for each network (default 32)")
    parser.add_argument("--out", type=Path, default=FILE, metavar="FILE", help="where the figures are")
    options = parser.parse_args()

    def computed(spec: ModelSpec) -> dict[str, Any]:
        return asdict(losses_of(spec, options.inputs))

    print(table(completed(options.out, {(title(spec),): partial(computed, spec) for spec in NETWORKS})))
    return 0


if __name__ == "__main__":
    sys.exit(main())
