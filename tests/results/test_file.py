"""`report.json`: what is written is what is read, and nothing else is."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandLine
from report_samples import sample_results, without_kernel_times

from tvmmobile.cli import VERBS
from tvmmobile.results.file import FORMAT, read_results, write_results
from tvmmobile.system import json_files
from tvmmobile.system.errors import UserError

VERSION = f'"version": {FORMAT}'.encode()


@pytest.mark.parametrize("measured", [False, True])
def test_what_is_written_is_read(tmp_path: Path, measured: bool) -> None:
    results = sample_results(measured=measured)
    write_results(results, tmp_path / "report.json")
    assert read_results(tmp_path / "report.json") == results


def test_the_text_of_results_is_short() -> None:
    """A notebook shows it at the end of a cell."""
    results, none = sample_results(6), sample_results(0)
    first, second = results.variants[:2]
    where, latency = f"<Results on {results.context.device}, modelled: ", f"{first.latency_ms:.4g} ms"
    assert repr(first) == f"<VariantResult {first.name}: {latency}>"
    assert repr(results).startswith(f"{where}{first.name} {latency}, {second.name} ") and repr(results).endswith(" ms, and 2 more>")
    assert len(repr(results)) < 300 and repr(none) == f"{where}no variants>"


def test_shaped_like_google_benchmark(tmp_path: Path) -> None:
    results = sample_results(1, measured=True)
    write_results(results, tmp_path / "report.json")
    content = json.loads((tmp_path / "report.json").read_text())
    entry = content["benchmarks"][0]
    assert content["version"] == FORMAT and content["context"]["kind"] == "measured"
    assert entry["name"] == entry["run_name"] == "mobilenet_v1_1.0_224_float32_t1" and entry["time_unit"] == "us"
    assert entry["real_time"] == results.variants[0].latency_us and entry["iterations"] == len(entry["samples_us"]) == 5


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("real_time", 1.0, "benchmarks[1].real_time is 1, and the median of its samples is "),
        ("cpu_time", 1e9, "benchmarks[1].cpu_time is 1000000000, and the median of its samples is "),
        ("latency_us", 2.5, "benchmarks[1].latency_us is 2.5, and the median of its samples is "),
        ("iterations", 7, "benchmarks[1].iterations is 7, and it has 5 samples"),
    ],
)
def test_a_result_that_contradicts_its_samples_is_refused(tmp_path: Path, field: str, value: float, complaint: str) -> None:
    path = tmp_path / "report.json"
    write_results(sample_results(2, measured=True), path)
    content = json.loads(path.read_text())
    content["benchmarks"][1][field] = value
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        read_results(path)
    assert complaint in caught.value.message and str(path) in caught.value.message


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


def test_a_course_comes_back_as_it_was(tmp_path: Path) -> None:
    """JSON knows lists only, and whoever compares or hashes results would stumble over them."""
    results = sample_results(1)
    kernel = replace(results.variants[0].kernels[0], course=((1, 20.5), (8, 11.25)), network_us=0.0, l1d_misses=0)
    changed = replace(results, variants=(replace(results.variants[0], kernels=(kernel,)),))
    write_results(changed, tmp_path / "report.json")
    (read,) = read_results(tmp_path / "report.json").variants
    assert read.kernels == (kernel,) and hash(read.kernels) == hash((kernel,))


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """A library's file name may hold bytes that are not UTF-8; what is written is JSON that everybody reads."""
    results = sample_results(1)
    named = replace(results, variants=(replace(results.variants[0], name="a\udcffb\u202e", weights="\ud83d\ude00 \U0001f600"),))
    write_results(named, tmp_path / "report.json")
    (read,) = read_results(tmp_path / "report.json").variants
    assert (read.name, read.weights) == ("a?b\u202e", "?? \U0001f600") and (tmp_path / "report.json").read_bytes().isascii()


def test_a_library_of_a_file_that_does_not_say_is_for_the_virtual_machine(tmp_path: Path) -> None:
    results, path = sample_results(1), tmp_path / "report.json"
    write_results(replace(results, variants=(replace(results.variants[0], format="c"),)), path)
    assert [variant.format for variant in read_results(path).variants] == ["c"]
    content = json.loads(path.read_text())
    content["version"] = 3
    del content["benchmarks"][0]["format"]
    path.write_text(json.dumps(content))
    assert read_results(path) == results and results.variants[0].format == "vm"


