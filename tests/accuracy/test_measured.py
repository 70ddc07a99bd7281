"""Accuracies of `evaluation.json` for reports."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from evaluations import CONTEXT, result

from tvmmobile.accuracy.evaluation_file import evaluation_of, write_evaluation
from tvmmobile.accuracy.measured import read_accuracy
from tvmmobile.results.report.measured import MeasuredAccuracy
from tvmmobile.system.errors import UserError


def test_the_top1_of_the_library(tmp_path: Path) -> None:
    wrong = replace(result("1/b.png", 0.02), label=1)
    path, _ = write_evaluation(evaluation_of(replace(CONTEXT, folder="/photos/val/"), [result("0/a.png", 0.04), wrong]), tmp_path)
    assert read_accuracy(path) == MeasuredAccuracy(CONTEXT.library, CONTEXT.library_sha256, 50.0, "2 images of val")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"version": 2}, "has format 2, of a newer tvmmobile; this one reads 1"),
        ({"version": None}, "is not an evaluation of tvmmobile: its version is None, not one of ours"),
        ({"library": {"top1": 1}}, r"is not an evaluation of tvmmobile: library.top5 is missing"),
        ({"context": None}, "is not an evaluation of tvmmobile: context"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, changes: dict[str, object], complaint: str) -> None:
    path, _ = write_evaluation(evaluation_of(CONTEXT, [result("0/a.png", 0.04)]), tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=complaint) as caught:
        read_accuracy(path)
    assert "\n" not in caught.value.message and caught.value.remedy


def test_noise_has_no_accuracy(tmp_path: Path) -> None:
    path, _ = write_evaluation(evaluation_of(replace(CONTEXT, folder="noise:8"), [result("noise/0.npy", 0.0)]), tmp_path)
    with pytest.raises(UserError, match=r"has no accuracy: it is of noise:8"):
        read_accuracy(path)
