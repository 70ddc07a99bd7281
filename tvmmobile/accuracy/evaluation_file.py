"""Records how a library and its original classify labelled images: `evaluation.json`, versioned, and `evaluation.csv`.

The JSON Schema in docs/schemas is made from the dataclasses here, docstrings and ranges included (`tests/results/test_schemas.py`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tvmmobile.accuracy.differences import Differences, OutputDifference, differences_of
from tvmmobile.accuracy.significance import Top1Loss, top1_loss
from tvmmobile.accuracy.storage import StoredLayer
from tvmmobile.results.file import Count, NotNegative, Positive, PositiveCount
from tvmmobile.results.report.spreadsheet import csv_text
from tvmmobile.system.files import write_text

FORMAT = 1
_Percent = Annotated[float, Field(ge=0, le=100)]
_Classes = Annotated[tuple[Count, ...], Field(max_length=5)]
#: Columns with 1 or 0, properties of `ImageResult`.
_YES_OR_NO = ("library_hit1", "library_hit5", "original_hit1", "original_hit5", "same_top1", "same_top5")
#: One line per image. Classes are separated by blanks, most likely first; deviations are empty if an output is not finite. For an image
#: that could not be read, all between `label` and `problem` is empty.
COLUMNS = (
    *("image", "label", "library_top1", "library_top5", "original_top1", "original_top5"),
    *(*_YES_OR_NO, "deviation", "mean_deviation", "problem"),
)


@dataclass(frozen=True)
class EvaluationContext:
    """The library, device, images and settings of an evaluation.

    Attributes:
        library: file name of the library.
        library_sha256: SHA-256 of the `.so`, in hexadecimal.
        model: network family, e.g. `mobilenet_v1`.
        alpha: width multiplier.
        resolution: input side, in pixels.
        classes: outputs of the classifier.
        dtype: type of weights and activations, e.g. `float32`.
        threads: worker threads.
        weights: origin of the weights of the library and of its original.
        judge: program that computes the original's output on the host, with version, e.g. `PyTorch 2.13.0`, or `ONNX Runtime 1.32.0`.
        device: name of the device, e.g. `pi4-virtual`.
        board: the product, e.g. `Raspberry Pi 4 Model B`.
        kind: whether the board is `virtual`, `hardware`, or `emulated`: a machine that runs the board's programs in an emulator.
        folder: folder of the images.
        class_folders: number of class folders in it.
        images_found: number of images in it.
        images_chosen: number of images selected for evaluation, evenly spaced over the list sorted by class folder and name.
        labels: the rule by which class folders became labels, in words.
        preprocessing: preprocessing of each image, in words.
        tolerance: largest deviation at which the library still agrees with its original.
        versions: versions of tvmmobile, tvm and torch.
        date: ISO 8601, UTC.
    """

    library: str
    library_sha256: str
    model: str
    alpha: Positive
    resolution: PositiveCount
    classes: PositiveCount
    dtype: str
    threads: PositiveCount
    weights: str
    judge: str
    device: str
    board: str
    kind: Literal["virtual", "hardware", "emulated"]
    folder: str
    class_folders: PositiveCount
    images_found: PositiveCount
    images_chosen: PositiveCount
    labels: str
    preprocessing: str
    tolerance: Positive
    versions: dict[str, str]
    date: str


@dataclass(frozen=True)
class ImageResult:
    """The outputs for one image.

    Attributes:
        image: path of the image in the folder, e.g. `n01440764/ILSVRC2012_val_00000293.JPEG`.
        label: index of its class, from 0.
        library_top5, original_top5: the five most likely classes, most likely first, ties by index; fewer if the network has fewer. Empty
            if the output is not finite, or the image could not be read.
        deviation: largest difference between the two outputs, relative to the original's largest magnitude; `None` if either is not finite,
            or the image could not be read.
        problem: reason why the image could not be read; "" if it could.
        difference: further statistics of the difference; `None` if the image could not be read.
    """

    image: str
    label: Count
    library_top5: _Classes
    original_top5: _Classes
    deviation: NotNegative | None
    problem: str = ""
    difference: OutputDifference | None = None

    def disagrees(self, tolerance: float) -> bool:
        """Return whether the library's output differs from the original's by more than the tolerance."""
        return not self.problem and (self.deviation is None or self.deviation > tolerance)

    @property
    def library_hit1(self) -> bool:
        """True if the library names the image's class first."""
        return self.label in self.library_top5[:1]

    @property
    def library_hit5(self) -> bool:
        """True if the image's class is among the library's five."""
        return self.label in self.library_top5

    @property
    def original_hit1(self) -> bool:
        """True if the original names the image's class first."""
        return self.label in self.original_top5[:1]

    @property
    def original_hit5(self) -> bool:
        """True if the image's class is among the original's five."""
        return self.label in self.original_top5

    @property
    def same_top1(self) -> bool:
        """True if both name the same class first."""
        return bool(self.library_top5) and self.library_top5[:1] == self.original_top5[:1]

    @property
    def same_top5(self) -> bool:
        """True if both name the same five classes, in any order."""
        return bool(self.library_top5) and set(self.library_top5) == set(self.original_top5)


