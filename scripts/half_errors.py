"""How far half precision is from float32 over many inputs, for every network of `tvmmobile models`.

    ./scripts/half_errors                                      # as docs/half-errors.md and .json; networks already there stay
    ./scripts/half_errors --inputs 32 --out /tmp/errors.md     # all of them, over fewer inputs

The kernels are those that `compile --dtype float16 --device pi5` takes, compiled for this machine: sums, chains and conversions are the
same, but each product with its sum is rounded twice, to float32 and then to half precision. Weights are generated and inputs are noise,
which shows what a network does to rounding errors, not what a task loses; `tvmmobile evaluate` is for trained weights.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from sharing import markdown_table, progress, telling

from tvmmobile.devices.registry import find_device
from tvmmobile.graph.layers import Array
from tvmmobile.graph.network import read_network
from tvmmobile.graph.passes.pipeline import prepare
from tvmmobile.graph.precision import FLOAT16
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.reference import relative_error
from tvmmobile.kernels.simulation import run_layers
from tvmmobile.networks.frontend import by_torch, imported_torch
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.published import COMPARED
from tvmmobile.networks.models.registry import build_torch_model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.pipeline.build import build
from tvmmobile.pipeline.job import variant_job
from tvmmobile.running.formats import VM
from tvmmobile.schedules import template_for
from tvmmobile.system.environment import SHIPPED_LOGS
from tvmmobile.system.files import write_text

DEVICE = "pi5-virtual"
PAGE = Path(__file__).parents[1] / "docs/half-errors.md"
#: Without them LLVM converts half precision number by number, and a kernel takes minutes to build.
HOST = {"kind": "llvm", "mattr": ["+avx2", "+f16c"] if platform.machine() == "x86_64" else ["+fullfp16"]}
#: Images for `Errors.storing`.
STORED = 8
SMALLER = (ModelSpec("mobilenet_v1", 0.75, 192), ModelSpec("mobilenet_v1", 0.25, 128))
INTRODUCTION = """# How far half precision is from float32

Libraries of `--dtype float16` beside PyTorch's float32, with **generated** weights (Kaiming, batch norm's statistics non-trivial, seed 0)
and white noise as images. Kernels are those for the Raspberry Pi 5, compiled for the machine that wrote this page, where half precision is
computed in float32 and rounded after each step. Nothing was trained: networks of random weights amplify the rounding of their first layers
more than trained ones do. A trained MobileNet v1 0.25-32 keeps PyTorch's top-1 class on 500 of 500 images, with a largest error of 1.1 %
on one of them and 0.56 % on the next ([evaluate.md](evaluate.md)).

Errors are shares of the largest magnitude of the same image's float32 output. *Storing alone* is a simulation over the first 8 images:
PyTorch's float32 with weights and activations rounded to half precision, and sums that are exact. No schedule can do better than that.
Where it is too much, `--max-error 0.01` keeps as many of the first layers in float32 as it takes ([tune.md](tune.md)).
"""


@dataclass(frozen=True)
class Errors:
    """One network in half precision.

    Attributes:
        network: the variant, e.g. `mobilenet_v1 1.0-224`.
        inputs: how many images of noise.
        largest, mean: of the images' largest errors, as shares of the largest magnitude of the same image's float32 output.
        storing: the largest over the first images if nothing but storing rounds.
        same_top: images whose largest output is the same.
        kept: layers that stay in float32.
    """

    network: str
    inputs: int
    largest: float
    mean: float
    storing: float
    same_top: int
    kept: int


def title(spec: ModelSpec) -> str:
    """As in the page's first column."""
    return f"{spec.name} {spec.alpha}-{spec.resolution}"


def errors_of(spec: ModelSpec, inputs: int) -> Errors:
    """Build a network in half precision for this machine and compare it with PyTorch."""
    with tempfile.TemporaryDirectory(prefix="tvmmobile-half-") as folder:
        job = variant_job(Model(spec), find_device(DEVICE).profile, [SHIPPED_LOGS], Path(folder), precision=FLOAT16, form=VM)
        built = build(replace(job, target=HOST))
        half, exact = _loaded(built.library.path), by_torch(build_torch_model(spec, None, 0).module)
        shares, same = [], 0
        for image in _images(spec, inputs):
            found, wanted = half(image), exact([image])[0]
            shares.append(relative_error(found, wanted))
            same += int(found.argmax() == wanted.argmax())
    return Errors(title(spec), inputs, max(shares), float(np.mean(shares)), _storing(spec), same, len(built.kept))


def _images(spec: ModelSpec, count: int) -> Iterator[Array]:
    generator = np.random.default_rng(1)
    return (generator.normal(0.0, 1.0, spec.input_shape).astype(np.float32) for _ in range(count))


def _storing(spec: ModelSpec) -> float:
    """The largest error over some images where weights and activations are rounded, and nothing else."""
    imported = imported_torch(spec, build_torch_model(spec, None, 0).module, "")
    network = read_network(*prepare(imported.module, lambda layer: template_for(Task((layer,))) is not None))
    errors = []
    for image in _images(spec, STORED):
        *_, (_, exact) = run_layers(network, [image])
        *_, (_, rounded) = run_layers(network, [image], lambda run: run.rounded(FLOAT16))
        errors.append(relative_error(rounded, exact))
    return max(errors)


def _loaded(path: Path) -> Callable[[Array], Array]:
    """A library's network on this machine."""
    import tvm
    from tvm import relax

    machine = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())

    def run(image: Array) -> Array:
        output: Array = machine["main"](tvm.runtime.tensor(image)).numpy()
        return output

    return run


def page(content: Sequence[Mapping[str, Any]]) -> str:
    """The page of what the JSON file holds."""
    headings = ("network", "inputs", "largest error, %", "mean of images, %", "storing alone, %", "same top-1", "layers in float32")
    rows = [
        (one.network, one.inputs, *(f"{100 * share:.2f}" for share in (one.largest, one.mean, one.storing)), one.same_top, one.kept)
        for one in sorted((Errors(**entry) for entry in content), key=lambda one: one.network)
    ]
    return "\n".join([INTRODUCTION, *markdown_table(headings, rows), "", "`./scripts/half_errors` wrote this page."]) + "\n"


@telling
def main() -> int:
    """Compare what is missing; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=256, help="images for each network (default: 256)")
    parser.add_argument("--out", type=Path, default=PAGE, metavar="PAGE.md", help="the results are beside it as JSON")
    options = parser.parse_args()
    data = options.out.with_suffix(".json")
    found = json.loads(data.read_text()) if data.exists() else []
    done = {entry["network"] for entry in found}
    for spec in sorted((*COMPARED, *SMALLER), key=lambda spec: spec.alpha * spec.resolution):
        if title(spec) not in done:
            progress(f"{title(spec)}: {options.inputs} inputs")
            found.append(asdict(errors_of(spec, options.inputs)))
            write_text(data, json.dumps(found, indent=1) + "\n")
            write_text(options.out, page(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
