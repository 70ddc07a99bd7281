"""A validation without a board: the choice of the model, refusals before anything is measured, stored points, and refits."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandLine
from document_blocks import validations_page
from own_boards import uncalibrated_board
from validation_samples import PI4, compared, observed, parameters, validated

from tvmmobile.devices.board.hardware import HardwareDevice
from tvmmobile.devices.board.registered import DeviceFile, Facts, LinuxCore, RegisteredBoard, SshAddress, save_device
from tvmmobile.devices.protocol import Endpoint
from tvmmobile.devices.registry import find_device
from tvmmobile.pipeline.stages.timing import MOST_ATTEMPTS, undisturbed
from tvmmobile.pipeline.validation import validate
from tvmmobile.pipeline.validation.model import model_for
from tvmmobile.pipeline.validation.record import point_of, started_validation, with_point
from tvmmobile.pipeline.validation.refit import FEWEST_EACH, refit_board
from tvmmobile.pipeline.validation.suite import SUITE, Suite
from tvmmobile.pipeline.validation.timing import TimingJob, kernel_source
from tvmmobile.results.shared_validation import shareable
from tvmmobile.results.validation import read_validation, write_validation
from tvmmobile.running.measure import Agents, Latency, MeasureError
from tvmmobile.system.errors import DeviceUnavailable, Disagreement, UserError
from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.calibration.fit import calibration_of, run_hash
from tvmmobile.virtual.calibration.fitting import fit_terms
from tvmmobile.virtual.calibration.terms import TERMS
from tvmmobile.virtual.profile import MissCounts

A72, A57, X4, A720, A78AE = 0xD08, 0xD07, 0xD82, 0xD81, 0xD42
NAMES = Suite(1, {f"kernel {n}": layer for n, layer in enumerate(SUITE.kernels.values())}, ())


def registered(part: int = A72, model: str = "Raspberry Pi 4 Model B Rev 1.4", hz: float = 1.8e9, runner: str = "") -> HardwareDevice:
    """Return a registered board that nothing connects to."""
    cores = (LinuxCore(implementer=0x41, part=part, max_hz=hz),) * 4
    facts = Facts(
        architecture="aarch64", model=model, cores=cores, memory_bytes=4 << 30, system="Debian 12", kernel="6.6.31", libc="glibc 2.36"
    )
    address = SshAddress(destination="me@my-own-host.example", port=1, host_key="ssh-ed25519 AAAA")
    board = RegisteredBoard(address=address, directory="/home/me/x", runner=(runner,) if runner else (), facts=facts, added="today")
    save_device(file := DeviceFile(name="desk", boards=(board,)))
    return HardwareDevice(file)


@pytest.mark.parametrize(
    ("model", "hz", "chosen"),
    [
        ("Raspberry Pi 4 Model B Rev 1.4", 1.8e9, "pi4"),
        ("Raspberry Pi 4 Model B Rev 1.1", 1.5e9, "pi4-1500"),
        ("Somebody's A72", 1.5e9, "pi4-1500"),
        ("", 0.0, "pi4-1500"),
    ],
)
def test_the_same_product_else_the_nearest_clock(model: str, hz: float, chosen: str) -> None:
    found = model_for(registered(model=model, hz=hz).profile)
    assert found.board == load_board(chosen) and found.clocked.clock_hz == (hz or found.board.clock_hz)
    assert found.description.timing_model == run_hash(found.board) and found.description.board == chosen


def test_a_model_can_be_named(tmp_path: Path) -> None:
    profile = registered().profile
    assert model_for(profile, "rk3399-a72").description.board == model_for(profile, "rk3399-a72-virtual").description.board == "rk3399-a72"
    with pytest.raises(UserError, match="pi5 has Cortex-A76, and desk has Cortex-A72"):
        model_for(profile, "pi5")


@pytest.mark.parametrize(("part", "chosen"), [(X4, "d9300"), (A720, "d9300-a720"), (A720, "orion-o6"), (A78AE, "orin-nano")])
def test_a_core_that_llvm_names_after_an_older_one_has_its_model(part: int, chosen: str) -> None:
    assert model_for(registered(part).profile, chosen).board == load_board(chosen)
    assert model_for(registered(part).profile).board.cpu == load_board(chosen).cpu


def refusal(cli: CommandLine, *words: str, code: int = 1) -> str:
    outcome = cli("device", "validate", *words)
    assert outcome.code == code and len(outcome.err.strip().splitlines()) == 2 and outcome.out == "", outcome.err
    return outcome.err


def test_refused_before_anything_is_measured(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate, "Workers", None)  # nothing is built either
    out = str(tmp_path / "validation.json")
    assert "is a virtual board: it is the model itself" in refusal(cli, "pi4-virtual", "--out", out)
    assert "is a virtual board" in refusal(cli, "pi4") and "is a virtual board" in refusal(cli, "mine.toml")
    assert "nobody is not registered" in refusal(cli, "nobody")
    registered()
    assert "pi4 is the name of a built-in board" in refusal(cli, "desk", "--out", out, "--refit", str(tmp_path / "pi4.toml"))
    assert "Give --refit a name that ends in .toml" in refusal(cli, "desk", "--out", out, "--refit", str(tmp_path / "x.json"))
    (tmp_path / "there.toml").touch()
    assert "there.toml already exists" in refusal(cli, "desk", "--out", out, "--refit", str(tmp_path / "there.toml"))
    (tmp_path / "other.json").write_text('{"version": 2}')
    assert "is not a validation of tvmmobile" in refusal(cli, "desk", "--out", str(tmp_path / "other.json"))
    registered(runner="qemu-aarch64")
    assert "emulator, whose times say nothing" in refusal(cli, "desk", "--out", out, "--refit", str(tmp_path / "x.toml"))
    registered(A57)
    assert "no model of Cortex-A57 is calibrated, so there is nothing to validate on desk" in refusal(cli, "desk", "--out", out)
    other = uncalibrated_board(tmp_path)
    assert "is not calibrated, so there is nothing to validate" in refusal(cli, "desk", "--out", out, "--board", other)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.toml", "other.json", "there.toml"]


def test_points_of_other_conditions_do_not_mix(tmp_path: Path) -> None:
    out, device = tmp_path / "validation.json", registered()
    fresh = started_validation(device, compared(), SUITE, out)
    write_validation(fresh, out)
    assert started_validation(device, compared(), SUITE, out) == fresh and not fresh.complete
    text = out.read_text()
    assert not any(word in text for word in ("me@", "my-own-host", "/home", "desk", "AAAA", str(tmp_path)))
    for other, what in ((registered(hz=1.7e9), "measured"), (HardwareDevice(device.file, pin=True), "measured")):
        with pytest.raises(UserError, match=rf"other conditions \({what}\)"):
            started_validation(other, model_for(other.profile), SUITE, out)
    with pytest.raises(UserError, match=r"other conditions \(suite\)"):
        started_validation(device, compared(), replace(SUITE, version=SUITE.version + 1), out)
    write_validation(replace(fresh, points=validated(observed(27)).points), out)
    with pytest.raises(UserError, match="holds 'kernel 0', which is not in the suite"):
        started_validation(device, compared(), SUITE, out)


def test_a_point_more(tmp_path: Path) -> None:
    whole = validated(observed(12, 0.05))
    whole = replace(whole, points=tuple(replace(point, kind="kernel") for point in whole.points))
    suite = Suite(1, dict(list(NAMES.kernels.items())[:12]), ())
    grown = started_validation(registered(), compared(), suite, tmp_path / "none.json")
    for number, point in enumerate(reversed(whole.points), 1):
        grown = with_point(grown, point, suite, compared())
        assert grown.complete == (number == 12) and grown.date
    assert [point.name for point in grown.points] == list(suite.kernels)
    assert grown.kernel_ranks is not None and grown.kernel_ranks > 0.9 and grown.network_ranks is None
    spoiled = with_point(grown, replace(grown.points[0], measured_ms=1e6, invalid="throttled"), suite, compared())
    assert len(spoiled.points) == 12 and len(spoiled.valid()) == 11 and spoiled.terms != grown.terms


def test_a_point_is_modelled_at_the_boards_own_clock() -> None:
    slow = model_for(registered(hz=0.9e9).profile)
    modelled = Latency("modelled", 1.0, cycles=9_000_000, misses=MissCounts())
    measured = Latency("measured", 10.5e-3, samples_ns=(10e6, 10.5e6, 11e6), steady=False)
    point = point_of("some", "kernel", measured, "warm\n and so on", modelled, "0" * 64, slow)
    assert point.modelled_ms == point.term_ms["core"] == pytest.approx(10.0) and point.error == pytest.approx(10 / 10.5 - 1)
    assert point.samples == 3 and 0 < point.spread < 0.2 and not point.steady and point.invalid == "warm and so on"


def test_a_refit_finds_the_boards_parameters(tmp_path: Path) -> None:
    true = {name: 0.5 + 0.1 * place for place, name in enumerate(TERMS)}
    path = tmp_path / "desk.toml"
    fitted = refit_board(validated(observed(27, 0.02, **true)), compared(), path)
    assert {row.fitted.name: row.fitted.value for row in fitted.parameters} == pytest.approx(true, abs=0.06)
    assert all(row.low <= row.fitted.value <= row.high and row.high - row.low < 0.1 for row in fitted.parameters)
    assert {row.fitted.name: row.before for row in fitted.parameters} == {p.name: p.value for p in parameters()}
    worst = [max(map(abs, errors)) for errors in (fitted.before, fitted.after, fitted.left_out)]
    assert worst[0] > 0.1 > worst[2] > worst[1] > 0
    board = load_board(str(path))
    own = calibration_of(board)
    assert own is not None and {p.name: p.value for p in own.parameters} == {row.fitted.name: row.fitted.value for row in fitted.parameters}
    assert find_device(str(path)).profile.origin.model == run_hash(board) != run_hash(PI4)
    assert path.read_text().startswith(
        "# The figures of pi4, with [calibration] fitted by tvmmobile device validate --refit\n# to Raspberry Pi 4"
    )


def test_a_refit_stays_within_bounds_and_says_so(tmp_path: Path) -> None:
    fitted = refit_board(validated(observed(27, cache_hits=1.3)), compared(), tmp_path / "desk.toml")
    row = next(row for row in fitted.parameters if row.fitted.name == "cache_hits")
    assert row.fitted.value == 1.0 and row.fitted.note.startswith("on its upper bound")
    assert calibration_of(fitted.board) is not None


def test_too_few_points_are_not_fitted(tmp_path: Path) -> None:
    few = FEWEST_EACH * len(TERMS) - 1
    refusal = f"{few} valid points do not determine {len(TERMS)} parameters: {few + 1} are needed"
    with pytest.raises(UserError, match=refusal):
        refit_board(validated(observed(few)), compared(), tmp_path / "desk.toml")
    many = validated(observed(few + 2))
    spoiled = replace(many, points=tuple(replace(p, invalid="throttled") if n < 2 else p for n, p in enumerate(many.points)))
    with pytest.raises(UserError, match=f"{few} valid points"):
        refit_board(spoiled, compared(), tmp_path / "desk.toml")
    assert not (tmp_path / "desk.toml").exists()


def test_what_a_board_says_cannot_become_part_of_the_file(tmp_path: Path) -> None:
    sample = validated(observed(12))
    evil = replace(sample, date='2026"\nclock_hz = 1', measured=replace(sample.measured, system="x\r\ncores = 64\x1b[2J"))
    path = tmp_path / "desk.toml"
    refit_board(evil, compared(), path)
    assert tomllib.loads(path.read_text())["clock_hz"] == PI4.clock_hz and load_board(str(path)).cores == 4


def test_the_suite_spans_the_model() -> None:
    """Every point is a kernel of its own that a template takes; there are far more of them than terms."""
    profile = find_device("pi4-virtual").profile
    sources = [kernel_source(name, layer, profile, Path()) for name, layer in SUITE.kernels.items()]
    assert len({source.path for source in sources}) == len(sources) >= 4 * len(TERMS)
    assert len(set(SUITE.names)) == len(SUITE.names) == len(sources) + len(SUITE.networks) and max(map(len, SUITE.names)) <= 24
    assert {(0.25, 128), (0.5, 160), (1.0, 224)} <= {(net.alpha, net.resolution) for net in SUITE.networks}


class Answers:
    """Workers that answer as told; what is an error is raised."""

    count = 1

    def __init__(self, *answers: Any) -> None:
        self.left = list(answers)

    def run(self, function: Any, jobs: Iterable[Any], timeout_s: float) -> Iterator[tuple[Any, Any]]:
        """See `WorkerPool`."""
        answer = self.left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return iter([(job, answer) for job in jobs])


class Weather:
    """A watch that says the next of its reasons after each measurement."""

    def __init__(self, *reasons: str) -> None:
        self.reasons = list(reasons)

    def wait_until_cool(self) -> tuple[()]:
        """At once."""
        return ()

    def read(self) -> tuple[()]:
        """Nothing to see."""
        return ()

    def spoiled(self, before: Any, after: Any) -> str:
        """See `Watch`."""
        return self.reasons.pop(0) if self.reasons else ""


def measured(answers: Answers, *reasons: str) -> tuple[Latency, str]:
    device = registered()
    agents = Agents(device.profile, Endpoint("127.0.0.1", 1, "desk"))
    source = kernel_source("dense", SUITE.kernels["dense 256>256"], device.profile, Path())
    found, reason, _ = undisturbed(Weather(*reasons), partial(validate._timed, TimingJob("dense", source, agents), answers))
    return found, reason


GOOD, LINK = Latency("measured", 1e-3, samples_ns=(1e6,)), MeasureError("no answer", "link")


def test_a_point_is_measured_again_when_the_link_breaks_or_the_state_spoils_it() -> None:
    assert measured(Answers(LINK, LINK, GOOD)) == (GOOD, "")
    hot = replace(GOOD, seconds=2e-3)
    assert measured(Answers(hot, GOOD), "throttled") == (GOOD, "")
    assert measured(Answers(hot, hot, hot), *["throttled"] * MOST_ATTEMPTS) == (hot, "throttled")


def test_a_device_that_stays_away_ends_it() -> None:
    with pytest.raises(DeviceUnavailable, match="the device desk went away: no answer") as lost:
        measured(Answers(*[LINK] * MOST_ATTEMPTS))
    assert "Finished measurements are kept" in lost.value.remedy
    with pytest.raises(DeviceUnavailable):
        measured(Answers(MeasureError("gone", "host"), LINK, LINK))


def test_a_kernel_that_crashes_is_not_tried_again() -> None:
    answers = Answers(MeasureError("killed by SIGILL", "crashed"), GOOD)
    with pytest.raises(Disagreement, match="dense does not run on desk: killed by SIGILL"):
        measured(answers)
    assert len(answers.left) == 1


def test_a_complete_file_needs_no_board(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements can be shown and fitted again later; the table fits 80 columns."""
    monkeypatch.setattr(validate, "Workers", None)
    monkeypatch.setattr(validate, "SUITE", replace(NAMES, networks=()))
    out, fitted = tmp_path / "validation.json", tmp_path / "fitted.toml"
    fresh = started_validation(registered(), compared(), validate.SUITE, out)
    points = validated(observed(len(NAMES.kernels), 0.02, stores=2.4)).points
    for number, point in enumerate(points):
        fresh = with_point(fresh, replace(point, kind="kernel", invalid="throttled" if number == 3 else ""), validate.SUITE, compared())
    write_validation(fresh, out)
    done = cli("device", "validate", "desk", "--out", str(out), "--refit", str(fitted))
    assert done.code == 0 and f"{len(points)} kernels and 0 networks, 0 to measure" in done.err, done.err
    table, _, rest = done.out.partition("Use it:")
    assert max(map(len, table.splitlines())) <= 80 and str(fitted) in rest and fitted.is_file()
    words = " ".join(table.split())
    assert "The term that errs: stores" in words and f"{len(points) - 1} kernels: rank correlation 0.9" in words
    assert "kernel 3 (not valid)" in words and "not valid: throttled" in words and "measured modelled off" in words
    assert "each left out of its fit:" in words and read_validation(out) == fresh
    share = ("--share", str(tmp_path / "share.json"))
    assert "is the file that --out names" in refusal(cli, "desk", "--out", str(out), "--share", str(out))
    assert "cannot be written" in refusal(cli, "desk", "--out", str(out), "--share", "/proc/share.json")
    shared = cli("device", "validate", "desk", "--out", str(out), *share)
    assert shared.code == 0 and f"Written: {out}, {share[1]}" in shared.out, shared.err
    sent = read_validation(Path(share[1]))
    plain = replace(fresh.measured, kernel=sent.measured.kernel)
    assert sent == replace(fresh, date=fresh.date[:10], measured=plain) and len(sent.date) == 10
    assert "| Raspberry Pi 4 Model B Rev 1.4 | Cortex-A72, 1.8 GHz | measured | pi4 |" in " ".join(validations_page(tmp_path).split())


