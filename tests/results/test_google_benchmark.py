"""Google Benchmark's own `compare.py` (Debian: libbenchmark-tools) reads two of our files and says what `tvmmobile compare` says."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from report_samples import sample_results

from tvmmobile.gate.comparison import compare_results
from tvmmobile.results.file import Results, write_results

COMPARE = Path("/usr/share/benchmark/compare.py")
pytestmark = pytest.mark.skipif(not COMPARE.is_file(), reason=f"{COMPARE} is not there; run: apt-get install -y libbenchmark-tools")


def compare_py(folder: Path, base: Results, new: Results, *options: str) -> str:
    """Return the output of `compare.py` for the two."""
    write_results(base, folder / "base.json")
    write_results(new, folder / "new.json")
    # Debian's package draws in neither Python nor scipy; this Python has both.
    words = [sys.executable, str(COMPARE), "--no-color", *options, "benchmarks", "base.json", "new.json"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def timed(results: Results, *factors: float) -> Results:
    """Other libraries that take these shares of the time."""
    pairs = zip(results.variants, factors, strict=True)
    variants = [
        replace(one, samples_us=tuple(value * factor for value in one.samples_us), library_sha256="1" * 64) for one, factor in pairs
    ]
    return replace(results, variants=tuple(variants))


@pytest.mark.parametrize("measured", [False, True])
def test_its_table_has_our_variants_and_changes(tmp_path: Path, measured: bool) -> None:
    base = sample_results(4, measured=measured)
    new = timed(base, 1.1, 1.0, 0.8, 1.025)
    lines = compare_py(tmp_path, base, new).splitlines()
    rows = {words[0]: words[1:] for words in map(str.split, lines) if words and words[0].startswith("mobilenet")}
    ours = compare_results(base, new).variants
    assert list(rows) == [one.name for one in ours]
    for one in ours:
        time, cpu, old, now, *_ = rows[one.name]
        assert one.change is not None and one.base_us is not None and one.new_us is not None
        assert time == cpu == f"{one.change:+.4f}"
        assert (float(old), float(now)) == (round(one.base_us), round(one.new_us))
    (mean,) = [line.split() for line in lines if line.startswith("OVERALL_GEOMEAN")]
    assert float(mean[1]) == pytest.approx((1.1 * 0.8 * 1.025) ** 0.25 - 1, abs=1e-4)


def test_its_json_has_them_too(tmp_path: Path) -> None:
    base = sample_results(2)
    compare_py(tmp_path, base, timed(base, 1.5, 1.0), "--dump_to_json", "out.json")
    report = json.loads((tmp_path / "out.json").read_text())
    assert [row["measurements"][0]["time"] for row in report[:2]] == pytest.approx([0.5, 0.0])
    assert all(row["time_unit"] == "us" and row["run_type"] == "iteration" for row in report[:2])


def test_a_variant_that_only_one_has_is_left_out(tmp_path: Path) -> None:
    base = sample_results(3)
    out = compare_py(tmp_path, base, replace(base, variants=base.variants[1:]))
    assert base.variants[0].name not in out and all(variant.name in out for variant in base.variants[1:])


def test_no_u_test_is_offered(tmp_path: Path) -> None:
    """It would take the samples of one run to be independent and call equal libraries different; our gate does not."""
    base = sample_results(2, measured=True)
    out = compare_py(tmp_path, base, timed(base, 1.0, 1.0))
    assert base.variants[0].name in out and "pvalue" not in out
