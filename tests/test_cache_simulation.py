"""The simulated caches (tvmmobile/virtual/caches.h) against a plain model of the same rules, on random accesses. Needs a C compiler."""

from __future__ import annotations

import ctypes
import subprocess
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tvmmobile.virtual.board import Caches

CACHES = Path(__file__).resolve().parents[1] / "tvmmobile/virtual/caches.h"
DRIVER = r"""
#include "caches.h"
void run(const uint64_t *geometry, const uint64_t *accesses, uint64_t count, uint64_t *out)
{
    line_bytes = 64;
    l1d = l2 = (level){0};
    write_backs = 0;
    make_level(&l1d, geometry[0], geometry[1]);
    make_level(&l2, geometry[2], geometry[3]);
    for (uint64_t i = 0; i < count; i++)
        access_line(accesses[i] >> 1, accesses[i] & 1);
    out[0] = l1d.misses, out[1] = l2.misses, out[2] = write_backs;
    free(l1d.entries), free(l2.entries);
}
"""
Access = tuple[int, bool]


class Level:
    """One level: sets of lines, least recently used first, each with whether it is dirty."""

    def __init__(self, size: int, ways: int) -> None:
        self.ways = ways
        self.sets: list[OrderedDict[int, bool]] = [OrderedDict() for _ in range(size // 64 // ways)]

    def touch(self, line: int, dirty: bool) -> bool:
        """Whether the line is there; then it is the most recent."""
        entries = self.sets[line % len(self.sets)]
        if line not in entries:
            return False
        entries[line] |= dirty
        entries.move_to_end(line)
        return True

    def put(self, line: int, dirty: bool) -> Access | None:
        """Take a line in; the line that had to go."""
        entries = self.sets[line % len(self.sets)]
        victim = entries.popitem(last=False) if len(entries) == self.ways else None
        entries[line] = dirty
        return victim


def plain(geometry: Sequence[int], accesses: Sequence[Access]) -> list[int]:
    first, second = Level(geometry[0], geometry[1]), Level(geometry[2], geometry[3])
    misses = [0, 0, 0]

    def below(line: int, dirty: bool) -> None:
        if second.touch(line, dirty):
            return
        misses[1] += not dirty
        victim = second.put(line, dirty)
        misses[2] += bool(victim and victim[1])

    for line, store in accesses:
        if first.touch(line, store):
            continue
        misses[0] += 1
        below(line, False)
        victim = first.put(line, store)
        if victim and victim[1]:
            below(victim[0], True)
    return misses


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("caches")
    (folder / "driver.c").write_text(DRIVER, encoding="utf-8")
    subprocess.run(
        ["gcc", "-O2", "-shared", "-fPIC", f"-I{CACHES.parent}", str(folder / "driver.c"), "-o", str(folder / "d.so")], check=True
    )
    return ctypes.CDLL(str(folder / "d.so"))


def simulated(library: ctypes.CDLL, geometry: Sequence[int], accesses: Sequence[Access]) -> list[int]:
    words = (ctypes.c_uint64 * len(accesses))(*(line << 1 | store for line, store in accesses))
    out = (ctypes.c_uint64 * 3)()
    library.run((ctypes.c_uint64 * 4)(*geometry), words, ctypes.c_uint64(len(accesses)), out)
    return list(out)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([(1024, 2, 4096, 4), (512, 1, 2048, 16), (2048, 4, 8192, 2)]),
    st.lists(st.tuples(st.integers(0, 200), st.booleans()), min_size=1, max_size=2000),
)
def test_random_accesses(library: ctypes.CDLL, geometry: tuple[int, ...], accesses: list[Access]) -> None:
    assert simulated(library, geometry, accesses) == plain(geometry, accesses)


PI4 = (32768, 2, 1 << 20, 16)


@pytest.mark.parametrize(
    ("accesses", "expected"),
    [
        ([(line, False) for line in range(512)] * 2, [512, 512, 0]),
        ([(line, False) for line in (0, 256, 512)] * 2, [6, 3, 0]),  # three lines in a set of two
        ([(line, True) for line in range(20000)], [20000, 20000, 20000 - 16384]),
        ([(line, False) for line in range(20000)], [20000, 20000, 0]),
    ],
)
def test_known_patterns(library: ctypes.CDLL, accesses: list[Access], expected: list[int]) -> None:
    assert simulated(library, PI4, accesses) == expected


@pytest.mark.parametrize(
    ("figures", "complaint"),
    [
        ({"l1d_ways": 3}, "l1d_bytes = 32768 are no power of two of sets"),
        ({"l2_bytes": 1000000}, "l2_bytes = 1000000 are no power of two of sets"),
        ({"l1d_bytes": 64}, "l1d_bytes = 64 are no power of two of sets"),
        ({"line_bytes": 8}, "line_bytes = 8 is no power of two of at least 16"),
        ({"l2_ways": 0}, "greater than 0"),
    ],
)
def test_a_board_with_absurd_caches_is_refused(figures: dict[str, int], complaint: str) -> None:
    good = {"line_bytes": 64, "l1d_bytes": 32768, "l1d_ways": 2, "l2_bytes": 1 << 20, "l2_ways": 16}
    assert Caches.model_validate(good).l2_ways == 16
    with pytest.raises(ValidationError, match=complaint):
        Caches.model_validate(good | figures)
