"""The file of a validation: written and read again, small, about the board alone, and refused with what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from json_schemas import validation_schema
from jsonschema import Draft202012Validator
from validation_samples import observed, validated

from tvmmobile.results.validation import ValidatedBoard, read_validation, write_validation
from tvmmobile.system.errors import UserError

SAMPLE = validated(observed(27, 0.05))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "validation.json"
    write_validation(SAMPLE, path)
    assert read_validation(path) == SAMPLE and path.stat().st_size < 40_000
    Draft202012Validator(validation_schema()).validate(json.loads(path.read_text()))
    assert len(SAMPLE.valid("kernel")) == 22 and len(SAMPLE.valid("network")) == 5 and len(SAMPLE.valid()) == 27


def test_it_has_no_place_for_whose_the_board_is() -> None:
    """A new field is a decision: nobody's name, address, path or serial number may be shared by sharing the file."""
    fields = "board cpu mcpu cores clock_hz memory_bytes system kernel libc kind pinned"
    assert list(ValidatedBoard.__dataclass_fields__) == fields.split()


def set_to(*place: Any) -> Callable[[Any], None]:
    *where, last, value = place

    def change(content: Any) -> None:
        for part in where:
            content = content[part]
        content[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (set_to("version", 1), "has format 1, which is no longer supported; this one reads 2"),
        (set_to("version", True), "its version is True, not one of ours"),
        (lambda content: content.pop("version"), "it has no version"),
        (lambda content: content.pop("points"), "points is missing"),
        (set_to("host", "desk"), "host is not known"),
        (set_to("points", 3, "measured_ms", 0), "points[3].measured_ms"),
        (set_to("points", 3, "measured_ms", "1"), "points[3].measured_ms"),
        (set_to("points", 3, "name", "kernel 2"), "a point appears twice"),
        (set_to("points", 3, "core_cycles", -1), "points[3].core_cycles"),
        (set_to("points", 3, "misses", "luck", 1), "points[3].misses has other kinds"),
        (lambda content: content["points"][3]["misses"].pop("stores"), "points[3].misses has other kinds"),
        (set_to("points", 3, "phases", [{"core_cycles": 1, "misses": {"luck": 1}}]), "points[3].phases[0].misses has other kinds"),
        (set_to("points", 3, "phases", [{"core_cycles": -1, "misses": {}}]), "points[3].phases[0].core_cycles"),
        (set_to("points", 3, "term_ms", "luck", 1.0), "points[3].term_ms has other terms"),
        (set_to("points", 3, "library_sha256", "../"), "points[3].library_sha256"),
        (set_to("measured", "kind", "modelled"), "measured.kind"),
        (set_to("measured", "clock_hz", 0), "measured.clock_hz"),
        (set_to("measured", "system", "x" * 300), "measured.system"),
        (set_to("kernel_ranks", 1.5), "kernel_ranks"),
        (set_to("terms", 0, "explained", 2), "terms[0].explained"),
    ],
)
def test_a_damaged_file_is_refused_by_place(tmp_path: Path, change: Callable[[Any], None], problem: str) -> None:
    path = tmp_path / "validation.json"
    write_validation(SAMPLE, path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as refusal:
        read_validation(path)
    assert problem in refusal.value.message and "--out FILE" in refusal.value.as_typed[1]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"version": NaN}', '{"version": 1}'])
def test_no_validation_at_all(tmp_path: Path, text: str) -> None:
    path = tmp_path / "validation.json"
    path.write_text(text)
    with pytest.raises(UserError):
        read_validation(path)
