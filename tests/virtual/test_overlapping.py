"""Cores that overlap computation with memory accesses: the longer of the two counts in each phase, and a fit recovers the parameters."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from region_programs import build_program

from tvmmobile.virtual.board import board_names, load_board
from tvmmobile.virtual.calibration.fit import Observation, Phase
from tvmmobile.virtual.calibration.fitting import fit_terms
from tvmmobile.virtual.calibration.residuals import observed_ms, term_errors
from tvmmobile.virtual.calibration.terms import TERMS, Parameter, overlaps, summed_ms, term_ms, terms_of
from tvmmobile.virtual.modelled import modelled_run, phases_of
from tvmmobile.virtual.profile import MissCounts, Profile, Segment, parse_profile
from tvmmobile.virtual.program import profile_program, qemu_words

PI4, PI5 = load_board("pi4"), load_board("pi5")
TRUE = {"cache_hits": 0.25, "lines_read": 1.0, "stores": 1.75}
#: One instruction, an addition to its own register: a cycle.
ADDITION = (0x1000, (0x91000400).to_bytes(4, "little"))


def parameters(**other: float) -> list[Parameter]:
    return [Parameter(name, "", value, 0.0, 10.0, "", "", value) for name, value in (TRUE | other).items()]


def traffic(reads: int, stores: int, hits: int = 0) -> MissCounts:
    """Lines that loads and stores had from memory, and loads that the second level had."""
    return MissCounts(loads_from_memory=reads, fills=reads + stores, write_backs=stores, stores=stores, loads_from_l2=hits)


def made_up_runs() -> list[Observation]:
    seeded, runs = random.Random(3), []
    for number in range(12):
        parts = []
        for _ in range(30):
            reads, stores = (int(10 ** seeded.uniform(2, 5)) for _ in range(2))
            parts.append(Phase(seeded.randrange(100_000, 3_000_000), traffic(reads, stores, seeded.randrange(40_000))))
        whole = sum((part.misses for part in parts), MissCounts())
        run = Observation("pi5", f"n{number}", 1.0, sum(part.core_cycles for part in parts), whole, tuple(parts))
        runs.append(replace(run, measured_ms=sum(observed_ms(PI5, parameters(), run).values())))
    return runs


def profile_of(*segments: tuple[int, MissCounts]) -> Profile:
    """Return a run of one thread, by how often it ran the addition."""
    made = tuple(Segment(0, 0, 0, misses, {0: count}) for count, misses in segments)
    return Profile("", 0, 0, 0, made, (ADDITION,))


def test_what_takes_longer_counts() -> None:
    bus_ms = 64 / PI5.memory.peak_bytes_per_s * 1e3
    hidden = term_ms(PI5, 2.4e6, traffic(1000, 1000, 8000), parameters())
    assert hidden == {"core": 1.0, "cache_hits": pytest.approx(0.25 * 8000 * 8.1 / 2.4e6), "lines_read": 0.0, "stores": 0.0}
    shown = term_ms(PI5, 2.4e6, traffic(400_000, 100_000), parameters())
    read_ms, stored_ms = 400_000 * bus_ms, 1.75 * 100_000 * PI5.line_copy_ns * 1e-6
    assert sum(shown.values()) == pytest.approx(read_ms + stored_ms) and shown["core"] == 1.0
    assert shown["lines_read"] / shown["stores"] == pytest.approx(read_ms / stored_ms)
    assert term_ms(PI5, 2.4e6, traffic(400_000, 0), ()) == {"core": 1.0}
    assert term_ms(PI5, 2.4e6, MissCounts(), parameters())["lines_read"] == 0.0


def test_one_phase_hides_nothing_of_another() -> None:
    idle, busy = (5_000_000, traffic(100, 0)), (100_000, traffic(100_000, 50_000))
    apart = modelled_run(profile_of(idle, busy), PI5)
    together = modelled_run(profile_of((idle[0] + busy[0], idle[1] + busy[1])), PI5)
    assert apart.misses == together.misses and apart.core == together.core
    assert apart.modelled_ms > together.modelled_ms + 0.3
    assert apart.term_ms == pytest.approx(summed_ms(modelled_run(profile_of(one), PI5).term_ms for one in (idle, busy)), rel=1e-3)
    assert modelled_run(profile_of(), PI5).term_ms == dict.fromkeys(["core", *TERMS], 0.0) and phases_of(profile_of(), PI5) == ()
    on_a72 = modelled_run(profile_of(idle, busy), PI4)
    assert on_a72.term_ms == modelled_run(profile_of((idle[0] + busy[0], idle[1] + busy[1])), PI4).term_ms and on_a72.phases == ()


def test_phases_of_like_intensity_are_added_up() -> None:
    seeded = random.Random(5)
    segments = [
        (seeded.randrange(10_000, 400_000), traffic(int(10 ** seeded.uniform(0, 5)), int(10 ** seeded.uniform(0, 4)))) for _ in range(500)
    ]
    profile = profile_of(*segments, (0, MissCounts()))
    phases, run = phases_of(profile, PI5), modelled_run(profile, PI5)
    assert run.phases == phases and 2 < len(phases) <= 40
    assert sum((phase.misses for phase in phases), MissCounts()) == profile.misses()
    assert sum(phase.core_cycles for phase in phases) == pytest.approx(run.core.cycles, abs=len(phases))
    seen = Observation("pi5", "n", 1.0, run.core.cycles, run.misses, phases)
    fitted = [Parameter(name, "", value, 0.0, 10.0, "", "", value) for name, value in zip(TERMS, (0.0, 1.0, 1.4), strict=True)]
    exact = summed_ms(term_ms(PI5, count, misses, fitted) for count, misses in segments)
    assert sum(observed_ms(PI5, fitted, seen).values()) == pytest.approx(sum(exact.values()), rel=0.01)


def test_a_fit_finds_what_made_the_times() -> None:
    found, left_out = fit_terms(PI5, made_up_runs())
    assert {p.name: p.value for p in found} == pytest.approx(TRUE, rel=1e-3)
    assert {p.name: p.unbounded for p in found} == pytest.approx(TRUE, rel=1e-3)
    assert [p.on_bound for p in found] == [False, True, False] and found[1].low == found[1].high == 1.0
    for others in left_out:
        assert {p.name: p.value for p in others} == pytest.approx(TRUE, rel=1e-3)


def test_a_bound_holds() -> None:
    runs = [replace(run, measured_ms=0.3 * run.measured_ms) for run in made_up_runs()]
    assert [p.value for p in fit_terms(PI5, runs)[0]] == [0.0, 1.0, 0.0]


def test_what_nobody_did_has_no_parameter() -> None:
    runs = [Observation("pi5", f"n{number}", 1.0, 2_000_000 + number, MissCounts()) for number in range(5)]
    assert [p.value for p in fit_terms(PI5, runs)[0]] == [0.0, 1.0, 0.0]


def test_the_term_that_errs_is_told_from_what_shows() -> None:
    terms = {term.name: term for term in term_errors(PI5, parameters(stores=1.6), made_up_runs())}
    assert terms["stores"].alone == pytest.approx(1.75, rel=0.1) and terms["stores"].explained > 0.6


def test_which_boards_overlap() -> None:
    boards = [load_board(name) for name in board_names()]
    assert {board.mcpu for board in boards if overlaps(board)} == {"cortex-a76", "cortex-a78", "cortex-x4", "neoverse-n2"}
    assert all(list(terms_of(board)) == list(TERMS) for board in boards)
    for board in boards:
        assert ("/phases-" in " ".join(qemu_words(board, ""))) == overlaps(board)


@pytest.mark.virtual
def test_a_long_run_is_cut_into_phases(tmp_path: Path) -> None:
    """One block for each line that the program reads; nothing is counted twice or lost."""
    command = [str(build_program(tmp_path)), "reads", "32768"]
    cut, whole = (parse_profile(profile_program(board, command)[0]) for board in (PI5, PI4))
    assert len(whole.segments) == 1 and 8 <= len(cut.segments) <= 10
    counts = [sum(segment.counts.values()) for segment in cut.segments]
    assert set(counts[:-1]) == {4096} and sum(counts) == sum(whole.segments[0].counts.values())
    assert all(segment.misses.l1d > 4000 for segment in cut.segments[1:-1])
