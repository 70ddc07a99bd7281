"""A library with several sets of kernels: each set computes the same as a separate library, and shared constants are stored once."""

from __future__ import annotations

import ctypes
import os

import numpy as np
import pytest
from c_libraries import OBSERVER, OK, VERSION, WORKSPACE, CLibrary, HostSets, Options, aligned, describe, pointers, write_host_sets
from small_networks import HOST, kernels_of, prepared, two_blocks

from tvmmobile.graph.lowering import Lowered, lower
from tvmmobile.native.layout import PAGE, Layout, shared_weights
from tvmmobile.native.program import Program, Value
from tvmmobile.native.sets import LoweredSet
from tvmmobile.networks.preprocessing import Preprocessing

SHAPE = (1, 3, 16, 16)
THREADS = 2
#: The schedules' places in their spaces.
CHOICES = (0, 7)


def kernels(place: int) -> tuple[Lowered, ...]:
    """Return the kernels of a set."""
    return kernels_of(prepared(two_blocks(), SHAPE), CHOICES[place], THREADS)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> HostSets:
    image = np.random.default_rng(5).normal(size=SHAPE).astype(np.float32)
    read, sets = prepared(two_blocks(), SHAPE), []
    for place in range(len(CHOICES)):
        chosen = kernels(place)
        separate = frozenset(kernel.task.symbol for kernel in chosen)
        sets.append(LoweredSet(lower(read, chosen), HOST, separate, f"board{place}", None if place else 1))
    preprocessing = Preprocessing(SHAPE[-1], (0.5,) * 3, (0.5,) * 3)  # with all that libraries for images have
    description = describe(sets[0].module, THREADS, preprocessing)
    return write_host_sets(sets, description, image, tmp_path_factory.mktemp("sets") / "net.so", by_features=(1, 0), archive=True)


@pytest.mark.parametrize("place", [0, 1])
def test_each_set_computes_what_its_own_library_does(both: HostSets, place: int) -> None:
    library, heard = CLibrary(both.path), []
    instance = library.instance(Options(THREADS, flags=place + 1 << 24))
    for threads in (1, THREADS):
        (output,) = library.run(instance, [both.image], threads)
        assert output.tobytes() == both.outputs[place].tobytes()
    observer = OBSERVER(lambda _, kernel, done: heard.append(kernel.decode()) if done else None)
    assert library.c.net_observe(instance, observer, None) == OK
    library.run(instance, [both.image], 1)
    assert heard == [kernel.task.symbol for kernel in kernels(place)]
    assert instance[0] == place and library.description.reasons[instance[1]] == b"the options name it"
    assert library.c.net_free(instance) == OK


def test_the_description_lists_the_sets(both: HostSets) -> None:
    described = CLibrary(both.path).description
    sets = [described.sets[place] for place in range(described.set_count)]
    assert [kernel_set.device for kernel_set in sets] == [b"board0", b"board1"] and {kernel_set.needs for kernel_set in sets} == {b""}
    assert described.workspace_bytes == max(kernel_set.workspace_bytes for kernel_set in sets) == both.written.whole.workspace_bytes
    assert [kernel_set.weight_bytes for kernel_set in sets] == [kernel_set.weight_bytes for kernel_set in both.written.sets]
    assert described.weight_bytes < sum(kernel_set.weight_bytes for kernel_set in sets)  # both have the same biases
    assert described.fastest_threads[:2] == [1, THREADS]


def test_each_set_runs_on_its_fastest_number_of_threads(both: HostSets) -> None:
    """This holds on request, if there are enough CPUs, and within a limit that the options name."""
    library, cpus = CLibrary(both.path), len(os.sched_getaffinity(0))
    for place, limit, threads in ((0, 0, 1), (1, 0, min(THREADS, cpus)), (1, 1, 1)):
        instance = library.instance(Options(limit, flags=place + 1 << 24 | 4))
        assert instance[2] == threads
        (output,) = library.run(instance, [both.image])
        assert output.tobytes() == both.outputs[place].tobytes()
        assert library.c.net_free(instance) == OK


def test_without_a_known_core_the_first_by_features_is_taken(both: HostSets) -> None:
    library = CLibrary(both.path)
    instance = library.instance()
    assert instance[0] == 1 and b"instructions" in library.description.reasons[instance[1]]


def test_a_run_needs_the_workspace_of_its_own_set(both: HostSets) -> None:
    library = CLibrary(both.path)
    for place in (0, 1):
        needed = library.description.sets[place].workspace_bytes
        instance = library.instance(Options(1, flags=place + 1 << 24))
        library.run(instance, [both.image], workspace=aligned(needed))
        arrays = [aligned(both.image.nbytes), aligned(20), aligned(needed)]
        given = pointers(arrays[:1]), pointers(arrays[1:2]), ctypes.c_void_p(arrays[2].ctypes.data)
        assert library.c.net_run(instance, *given, ctypes.c_size_t(needed - 1), 0) == WORKSPACE


def test_a_set_that_is_not_there_is_refused(both: HostSets) -> None:
    library = CLibrary(both.path)
    with pytest.raises(AssertionError, match="name no set of its kernels"):
        library.instance(Options(1, flags=3 << 24))
    assert "name no set" in library.message(VERSION)


def _program(*constants: bytes) -> tuple[Program, Layout]:
    values = tuple(Value("constant", (len(constant),), "uint8", np.frombuffer(constant, np.uint8)) for constant in constants)
    return Program(values, {}, (), (), (), (), {}), Layout({}, {}, (), 0, (), b"", 0, 0)


def test_what_sets_share_is_stored_once_and_the_rest_by_set() -> None:
    """Constants of different sets are not mixed: each set's own constants start at a page."""
    shared, one, other = b"s" * 100, [bytes([i]) * PAGE for i in (1, 2)], [bytes([i]) * PAGE for i in (3, 4)]
    programs, layouts = zip(_program(shared, *one), _program(other[0], shared, other[1]), strict=True)
    placed, memory = shared_weights(programs, layouts)
    for program, layout in zip(programs, placed, strict=True):
        for number, value in enumerate(program.values):
            assert value.data is not None
            begin = layout.constants[number]
            assert begin % 64 == 0 and memory[begin : begin + value.bytes] == value.data.tobytes()
    assert placed[0].constants == {0: 0, 1: PAGE, 2: 2 * PAGE} and placed[1].constants == {0: 3 * PAGE, 1: 0, 2: 4 * PAGE}
    assert len(memory) == 5 * PAGE