#: Invalid points of the suite's kernels with which the others are too few for a fit.
FEW = len(SUITE.kernels) - FEWEST_EACH * len(TERMS) + 1


@pytest.mark.parametrize(("spoiled", "refit", "again"), [(1, False, 1), (1, True, 0), (FEW, True, FEW), (0, False, 0)])
def test_invalid_points_are_measured_again(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoiled: int, refit: bool, again: int
) -> None:
    asked: list[str] = []

    def built(names: list[str], *_: object) -> None:
        asked.extend(names)
        raise UserError("stopped.", "Nothing is measured here.")

    monkeypatch.setattr(validate, "_built", built)
    monkeypatch.setattr(validate, "Workers", lambda _count: nullcontext())
    monkeypatch.setattr(validate, "SUITE", replace(NAMES, networks=()))
    out = tmp_path / "validation.json"
    fresh = started_validation(registered(), compared(), validate.SUITE, out)
    for number, point in enumerate(validated(observed(len(NAMES.kernels), 0.02, stores=2.4)).points):
        fresh = with_point(
            fresh, replace(point, kind="kernel", invalid="throttled" if number < spoiled else ""), validate.SUITE, compared()
        )
    write_validation(fresh, out)
    assert fresh.complete
    done = cli("device", "validate", "desk", "--out", str(out), *(["--refit", str(tmp_path / "fitted.toml")] if refit else []))
    assert f"{again} to measure" in done.err and done.code == (1 if again else 0), done.err
    assert asked == list(NAMES.kernels)[:again]


