"""Compares which layers `--max-drop` leaves in float32: the noisiest ones, or those that an integer programme chooses.

    ./studies/run float32_layers                       # studies/results/float32-layers.json and its page
    ./studies/run float32_layers --networks mobilenet_v2:1.0:224 --above 3 --out FILE.json
    ./studies/run float32_layers --networks nets/lite0.pt2   # a file, calibrated by nets/lite0.npy: ./studies/run photographs --write nets

Weights of built-in networks are generated. Of each network, the limit is a few decibels above what int8 alone reaches. Both libraries are
built from the shipped logs, without tuning, and timed on the virtual board.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from studies.harness import RESULTS, ROOT, Entry, Options, Wanted, completed, option, study
from tvmmobile.devices.registry import find_device
from tvmmobile.graph.layers import Array, Gating, Rounding
from tvmmobile.graph.network import INPUT
from tvmmobile.graph.precision import INT8
from tvmmobile.networks.model import Model
from tvmmobile.networks.preprocessing import Preprocessing
from tvmmobile.pipeline.job import variant_job
from tvmmobile.pipeline.load import load
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.prepared import prepared
from tvmmobile.pipeline.tune import tune
from tvmmobile.pipeline.variant import import_variant
from tvmmobile.quantisation.assignment import Assignment, Programme, fastest
from tvmmobile.quantisation.calibration import Accepts, Images, Method, Observed, observe, quantised
from tvmmobile.quantisation.data import calibration_data
from tvmmobile.quantisation.flow import Flow
from tvmmobile.quantisation.integers import IntegerNetwork
from tvmmobile.quantisation.mixed import Limit, Mixed, Pricing, decibels_below, quantise_within
from tvmmobile.results.report.wording import latency_ms
from tvmmobile.system.entry_points import progress
from tvmmobile.system.markdown import markdown_table
from tvmmobile.tuning.logs.directories import log_dirs

NETWORKS = ("mobilenet_v3_small:1.0:224", "mobilenet_v3_large:1.0:224", "mobilenet_v2:1.0:224", "mobilenet_v1:1.0:224")
#: A network that is no built-in one, as a file.
_FILES = {"efficientnet_b0": ROOT / "tests/support/efficientnet.py"}
_SUFFIX = ".pt2"
NAMES = ("network", "board")
INTRODUCTION = """# Which layers stay in float32 for less noise

`--max-drop` on networks with generated weights, calibrated on noise, and on EfficientNet-Lite0 as trained on ImageNet, calibrated on
photographs (`./studies/run photographs`): layers by an integer programme, and by the rule that came before it, the fewest layers whose own
rounding adds most noise to their output. One thread; C libraries from the shipped logs, and for Lite0 records of `tvmmobile tune` with 8
trials. The logs have next to no kernels of the last three networks in int8: these have the nearest shape's schedules and estimates.
*Timed* latencies are modelled; *predicted* ones are sums of records and estimates, as the programme has them, and *bound* is its
certificate: by these figures, no other choice of layers with as little predicted noise takes less. *Off*: what is predicted against what is
timed. Noise is in decibels below the signal.
"""


def noisiest_kept(flow: Flow, images: Images, method: Method, accepts: Accepts, limit: Limit) -> set[int]:
    """Return the layers that the former rule keeps in float32."""
    observed = observe(flow, images, method.equalise)
    method = replace(method, seven_bit_steps=frozenset())
    noise = _noise_of_layers(observed, quantised(observed, method, accepts))
    layers = (step for step in flow.steps if step.parameters is not None and not isinstance(step.layer, Gating | Rounding))
    order = sorted((step.number for step in layers if step.number in noise), key=lambda number: -noise[number])
    few, many = 0, len(order)
    expected = flow.outputs(images.all())
    while few + 1 < many:
        middle = (few + many) // 2
        holds = limit.holds(quantised(observed, method, accepts, order[:middle]).outputs(images.all()), expected)
        few, many = (few, middle) if holds else (middle, many)
    return set(order[:many])


def _noise_of_layers(observed: Observed, network: IntegerNetwork) -> dict[int, float]:
    """Return the noise that each integer step adds to float32 inputs, as a share of its output's power."""
    values: dict[int, Array] = {INPUT: observed.some}
    found = {}
    for step in network.flow.steps:
        inputs = step.read(values)
        values[step.number] = exact = step.output(inputs)
        if step.number in network.steps:
            added = network.real(step.number, network.steps[step.number].output(inputs)).astype(np.float64) - exact
            found[step.number] = float(np.square(added).sum() / np.square(exact, dtype=np.float64).sum())
        network.flow.release(values, step.number)
    return found


@dataclass
class BothRules:
    """Quantises as `--max-drop` does, with a limit some decibels above int8 alone, and looks at the former rule's layers too.

    Attributes:
        above: the decibels.
        figures: choices and predictions of both rules, once it was called.
    """

    above: float
    figures: dict[str, Any] = field(default_factory=dict)

    def __call__(
        self,
        flow: Flow,
        images: Images,
        method: Method,
        accepts: Accepts,
        float32_reasons: dict[int, str],
        limit: Limit | None,
        pricing: Pricing,
    ) -> Mixed:
        """Return the network by the integer programme, within the limit that `above` gives."""
        method = replace(method, seven_bit_steps=frozenset())
        observed = observe(flow, images, method.equalise)
        expected = flow.outputs(images.all())

        def noise_db(*layers: int) -> float:
            """Noise below the signal with these layers in float32."""
            outputs = quantised(observed, method, accepts, layers).outputs(images.all())
            share = float(np.square(outputs.astype(np.float64) - expected).sum() / np.square(expected, dtype=np.float64).sum())
            return decibels_below(share) or np.inf

        int8_db = noise_db()
        limit = Limit(round(int8_db + self.above), "dB")
        mixed = quantise_within(flow, images, method, accepts, float32_reasons, limit, pricing)
        found = mixed.decision.found
        assert found is not None
        noisiest = noisiest_kept(flow, images, method, accepts, limit)
        fixed = fixed_choice(found.programme, noisiest)
        self.figures = {
            "int8_db": int8_db,
            "limit": str(limit),
            "int8_us": found.plain_us,
            "noisiest": {"kept": sorted(noisiest), "predicted_us": fixed.latency_us, "db": noise_db(*noisiest)},
            "programme": {
                "kept": sorted(mixed.decision.float32_reasons),
                "predicted_us": found.predicted.latency_us,
                "estimated_us": found.predicted.estimated_us,
                "bound_us": found.predicted.bound_us,
                "predicted_db": decibels_below(found.predicted_noise),
                "db": decibels_below(found.noise),
                "tried": found.rounds,
            },
        }
        return mixed


