"""The accuracy that `evaluate` found, for reports."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from tvmmobile.accuracy.evaluation_file import FORMAT, EvaluationFile
from tvmmobile.accuracy.noise import is_noise
from tvmmobile.results.report.measured import MeasuredAccuracy
from tvmmobile.results.report.wording import plural
from tvmmobile.system.errors import UserError
from tvmmobile.system.json_files import FileKind, read_json, validated

_KIND = FileKind("an evaluation of tvmmobile", "Name an evaluation.json: tvmmobile evaluate LIBRARY FOLDER --out DIR")


def read_accuracy(path: Path) -> MeasuredAccuracy:
    """The accuracy in an `evaluation.json`.

    Raises:
        UserError: it cannot be read, is damaged or not such a file, is of another version, or is not of labelled images.
    """
    text, content = read_json(path, _KIND)
    _check_version(path, content)
    file = validated(path, _KIND, text, _reader())
    context, top1 = file.context, file.library.top1_percent
    if is_noise(context.folder) or top1 is None:
        raise UserError(f"{path} has no accuracy: it is of {context.folder}.", "Evaluate the library over a folder of labelled images.")
    images = f"{plural(file.evaluated, 'image')} of {Path(context.folder).name or context.folder}"
    return MeasuredAccuracy(context.library, context.library_sha256, top1, images)


@cache
def _reader() -> TypeAdapter[EvaluationFile]:
    return TypeAdapter(EvaluationFile)


def _check_version(path: Path, content: Any) -> None:
    """Raises `UserError` unless it is a file of ours in this version."""
    version = content.get("version") if isinstance(content, dict) and "images" in content else None
    if type(version) is not int:
        raise _KIND.refusal(path, "it has no version or no images")
    if version != FORMAT:
        raise UserError(f"{path} has format {version}, and this version reads {FORMAT}.", "Evaluate the library again: tvmmobile evaluate")
