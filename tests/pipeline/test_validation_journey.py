"""A registered board validated and refitted by the command line: its agent is the real one, its times are another board's model's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import CommandLine
from modelled_clock import agents_of, register_modelled
from own_boards import calibrated_board
from registered_boards import SshBoard, make_board, make_home

from tvmmobile.devices.registry import find_device
from tvmmobile.pipeline.validation import validate
from tvmmobile.pipeline.validation.suite import SUITE, Suite, SuiteNetwork
from tvmmobile.results.validation import Validation, read_validation
from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.calibration.fit import calibration_of, run_hash
from tvmmobile.virtual.calibration.residuals import erring
from tvmmobile.virtual.calibration.terms import TERMS

pytestmark = pytest.mark.virtual
PI4 = load_board("pi4")
#: At most a few milliseconds each.
FEW = ("1x1 14x14x128>128", "dense 256>256", "dense 1024>1000", "depthwise 14x14x32", "depthwise 28x28x32", "depthwise 28x28x128")
FEW += ("depthwise 112x112x32", "1x1 28x28x8>64")


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshBoard]:
    board = make_board(tmp_path / "board", make_home(tmp_path, monkeypatch))
    yield board
    board.server.stop()


def suite_of(*names: str) -> Suite:
    """Some kernels of the suite."""
    return Suite(SUITE.version, {name: SUITE.kernels[name] for name in names}, ())


def shares(**more: float) -> dict[str, float]:
    """Return the Pi 4's parameters, some of them larger."""
    fit = calibration_of(PI4)
    assert fit is not None
    return {p.name: p.value + more.get(p.name, 0.0) for p in fit.parameters}


def left(board: SshBoard) -> list[str]:
    """Return what a run should not have left on the board."""
    return board.leftovers() + [str(process) for process in agents_of(board)]


def found(path: Path) -> dict[str, float]:
    """Return the parameters in a board's file."""
    fit = calibration_of(load_board(str(path)))
    assert fit is not None
    return {p.name: p.value for p in fit.parameters}


def test_validated_and_refitted(board: SshBoard, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few kernels without noise: the fit is the clock's own model, and the term that was shifted most is named."""
    monkeypatch.setattr(validate, "SUITE", suite_of(*FEW))
    true = shares(cache_hits=0.2, stores=0.6)
    register_modelled(cli, board, monkeypatch, PI4, str(calibrated_board(tmp_path / "true.toml", **true)))
    out, fitted = tmp_path / "validation.json", tmp_path / "fitted.toml"
    done = cli("device", "validate", "desk", "--out", str(out), "--refit", str(fitted))
    assert done.code == 0, done.err
    whole = read_validation(out)
    assert whole.complete and whole.measured.kind == "measured" and left(board) == []
    assert max(map(len, done.out.partition("Use it:")[0].splitlines())) <= 80 and "measured" in done.out
    assert found(fitted) == pytest.approx(true, abs=0.03)
    assert find_device(str(fitted)).profile.origin.model == run_hash(load_board(str(fitted))) != run_hash(PI4)
    errs = erring(whole.terms, [point.error for point in whole.points])
    assert errs is not None and errs.name == "stores" and "The term that errs: stores" in done.out


@pytest.mark.long
def test_nothing_is_lost_or_measured_twice(board: SshBoard, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C after two points, then the board away, then the rest, with an agent that is killed once."""
    monkeypatch.setattr(validate, "SUITE", suite_of(*FEW[:4]))
    register_modelled(cli, board, monkeypatch, PI4, "pi4", noise=0.02)
    out = tmp_path / "validation.json"
    words = ("device", "validate", "desk", "--out", str(out))
    write = validate.write_validation

    def cut(validation: Validation, path: Path) -> None:
        write(validation, path)
        if len(validation.points) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(validate, "write_validation", cut)
    assert cli(*words).code == 130 and left(board) == []
    first = read_validation(out)
    assert [point.name for point in first.points] == list(FEW[:2]) and not first.complete
    board.server.stop()
    away = cli(*words)
    assert away.code == 3 and "refuses connections" in away.err and read_validation(out) == first
    board.server.start()
    killed = []

    def kill(validation: Validation, path: Path) -> None:
        write(validation, path)
        if not killed:
            killed.extend(agents_of(board))
            for process in killed:
                process.kill()

    monkeypatch.setattr(validate, "write_validation", kill)
    done = cli(*words)
    assert done.code == 0 and killed and "4 kernels and 0 networks, 2 to measure" in done.err, done.err
    whole = read_validation(out)
    assert whole.complete and whole.points[:2] == first.points and left(board) == []


@pytest.mark.long
def test_a_boards_own_parameters_are_found(board: SshBoard, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All kernels and a network, with 2 % of noise on each: parameters within 0.1 of a share, and the rest of a board within 2 %."""
    monkeypatch.setattr(validate, "SUITE", Suite(SUITE.version, SUITE.kernels, (SuiteNetwork(0.25, 32, 10),)))
    true = shares(cache_hits=0.2, stores=0.4)
    clock = str(calibrated_board(tmp_path / "true.toml", **true))
    register_modelled(cli, board, monkeypatch, PI4, clock, noise=0.02, seed=1)
    out, fitted = tmp_path / "validation.json", tmp_path / "fitted.toml"
    done = cli("device", "validate", "desk", "--out", str(out), "--refit", str(fitted))
    assert done.code == 0, done.err
    assert found(fitted) == pytest.approx(true, abs=0.1)
    assert "The term that errs: stores" in done.out and "1 network: too few for a rank correlation" in done.out
    validation = read_validation(out)
    assert validation.kernel_ranks is not None and validation.kernel_ranks > 0.95
    assert len(validation.valid("network")) == 1 and abs(validation.valid("network")[0].error) < 0.2


@pytest.mark.long
def test_another_boards_memory_is_found(board: SshBoard, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is the RK3399's model, whose copies and second level take another time: the Pi 4's parameters become what that comes to."""
    monkeypatch.setattr(validate, "SUITE", suite_of(*SUITE.kernels))
    other = load_board("rk3399-a72")
    register_modelled(cli, board, monkeypatch, PI4, other.name, noise=0.02, seed=2)
    fitted = tmp_path / "fitted.toml"
    done = cli("device", "validate", "desk", "--out", str(tmp_path / "validation.json"), "--refit", str(fitted))
    assert done.code == 0, done.err
    fit = calibration_of(other)
    assert fit is not None
    lines = other.line_copy_ns / PI4.line_copy_ns
    scale = dict.fromkeys(TERMS, lines) | {"cache_hits": other.caches.l2_cycles / PI4.caches.l2_cycles}
    assert found(fitted) == pytest.approx({p.name: p.value * scale[p.name] for p in fit.parameters}, abs=0.1)
