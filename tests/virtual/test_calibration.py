"""The calibrations: what is committed is good and explained, a fit finds what it should, and what cannot be calibrated says why."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from region_programs import build_program

from tvmmobile.system.errors import UserError
from tvmmobile.virtual import debian_packages, sysroot
from tvmmobile.virtual.board import Board, board_names, load_board
from tvmmobile.virtual.calibration.fit import (
    CALIBRATED,
    Fit,
    Observation,
    calibrated_boards,
    calibration_of,
    mean_error,
    published,
    read_fit,
    run_hash,
    run_of,
    worst_error,
    write_fit,
)
from tvmmobile.virtual.calibration.fitting import SeveralThreads, fit_core
from tvmmobile.virtual.calibration.terms import TERMS, Parameter, term_ms
from tvmmobile.virtual.cores import corrected
from tvmmobile.virtual.profile import MissCounts
from tvmmobile.virtual.program import run_program

PI4 = load_board("pi4")
FITS = sorted(path for path in CALIBRATED.glob("*.json") if path.name != "published.json")
TRUE = {name: 0.3 + 0.1 * place for place, name in enumerate(TERMS)}
#: Errors that a committed calibration stays below: with a network left out, mean and worst, of those in floats and in integers; mean and
#: worst of a board left out, and the mean one of several threads.
GOOD = {
    "cortex-a53": ((0.05, 0.12), (0.08, 0.18), 0.10, 0.12),
    "cortex-a55": ((0.08, 0.18), (0.08, 0.18), 0.10, 0.12),
    "cortex-a72": ((0.04, 0.09), (0.08, 0.18), 0.10, 0.12),
    "cortex-a73": ((0.08, 0.18), (0.08, 0.18), 0.10, 0.12),
    "cortex-a76": ((0.05, 0.12), (0.08, 0.18), 0.10, 0.12),
    "cortex-a78": ((0.06, 0.12), (0.08, 0.15), 0.10, 0.16),  # on six threads
    "cortex-x4": ((0.15, 0.25), (0.09, 0.15), 0.10, 0.12),  # of a phone whose clock while it ran nobody knows
    "neoverse-n2": ((0.05, 0.12), (0.08, 0.15), 0.07, 0.12),
}
RK3399 = load_board("rk3399-a72")


def observations(noise: float = 0.0, boards: Sequence[Board] = (PI4, RK3399), **other: float) -> list[Observation]:
    """Seven made-up networks on each board whose latency is what `TRUE` makes it, but for `other` parameters."""
    seeded, made, true = random.Random(1), [], TRUE | other
    for board in boards:
        for number in range(7):
            misses = MissCounts(*(seeded.randrange(200_000, 6_000_000) for _ in range(7)))
            core = seeded.randrange(40_000_000, 300_000_000)
            ms = core / board.clock_hz * 1e3 + sum(true[name] * term.amount_ms(board, misses) for name, term in TERMS.items())
            name = f"n{number}_int8" if number > 4 else f"n{number}"
            made.append(Observation(board.name, name, ms * (1 + seeded.uniform(-noise, noise)), core, misses))
    return made


def several(parameters: Sequence[Parameter], true: float = 0.7) -> list[SeveralThreads]:
    """Networks in four threads whose memory delivers `true`."""
    assert [p.name for p in parameters] == list(TERMS)
    return [
        SeveralThreads("pi4", f"n{number}", 4, 10 + number / true, lambda share, number=number: 10 + number / share)  # type: ignore[misc]
        for number in range(1, 5)
    ]


def made_up_fit(noise: float = 0.0, boards: Sequence[Board] = (PI4, RK3399), **other: float) -> Fit:
    return fit_core({board.name: (board, "none") for board in boards}, observations(noise, boards, **other), several)


@pytest.mark.parametrize("path", FITS, ids=lambda path: path.stem)
def test_a_committed_fit_holds_and_is_good(path: Path) -> None:
    fit = read_fit(path)
    assert calibration_of(load_board(fit.boards[0].name)) == fit, "the model or a board changed: ./scripts/calibrate --networks DIR"
    *kinds, elsewhere, in_threads = GOOD[fit.core]
    for board in fit.board_names:
        for errors, (mean, worst) in zip((fit.of_board(fit.left_out_errors, board, one) for one in (False, True)), kinds, strict=True):
            assert mean_error(errors) <= mean and worst_error(errors) <= worst
    if fit.board_left_out_ms:
        assert mean_error(fit.board_left_out_errors) <= elsewhere
    for name, errors in fit.check_errors().items():
        assert not name.endswith("left out") or mean_error(errors) <= in_threads
    recorded = json.loads(path.read_text(encoding="utf-8"))["errors"]["network left out"]
    assert recorded["mean"] == pytest.approx(mean_error(fit.left_out_errors), abs=1e-4)


@pytest.mark.parametrize("path", FITS, ids=lambda path: path.stem)
def test_a_committed_fit_has_all_rows_that_are_not_excluded(path: Path) -> None:
    fit, figures = read_fit(path), published()
    rows = [row for row in figures["rows"] if load_board(row["board"]).mcpu == fit.core and "excluded" not in row]
    seen = {(observation.board, 1, observation.network): observation.measured_ms for observation in fit.observations}
    checked = {(check.board, check.threads, check.network): check.measured_ms for check in fit.checks}
    wanted = {(row["board"], row["threads"], name): ms for row in rows for name, ms in run_of(row).items()}
    assert (seen | checked).items() <= wanted.items() and len(checked) >= min(3, sum(threads > 1 for _, threads, _ in wanted))
    assert seen.keys() == {one for one in wanted if one[1] == 1}
    assert set(fit.board_names) == {row["board"] for row in rows if row["threads"] == 1 and run_of(row)}
    assert {board.name: board.wheel for board in fit.boards}.items() <= {
        row["board"]: row["wheel"] for row in rows if row["threads"] == 1
    }.items()


def test_published_rows_name_their_clock_wheel_and_why_they_are_left_aside() -> None:
    figures = published()
    for row in figures["rows"]:
        assert list(row["min_ms"]) == list(figures["input_side"]) and row["title"] and row["measured"] >= "2021" and row["why_wheel"]
        assert row["wheel"].startswith("ncnn==1.0.20") and len(row.get("excluded", "x" * 60)) >= 60
    assert {row["board"] for row in figures["rows"] if "excluded" in row} >= {"pizero2w", "rk3588-a76", "rk3588-a55"}


@pytest.mark.parametrize("path", FITS, ids=lambda path: path.stem)
def test_committed_parameters_are_physical(path: Path) -> None:
    fit = read_fit(path)
    assert [p.name for p in fit.parameters] == list(TERMS)
    for p in (*fit.parameters, fit.bandwidth):
        assert p.low <= p.value <= p.high and p.low_source and p.high_source and p.what
        assert not p.on_bound or p.note, f"{p.name} lies on its bound, and nothing says why"


@pytest.mark.parametrize("path", FITS, ids=lambda path: path.stem)
def test_a_committed_fit_can_be_repeated(path: Path) -> None:
    fit = read_fit(path)
    again = fit_core({board.name: (load_board(board.name), board.wheel) for board in fit.boards}, fit.observations, several)
    assert again.parameters == fit.parameters and again.left_out_ms == fit.left_out_ms and again.boards == fit.boards
    assert again.board_left_out_ms == fit.board_left_out_ms


def test_the_parameters_of_made_up_networks_are_found() -> None:
    fit = made_up_fit()
    assert {p.name: p.value for p in fit.parameters} == pytest.approx(TRUE, rel=1e-4)
    assert worst_error(fit.errors) < 1e-4 and worst_error(fit.left_out_errors) < 1e-4 and worst_error(fit.board_left_out_errors) < 1e-4
    assert not any(p.on_bound or p.note for p in fit.parameters)
    assert fit.bandwidth.value == pytest.approx(0.7, rel=1e-3)
    assert worst_error(fit.check_errors()["pi4, 4 threads, left out"]) < 1e-3


@pytest.mark.parametrize(("value", "bound"), [(1.7, "upper"), (-0.4, "lower")])
def test_a_parameter_on_its_bound_is_explained(value: float, bound: str) -> None:
    hits = made_up_fit(cache_hits=value).parameters[0]
    assert hits.value == pytest.approx(1.0 if bound == "upper" else 0.0) and hits.on_bound
    assert hits.note.startswith(f"on its {bound} bound: without bounds the fit would take {value:.4g}")


def test_leaving_one_out_costs_something() -> None:
    fit = made_up_fit(noise=0.1)
    assert mean_error(fit.left_out_errors) > mean_error(fit.errors) > 0
    assert mean_error(fit.board_left_out_errors) > mean_error(fit.errors)


def test_a_single_board_is_not_left_out() -> None:
    fit = made_up_fit(boards=(PI4,))
    assert fit.board_left_out_errors == () and "board left out" not in fit.all_errors()


def test_errors_are_told_by_board_and_kind_of_network() -> None:
    fit = made_up_fit(noise=0.1)
    floats, integers = (fit.of_board(fit.errors, "rk3399-a72", kind) for kind in (False, True))
    assert (*floats, *integers) == fit.errors[7:] and len(integers) == 2
    errors = fit.all_errors()
    assert errors["rk3399-a72, integers, network left out"] == fit.left_out_errors[12:]
    assert errors["pi4, board left out"] == fit.board_left_out_errors[:7]


def test_a_parameter_keeps_within_every_boards_bound() -> None:
    fit = made_up_fit(lines_read=9.0)
    (bound,) = [p.high for p in fit.parameters if p.name == "lines_read"]
    assert bound == pytest.approx(min(board.memory.latency_ns / board.line_copy_ns for board in (PI4, RK3399)), rel=1e-5)


def test_too_few_networks() -> None:
    with pytest.raises(UserError, match=f"{len(TERMS)} networks do not determine {len(TERMS)} parameters"):
        fit_core({"pi4": (PI4, "none")}, observations()[: len(TERMS)], several)


def test_terms_add_up() -> None:
    fit = made_up_fit()
    misses = MissCounts(loads_from_l2=1_000_000, fills=2_000_000, stores=3_000_000)
    terms = term_ms(PI4, 1.8e6, misses, fit.parameters)
    assert list(terms) == ["core", *TERMS]
    assert terms["core"] == pytest.approx(1.0) and terms["cache_hits"] == pytest.approx(0.3 * 16e6 / 1.8e6, rel=1e-4)
    assert terms["lines_read"] == pytest.approx(0.4 * 2 * PI4.line_copy_ns, rel=1e-4)
    slower = term_ms(load_board("pi4-1500"), 1.8e6, misses, fit.parameters)
    assert slower["core"] == pytest.approx(1.2) and slower["stores"] == pytest.approx(terms["stores"])  # memory keeps its own time
    assert term_ms(PI4, 1.8e6, misses, ()) == {"core": pytest.approx(1.0)}


def test_what_a_fit_holds_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert calibrated_boards() == {name for name in board_names() if load_board(name).mcpu in GOOD} == set(board_names())
    other = PI4.model_copy(update={"caches": PI4.caches.model_copy(update={"l2_bytes": 1 << 19})})
    assert calibration_of(other) is None, "the figures of the board that was measured have changed"
    own = other.model_copy(update={"name": "mine"})
    assert calibration_of(own) == calibration_of(PI4), "another board with the same core"
    assert calibration_of(own.model_copy(update={"mcpu": "cortex-a57"})) is None
    assert len({run_hash(board) for board in (PI4, own, load_board("pi4-1500"))}) == 3
    monkeypatch.setattr(corrected, "VERSIONS", {**corrected.VERSIONS, "cortex-a72": 1000})
    calibration_of.cache_clear()
    assert calibration_of(PI4) is None and calibration_of(load_board("pi5")) is not None, "of its own core alone"
    monkeypatch.undo()
    calibration_of.cache_clear()


def test_files_are_read_as_written(tmp_path: Path) -> None:
    fit = made_up_fit(noise=0.05)
    write_fit(fit, tmp_path / "pi4.json")
    again = read_fit(tmp_path / "pi4.json")
    assert again == fit and isinstance(again, Fit) and again.digest == fit.digest
    assert replace(fit, parameters=fit.parameters[:2]).digest != fit.digest


@pytest.mark.parametrize("text", ["[]", "{}", '{"errors": {}, "observations": [{}], "parameters": []}'])
def test_files_that_are_no_calibration(tmp_path: Path, text: str) -> None:
    (tmp_path / "pi4.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"pi4\.json is not a calibration") as caught:
        read_fit(tmp_path / "pi4.json")
    assert "scripts/calibrate" in caught.value.remedy


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"measured_ms": ', '"measured_ms": -', 1),
        lambda text: text.replace('"modelled_ms": [', '"modelled_ms": [1.0, ', 1),
        lambda text: text.replace('"left_out_ms": [', '"left_out_ms": [{}, ', 1),
        lambda text: text.replace('"board_left_out_ms": [', '"board_left_out_ms": [1.0, ', 1),
        lambda text: text.replace('"board": "pi4"', '"board": "pi3"', 1),
        lambda text: text.replace('"core_cycles": ', '"core_cycles": 1e999', 1),
        lambda text: text.replace("{", "[" * 100_000, 1),
        lambda text: text.replace("pi4", "\udcff", 1),
        lambda _: "",
    ],
    ids=["negative", "longer", "object", "longer too", "other board", "infinite", "deep", "bytes", "empty"],
)
def test_calibrations_with_a_wrong_figure(tmp_path: Path, change: Callable[[str], str]) -> None:
    write_fit(made_up_fit(noise=0.05), tmp_path / "pi4.json")
    text = change((tmp_path / "pi4.json").read_text(encoding="utf-8"))
    (tmp_path / "pi4.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"pi4\.json is (not a calibration: .|empty\.)"):
        read_fit(tmp_path / "pi4.json")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--networks", "EMPTY"], "there is no "),
        (["--networks", "EMPTY", "--cores", "cortex-a57"], "there are no published figures to calibrate cortex-a57 with."),
        (["--networks", "BAD"], "is not an ncnn network"),
    ],
)
def test_the_script_says_what_is_missing(repository: Path, tmp_path: Path, arguments: list[str], complaint: str) -> None:
    for name in ("EMPTY", "BAD"):
        (tmp_path / name).mkdir()
    for network in published()["input_side"]:
        (tmp_path / "BAD" / f"{network}.param").write_text("hello\n", encoding="utf-8")
    command = [sys.executable, "-m", "tvmmobile.virtual.calibration.calibrate", *arguments, "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == "" and complaint in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.virtual
@pytest.mark.parametrize(
    ("what", "lines", "kind"), [("reads", 4096, "loads_from_l2"), ("reads", 32768, "loads_from_memory"), ("writes", 32768, "stores")]
)
def test_misses_are_told_apart(tmp_path: Path, what: str, lines: int, kind: str) -> None:
    misses = run_program(PI4, [str(build_program(tmp_path)), what, str(lines)]).modelled.misses
    for name in ("loads_from_l2", "loads_from_memory", "stores"):
        assert abs(getattr(misses, name) - (lines if name == kind else 0)) <= 40, name


@pytest.mark.parametrize("release", ["", "bullseye"])
def test_python_comes_from_the_debian_release_that_a_wheel_needs(release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    for module in (sysroot, debian_packages):
        monkeypatch.setattr(module, "run_tool", lambda words, *_others: commands.append(list(words)))
    monkeypatch.setattr("shutil.which", lambda name: name)
    sysroot._unpack_debian(tmp_path, tmp_path / "root", release)
    sources = tmp_path / "sources.list"
    assert sources.is_file() == bool(release) and len(commands) == 2
    for words in commands:
        assert (f"Dir::Etc::SourceList={sources}" in words) == ("Dir::Etc::SourceParts=-" in words) == bool(release)
    assert not release or re.search(r"^deb \[signed-by=\S+\] http://\S+ bullseye main$", sources.read_text(encoding="ascii"))


def test_networks_that_hardly_access_memory_leave_its_terms_at_their_usual_value() -> None:
    """That is the time of one core's copy: a server with a large third level does not show how its core waits for memory elsewhere."""
    board, seeded, seen = load_board("cobalt100"), random.Random(2), []
    for number in range(6):
        misses = MissCounts(loads_from_l2=seeded.randrange(500_000, 2_000_000), loads_from_memory=seeded.randrange(50))
        ms = 5 + 0.02 * misses.loads_from_l2 * board.caches.l2_cycles / board.clock_hz * 1e3
        seen.append(Observation(board.name, f"n{number}", ms * (1 + seeded.uniform(-0.03, 0.03)), round(5e-3 * board.clock_hz), misses))
    found = {p.name: p for p in fit_core({board.name: (board, "none")}, seen, lambda _: ()).parameters}
    assert found["lines_read"].value == pytest.approx(1, abs=0.1) and 0 <= found["cache_hits"].value < 0.2


def test_a_core_that_nobody_ran_in_several_threads_has_the_usual_bandwidth() -> None:
    fit = fit_core({"pi4": (PI4, "none")}, observations(boards=(PI4,)), lambda _: ())
    assert fit.bandwidth.value == 0.65 and not fit.checks
