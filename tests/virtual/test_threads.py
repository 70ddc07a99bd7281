"""Several threads on a virtual board: the longest chain of what they did counts, waiting does not, and a third cache level is one."""

from __future__ import annotations

import pytest
from conftest import CommandLine
from region_programs import build_program

from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.calibration.terms import Parameter
from tvmmobile.virtual.modelled import modelled_course
from tvmmobile.virtual.profile import MissCounts, Profile, Segment, parse_profile
from tvmmobile.virtual.program import ProgramRun, run_program
from tvmmobile.virtual.timeline import course_of

PI4 = load_board("pi4")
TRIPS, ROUNDS, TEAM = 100_000, 8, 4  # as in region_programs; a trip takes a cycle


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build_program(tmp_path_factory.mktemp("program")))


def core_trips(run: ProgramRun, board: str) -> float:
    """Return the `core` term in trips of the loop."""
    return run.modelled.term_ms["core"] * 1e-3 * load_board(board).clock_hz / TRIPS


@pytest.mark.virtual
@pytest.mark.parametrize("board", ["pi4", "pi5"])
@pytest.mark.parametrize(
    ("mode", "longest", "work"),
    [
        ("team-even", ROUNDS, ROUNDS * TEAM),
        ("team-uneven", ROUNDS * 4, ROUNDS * (1 + 2 + 3 + 4)),  # the same thread has the most in every round
        ("team-turns", ROUNDS * 4, ROUNDS * (4 + 1 + 1 + 1)),  # each thread has it in turn: no thread works that long
        ("team-turns-yield", ROUNDS * 4, ROUNDS * (4 + 1 + 1 + 1)),
        ("team-turns-yield-late", ROUNDS * 4, ROUNDS * (4 + 1 + 1 + 1)),  # they have waited for a second when the region begins
    ],
)
def test_the_longest_chain_counts_and_waiting_does_not(program: str, board: str, mode: str, longest: int, work: int) -> None:
    run = run_program(load_board(board), [program, mode, str(TRIPS)], threads=TEAM)
    assert core_trips(run, board) == pytest.approx(longest, rel=0.002)
    assert run.modelled.core.instructions == pytest.approx(2 * TRIPS * work, rel=0.002)
    assert len(run.modelled.busy_ms) == TEAM
    assert run.modelled.term_ms["handover"] < 0.01 * run.modelled.modelled_ms
    assert run.other_instructions == 0


@pytest.mark.virtual
def test_a_slower_core_takes_longer(program: str) -> None:
    """On one core of 3.25 GHz and three of 2.85, work that is shared equally lasts as on four of 2.85."""
    board = load_board("d9300")
    own, alike = (run_program(one, [program, "team-even", str(TRIPS)], threads=TEAM).modelled for one in (board, board.at_clock_of(0)))
    core_ms = [run.term_ms["core"] for run in (own, alike)]
    assert core_ms[0] / core_ms[1] == pytest.approx(3.25 / 2.85, rel=0.002)
    assert own.busy_ms[0] / own.busy_ms[-1] == pytest.approx(3.25 / 2.85, rel=0.002)


@pytest.mark.virtual
def test_one_thread_of_several(program: str) -> None:
    run = run_program(PI4, [program, "team-even", str(TRIPS)])
    assert core_trips(run, "pi4") == pytest.approx(ROUNDS, rel=0.002)
    assert run.other_instructions == pytest.approx(2 * TRIPS * ROUNDS * (TEAM - 1), rel=0.002)


@pytest.mark.virtual
def test_several_threads_where_there_is_one(program: str) -> None:
    one, four = (run_program(PI4, [program, "reads", "32768"], threads=threads).modelled for threads in (1, 4))
    assert four.misses == one.misses and four.core == one.core
    assert four.modelled_ms == pytest.approx(one.modelled_ms + four.term_ms["bandwidth"])
    assert list(four.term_ms) == [*one.term_ms, "handover", "bandwidth"] and four.term_ms["handover"] == 0


@pytest.mark.virtual
@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (512, MissCounts()),  # 32 KiB
        (4096, MissCounts(loads_from_l2=4096)),  # 256 KiB
        (16384, MissCounts(l2=16384, loads_from_l3=16384)),  # 1 MiB
        (65536, MissCounts(l2=65536, loads_from_memory=65536, fills=65536)),  # 4 MiB
    ],
)
def test_a_third_level(program: str, lines: int, expected: MissCounts) -> None:
    found = run_program(load_board("pi5"), [program, "reads", str(lines)]).modelled.misses
    for name in ("l2", "loads_from_l2", "loads_from_l3", "loads_from_memory", "fills"):
        assert abs(getattr(found, name) - getattr(expected, name)) <= 40, name


