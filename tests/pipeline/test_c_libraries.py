"""C libraries go wherever libraries of TVM's virtual machine go: one is verified, timed, reported, kept and compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from c_libraries import write_device_library
from conftest import CommandLine

import tvmmobile as tm
from tvmmobile.system.files import sha256_of

pytestmark = pytest.mark.virtual
DEVICE = "pi4-virtual"


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tm.Results]:
    """A folder with a library, and what `bench` found."""
    folder = tmp_path_factory.mktemp("c")
    (library,) = tm.open_libraries(write_device_library(folder))
    return folder, library.bench(DEVICE)


def test_it_is_verified_and_timed(timed: tuple[Path, tm.Results]) -> None:
    folder, results = timed
    (variant,) = results.variants
    assert results.context.kind == "modelled" and 0 < results.latency_ms < 1
    assert 0 < variant.max_error < 1e-5 and variant.library_sha256 == sha256_of(folder / "net.so")


def test_it_is_reported(timed: tuple[Path, tm.Results], cli: CommandLine, tmp_path: Path) -> None:
    tm.report(timed[1], tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} >= {".json", ".csv", ".md", ".html"}
    assert tm.read_results(tmp_path / "report.json") == timed[1]
    shown = cli("report", str(tmp_path / "report.json"))
    assert shown.code == 0 and "modelled" in shown.out, shown.err


def test_it_is_a_baseline_and_compared_with_it(timed: tuple[Path, tm.Results], cli: CommandLine, tmp_path: Path) -> None:
    folder, results = timed
    (saved,) = tm.save_baselines(results, folder, tmp_path)
    kept = saved.library()
    assert kept is not None and kept.is_c and kept.path.read_bytes() == (folder / "net.so").read_bytes()
    done = cli("regress", str(folder), "--dir", str(tmp_path), "--device", DEVICE)
    assert done.code == 0 and "same library" in done.out and "1 skipped" in done.out, done.err


def test_it_is_run(timed: tuple[Path, tm.Results]) -> None:
    (library,) = tm.open_libraries(timed[0])
    (data,), (expected,) = library.reference()
    assert np.abs(library.run(data, DEVICE) - expected).max() < 1e-5 * np.abs(expected).max()
