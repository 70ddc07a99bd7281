"""The calibration: what is committed is good and explained, a fit finds what it should, and what cannot be calibrated says why."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from region_programs import build_program

from tvmmobile.errors import UserError
from tvmmobile.virtual import calibration
from tvmmobile.virtual.board import board_names, load_board
from tvmmobile.virtual.calibration import (
    CALIBRATED,
    Fit,
    Misses,
    Observation,
    calibrated_boards,
    calibration_of,
    fit_board,
    mean_error,
    published,
    read_fit,
    run_hash,
    term_ms,
    worst_error,
    write_fit,
)
from tvmmobile.virtual.program import run_program

PI4 = load_board("pi4")
FITS = sorted(path for path in CALIBRATED.glob("*.json") if path.name != "published.json")
TRUE = {"load_l2_hits": 6.0, "load_l2_misses": 9.0, "stores": 15.0}  # cycles, ns, ns


def observations(noise: float = 0.0, stores_ns: float = 15.0) -> list[Observation]:
    """Seven made-up networks whose latency is what `TRUE` makes it."""
    seeded, made = random.Random(1), []
    for number in range(7):
        misses = Misses(*(seeded.randrange(200_000, 6_000_000) for _ in range(3)))
        core = seeded.randrange(40_000_000, 300_000_000)
        cycles = core + misses.load_l2_hits * TRUE["load_l2_hits"]
        ms = cycles / PI4.clock_hz * 1e3 + (misses.load_l2_misses * TRUE["load_l2_misses"] + misses.stores * stores_ns) * 1e-6
        made.append(Observation(f"n{number}", ms * (1 + seeded.uniform(-noise, noise)), core, misses))
    return made


@pytest.mark.parametrize("path", FITS, ids=lambda path: path.stem)
def test_a_committed_fit_holds_and_is_good(path: Path) -> None:
    fit = read_fit(path)
    assert calibration_of(load_board(fit.board)) == fit, "the model or the board changed: ./scripts/calibrate --networks DIR"
    assert mean_error(fit.left_out_errors) <= 0.05 and worst_error(fit.left_out_errors) <= 0.12
    assert [seen.measured_ms for seen in fit.observations] == list(published()["boards"][fit.board]["threads_1"].values())
    told = json.loads(path.read_text(encoding="utf-8"))["errors"]["leave_one_out"]
    assert told["mean"] == pytest.approx(mean_error(fit.left_out_errors), abs=1e-4)


@pytest.mark.parametrize("path", FITS, ids=lambda path: path.stem)
def test_committed_parameters_are_physical(path: Path) -> None:
    fit = read_fit(path)
    assert [p.name for p in fit.parameters] == ["load_l2_hits", "load_l2_misses", "stores"]
    for p in fit.parameters:
        assert p.low <= p.value <= p.high and p.low_source and p.high_source
        assert not p.on_bound or p.note, f"{p.name} lies on its bound, and nothing says why"


def test_a_committed_fit_can_be_repeated() -> None:
    fit = read_fit(CALIBRATED / "pi4.json")
    assert fit_board(PI4, fit.observations, fit.wheel) == fit


def test_the_parameters_of_made_up_networks_are_found() -> None:
    fit = fit_board(PI4, observations(), "none")
    assert {p.name: p.value for p in fit.parameters} == pytest.approx(TRUE, rel=1e-4)
    assert worst_error(fit.errors) < 1e-4 and worst_error(fit.left_out_errors) < 1e-4
    assert not any(p.on_bound or p.note for p in fit.parameters)


def test_a_parameter_on_its_bound_is_explained() -> None:
    stores = fit_board(PI4, observations(stores_ns=60), "none").parameters[2]
    assert stores.value == pytest.approx(stores.high) and stores.on_bound
    assert stores.note.startswith("on its upper bound: without it the fit would take 60 ns")


def test_leaving_one_out_costs_something() -> None:
    fit = fit_board(PI4, observations(noise=0.1), "none")
    assert mean_error(fit.left_out_errors) > mean_error(fit.errors) > 0


def test_too_few_networks() -> None:
    with pytest.raises(UserError, match="3 networks do not determine 3 parameters"):
        fit_board(PI4, observations()[:3], "none")


def test_a_board_of_which_nothing_is_documented() -> None:
    with pytest.raises(UserError, match="Nothing documented bounds what a miss costs on pi5"):
        fit_board(load_board("pi5"), observations(), "none")


def test_terms_add_up() -> None:
    fit, misses = fit_board(PI4, observations(), "none"), Misses(1_000_000, 2_000_000, 3_000_000)
    terms = term_ms(PI4, 1.8e6, misses, fit.parameters)
    assert list(terms) == ["core", "load_l2_hits", "load_l2_misses", "stores"]
    assert list(terms.values()) == pytest.approx([1.0, 6e6 / 1.8e6, 18.0, 45.0], rel=1e-4)
    slower = term_ms(load_board("pi4-1500"), 1.8e6, misses, fit.parameters)
    assert slower["core"] == pytest.approx(1.2) and slower["stores"] == pytest.approx(terms["stores"])  # memory keeps its own time
    assert term_ms(PI4, 1.8e6, misses, ()) == {"core": pytest.approx(1.0)}


def test_what_a_fit_holds_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert calibrated_boards() == {"pi4", "pi4-1500"}
    assert {name for name in board_names() if calibration_of(load_board(name))} == calibrated_boards()
    other = PI4.model_copy(update={"caches": PI4.caches.model_copy(update={"l2_bytes": 1 << 19})})
    assert calibration_of(other) is None
    assert len({run_hash(board) for board in (PI4, other, load_board("pi4-1500"))}) == 3
    monkeypatch.setattr(calibration, "CORRECTED_VERSION", 1000)
    calibration_of.cache_clear()
    assert calibration_of(PI4) is None
    monkeypatch.undo()
    calibration_of.cache_clear()


def test_files_are_read_as_written(tmp_path: Path) -> None:
    fit = fit_board(PI4, observations(noise=0.05), "none")
    write_fit(fit, tmp_path / "pi4.json")
    again = read_fit(tmp_path / "pi4.json")
    assert again == fit and isinstance(again, Fit) and again.digest == fit.digest
    assert replace(fit, parameters=fit.parameters[:2]).digest != fit.digest


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"errors": {}, "observations": [{}], "parameters": []}'])
def test_files_that_are_no_calibration(tmp_path: Path, text: str) -> None:
    (tmp_path / "pi4.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"pi4\.json is no calibration") as caught:
        read_fit(tmp_path / "pi4.json")
    assert "scripts/calibrate" in caught.value.remedy


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--networks", "EMPTY"], "There is no "),
        (["--networks", "EMPTY", "--boards", "pi3000"], "There is no virtual board 'pi3000'."),
        (["--networks", "EMPTY", "--boards", "pi5"], "no published figures to calibrate pi5 with"),
        (["--networks", "BAD"], "is no ncnn network"),
    ],
)
def test_the_script_says_what_is_missing(repository: Path, tmp_path: Path, arguments: list[str], complaint: str) -> None:
    for name in ("EMPTY", "BAD"):
        (tmp_path / name).mkdir()
    for network in published()["input_side"]:
        (tmp_path / "BAD" / f"{network}.param").write_text("hello\n", encoding="utf-8")
    command = [sys.executable, str(repository / "scripts/calibrate.py"), *arguments, "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == "" and complaint in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "pi4.json").exists()


@pytest.mark.virtual
@pytest.mark.parametrize(
    ("what", "lines", "kind"), [("reads", 4096, "load_l2_hits"), ("reads", 32768, "load_l2_misses"), ("writes", 32768, "stores")]
)
def test_misses_are_told_apart(tmp_path: Path, what: str, lines: int, kind: str) -> None:
    run = run_program(PI4, [str(build_program(tmp_path)), what, str(lines)])
    for name in ("load_l2_hits", "load_l2_misses", "stores"):
        assert abs(getattr(run.misses, name) - (lines if name == kind else 0)) <= 40, name