def test_the_format_before_is_read(tmp_path: Path) -> None:
    """Fields that it lacked have their defaults."""
    results = sample_results(2)
    path = tmp_path / "report.json"
    write_results(results, path)
    content = json.loads(path.read_text())
    content["version"] = 2
    for name in ("memory_bytes_per_s", "memory_source"):
        del content["context"][name]
    for entry in content["benchmarks"]:
        del entry["format"]
        for kernel in entry["kernels"]:
            for name in ("network_us", "l1d_misses", "dram_bytes", "least_bytes", "course"):
                del kernel[name]
    path.write_text(json.dumps(content))
    assert read_results(path) == without_kernel_times(results)


Change = Callable[[dict[str, Any]], object]


def _with(**changes: Any) -> Change:
    def change(content: dict[str, Any]) -> None:
        content["benchmarks"][1].update(changes)

    return change


def _kernel(**changes: Any) -> Change:
    def change(content: dict[str, Any]) -> None:
        content["benchmarks"][1]["kernels"][3].update(changes)

    return change


def _nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"deeper": [value]}
    return value


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda content: content.update(version=FORMAT + 1), f"has format {FORMAT + 1}, of a newer tvmmobile"),
        (lambda content: content.update(version=1), "has format 1, which is no longer supported"),
        (lambda content: content.update(version="3"), "its version is '3', not one of ours"),
        (lambda content: content.update(version=True), "its version is True, not one of ours"),
        (lambda content: content.update(version=10**300), "its version is a huge number, not one of ours"),
        (lambda content: content.pop("version"), "another program's, shaped like Google Benchmark's"),
        (lambda content: content.pop("context"), "it has no context"),
        (lambda content: content.update(surprise=1), "surprise is not known"),
        (lambda content: content.update(benchmarks=["a"]), r"benchmarks\[0\]: "),
        (lambda content: content["context"].update(kind="guessed"), "context.kind: .*'guessed'"),
        (lambda content: content["context"].update(clock_hz=-1), "context.clock_hz: .*it is -1"),
        (lambda content: content["context"].update(surprise=1), "context.surprise is not known"),
        (lambda content: content["context"].update({"\x1b[31m": 1}), r"context.'\\x1b\[31m' is not known"),
        (lambda content: content["benchmarks"][1].pop("macs"), r"benchmarks\[1\].macs is missing"),
        (_with(samples_us=[]), r"benchmarks\[1\].samples_us: .*at least 1 item"),
        (_with(samples_us=[1.0, "1"]), r"benchmarks\[1\].samples_us\[1\]: .*it is '1'"),
        (_with(samples_us=[True]), r"benchmarks\[1\].samples_us\[0\]: .*it is True"),
        (_with(samples_us=[-1.0]), r"benchmarks\[1\].samples_us\[0\]: .*it is -1.0"),
        (_with(samples_us=[0]), r"benchmarks\[1\].samples_us\[0\]: .*it is 0"),
        (_with(samples_us=[1.0, math.nan]), r"benchmarks\[1\].samples_us\[1\] is nan"),
        (_with(samples_us=[math.inf]), r"benchmarks\[1\].samples_us\[0\] is inf"),
        (_with(samples_us=[1e300]), r"benchmarks\[1\].samples_us\[0\]: .*it is 1e\+300"),
        (_with(samples_us=None), r"benchmarks\[1\].samples_us: .*it is None"),
        (_with(macs=None), r"benchmarks\[1\].macs: .*it is None"),
        (_with(macs=10**30), r"benchmarks\[1\].macs: .*a huge number"),
        (_with(conditions={"before": [{"celsius": math.nan}]}), r"benchmarks\[1\].conditions.before\[0\].celsius is nan"),
        (_with(conditions=_nested(40)), r"benchmarks\[1\].conditions is nested too deeply"),
        (_with(kernels=[{"name": "a"}]), r"benchmarks\[1\].kernels\[0\].kind is missing \(and 3 more\)"),
        (_kernel(latency_us=-2), r"benchmarks\[1\].kernels\[3\].latency_us: .*it is -2"),
        (_kernel(course=[[1, 2.0, 3]]), r"benchmarks\[1\].kernels\[3\].course\[0\]: "),
        (lambda content: content["benchmarks"].append(content["benchmarks"][0]), r"appears twice, as benchmarks\[0\] and benchmarks\[2\]"),
    ],
)
def test_other_files_are_refused_with_what_is_wrong_and_where(tmp_path: Path, change: Change, problem: str) -> None:
    path = tmp_path / "report.json"
    write_results(sample_results(2), path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=problem) as refusal:
        read_results(path)
    message = refusal.value.message
    assert refusal.value.remedy and str(path) in message and "\n" not in message and message.isprintable()


