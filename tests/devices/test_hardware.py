"""On a registered board: it works, a library computes what PyTorch computes, and timing it twice gives the same latency."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import USER_DATA, CommandLine

from tvmmobile.devices.board.registered import load_device
from tvmmobile.results.file import read_results

pytestmark = pytest.mark.hardware
#: Between the medians of two runs of the same library.
SAME = 0.05


@pytest.fixture
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name = request.config.getoption("--device")
    if not name:
        pytest.skip("needs a registered board: pytest -m hardware --device NAME")
    if USER_DATA is None:
        monkeypatch.delenv("TVMMOBILE_DATA")
    else:
        monkeypatch.setenv("TVMMOBILE_DATA", USER_DATA)
    if load_device(name) is None:
        pytest.skip(f"{name} is not registered: tvmmobile device add {name} --ssh USER@HOST")
    return str(name)


def test_device_is_ready(device: str, cli: CommandLine) -> None:
    outcome = cli("device", "check", device)
    assert outcome.code == 0 and f"{device} is ready." in outcome.out, outcome.err


def test_two_runs_agree(device: str, cli: CommandLine, tmp_path: Path) -> None:
    libraries = tmp_path / "libraries"
    compiled = cli("compile", "--device", device, "--alpha", "0.25", "--resolution", "128", "--out", str(libraries))
    assert compiled.code == 0, compiled.err
    medians = []
    for number in range(2):
        out = tmp_path / str(number)
        benched = cli("bench", str(libraries), "--device", device, "--require-hardware", "--out", str(out))
        assert benched.code == 0, benched.err
        (variant,) = read_results(out / "report.json").variants
        assert not variant.invalid, variant.invalid
        medians.append(variant.latency_us)
    assert max(medians) <= (1 + SAME) * min(medians)


def test_tuning_measures_and_loses_nothing(device: str, cli: CommandLine, tmp_path: Path) -> None:
    words = ("tune", "--device", device, "--require-hardware", "--alpha", "0.25", "--resolution", "32", "--trials", "1")
    first = cli(*words, "--logs", str(tmp_path / "logs"), "--out", str(tmp_path / "out"))
    assert first.code == 0, first.err
    (log,) = (tmp_path / "logs" / device).glob("*.jsonl")
    records = log.read_text().splitlines()
    again = cli(*words, "--logs", str(tmp_path / "logs"), "--out", str(tmp_path / "out"))
    assert again.code == 0 and log.read_text().splitlines() == records and ", 0 trials to run" in again.err
