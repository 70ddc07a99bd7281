"""Measures how far half precision is from float32 over many inputs, for every network of `tvmmobile models`.

    ./studies/run half_errors                                  # as studies/results/half-errors.md and .json; networks already there stay
    ./studies/run half_errors --inputs 32 --out /tmp/errors.md # all of them, over fewer inputs
    ./studies/run half_errors --weights trained --models mobilenet_v1 mobilenet_v2

The kernels are those that `compile --dtype float16 --device pi5` takes, compiled for this machine: sums, chains and conversions are the
same, but each product with its sum is rounded twice, to float32 and then to half precision. Generated weights
with noise show what a network does to rounding errors; weights trained on drawn digits, with such pictures, what a task loses.
"""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from studies.harness import RESULTS, Entry, Options, Wanted, completed, option, study, title
from studies.trained.networks import GENERATED, TRAINED, check_trainable, unseen_inputs, with_trained_weights
from tvmmobile.devices.registry import find_device
from tvmmobile.graph.layers import Array
from tvmmobile.graph.network import read_network
from tvmmobile.graph.passes.pipeline import compose, lower_to_kernels
from tvmmobile.graph.precision import FLOAT16
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.codegen import export
from tvmmobile.kernels.reference import relative_error
from tvmmobile.kernels.simulation import run_layers
from tvmmobile.networks.frontend import by_torch, imported_torch
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.published import COMPARED
from tvmmobile.networks.models.registry import build_torch_model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.pipeline.job import variant_job
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.planning import plan_variant
from tvmmobile.running.formats import VM
from tvmmobile.schedules import template_for
from tvmmobile.system.entry_points import progress
from tvmmobile.system.environment import SHIPPED_LOGS
from tvmmobile.system.errors import UserError
from tvmmobile.system.markdown import markdown_table
from tvmmobile.system.toolchain import toolchain

if TYPE_CHECKING:
    import torch

DEVICE = "pi5-virtual"
PAGE = RESULTS / "half-errors.md"
#: Without them LLVM converts half precision number by number, and a kernel takes minutes to build.
HOST = {"kind": "llvm", "mattr": ["+avx2", "+f16c"] if platform.machine() == "x86_64" else ["+fullfp16"]}
#: Images for `Errors.storing`.
STORED = 8
SMALLER = (ModelSpec("mobilenet_v1", 0.75, 192), ModelSpec("mobilenet_v1", 0.25, 128))
INTRODUCTION = """# How far half precision is from float32

Libraries of `--dtype float16` beside PyTorch's float32. Kernels are those for the Raspberry Pi 5, compiled for the machine that wrote this
page, where half precision is computed in float32 and rounded after each step.

Errors are shares of the largest magnitude of the same image's float32 output. *Storing alone* is a simulation over the first 8 images:
PyTorch's float32 with weights and activations rounded to half precision, and sums that are exact. No schedule can do better than that.
Where it is too much, `--max-error 0.01` keeps as many of the first layers in float32 as it takes ([tune.md](../../docs/tune.md)).
"""
SECTIONS = {
    TRAINED: """## Trained weights

Networks that learned to tell drawn digits apart (minutes on this machine), with pictures that they have not seen. *Right in float32* is
the share of the pictures that PyTorch classifies correctly.
""",
    GENERATED: """## Generated weights

Kaiming, batch norm's statistics non-trivial, seed 0, with white noise as images. Networks of random weights amplify the rounding of their
first layers more than trained ones do.
""",
}


@dataclass(frozen=True)
class Errors:
    """One network in half precision.

    Attributes:
        network: the variant, e.g. `mobilenet_v1 1.0-224`.
        weights: `trained` or `generated`.
        inputs: number of images.
        largest, mean: largest and mean of the images' largest errors, as shares of the same image's largest magnitude in float32.
        storing: the largest over the first images if nothing but storing rounds.
        same_top: images whose largest output is the same.
        right: percent of the images that PyTorch classifies correctly; `None` for noise.
        kept: layers that stay in float32.
    """

    network: str
    weights: str
    inputs: int
    largest: float
    mean: float
    storing: float
    same_top: int
    right: float | None
    kept: int


