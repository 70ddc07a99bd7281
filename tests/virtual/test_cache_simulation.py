"""The simulated caches (tvmmobile/virtual/plugin/caches.h) against a plain model of the same rules. Needs a C compiler."""

from __future__ import annotations

import ctypes
import subprocess
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tvmmobile.virtual.board import Caches
from tvmmobile.virtual.profile import MissCounts

CACHES = Path(__file__).resolve().parents[2] / "tvmmobile/virtual/plugin/caches.h"
DRIVER = r"""
#include "caches.h"
static level shape(uint64_t bytes, uint64_t ways) { return (level){.set_mask = bytes / 64 / ways - 1, .ways = ways}; }
/* geometry: bytes and ways of each level, the third one's 0 for none; accesses: line, core, store */
void run(const uint64_t *geometry, const uint64_t *accesses, uint64_t count, uint64_t *out)
{
    static core cores[2];
    level second = shape(geometry[2], geometry[3]), last = geometry[4] ? shape(geometry[4], geometry[5]) : second;
    level first = shape(geometry[0], geometry[1]);
    second_is_private = geometry[4];
    shared = make_level(&last);
    all_cores = cores;
    for (int i = 0; i < 2; i++) {
        cores[i] = (core){.l1d = make_level(&first), .next = i ? NULL : cores + 1};
        if (second_is_private)
            cores[i].l2 = make_level(&second);
    }
    for (uint64_t i = 0; i < count; i++) {
        core *c = cores + (accesses[i] >> 1 & 1);
        if (!hit_first(c, accesses[i] >> 2, accesses[i] & 1))
            access_beyond_first(c, accesses[i] >> 2, accesses[i] & 1);
    }
    for (int i = 0; i < 2; i++) {
        const misses *m = &cores[i].counted;
        uint64_t found[7] = {m->l2, m->loads_from_l2, m->loads_from_l3, m->loads_from_memory, m->stores, m->fills, m->write_backs};
        for (int j = 0; j < 7; j++)
            out[7 * i + j] = found[j];
        free(cores[i].l1d.lines), free(cores[i].l2.lines);
    }
    free(shared.lines);
}
"""
Access = tuple[int, bool]


class Level:
    """One level: sets of lines, least recently used first, each with whether it is dirty."""

    def __init__(self, size: int, ways: int) -> None:
        self.ways = ways
        self.sets: list[OrderedDict[int, bool]] = [OrderedDict() for _ in range(size // 64 // ways)]

    def touch(self, line: int, dirty: bool) -> bool:
        """Return whether the line is there; then it is the most recent."""
        entries = self.sets[line % len(self.sets)]
        if line not in entries:
            return False
        entries[line] |= dirty
        entries.move_to_end(line)
        return True

    def take(self, line: int) -> bool | None:
        """Give a line away: whether it was dirty, None if it is not there."""
        return self.sets[line % len(self.sets)].pop(line, None)

    def put(self, line: int, dirty: bool) -> Access | None:
        """Take a line in; the line that had to go."""
        entries = self.sets[line % len(self.sets)]
        victim = entries.popitem(last=False) if len(entries) == self.ways else None
        entries[line] = dirty
        return victim


def plain(geometry: Sequence[int], accesses: Sequence[Access]) -> MissCounts:
    """Return one core, by the same rules."""
    first, second = Level(geometry[0], geometry[1]), Level(geometry[2], geometry[3])
    third = Level(geometry[4], geometry[5]) if len(geometry) > 4 else None
    count = dict.fromkeys((field.name for field in fields(MissCounts)), 0)

    def to_last(line: int, dirty: bool) -> None:
        last = third or second
        victim = None if last.touch(line, dirty) else last.put(line, dirty)
        count["write_backs"] += bool(victim and victim[1])

    def to_second(line: int, dirty: bool) -> None:
        victim = second.put(line, dirty)
        if third is None:
            count["write_backs"] += bool(victim and victim[1])
        elif victim:
            to_last(*victim)

    for line, store in accesses:
        if first.touch(line, store):
            continue
        source, given = "loads_from_l2", None
        if not second.touch(line, False):
            count["l2"] += 1
            given = third.take(line) if third else None
            source = "loads_from_memory" if given is None else "loads_from_l3"
            count["fills"] += given is None
            to_second(line, bool(given))
        count["stores" if store else source] += 1
        victim = first.put(line, store)
        if victim and victim[1]:
            if third is None:
                to_last(*victim)
            elif not second.touch(*victim):
                to_second(*victim)
    return MissCounts(**count)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("caches")
    (folder / "driver.c").write_text(DRIVER, encoding="utf-8")
    subprocess.run(
        ["gcc", "-O2", "-shared", "-fPIC", f"-I{CACHES.parent}", str(folder / "driver.c"), "-o", str(folder / "d.so")], check=True
    )
    return ctypes.CDLL(str(folder / "d.so"))


def simulated(library: ctypes.CDLL, geometry: Sequence[int], accesses: Sequence[tuple[int, bool, int]]) -> list[MissCounts]:
    """Return the misses of two cores' accesses (line, store, core), core by core."""
    words = (ctypes.c_uint64 * len(accesses))(*(line << 2 | core << 1 | store for line, store, core in accesses))
    out = (ctypes.c_uint64 * 14)()
    library.run((ctypes.c_uint64 * 6)(*geometry), words, ctypes.c_uint64(len(accesses)), out)
    return [MissCounts(*out[:7]), MissCounts(*out[7:])]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([(1024, 2, 4096, 4), (512, 1, 2048, 16), (2048, 4, 8192, 2), (1024, 2, 2048, 4, 8192, 4), (512, 1, 1024, 2, 2048, 2)]),
    st.lists(st.tuples(st.integers(0, 200), st.booleans()), min_size=1, max_size=2000),
)
def test_random_accesses_of_one_core(library: ctypes.CDLL, geometry: tuple[int, ...], accesses: list[Access]) -> None:
    found = simulated(library, geometry, [(*access, 0) for access in accesses])
    assert found == [plain(geometry, accesses), MissCounts()]


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([(1024, 2, 65536, 16), (1024, 2, 4096, 4, 65536, 16)]),
    st.lists(st.tuples(st.integers(0, 200), st.booleans(), st.integers(0, 1)), min_size=1, max_size=2000),
)
def test_random_accesses_of_two_cores(library: ctypes.CDLL, geometry: tuple[int, ...], accesses: list[tuple[int, bool, int]]) -> None:
    """Nothing leaves a last level as large: each line comes from memory once, whoever asks for it, and none is written back."""
    found = simulated(library, geometry, accesses)
    both = found[0] + found[1]
    assert both.fills == len({line for line, _, _ in accesses}) and both.write_backs == 0
    assert both.loads_from_memory <= both.fills <= both.l2 + both.stores


