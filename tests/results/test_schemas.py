"""docs/schemas: what is in the repository is what the dataclasses say, and every produced file validates against it.

After a change that is meant, raise the format's version, write the schemas anew and read the difference:
`TVMMOBILE_UPDATE_GOLDEN=1 ./scripts/test tests/results/test_schemas.py; git diff docs/schemas`
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from json_schemas import SCHEMAS, comparison_schema, report_schema
from jsonschema import Draft202012Validator
from report_samples import sample_results

from tvmmobile.gate.comparison import Comparison, compare_results
from tvmmobile.gate.report import comparison_json
from tvmmobile.results import file as result_module
from tvmmobile.results.file import OMITTED_IF_NONE, Context, KernelResult, Results, VariantResult, read_results, write_results
from tvmmobile.system.errors import UserError

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "schemas"
UPDATE = bool(os.environ.get("TVMMOBILE_UPDATE_GOLDEN"))


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_file_is_what_the_dataclasses_say(name: str) -> None:
    schema = SCHEMAS[name]()
    Draft202012Validator.check_schema(schema)
    text = json.dumps(schema, indent=1) + "\n"
    if UPDATE:
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / name).write_text(text)
    assert (FOLDER / name).read_text() == text


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_field_is_described_and_no_other_is_allowed(name: str) -> None:
    schema = SCHEMAS[name]()
    assert schema["$id"] and schema["title"]
    parts = [schema, *(part for part in schema["$defs"].values() if part["type"] == "object")]
    assert len(parts) >= 4
    for part in parts:
        assert part["description"] and not part["additionalProperties"]
        assert part["required"] == [field for field in part["properties"] if field not in OMITTED_IF_NONE]
        assert all(field["description"] and "`None`" not in field["description"] for field in part["properties"].values())


def test_units_are_said() -> None:
    """Every number whose name carries a unit has it in words as well."""
    words = {"_us": "microseconds", "_ms": "milliseconds", "_hz": "Hz", "bytes_per_s": "bytes per second"}
    found = 0
    for name in SCHEMAS:
        schema = SCHEMAS[name]()
        for part in schema["$defs"].values():
            for field, content in part.get("properties", {}).items():
                for suffix, word in words.items():
                    if field.endswith(suffix):
                        found += 1
                        assert word in content["description"], field
    assert found > 8


def _results() -> Iterator[Results]:
    for measured in (False, True):
        yield (results := sample_results(16, measured=measured))
        variant = results.variants[0]
        kernel = replace(variant.kernels[0], network_us=3.5, l1d_misses=1, dram_bytes=64, least_bytes=64, course=((1, 5.0), (8, 4.0)))
        other = replace(kernel, latency_us=None, rank_correlation=-0.25, course=())
        full = replace(variant, kernels=(kernel, other), invalid="throttled", conditions={"steady": True, "before": [{"celsius": 51.5}]})
        poor = replace(full, name="own", top1=None, top1_source=None, kernels=(), term_ms={"core": 1.0, "overlap": -0.5}, max_error=0.0)
        context = replace(results.context, kind="emulated", memory_bytes_per_s=4e9, memory_source="a manual")
        yield Results(context, (full, poor))
        yield Results(context, ())
        yield Results(context, (replace(full, kernels=(replace(kernel, zeros=0.8), other), dense_us=90.5, weights_dtype="int8"),))


@pytest.mark.parametrize("results", list(_results()), ids=lambda results: f"{results.context.kind}-{len(results.variants)}")
def test_every_result_file_validates(tmp_path: Path, results: Results) -> None:
    write_results(results, tmp_path / "report.json")
    assert not list(Draft202012Validator(report_schema()).iter_errors(json.loads((tmp_path / "report.json").read_text())))
    assert read_results(tmp_path / "report.json") == results


def _comparisons() -> Iterator[Comparison]:
    for measured in (False, True):
        base = sample_results(4, measured=measured)
        factors = (1.5, 0.5, 1.0)
        timed = [
            replace(one, samples_us=tuple(value * factor for value in one.samples_us), library_sha256="1" * 64)
            for one, factor in zip(base.variants, factors, strict=False)
        ]
        kernels = timed[0].kernels
        timed[0] = replace(timed[0], kernels=(replace(kernels[0], schedule="other"), replace(kernels[1], name="new"), *kernels[2:]))
        spoiled = replace(base.variants[3], library_sha256="2" * 64, invalid="throttled")
        versions = {**base.context.versions, "tvm": "other"}
        yield compare_results(base, Results(replace(base.context, versions=versions), (*timed, spoiled)))
        yield compare_results(base, base)
        yield compare_results(base, Results(base.context, base.variants[1:]))


@pytest.mark.parametrize("comparison", list(_comparisons()), ids=lambda comparison: comparison.new.kind)
def test_every_comparison_validates(comparison: Comparison) -> None:
    assert not list(Draft202012Validator(comparison_schema()).iter_errors(json.loads(comparison_json(comparison))))


def test_comparisons_show_every_shape() -> None:
    verdicts = {str(variant.verdict) for comparison in _comparisons() for variant in comparison.variants}
    assert verdicts == {"slower", "faster", "same", "too noisy", "not comparable", "skipped"}
    assert any(variant.kernels for comparison in _comparisons() for variant in comparison.variants)


def _places(content: Any, where: tuple[int | str, ...] = ()) -> Iterator[tuple[int | str, ...]]:
    """Yield the place of every field in a file; of lists, those of their first entry."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield (*where, key)
            yield from _places(value, (*where, key))
    elif isinstance(content, list) and content:
        yield (*where, 0)
        yield from _places(content[0], (*where, 0))


#: The samples, and what is worked out from them.
_OF_SAMPLES = ("samples_us", "iterations", "real_time", "cpu_time", "latency_us")


def test_the_schema_and_the_reader_refuse_the_same(tmp_path: Path) -> None:
    """Each value of a file in turn is left out or replaced by something else; both see it, or neither."""
    path = tmp_path / "report.json"
    results = sample_results(1)
    kernel = replace(results.variants[0].kernels[0], course=((1, 5.0),), network_us=1.0, zeros=0.8)
    write_results(replace(results, variants=(replace(results.variants[0], kernels=(kernel,), dense_us=90.5),)), path)
    text = path.read_text()
    validator = Draft202012Validator(report_schema())
    tried = refused = 0
    for where in _places(json.loads(text)):
        if where == ("version",):
            continue  # the schema is of one version
        for value in (None, "text", -1, 0, 1.5, 1e30, [], {}, True):
            content = json.loads(text)
            holder = content
            for part in where[:-1]:
                holder = holder[part]
            holder[where[-1]] = value
            valid = validator.is_valid(content)
            path.write_text(json.dumps(content))
            try:
                read_results(path)
            except UserError as error:
                # No schema says that a field is the median of others.
                contradicted = "samples" in error.message and where[2] in _OF_SAMPLES
                assert not valid or contradicted, (where, value)
                refused += 1
            else:
                assert valid, (where, value)
            tried += 1
    assert tried > 500 and refused > tried / 2


def test_no_field_is_forgotten() -> None:
    definitions = report_schema()["$defs"]
    for kind, name in ((Context, "Context"), (KernelResult, "KernelResult"), (VariantResult, "Benchmark")):
        assert {field.name for field in fields(kind)} <= set(definitions[name]["properties"])
    assert report_schema()["properties"]["version"]["const"] == result_module.FORMAT