def test_more_threads_than_cores(cli: CommandLine) -> None:
    outcome = cli("virtual", "run", "--board", "rk3399-a72", "--threads", "4", "--", "x")
    assert outcome.code == 1 and "has 2 cores, not 4." in outcome.err and "--threads 2" in outcome.err


def segment(thread: int, after: int = 0, lines: int = 0, region: int = 1) -> Segment:
    return Segment(region, thread, after, MissCounts(fills=lines), {})


def times(*segments: tuple[Segment, float]) -> dict[str, float]:
    profile = Profile("", 1, 0, 0, tuple(one for one, _ in segments), ())
    return course_of(profile, PI4, [{"core": ms} for _, ms in segments]).term_ms(1.0)


HANDOVER_MS = 2 * PI4.caches.l2_cycles / PI4.clock_hz * 1e3


def test_a_thread_waits_for_what_it_reads() -> None:
    # The first thread ends after 3 ms, the other one's work is there after 5 ms: it waits, and works 1 ms more.
    found = times((segment(0), 3.0), (segment(1), 5.0), (segment(1), 9.0), (segment(0, after=3), 1.0))
    assert found == {"core": 6.0, "handover": pytest.approx(HANDOVER_MS), "bandwidth": 0.0}


def test_what_was_there_in_time_is_not_waited_for() -> None:
    assert times((segment(0), 3.0), (segment(1), 1.0), (segment(1), 9.0), (segment(0, after=3), 1.0)) == {
        "core": 4.0,
        "handover": 0.0,
        "bandwidth": 0.0,
    }


def test_threads_are_on_cores_by_their_number_after_the_one_that_opens_the_region() -> None:
    """A cache's cycles are the core's, and memory's time is not."""
    board = load_board("d9300")
    shares = {"cache_hits": 0.5, "lines_read": 1.0, "stores": 0.0}
    parameters = [Parameter(name, "", share, 0, 1, "", "", share) for name, share in shares.items()]
    hits, lines = MissCounts(loads_from_l2=3_000_000, loads_from_l3=5_000_000), MissCounts(loads_from_memory=7_000_000, fills=7_000_000)
    by_core, by_memory = (
        modelled_course(
            Profile("", 1, 5, 0, tuple(Segment(1, thread, 0, misses, {}) for thread in (7, 2, 5, 9)), ()), board, parameters
        ).busy_ms
        for misses in (hits, lines)
    )
    cycles = 0.5 * (3e6 * board.caches.l2_cycles + 5e6 * board.caches.l3_cycles)
    assert by_core == pytest.approx([cycles / 2.85e6] * 3 + [cycles / 3.25e6])
    assert len(set(by_memory)) == 1 and by_memory[0] > 0


def test_regions_follow_each_other() -> None:
    found = times((segment(0), 3.0), (segment(1), 5.0), (segment(0, region=2), 2.0), (segment(1, region=2), 1.0))
    assert found["core"] == 5.0


def test_a_region_by_itself() -> None:
    ms = [3.0, 5.0, 2.0, 1.0]
    segments = (segment(0), segment(1), segment(0, region=2), segment(1, region=2))
    worked = [{"core": each} for each in ms]
    courses = [course_of(Profile("", 2, 0, 0, segments, ()), PI4, worked, region) for region in (1, 2)]
    assert [course.chain_ms["core"] for course in courses] == [3.0, 2.0] and courses[1].busy_ms == (2.0, 1.0)


def test_memory_makes_all_wait() -> None:
    # Two threads at once ask for twice what memory delivers in 1 ms, then one alone for half of it.
    lines = round(2 * PI4.memory.copy_bytes_per_s * 1e-3 / PI4.caches.line_bytes)
    found = times((segment(0, lines=lines), 1.0), (segment(1, lines=lines), 1.0), (segment(0, lines=lines // 2), 1.0))
    assert found["core"] == 2.0 and found["bandwidth"] == pytest.approx(1.0, rel=1e-3)


PLAIN = (
    '{"problem": "", "regions": 1, "thread": 0, "guest_base": 0, "segments": [[1, 0, 0, [1], [7, 2]]], "blocks": {"7": [4096, "c0035fd6"]}}'
)


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"blocks": [], "segments": 3}', '{"segments": [[1, 2]], "blocks": {}}', "[" * 100_000),
        PLAIN.replace("4096", "1e999"),
        PLAIN.replace("4096", '"4096"'),
        PLAIN.replace("[1], [7, 2]", '["1"], [7, 2]'),
        PLAIN.replace("[7, 2]", "[7, 0.5]"),
        PLAIN.replace('"problem": ""', '"problem": []'),
    ],
)
def test_what_is_no_profile(text: str) -> None:
    with pytest.raises(ValueError, match="no profile"):
        parse_profile(text)
    assert parse_profile(PLAIN).executed()[0].count == 2