#: Contents found in place of a result file, with the expected messages.
FAULTS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "is empty"),
    "blank": (lambda _: b"\n \n", "is empty"),
    "cut off in text": (lambda good: good[: good.index(b"pi4-virtual") + 4], "was cut off: EOF while parsing a string at line"),
    "cut off at the end": (lambda good: good.rstrip()[:-1], "was cut off: EOF while parsing an object at line"),
    "a list": (lambda _: b"[]", "it is not a JSON object"),
    "another object": (lambda _: b'{"name": "package", "version": "1.0.0"}', "it has no context and no benchmarks"),
    "Google Benchmark's own": (
        lambda _: b'{"context": {"date": ""}, "benchmarks": []}',
        "another program's, shaped like Google Benchmark's",
    ),
    "HTML": (lambda _: b"<!DOCTYPE html><html></html>", "it is not JSON, expected value at line 1 column 1"),
    "a picture": (lambda _: b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "byte 0 is not UTF-8 text"),
    "UTF-16": (lambda good: good.decode().encode("utf-16"), "byte 0 is not UTF-8 text"),
    "two files in one": (lambda good: good + good, "it is not JSON, trailing characters at line"),
    "deep": (lambda _: b"[" * 1_000_000, "it is nested too deeply"),
    "deep and closed": (lambda _: b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "it is nested too deeply"),
    "long numbers": (lambda good: good.replace(VERSION, b'"version": ' + b"1" * 10_000), "it is not JSON, number out of range"),
    "huge": (lambda good: good + b" " * json_files.MOST_BYTES, "it has more than 64 MiB"),
    "not a number": (lambda good: good.replace(b'"max_error": 3.4e-07', b'"max_error": NaN'), "benchmarks[0].max_error is nan"),
    "of the future": (lambda good: good.replace(VERSION, b'"version": 99'), "has format 99, of a newer tvmmobile"),
}


#: Commands that read result files.
READERS = [
    ("compare", "BAD", "GOOD"),
    ("compare", "GOOD", "BAD"),
    ("baseline", "save", "BAD", "--dir", "KEPT"),
    ("report", "BAD", "--out", "KEPT"),
]


@pytest.mark.parametrize("words", [words for words in READERS if words[0] in {verb.name for verb in VERBS}], ids="-".join)
@pytest.mark.parametrize("fault", FAULTS)
def test_commands_say_what_is_wrong_with_a_file(tmp_path: Path, cli: CommandLine, fault: str, words: tuple[str, ...]) -> None:
    damage, problem = FAULTS[fault]
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    write_results(sample_results(1), good)
    bad.write_bytes(damage(good.read_bytes()))
    assert bad.read_bytes() != good.read_bytes()
    places = {"GOOD": str(good), "BAD": str(bad), "KEPT": str(tmp_path / "kept")}
    outcome = cli(*(places.get(word, word) for word in words))
    assert outcome.code == 1 and outcome.out == ""
    message, remedy = outcome.err.splitlines()
    assert message.startswith(f"tvmmobile: error: {bad} ") and problem in message and remedy
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_baseline_that_was_damaged(tmp_path: Path, cli: CommandLine, fault: str) -> None:
    write_results(sample_results(1), tmp_path / "good.json")
    assert cli("baseline", "save", str(tmp_path / "good.json"), "--dir", str(tmp_path / "kept")).code == 0
    (kept,) = (tmp_path / "kept").rglob("*.result.json")
    damage, problem = FAULTS[fault]
    kept.write_bytes(damage(kept.read_bytes()))
    for words in (("list",), ("show", "mobilenet")):
        outcome = cli("baseline", *words, "--dir", str(tmp_path / "kept"))
        assert outcome.code == 1 and str(kept) in outcome.err and problem in outcome.err


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_results(tmp_path / "report.json")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_results(tmp_path)
