"""Chains of layers in one kernel: whose regions they are, what they compute, and the code of their loops."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from assembly import LANES, assembly_of, innermost_loops
from host_kernels import check_schedule, examples
from hypothesis import given
from hypothesis import strategies as st
from spaces import check_members

from tvmmobile.graph.layers import NO_CLAMP, Clamp, Conv2d
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.fused.chain import MOST_BEFORE_BYTES, MOST_CHAIN_BYTES, Chain
from tvmmobile.schedules.fused.chain_memory import Reader, arrange, axes, tile_for
from tvmmobile.schedules.space import Space

TOLERANCE = 1e-5
RELU6: Clamp = (0.0, 6.0)
CORTEX_A72 = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72"}


def chain(
    height: int, width: int, channels: int, text: str, clamp: Clamp = RELU6, threads: int = 1, before: Sequence[int] = (1, 1)
) -> Task:
    """A region from words such as `i32 d1 p64 d2`: image convolution to 32 channels, depthwise of stride 1, product to 64, depthwise of 2.

    `before` is the padding above and left of the 3×3 convolutions.
    """
    padding = (before[0], before[1], 1, 1)
    layers: list[Conv2d] = []
    for word in text.split():
        kind, number = word[0], int(word[1:])
        if kind == "i":
            layer = Conv2d(height, width, channels, number, (3, 3), (2, 2), padding, 1, RELU6, "NCHW")
        elif kind == "d":
            layer = Conv2d(height, width, channels, channels, (3, 3), (number, number), padding, channels, clamp)
        else:
            layer = Conv2d(height, width, channels, number, clamp=RELU6)
        layers.append(layer)
        height, width, channels = layer.out_height, layer.out_width, layer.out_channels
    return Task(tuple(layers), threads=threads)


def space_of(task: Task) -> Space:
    space = Chain().space(task)
    assert space is not None, task.name
    return space


TASKS = {
    "image": chain(224, 224, 3, "i32 d1"),
    "image3": chain(224, 224, 3, "i32 d1 p64"),
    "stride 2": chain(112, 112, 32, "p64 d2"),
    "blocks": chain(56, 56, 64, "p128 d1"),
    "many blocks": chain(28, 28, 256, "p256 d2"),
    "four": chain(128, 128, 3, "i8 d1 p16 d2"),
    "two products": chain(32, 32, 16, "p32 d1 p32 d2"),
    "narrow": chain(96, 96, 24, "p48 d2"),
}


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("threads", [1, 4])
def test_spaces(name: str, threads: int) -> None:
    """Hundreds of members at most; those that fit and no others."""
    task = replace(TASKS[name], threads=threads)
    space = space_of(task)
    members = check_members(Chain(), task, space)
    assert 4 <= len(members) <= 600 and set(members) == {schedule for schedule in space.unpruned() if space.fits(schedule.values)}


def test_chains_of_all_kinds_have_equally_many_features() -> None:
    assert len({len(Chain().features(task, space_of(task).default.values)) for task in TASKS.values()}) == 1


def test_other_regions_are_left_alone() -> None:
    task = chain(12, 12, 8, "p16 d1")
    first, second = task.region
    assert isinstance(first, Conv2d) and isinstance(second, Conv2d)
    refused = [
        Task((first,)),
        Task((second, second)),
        Task((first, first)),
        replace(task, dtype="float16"),
        Task((first, replace(second, height=11))),
        Task((first, replace(second, kernel=(5, 5), padding=(2, 2, 2, 2)))),
        Task((first, replace(second, stride=(2, 1)))),
        Task((first, replace(second, padding=(2, 1, 1, 1)))),
        Task((replace(first, out_channels=18), replace(second, in_channels=18, out_channels=18, groups=18))),
        Task((replace(first, out_layout="NCHW8c"), replace(second, in_layout="NCHW8c"))),
        Task((replace(first, in_layout="NCHW"), second)),
        Task((first, replace(second, out_layout="NCHW"))),
        Task((first, replace(second, out_layout="NCHW2c"))),
        chain(12, 12, 8, "p16 d1 p16 d1 p16"),
        chain(12, 12, 8, "d1 p16"),
    ]
    assert [Chain().space(other) for other in refused] == [None] * len(refused)


def test_weights_that_leave_no_room_are_left_alone() -> None:
    assert Chain().space(chain(8, 8, MOST_BEFORE_BYTES // 64, "p32 d1")) is not None
    assert Chain().space(chain(8, 8, MOST_BEFORE_BYTES // 64 + 4, "p32 d1")) is None
    assert 4 * (32 * 64 + 9 * 96) <= MOST_CHAIN_BYTES < 4 * (64 * 64 + 9 * 128)
    assert Chain().space(chain(8, 8, 32, "d1 p64 d1")) is not None
    assert Chain().space(chain(8, 8, 64, "d1 p64 d1")) is None


@given(
    st.integers(1, 60),
    st.lists(st.tuples(st.sampled_from((1, 3)), st.sampled_from((1, 2)), st.sampled_from((0, 1))), min_size=1, max_size=4),
    st.integers(1, 20),
    st.integers(-1, 4),
)
def test_pieces_cover_every_output_once_and_what_the_next_layer_reads(
    size: int, kinds: list[tuple[int, int, int]], step: int, aligned: int
) -> None:
    readers, sizes = [Reader(size, 1, 1, 0)], [size]
    for kernel, stride, padding in kinds:
        stride, padding = (stride, padding) if kernel == 3 else (1, 0)
        size = (size + padding + (kernel > 1) - kernel) // stride + 1
        if size < 1:
            return
        readers.append(Reader(size, kernel, stride, padding))
        sizes.append(size)
    found = axes(readers, min(step, size), None if aligned < 0 else min(aligned, len(readers) - 1))
    for axis in found:
        assert sum(axis.lengths) == axis.size
        assert [axis.end(piece) for piece in range(axis.pieces - 1)] == [axis.begin(piece + 1) for piece in range(axis.pieces - 1)]
        assert 1 <= tile_for(axis, 7) <= 7
    for axis, following in itertools.pairwise(found):
        for piece, length in enumerate(following.lengths):
            if not length:
                continue
            lowest = following.begin(piece) * axis.stride - axis.padding
            assert axis.base(piece) <= lowest and axis.needed(piece) - axis.base(piece) <= axis.pitch
            assert min(axis.needed(piece), axis.size) <= axis.end(piece)


def check(task: Task, choice: int, folder: Path) -> None:
    """One schedule, among all that the knobs allow."""
    check_schedule(task, space_of(task), choice, TOLERANCE, folder)


TEXTS = (
    *("i8 d1", "i12 d2", "p8 d1", "p24 d2", "p48 d1", "i8 d1 p12", "d1 p8 d1", "d2 p8 d2", "p8 d1 p12"),
    *("p8 d2 p24", "i8 d1 p16 d1", "i8 d1 p16 d2", "d1 p8 d1 p20", "p8 d1 p12 d1", "p12 d2 p16 d2"),
)


@examples(24)
@given(
    st.integers(3, 26),
    st.integers(3, 40),
    st.sampled_from((4, 8, 12, 20)),
    st.sampled_from(TEXTS),
    st.sampled_from((NO_CLAMP, RELU6, (-1.0, 1.0))),
    st.sampled_from((1, 1, 3)),
    st.sampled_from(((1, 1), (0, 0), (1, 0))),
    st.integers(0, 1 << 20),
)
def test_values(
    tmp_path: Path, height: int, width: int, channels: int, text: str, clamp: Clamp, threads: int, before: tuple[int, int], choice: int
) -> None:
    task = chain(height, width, 3 if text[0] == "i" else channels, text, clamp, threads, before)
    if all(min(layer.output_shape) >= 1 for layer in task.region):
        check(task, choice, tmp_path)


@pytest.mark.parametrize("text", TEXTS)
def test_values_with_channels_in_blocks_at_both_ends(tmp_path: Path, text: str) -> None:
    task = chain(9, 21, 3 if text[0] == "i" else 8, text)
    first, last = task.region[0], task.region[-1]
    assert isinstance(first, Conv2d) and isinstance(last, Conv2d)
    ends = {
        0: replace(first, in_layout=first.in_layout if first.in_layout == "NCHW" else "NCHW4c"),
        len(task.region) - 1: replace(last, out_layout="NCHW4c"),
    }
    task = Task(tuple(ends.get(index, layer) for index, layer in enumerate(task.region)))
    for choice in (1, 4099):
        check(task, choice, tmp_path)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (1, 9), (9, 1), (3, 4)])
def test_images_of_few_pixels(tmp_path: Path, height: int, width: int) -> None:
    for text, choice in itertools.product(("p8 d1", "d2 p8 d1", "p8 d1 p12 d2"), (0, 1009)):
        check(chain(height, width, 4, text), choice, tmp_path)


def test_loops_have_the_tiles_multiplications_and_spill_nothing() -> None:
    task = TASKS["blocks"]
    schedule = space_of(task).default
    knobs = schedule.values
    loops = innermost_loops(assembly_of(task, knobs, Chain()))
    product = [loop for loop in loops if loop.indexed == loop.multiply_adds == knobs["rows"] * knobs["columns"] // LANES * 4]
    depthwise = [loop for loop in loops if loop.multiply_adds == knobs["dw_rows"] * knobs["dw_columns"] * 9 and not loop.indexed]
    assert product and depthwise
    assert all(loop.stack_accesses == [] for loop in product + depthwise)


@pytest.mark.parametrize("threads", [1, 4])
def test_one_scratch_buffer_for_everything_between_the_layers(threads: int) -> None:
    """Allocated by each thread for itself, outside all other loops, and as large as was arranged."""
    task = replace(TASKS["stride 2"], threads=threads)
    schedule = space_of(task).default
    layers = tuple(layer for layer in task.region if isinstance(layer, Conv2d))
    script = Chain().emit(task, schedule.values).script()
    before, _, after = script.partition("T.alloc_buffer((")
    assert [line.split(" in ")[1] for line in before.splitlines() if " in " in line] == (["T.parallel(4):"] if threads > 1 else [])
    assert after.startswith(f"{arrange(layers, schedule.values, task).elements},)")
    assert "T.alloc_buffer((" not in after