def test_what_tells_whose_board_it_is_is_left_out() -> None:
    whole = validated(observed(2, 0.0))
    board = replace(
        whole.measured,
        board="Raspberry Pi 4 of ann at 10.0.0.7, serial 100000001234abcd",
        system="Debian GNU/Linux 12 built by ann@lab in /home/ann/rootfs",
        kernel="6.6.31+ann-lab1 (ann@lab)",
        libc="glibc 2.36 (dc:a6:32:01:02:03)",
    )
    point = replace(whole.points[0], invalid="lab-pi was busy")
    sent = shareable(replace(whole, measured=board, points=(point,)), {"ann", "lab-pi", "100000001234abcd", ""})
    text = json.dumps(asdict(sent))
    assert not any(word in text for word in ("ann", "lab", "10.0.0.7", "1234abcd", "/home", "dc:a6")), text
    assert sent.measured.board.startswith("Raspberry Pi 4 of (left out) at") and sent.measured.kernel == "6.6.31"
    assert sent.measured.system.startswith("Debian GNU/Linux 12") and sent.measured.libc.startswith("glibc 2.36")
    assert sent.points[0].measured_ms == point.measured_ms and shareable(whole, ()) == replace(
        whole, date=whole.date[:10], measured=replace(whole.measured, kernel="6.6.31")
    )


def test_fits_of_the_calibration_and_of_a_refit_are_one(tmp_path: Path) -> None:
    seen = observed(20, 0.03)
    fitted = refit_board(validated(seen), compared(), tmp_path / "desk.toml")
    parameters_now, without = fit_terms(PI4, seen)
    assert tuple(row.fitted for row in fitted.parameters) == parameters_now and len(without) == len(seen)
    assert without[3] == tuple(
        replace(p, note=q.note, unbounded=q.unbounded) for p, q in zip(fit_terms(PI4, seen[:3] + seen[4:])[0], parameters_now, strict=True)
    )