def errors_of(model: Model, weights: str, inputs: int) -> Errors:
    """Build a network in half precision for this machine and compare it with PyTorch."""
    spec = model.spec
    images, labels = unseen_inputs(inputs, spec.resolution) if weights == TRAINED else (_noise(spec, inputs), None)
    with tempfile.TemporaryDirectory(prefix="tvmmobile-half-") as folder:
        half, kept = host_library(model, Path(folder))
        exact = by_torch(_module(model))
        shares, tops = [], []
        for image in images:
            found, wanted = half(image[None]), exact([image[None]])[0]
            shares.append(relative_error(found, wanted))
            tops.append((int(found.argmax()), int(wanted.argmax())))
    same = sum(found == wanted for found, wanted in tops)
    right = None if labels is None else 100 * float(np.mean([wanted == label for (_, wanted), label in zip(tops, labels, strict=True)]))
    storing = _storing(model, images[:STORED])
    return Errors(title(spec), weights, inputs, max(shares), float(np.mean(shares)), storing, same, right, kept)


def host_library(model: Model, folder: Path) -> tuple[Callable[[Array], Array], int]:
    """Build a network in half precision for this machine; return it, and how many layers stay in float32."""
    profile = replace(find_device(DEVICE).profile, target=HOST)
    job = variant_job(model, profile, [SHIPPED_LOGS], folder, LibraryOptions(precision=FLOAT16, format=VM))
    planned = plan_variant(job)
    export(planned.compiled(HOST), job.library.path, toolchain(HOST))  # its manifest would be refused: it is for no device
    return _loaded(job.library.path), len(planned.network.float32_layers)


def _noise(spec: ModelSpec, count: int) -> Array:
    return np.random.default_rng(1).normal(0.0, 1.0, (count, *spec.input_shape[1:])).astype(np.float32)


def _module(model: Model) -> torch.nn.Module:
    return build_torch_model(model.spec, model.checkpoint, model.seed).module


def _storing(model: Model, images: Array) -> float:
    """Return the largest error over some images where weights and activations are rounded, and nothing else."""
    imported = imported_torch(model.spec, _module(model), "")
    network = read_network(*lower_to_kernels(compose(imported.module, lambda layer: template_for(Task((layer,))) is not None)))
    errors = []
    for image in images:
        *_, (_, exact) = run_layers(network, [image[None]])
        *_, (_, rounded) = run_layers(network, [image[None]], lambda run: run.rounded(FLOAT16))
        errors.append(relative_error(rounded, exact))
    return max(errors)


def _loaded(path: Path) -> Callable[[Array], Array]:
    """Return a library's network on this machine."""
    import tvm
    from tvm import relax

    machine = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())

    def run(image: Array) -> Array:
        output: Array = machine["main"](tvm.runtime.tensor(image)).numpy()
        return output

    return run


def page(content: Sequence[Entry]) -> str:
    """Return the page with the content of the JSON file."""
    found = sorted((Errors(**entry) for entry in content), key=lambda one: one.network)
    parts = [INTRODUCTION]
    for weights, introduction in SECTIONS.items():
        rows = [_row(one) for one in found if one.weights == weights]
        if rows:
            trained = ("right in float32, %",) if weights == TRAINED else ()
            parts += [introduction, *markdown_table((*_HEADINGS, *trained), rows), ""]
    return "\n".join([*parts, "`./studies/run half_errors` wrote this page."]) + "\n"


_HEADINGS = ("network", "inputs", "largest error, %", "mean of images, %", "storing alone, %", "same top-1", "layers in float32")


def _row(one: Errors) -> tuple[object, ...]:
    shares = (f"{100 * share:.2f}" for share in (one.largest, one.mean, one.storing))
    return (one.network, one.inputs, *shares, one.same_top, one.kept, *(() if one.right is None else (f"{one.right:.1f}",)))


@study(
    option("--inputs", 256, "images for each network"),
    option("--weights", list(SECTIONS), nargs="+", choices=list(SECTIONS)),
    option("--models", None, "families (default: all)", nargs="+", metavar="NAME"),
    option("--out", PAGE, "the results are beside it as JSON", metavar="PAGE.md"),
)
def main(options: Options) -> None:
    """Compare what is missing."""
    specs = [spec for spec in (*COMPARED, *SMALLER) if options.models is None or spec.name in options.models]

    def computed(spec: ModelSpec, weights: str) -> Entry | None:
        try:
            model = _model(spec, weights)
        except UserError as error:
            progress(f"left out: {error}")
            return None
        return asdict(errors_of(model, weights, options.inputs))

    wanted: Wanted = {
        (title(spec), weights): partial(computed, spec, weights)
        for weights in options.weights
        for spec in sorted(specs, key=lambda spec: spec.alpha * spec.resolution)
    }
    completed(options.out.with_suffix(".json"), wanted, ("network", "weights"), page)


def _model(spec: ModelSpec, weights: str) -> Model:
    if weights == GENERATED:
        return Model(spec)
    check_trainable(Model(spec))
    return with_trained_weights(Model(spec), progress)