PI4 = (32768, 2, 1 << 20, 16)
PI5 = (65536, 4, 524288, 8, 1 << 21, 16)


@pytest.mark.parametrize(
    ("accesses", "expected"),
    [
        ([(line, False) for line in range(512)] * 2, MissCounts(l2=512, loads_from_memory=512, fills=512)),
        # three lines in a set of two
        ([(line, False) for line in (0, 256, 512)] * 2, MissCounts(l2=3, loads_from_l2=3, loads_from_memory=3, fills=3)),
        ([(line, True) for line in range(20000)], MissCounts(l2=20000, stores=20000, fills=20000, write_backs=20000 - 16384)),
        ([(line, False) for line in range(20000)], MissCounts(l2=20000, loads_from_memory=20000, fills=20000)),
    ],
)
def test_known_patterns(library: ctypes.CDLL, accesses: list[Access], expected: MissCounts) -> None:
    assert simulated(library, PI4, [(*access, 0) for access in accesses])[0] == expected


@pytest.mark.parametrize("geometry", [PI4, PI5])
def test_what_one_core_writes_the_other_reads(library: ctypes.CDLL, geometry: tuple[int, ...]) -> None:
    found = simulated(library, geometry, [(7, True, 0), (7, False, 1), (7, False, 0), (7, True, 1), (7, False, 0)])
    assert found[0].stores == 1 and found[0].fills == 1 and found[1].fills == 0
    # The first core finds its line until the other one has written it.
    assert found[0].loads_from_l2 + found[0].loads_from_l3 == 1 and found[0].loads_from_memory == 0
    assert found[1].loads_from_l2 + found[1].loads_from_l3 == 1 and found[1].stores == 0  # it had the line, and now has it alone


@pytest.mark.parametrize(
    ("figures", "complaint"),
    [
        ({"l1d_ways": 3}, "l1d_bytes = 32768 do not give a power of two of sets"),
        ({"l2_bytes": 1000000}, "l2_bytes = 1000000 do not give a power of two of sets"),
        ({"l1d_bytes": 64}, "l1d_bytes = 64 do not give a power of two of sets"),
        ({"line_bytes": 8}, "line_bytes = 8 is not a power of two of at least 16"),
        ({"l2_ways": 0}, "greater than 0"),
    ],
)
def test_a_board_with_absurd_caches_is_refused(figures: dict[str, int], complaint: str) -> None:
    good = {"line_bytes": 64, "l1d_bytes": 32768, "l1d_ways": 2, "l2_bytes": 1 << 20, "l2_ways": 16, "l2_cycles": 16.0}
    assert Caches.model_validate(good).l2_ways == 16
    with pytest.raises(ValidationError, match=complaint):
        Caches.model_validate(good | figures)