@dataclass(frozen=True)
class Accuracy:
    """Numbers of correctly classified images.

    Attributes:
        top1: images whose label is the most likely class.
        top5: images whose label is one of the five most likely classes.
        top1_percent, top5_percent: the same in percent of the images that could be read; `None` if there were none.
    """

    top1: Count
    top5: Count
    top1_percent: _Percent | None
    top5_percent: _Percent | None


@dataclass(frozen=True)
class EvaluationFile:
    """A library's accuracy over labelled images, with that of the network it was compiled from: tvmmobile's `evaluation.json`.

    Attributes:
        version: version of this format.
        complete: true if all selected images are included; false if the run was interrupted or failed.
        context: the library, device, images and settings.
        evaluated: number of images that were read and run.
        unreadable: number of images that could not be read.
        library: the library's accuracy on the device.
        original: accuracy on the host of the network that it was compiled from.
        same_top1: number of images for which both name the same class first.
        same_top5: number of images for which both name the same five classes, in any order.
        beyond_tolerance: number of images on which the library disagrees with its original.
        largest_deviation: the largest `deviation` of an image; `None` without finite outputs.
        largest_deviation_image: the image with the largest deviation.
        differences: statistics of the differences between the library's outputs and the original's.
        images: one entry per image, in the order of the sorted list.
        stored_images: number of evenly spaced images on which `stored` is based.
        stored: loss of each layer due only to the precision of stored weights and activations, simulated in PyTorch on the host; empty in
            float32, and for networks that PyTorch does not compute.
        top1_loss: loss of top-1 against the original; `None` without images.
    """

    version: int
    complete: bool
    context: EvaluationContext
    evaluated: Count
    unreadable: Count
    library: Accuracy
    original: Accuracy
    same_top1: Count
    same_top5: Count
    beyond_tolerance: Count
    largest_deviation: NotNegative | None
    largest_deviation_image: str | None
    differences: Differences
    images: tuple[ImageResult, ...]
    stored_images: Count = 0
    stored: tuple[StoredLayer, ...] = ()
    top1_loss: Top1Loss | None = None


def evaluation_of(
    context: EvaluationContext, images: Sequence[ImageResult], stored_images: int = 0, stored: tuple[StoredLayer, ...] = ()
) -> EvaluationFile:
    """Count everything; complete if `images` are as many as were chosen."""
    read = [result for result in images if not result.problem]
    worst = max((result for result in read if result.deviation is not None), key=lambda result: result.deviation or 0.0, default=None)
    return EvaluationFile(
        version=FORMAT,
        complete=len(images) == context.images_chosen,
        context=context,
        evaluated=len(read),
        unreadable=len(images) - len(read),
        library=_accuracy([(result.library_hit1, result.library_hit5) for result in read]),
        original=_accuracy([(result.original_hit1, result.original_hit5) for result in read]),
        same_top1=sum(result.same_top1 for result in read),
        same_top5=sum(result.same_top5 for result in read),
        beyond_tolerance=sum(result.disagrees(context.tolerance) for result in read),
        largest_deviation=worst.deviation if worst else None,
        largest_deviation_image=worst.image if worst else None,
        images=tuple(images),
        differences=differences_of([result.difference for result in read if result.difference]),
        stored_images=stored_images,
        stored=stored,
        top1_loss=top1_loss([result.original_hit1 for result in read], [result.library_hit1 for result in read]),
    )


def write_evaluation(evaluation: EvaluationFile, out: Path) -> tuple[Path, Path]:
    """Write `evaluation.json` and `evaluation.csv`, each whole; return their paths."""
    paths = out / "evaluation.json", out / "evaluation.csv"
    write_text(paths[0], json.dumps(asdict(evaluation), ensure_ascii=False, allow_nan=False, indent=1) + "\n")
    write_text(paths[1], csv_text(COLUMNS, map(_line, evaluation.images)))
    return paths


def _accuracy(hits: Sequence[tuple[bool, bool]]) -> Accuracy:
    """Count for every image whether its class is the most likely one, and whether it is among the five most likely."""
    top1, top5, count = sum(first for first, _ in hits), sum(five for _, five in hits), len(hits)
    return Accuracy(top1, top5, 100 * top1 / count if count else None, 100 * top5 / count if count else None)


def _line(result: ImageResult) -> dict[str, object]:
    line: dict[str, object] = {"image": result.image, "label": result.label, "problem": result.problem}
    if result.problem:
        return line
    for name, classes in (("library", result.library_top5), ("original", result.original_top5)):
        line |= {f"{name}_top1": next(iter(classes), None), f"{name}_top5": " ".join(map(str, classes))}
    for name in _YES_OR_NO:
        line[name] = int(getattr(result, name))
    means = {"deviation": result.deviation, "mean_deviation": result.difference.mean if result.difference else None}
    return line | means
