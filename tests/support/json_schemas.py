"""JSON Schemas of the files that other programs read, made of the dataclasses that describe them.

docs/schemas holds them as files; `tests/results/test_schemas.py` says when they no longer fit, and writes them anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from inspect import cleandoc
from typing import Any

from pydantic import TypeAdapter

from tvmmobile.accuracy import evaluation_file
from tvmmobile.accuracy.differences import Differences, OutputDifference
from tvmmobile.accuracy.evaluation_file import Accuracy, EvaluationContext, EvaluationFile, ImageResult
from tvmmobile.accuracy.significance import Top1Loss
from tvmmobile.accuracy.storage import StoredLayer
from tvmmobile.gate import comparison
from tvmmobile.gate.comparison import Compared, Comparison
from tvmmobile.gate.kernel_changes import KernelChange
from tvmmobile.results import file as result_file
from tvmmobile.results import validation as validation_file
from tvmmobile.results.file import Benchmark, Context, KernelResult, ResultFile
from tvmmobile.results.validation import ValidatedBoard, ValidatedModel, ValidatedPhase, Validation, ValidationPoint
from tvmmobile.virtual.calibration.residuals import TermError

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ATTRIBUTES = "Attributes:\n"
#: A docstring's line that begins the description of one or several fields.
_FIELDS = re.compile(r"    ([a-z_0-9]+(?:, [a-z_0-9]+)*): ")


def report_schema() -> dict[str, Any]:
    """Return the schema of `report.json`, in the version that is written."""
    return _schema("report", result_file.FORMAT, ResultFile, (Context, Benchmark, KernelResult))


def comparison_schema() -> dict[str, Any]:
    """Return the schema of what `compare` and `regress` write with `--json`."""
    return _schema("comparison", comparison.FORMAT, Comparison, (Context, Compared, KernelChange))


def evaluation_schema() -> dict[str, Any]:
    """Return the schema of `evaluation.json`."""
    parts = (EvaluationContext, Accuracy, ImageResult, OutputDifference, Differences, StoredLayer, Top1Loss)
    return _schema("evaluation", evaluation_file.FORMAT, EvaluationFile, parts)


def validation_schema() -> dict[str, Any]:
    """Return the schema of what `device validate` writes."""
    return _schema(
        "validation", validation_file.FORMAT, Validation, (ValidatedBoard, ValidatedModel, ValidationPoint, ValidatedPhase, TermError)
    )


#: File name in docs/schemas → what makes it.
SCHEMAS: Mapping[str, Callable[[], dict[str, Any]]] = {
    f"report-{result_file.FORMAT}.schema.json": report_schema,
    f"comparison-{comparison.FORMAT}.schema.json": comparison_schema,
    f"evaluation-{evaluation_file.FORMAT}.schema.json": evaluation_schema,
    f"validation-{validation_file.FORMAT}.schema.json": validation_schema,
}


def _schema(name: str, version: int, root: type, parts: Iterable[type]) -> dict[str, Any]:
    """Return the schema of a file whose content is a `root`; `parts` are the dataclasses inside whose fields are described too."""
    content = TypeAdapter(root).json_schema()
    _describe(content, root)
    for part in parts:
        _describe(content["$defs"][part.__name__], part)
    content["properties"]["version"]["const"] = version
    title = f"tvmmobile {name}, format {version}"
    return {"$schema": DIALECT, "$id": f"urn:tvmmobile:schema:{name}:{version}", **content, "title": title}


def _describe(schema: dict[str, Any], kind: type) -> None:
    """Say of an object and its fields what the docstrings say; every field but those on sparse kernels is always written, and no other."""
    schema["description"], descriptions = _docstring(kind)
    for name, field in schema["properties"].items():
        field.pop("title", None)
        field.pop("default", None)
        # `description` of a `$ref` stands beside it.
        field["description"] = descriptions[name]
    schema["required"] = [name for name in schema["properties"] if name not in result_file.OMITTED_IF_NONE]
    schema["additionalProperties"] = False


def _docstring(kind: type) -> tuple[str, dict[str, str]]:
    """Return a dataclass's summary, and the description of each field, from it and its bases."""
    descriptions: dict[str, str] = {}
    for base in filter(is_dataclass, reversed(kind.__mro__)):
        names: list[str] = []
        for line in cleandoc(base.__doc__ or "").partition(_ATTRIBUTES)[2].splitlines():
            if match := _FIELDS.match(line):
                names = match.group(1).split(", ")
                descriptions |= dict.fromkeys(names, line[match.end() :])
            elif line:
                descriptions |= {name: f"{descriptions[name]} {line.strip()}" for name in names}
    summary = " ".join(cleandoc(kind.__doc__ or "").partition(_ATTRIBUTES)[0].split())
    return _for_json(summary), {name: _for_json(text) for name, text in descriptions.items()}


def _for_json(text: str) -> str:
    return text.replace("`None`", "`null`")
