"""Blocks to cycles: merging, port bounds, llvm-mca, caching. Needs llvm-16, not QEMU."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machine_code import assemble

from tvmmobile.system.errors import UserError
from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.cores import cost_cache
from tvmmobile.virtual.cores.bounds import least_cycles
from tvmmobile.virtual.cores.core_model import MODEL_VERSION, core_time, model_hash
from tvmmobile.virtual.cores.cost_cache import CostCache
from tvmmobile.virtual.cores.encoding import words_of
from tvmmobile.virtual.cores.mca import cycles_of, disassemble
from tvmmobile.virtual.profile import Block, basic_blocks

PI4 = load_board("pi4")
BASE = 0x10000


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TVMMOBILE_CACHE", str(tmp_path))


FMLA_LOOP = assemble("\n".join(f"fmla v{i}.4s, v30.4s, v31.s[0]" for i in range(12)) + "\nsubs x0, x0, #1\nb.ne #-52\n")


def test_independent_quad_fmas_cost_a_cycle_each() -> None:
    time = core_time([Block(BASE, 1000, FMLA_LOOP)], PI4)
    assert 12_000 <= time.cycles <= 12_600
    assert time.instructions == 14_000
    assert time.seconds == time.cycles / 1.8e9
    assert time.hottest[0].count == 1000
    assert time.hottest[0].assembly[0] == "fmla\tv0.4s, v30.4s, v31.s[0]"
    assert time.unknown_instructions == 0


def test_a_loop_split_by_a_page_and_entered_from_before_is_one_block() -> None:
    head, tail = FMLA_LOOP[:20], FMLA_LOOP[20:]
    entry = assemble("mov x0, #100\n")
    whole = core_time([Block(BASE, 1, entry), Block(BASE + 4, 100, FMLA_LOOP)], PI4)
    split = [Block(BASE, 1, entry + head), Block(BASE + 4, 99, head), Block(BASE + 24, 100, tail)]
    assert basic_blocks(split) == [Block(BASE, 1, entry), Block(BASE + 4, 100, FMLA_LOOP)]
    assert core_time(split, PI4) == whole


def test_blocks_do_not_join_across_a_branch_away() -> None:
    first, second = assemble("nop\nret\n"), assemble("nop\nb.ne #8\n")
    blocks = [Block(BASE, 5, first), Block(BASE + 8, 5, second), Block(BASE + 16, 5, assemble("nop\n"))]
    assert [block.count for block in basic_blocks(blocks)] == [5, 5]
    assert basic_blocks(blocks)[1].code == second + assemble("nop\n")


def test_other_code_at_the_same_address_is_counted_apart() -> None:
    add, sub = assemble("add x0, x0, #1\nret\n"), assemble("sub x0, x0, #1\nret\n")
    assert {(b.code, b.count) for b in basic_blocks([Block(BASE, 2, add), Block(BASE, 3, sub)])} == {(add, 2), (sub, 3)}


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20), st.integers(1, 1000)), min_size=1, max_size=30))
def test_cutting_and_joining_keeps_the_instruction_count(pieces: list[tuple[int, int, int]]) -> None:
    memory = struct.pack("<41I", *(0x91000400 + (i << 10) for i in range(41)))
    blocks = [Block(4 * begin, count, memory[4 * begin : 4 * (begin + length)]) for begin, length, count in pieces]
    merged = basic_blocks(blocks)
    assert sum(b.count * len(b.code) for b in merged) == sum(b.count * len(b.code) for b in blocks)
    assert all(a.end <= b.address for a, b in pairwise(merged))


@pytest.mark.parametrize(
    ("assembly", "cycles"),
    [
        ("fmla v0.4s, v1.4s, v2.4s\nfmla v3.4s, v1.4s, v2.4s", 2),
        ("fmla v0.2s, v1.2s, v2.2s\nfmla v3.2s, v1.2s, v2.2s", 1),
        ("smax v0.4s, v1.4s, v2.4s\nsmin v3.4s, v1.4s, v2.4s", 1),
        ("fmax v0.4s, v1.4s, v2.4s\nfmin v3.4s, v1.4s, v2.4s", 2),
        ("ldr q0, [x0]\nldr q1, [x1]\nldr x2, [x3]", 3),
        ("ldp q0, q1, [x0]", 2),
        ("ldp x0, x1, [x2]", 1),
        ("ld1 {v0.4s, v1.4s, v2.4s, v3.4s}, [x0]", 4),
        ("ld2 {v0.8b, v1.8b}, [x0]\nld1r {v0.4s}, [x0]\nld4 {v0.s, v1.s, v2.s, v3.s}[1], [x0]", 3),
        ("fcmgt v0.4s, v1.4s, v2.4s\nfcmge v3.4s, v1.4s, v2.4s", 1),
        ("str q0, [x0]\nstr q1, [x0, #16]", 2),
        ("add x0, x0, #1\nadd x1, x1, #1\nadd x2, x2, #1\nadd x3, x3, #1", 4 / 3),
        ("cbz x0, #8\ncbz x1, #8", 2),
    ],
)
def test_least_cycles(assembly: str, cycles: float) -> None:
    texts = disassemble(words_of(assemble(assembly)))
    assert least_cycles(texts, PI4.core) == pytest.approx(cycles)


def test_no_block_is_cheaper_than_its_ports() -> None:
    code = assemble("ldp q0, q1, [x0]\nldp q2, q3, [x0, #32]\nldr q4, [x1]\n")
    assert core_time([Block(BASE, 10, code)], PI4).cycles >= 50


def test_undecodable_words_fall_back_to_the_bound() -> None:
    time = core_time([Block(BASE, 10, struct.pack("<3I", 0xFFFFFFFF, 0x00000000, 0x8B020020))], PI4)
    assert time.cycles >= 10
    assert time.unknown_instructions == 30
    assert time.hottest[0].bounds_only
    assert time.hottest[0].assembly[0] == ".inst\t0xffffffff"


def test_one_block_that_mca_refuses_does_not_spoil_the_others() -> None:
    good = ["add\tx0, x0, #1"]
    costs = cycles_of([good, ["no such instruction"], good], "cortex-a72")
    assert costs[1] is None
    assert costs[0] == costs[2] is not None


def test_distances_do_not_make_another_block() -> None:
    near, far = (
        assemble("adrp x0, #4096\nb.ne #8\nbl #16\ncbnz w1, #8\ntbz x2, #3, #8\n"),
        assemble("adrp x0, #8192\nb.ne #-8\nbl #-64\ncbnz w1, #80\ntbz x2, #3, #-16\n"),
    )
    assert near != far
    assert words_of(near) == words_of(far)
    with pytest.raises(ValueError, match="whole words"):
        words_of(b"123")


def test_system_instructions_and_branches_are_modelled() -> None:
    code = assemble("mrs x0, tpidr_el0\ndmb ish\nldxr w0, [x1]\nstxr w2, w0, [x1]\nadrp x0, #4096\nbl #16\nblr x3\nbr x4\nret\nsvc #0\n")
    assert core_time([Block(BASE, 1, code)], PI4).unknown_instructions == 0


def test_the_second_time_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    first = core_time([Block(BASE, 7, FMLA_LOOP)], PI4)
    CostCache.at.__globals__["_open"].cache_clear()  # as another process would start

    def refuse(*_arguments: object) -> list[str]:
        raise AssertionError("asked again")

    monkeypatch.setattr("tvmmobile.virtual.cores.core_model.cycles_of", refuse)
    monkeypatch.setattr("tvmmobile.virtual.cores.core_model.disassemble", refuse)
    assert core_time([Block(BASE, 7, FMLA_LOOP)], PI4) == first


def test_a_damaged_cache_is_only_slower(tmp_path: Path) -> None:
    (tmp_path / f"core-{model_hash(PI4)}.sqlite").write_bytes(b"no database" * 1000)
    assert core_time([Block(BASE, 7, FMLA_LOOP)], PI4).instructions == 98


def test_many_writers_share_a_cache(tmp_path: Path) -> None:
    def work(worker: int) -> int:
        cache = CostCache(tmp_path / "shared.sqlite")
        for i in range(50):
            cache.add_costs({(i, worker % 2): (float(i), False)})
        return len(cache.costs({(i, j) for i in range(50) for j in range(2)}))

    with ThreadPoolExecutor(4) as pool:
        assert min(pool.map(work, range(4))) >= 50
    assert len(CostCache(tmp_path / "shared.sqlite").costs({(i, j) for i in range(50) for j in range(2)})) == 100


def test_an_interrupted_entry_holds_up_no_other_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_cache, "BUSY_S", 0.0)
    first, second = CostCache(tmp_path / "shared.sqlite"), CostCache(tmp_path / "shared.sqlite")

    def interrupted() -> Iterator[tuple[int, str]]:
        yield 1, "nop"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first._insert("INSERT OR IGNORE INTO texts VALUES (?, ?)", interrupted())  # type: ignore[arg-type]  # any iterable will do
    second.add_texts({2: "ret"})
    first.add_texts({3: "yield"})
    assert CostCache(tmp_path / "shared.sqlite").texts({1, 2, 3}) == {2: "ret", 3: "yield"}


def test_pinned_numbers() -> None:
    """When these change, raise `MODEL_VERSION` in core_model.py with them."""
    divide = assemble("sdiv x0, x1, x2\nadd x0, x0, x1\n")
    stores = assemble("stp q0, q1, [x0]\nstr q2, [x0, #32]\nldr q3, [x1]\nfmul v4.4s, v3.4s, v2.4s\n")
    blocks = [Block(BASE, 100, FMLA_LOOP), Block(BASE + 0x100, 10, divide), Block(BASE + 0x200, 1000, stores)]
    assert (MODEL_VERSION, core_time(blocks, PI4).cycles) == (2, 7633)


def test_model_hash_follows_the_board() -> None:
    faster = PI4.model_copy(update={"clock_hz": 2.0e9})
    assert model_hash(PI4) == model_hash(load_board("pi4"))
    assert model_hash(PI4) != model_hash(faster)
    assert len(model_hash(PI4)) == 16


def test_unknown_board_lists_the_known() -> None:
    with pytest.raises(UserError, match=r"Known boards: .*pi4"):
        load_board("pi3000")
