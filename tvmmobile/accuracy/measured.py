"""The accuracy that `evaluate` found, for reports."""

from __future__ import annotations

from pathlib import Path

from tvmmobile.accuracy.evaluation_file import FORMAT, EvaluationFile
from tvmmobile.accuracy.noise import is_noise
from tvmmobile.results.report.measured import MeasuredAccuracy
from tvmmobile.results.report.wording import plural
from tvmmobile.system.errors import UserError
from tvmmobile.system.json_files import FileKind, check_version, read_json, validated

_MADE_BY = "tvmmobile evaluate LIBRARY FOLDER --out DIR"
_KIND = FileKind("an evaluation of tvmmobile", f"Name an evaluation.json: {_MADE_BY}", _MADE_BY)


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
