"""`report.json`: what is written is what is read, and nothing else is."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_samples import sample_results

from tvmmobile.errors import UserError
from tvmmobile.results import FORMAT, read_results, write_results


@pytest.mark.parametrize("measured", [False, True])
def test_what_is_written_is_read(tmp_path: Path, measured: bool) -> None:
    results = sample_results(measured=measured)
    write_results(results, tmp_path / "report.json")
    assert read_results(tmp_path / "report.json") == results


def test_shaped_like_google_benchmark(tmp_path: Path) -> None:
    results = sample_results(1, measured=True)
    write_results(results, tmp_path / "report.json")
    content = json.loads((tmp_path / "report.json").read_text())
    entry = content["benchmarks"][0]
    assert content["version"] == FORMAT and content["context"]["kind"] == "measured"
    assert entry["name"] == entry["run_name"] == "mobilenet_v1_1.0_224_float32_t1" and entry["time_unit"] == "us"
    assert entry["real_time"] == results.variants[0].latency_us and entry["iterations"] == len(entry["samples_us"]) == 5


def test_share_of_the_peak_is_of_all_threads() -> None:
    results = sample_results(1)
    variant = replace(results.variants[0], macs=7_200_000, samples_us=(1000.0,))
    assert variant.peak_share(results.context) == pytest.approx(1.0)
    assert replace(variant, threads=4).peak_share(results.context) == pytest.approx(0.25)


def test_numbers_json_does_not_have_are_refused(tmp_path: Path) -> None:
    results = sample_results(1)
    broken = replace(results, variants=(replace(results.variants[0], max_error=math.nan),))
    with pytest.raises(ValueError, match="JSON"):
        write_results(broken, tmp_path / "report.json")
    assert not list(tmp_path.iterdir())


def _with(**changes: Any) -> Any:
    def change(content: dict[str, Any]) -> None:
        content["benchmarks"][0].update(changes)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content.update(version=FORMAT + 1), f"format {FORMAT + 1}"),
        (lambda content: content.pop("context"), "context"),
        (lambda content: content["context"].update(kind="guessed"), "guessed"),
        (lambda content: content["context"].update(clock_hz=0), "clock_hz"),
        (lambda content: content["context"].update(surprise=1), "surprise"),
        (lambda content: content["benchmarks"][0].pop("macs"), "macs"),
        (_with(samples_us=[]), "no samples"),
        (_with(samples_us=["1"]), "'1'"),
        (_with(samples_us=[-1.0]), "-1.0"),
        (_with(samples_us=[math.nan]), "nan"),
        (_with(macs=None), "None"),
        (_with(kernels=[{"name": "a"}]), "missing"),
        (lambda content: content.update(benchmarks=["a"]), "not a result file"),
    ],
)
def test_other_files_are_refused_with_what_is_wrong(tmp_path: Path, change: Any, said: str) -> None:
    path = tmp_path / "report.json"
    write_results(sample_results(1), path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=said) as refusal:
        read_results(path)
    assert refusal.value.remedy and str(path) in refusal.value.message


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"null", b"\xff\xfe", b"<html>"])
def test_no_result_file_at_all(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a result file"):
        read_results(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_results(tmp_path / "report.json")
