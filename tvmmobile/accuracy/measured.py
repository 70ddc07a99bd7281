"""The accuracy that `evaluate` found, for reports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from tvmmobile.accuracy.evaluation_file import FORMAT, EvaluationFile
from tvmmobile.accuracy.noise import is_noise
from tvmmobile.results.report.measured import MeasuredAccuracy
from tvmmobile.results.report.wording import plural
from tvmmobile.system.errors import UserError
from tvmmobile.system.json_files import FileKind, check_version, read_json, validated

_MADE_BY = "tvmmobile evaluate LIBRARY FOLDER --out DIR"
_KIND = FileKind("an evaluation of tvmmobile", f"Name an evaluation.json: {_MADE_BY}", _MADE_BY)


@dataclass(frozen=True)
class StatedAccuracy:
    """An accuracy that the user states, in a JSON file with a list of them.

    Attributes:
        library: its name without the number of threads, such as `net_1.0_224_int8`.
        top1_percent: the accuracy.
        images: the images that it was measured on, such as `50000 images of ImageNet`.
    """

    library: str
    top1_percent: Annotated[float, Field(ge=0, le=100)]
    images: str


def read_accuracies(path: Path) -> list[MeasuredAccuracy]:
    """Return the accuracy in an `evaluation.json`, or those in a list of `StatedAccuracy`; raise `UserError` as `read_accuracy` does."""
    text, content = read_json(path, _KIND)
    if not isinstance(content, list):
        return [read_accuracy(path)]
    return [
        MeasuredAccuracy(accuracy.library, "", accuracy.top1_percent, accuracy.images)
        for accuracy in validated(path, _KIND, text, list[StatedAccuracy])
    ]


def read_accuracy(path: Path) -> MeasuredAccuracy:
    """Return the accuracy in an `evaluation.json`.

    Raises:
        UserError: it cannot be read, is damaged or not such a file, is of another version, or is not of labelled images.
    """
    text, content = read_json(path, _KIND)
    check_version(path, _KIND, content, (FORMAT,), ("context", "images"))
    file = validated(path, _KIND, text, EvaluationFile)
    context, top1 = file.context, file.library.top1_percent
    if is_noise(context.folder) or top1 is None:
        raise UserError(f"{path} has no accuracy: it is of {context.folder}.", "Evaluate the library over a folder of labelled images.")
    images = f"{plural(file.evaluated, 'image')} of {Path(context.folder).name or context.folder}"
    return MeasuredAccuracy(context.library, context.library_sha256, top1, images)
