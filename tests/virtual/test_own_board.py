"""A board's file with a calibration of its own: written, read again, part of the timing model, refused where it does not hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import CommandLine
from own_boards import calibrated_board, uncalibrated_board

from tvmmobile.devices.registry import find_device
from tvmmobile.system.errors import UserError
from tvmmobile.virtual.board import board_names, load_board
from tvmmobile.virtual.calibration.fit import calibration_of, run_hash
from tvmmobile.virtual.own_board import check_own_board, write_own_board
from tvmmobile.virtual.summary import trust

PI4 = load_board("pi4")
SHARES = {"mine": {"stores": 0.5}, "like": {"stores": 0.5}, "other": {"stores": 0.25}}


@pytest.mark.parametrize("name", board_names())
def test_a_written_board_is_the_same_board(tmp_path: Path, name: str) -> None:
    board = load_board(name)
    written = write_own_board(board, tmp_path / "mine.toml", ("measured by nobody",))
    assert written == board.model_copy(update={"name": "mine"}) and written.features == board.features
    assert (tmp_path / "mine.toml").read_text().startswith("# measured by nobody\nname = ")


def test_characters_beyond_the_first_plane_of_unicode(tmp_path: Path) -> None:
    """TOML has no halves of characters, by which JSON would write them."""
    board = PI4.model_copy(update={"board": 'Küche \N{FRIED SHRIMP} "Pi"', "name": "mine"})
    assert write_own_board(board, tmp_path / "mine.toml") == board


def test_its_own_parameters_replace_the_cores_and_enter_the_timing_model(tmp_path: Path) -> None:
    before = run_hash(PI4)
    plain = write_own_board(PI4, tmp_path / "plain.toml")
    board, same, other = (load_board(str(calibrated_board(tmp_path / f"{n}.toml", **s))) for n, s in SHARES.items())
    fit, core = calibration_of(board), calibration_of(PI4)
    assert fit is not None and core is not None
    assert {p.name: p.value for p in fit.parameters} == {p.name: p.value for p in core.parameters} | SHARES["mine"]
    assert fit.bandwidth == core.bandwidth
    assert len({run_hash(each) for each in (plain, board, other)}) == 3 and board.digest != same.digest
    assert board.model_copy(update={"calibration": None}).digest == board.digest
    assert run_hash(PI4) == before and calibration_of(PI4) is core
    profile = find_device(str(tmp_path / "mine.toml")).profile
    assert profile.name == "mine-virtual" and profile.origin.model == run_hash(board)
    sentence = trust(board, 1)
    assert sentence.startswith("Calibrated by its own file on 20 kernels and networks") and "1.0% off, 3.0% at worst" in sentence


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("clock_hz = 1800000000.0", "clock_hz = 1.5e9"), "the board's figures or the timing model changed"),
        (("stores = 0.5", "stores = 5.2"), "stores = 5.2 is more than 5.085"),
        (("stores = 0.5", ""), "it has parameters"),
        (("stores = 0.5", "stores = 0.5\nluck = 0.1"), "it has parameters"),
        (("stores = 0.5", "stores = -0.5"), "calibration.parameters"),
        (("stores = 0.5", "stores = nan"), "calibration.parameters"),
        (("stores = 0.5", "stores = inf"), "calibration.parameters"),
        (("stores = 0.5", 'stores = "0.5"'), "calibration.parameters"),
        (("stores = 0.5", "stores = [0.5]"), "calibration.parameters"),
        (("points = 20", "points = 0"), "calibration.points"),
        (("points = 20", ""), "calibration.points"),
        (("points = 20", "points = 20\nhost = 1"), "calibration.host"),
        (("[calibration.parameters]", "[calibration.other]"), "calibration.parameters"),
    ],
)
def test_what_does_not_hold_is_refused(tmp_path: Path, cli: CommandLine, change: tuple[str, str], problem: str) -> None:
    path = calibrated_board(tmp_path / "mine.toml", stores=0.5)
    text = path.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change))
    with pytest.raises(UserError, match=problem.replace(".", "[.]")):
        find_device(str(path))
    outcome = cli("virtual", "run", "--board", str(path), "--", "/bin/true")
    assert outcome.code == 1 and problem in outcome.err


def test_a_core_without_calibration_gets_none_from_a_file(tmp_path: Path) -> None:
    path = calibrated_board(tmp_path / "mine.toml", load_board(uncalibrated_board(tmp_path)))
    with pytest.raises(UserError, match="there is none of Cortex-A72 that it could replace"):
        calibration_of(load_board(str(path)))


@pytest.mark.parametrize("name", ["pi4.toml", "pi4-virtual.toml", "rk3399.toml", "rk3399-a72.toml", "mine.json", "there.toml"])
def test_a_new_file_takes_no_name_that_is_used(tmp_path: Path, name: str) -> None:
    (tmp_path / "there.toml").touch()
    with pytest.raises(UserError):
        check_own_board(tmp_path / name, "--refit")
    check_own_board(tmp_path / "new.toml", "--refit")
    assert not (tmp_path / "new.toml").exists()
