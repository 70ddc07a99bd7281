"""JSON Schemas of the files that other programs read, made of the dataclasses that describe them.

docs/schemas holds them as files; `tests/test_schemas.py` says when they no longer fit, and writes them anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, is_dataclass
from inspect import cleandoc
from typing import Any, Literal

from pydantic import TypeAdapter

from tvmmobile import evaluation_file, gate_report, results
from tvmmobile.evaluation_file import Accuracy, EvaluationContext, EvaluationFile, ImageResult
from tvmmobile.gate import Verdict
from tvmmobile.results import Benchmark, Context, KernelResult, Latency, ResultFile

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ATTRIBUTES = "Attributes:\n"
#: A docstring's line that begins what is said of a field or of several.
_FIELDS = re.compile(r"    ([a-z_0-9]+(?:, [a-z_0-9]+)*): ")


@dataclass(frozen=True)
class KernelEntry:
    """A kernel that is another one in the new library, or takes another time.

    Attributes:
        name: of its task.
        base_schedule, new_schedule: how the old and the new library compute it; `None` where the library has no such kernel.
        base_us, new_us: what it took for all layers together, within the network's run or else as recorded, in microseconds; `None` where
            neither is known.
        macs: multiply-adds of one run.
        added_us: what the network loses by it, in microseconds; `None` where that is not known.
    """

    name: str
    base_schedule: str | None
    new_schedule: str | None
    base_us: float | None
    new_us: float | None
    macs: int
    added_us: float | None


@dataclass(frozen=True)
class ComparedEntry:
    """A variant with its verdict.

    Attributes:
        name: e.g. `mobilenet_v1_1.0_224_float32_t1`.
        model: network family, e.g. `mobilenet_v1`.
        alpha: width multiplier.
        resolution: input side, in pixels.
        dtype: of weights and activations, e.g. `float32`.
        threads: worker threads.
        verdict: `slower` and `faster` are beyond the threshold and, unless modelled, significant; `too noisy` and `not comparable` leave it
            open; `skipped` was not compared, see `note`.
        note: what there is to say beside the verdict; "" where there is nothing.
        base_us, new_us: medians, in microseconds; over all interleaved runs where there were some; `None` where there is none that counts.
        change: new over old latency, less 1; `None` without a comparison.
        detects: a slowdown beyond this share would not have been called the same; `None` where any would have been.
        p: of a slowdown from equal libraries, corrected for the number of variants; `None` where modelled or not compared.
        pairs: runs of each side that the verdict rests on.
        library_sha256: of the new library, in hexadecimal.
        kernels: those that differ, the likeliest cause first.
    """

    name: str
    model: str
    alpha: float
    resolution: int
    dtype: str
    threads: int
    verdict: Verdict
    note: str
    base_us: Latency | None
    new_us: Latency | None
    change: float | None
    detects: float | None
    p: float | None
    pairs: int
    library_sha256: str
    kernels: tuple[KernelEntry, ...]


@dataclass(frozen=True)
class ComparisonFile:
    """What `tvmmobile compare` and `regress` write with `--json`.

    Attributes:
        version: of this format.
        exit_code: of the command: 0 nothing is slower, 2 a variant is, 4 of one it cannot be said.
        threshold: a change up to this share is none.
        summary: the outcome in one sentence.
        notes: differences between the two results that a reader should know of, a sentence each.
        base, new: where and how the old and the new numbers were got.
        variants: the verdicts.
    """

    version: int
    exit_code: Literal[0, 2, 4]
    threshold: float
    summary: str
    notes: tuple[str, ...]
    base: Context
    new: Context
    variants: tuple[ComparedEntry, ...]


def report_schema() -> dict[str, Any]:
    """Of `report.json`, in the version that is written."""
    return _schema("report", results.FORMAT, ResultFile, (Context, Benchmark, KernelResult))


def comparison_schema() -> dict[str, Any]:
    """Of what `compare` and `regress` write with `--json`."""
    return _schema("comparison", gate_report.FORMAT, ComparisonFile, (Context, ComparedEntry, KernelEntry))


def evaluation_schema() -> dict[str, Any]:
    """Of `evaluation.json`."""
    return _schema("evaluation", evaluation_file.FORMAT, EvaluationFile, (EvaluationContext, Accuracy, ImageResult))


#: File name in docs/schemas → what makes it.
SCHEMAS: Mapping[str, Callable[[], dict[str, Any]]] = {
    f"report-{results.FORMAT}.schema.json": report_schema,
    f"comparison-{gate_report.FORMAT}.schema.json": comparison_schema,
    f"evaluation-{evaluation_file.FORMAT}.schema.json": evaluation_schema,
}


def _schema(name: str, version: int, root: type, parts: Iterable[type]) -> dict[str, Any]:
    content = TypeAdapter(root).json_schema()
    _describe(content, root)
    for part in parts:
        _describe(content["$defs"][part.__name__], part)
    content["properties"]["version"]["const"] = version
    title = f"tvmmobile {name}, format {version}"
    return {"$schema": DIALECT, "$id": f"urn:tvmmobile:schema:{name}:{version}", **content, "title": title}


def _describe(schema: dict[str, Any], kind: type) -> None:
    """Say of an object and its fields what the docstrings say; every field is always written, and no other."""
    schema["description"], said = _docstring(kind)
    for name, field in schema["properties"].items():
        field.pop("title", None)
        field.pop("default", None)
        # `description` of a `$ref` stands beside it.
        field["description"] = said[name]
    schema["required"] = list(schema["properties"])
    schema["additionalProperties"] = False


def _docstring(kind: type) -> tuple[str, dict[str, str]]:
    """A dataclass's summary, and what is said of each field by it and the dataclasses it is made of."""
    said: dict[str, str] = {}
    for base in filter(is_dataclass, reversed(kind.__mro__)):
        names: list[str] = []
        for line in cleandoc(base.__doc__ or "").partition(_ATTRIBUTES)[2].splitlines():
            if match := _FIELDS.match(line):
                names = match.group(1).split(", ")
                said |= dict.fromkeys(names, line[match.end() :])
            elif line:
                said |= {name: f"{said[name]} {line.strip()}" for name in names}
    summary = " ".join(cleandoc(kind.__doc__ or "").partition(_ATTRIBUTES)[0].split())
    return _for_json(summary), {name: _for_json(text) for name, text in said.items()}


def _for_json(text: str) -> str:
    return text.replace("`None`", "`null`")