def fixed_choice(programme: Programme, floats: Collection[int]) -> Assignment:
    """Return the fastest kernels of a programme with exactly these layers in float32, as far as layers have kernels of both kinds."""
    in_integers, in_floats = (_steps(programme, integer) for integer in (True, False))
    wanted = {number: number not in floats for number in in_integers & in_floats}
    wanted |= dict.fromkeys(in_integers - in_floats, True)
    pieces = [
        one for one in programme.pieces if all(wanted.get(number, one.integer) == one.integer for number in range(one.first, one.last + 1))
    ]
    found = fastest(replace(programme, pieces=tuple(pieces)))
    assert found is not None
    return found


def _steps(programme: Programme, integer: bool) -> set[int]:
    """Return the steps that a kernel in integers, or one in float32, computes."""
    return {number for one in programme.pieces if one.integer == integer for number in range(one.first, one.last + 1)}


def entry_of(network: str, board: str, above: float, images: int) -> Entry:
    """Quantise a network by both rules, and time the libraries."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "images.npy"
        model = _loaded(network)
        np.save(file, _inputs(network, model, images))
        found = figures_of(model, board, above, file)
        for rule in ("noisiest", "programme"):
            keep = [str(number) for number in found[rule]["kept"]]
            results = tune(model, board, dtype="int8", calibrate=str(file), keep=keep, trials=0, out=Path(folder) / rule)
            found[rule]["timed_us"] = round(results.variants[0].latency_us, 1)
    return {**dict(zip(NAMES, (title_of(network), board), strict=True)), **found, "timing_model": results.context.timing_model}


def figures_of(model: Model, board: str, above: float, file: Path) -> dict[str, Any]:
    """Return what both rules choose for a network that a file calibrates, with what they predict."""
    data = calibration_data(str(file), Preprocessing(model.spec.resolution), generated=True)
    options = LibraryOptions(precision=INT8, max_drop="30dB")  # `BothRules` takes another limit
    job = variant_job(model, find_device(board).profile, log_dirs(None).all, file.parent, options, calibration=data)
    rules = BothRules(above)
    prepared(import_variant(job), job, None, rules)
    return rules.figures


def title_of(network: str) -> str:
    """Return what a network is called in the figures: the name of its file, without the folder."""
    return Path(network).stem if network.endswith(_SUFFIX) else network


def _loaded(network: str) -> Model:
    if network.endswith(_SUFFIX):
        return load(network)
    name, alpha, side = network.split(":")
    own = _FILES.get(name)
    return load(name, alpha=float(alpha), resolution=int(side)) if own is None else load(f"{own}:{name}", resolution=int(side))


def _inputs(network: str, model: Model, count: int) -> Array:
    if network.endswith(_SUFFIX):
        given: Array = np.load(Path(network).with_suffix(".npy"), mmap_mode="r")[:count]
        return given
    return np.random.default_rng(0).normal(size=(count, *model.spec.input_shape[1:])).astype(np.float32)


def page(entries: Sequence[Entry]) -> str:
    """Return the page of a file's entries."""
    rows = []
    for entry in entries:
        name, *size = entry["network"].split(":")
        for rule in ("noisiest", "programme"):
            one = entry[rule]
            called = [f"{name} {'-'.join(size)}".strip(), entry["limit"]] if rule == "noisiest" else ["", ""]
            times = [latency_ms(one[f"{kind}_us"]) if f"{kind}_us" in one else "" for kind in ("timed", "predicted", "bound")]
            times.append(f"{100 * (one['predicted_us'] / one['timed_us'] - 1):+.1f}")
            noises = [f"{one[kind]:.1f}" if kind in one else "" for kind in ("db", "predicted_db")]
            rows.append([*called, rule, str(len(one["kept"])), *times, *noises])
    heads = ["network", "limit", "rule", "layers", "timed, ms", "predicted, ms", "bound, ms", "off, %", "noise, dB"]
    return "\n".join([INTRODUCTION, *markdown_table([*heads, "predicted, dB"], rows, texts=3), ""])


@study(
    option("--networks", list(NETWORKS), nargs="+", metavar="NAME:ALPHA:SIDE|FILE.pt2"),
    option("--device", "pi5-virtual"),
    option("--above", 3.0, "limit above the noise of int8 alone", metavar="DB"),
    option("--images", 4, "calibration inputs"),
    option("--out", RESULTS / "float32-layers.json", metavar="FILE"),
)
def main(options: Options) -> None:
    """Compare what is missing."""
    wanted: Wanted = {
        (title_of(network), options.device): partial(entry_of, network, options.device, options.above, options.images)
        for network in options.networks
    }
    completed(options.out, wanted, NAMES, page)
    progress(f"written to {options.out}")
