"""A C library for this machine: the same bits as TVM's virtual machine, one instance or many, and an error code for every bad call."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_libraries import (
    ALIGNMENT,
    CPU,
    IN_USE,
    INTERFACE,
    NULL,
    OBSERVER,
    OK,
    PARALLEL,
    THREADS,
    UNREADY,
    VERSION,
    WORKSPACE,
    CLibrary,
    Options,
    aligned,
    describe,
    pointers,
    write_host_library,
)
from one_set import write_library
from small_networks import HOST, kernels_of, prepared, run_lowered, seeded, two_blocks
from torch import nn

from tvmmobile.graph.layers import Array, Conv2d
from tvmmobile.graph.lowering import lower
from tvmmobile.kernels.function import kernel_function
from tvmmobile.native.library import write_sources
from tvmmobile.native.sets import LoweredSet
from tvmmobile.native.source import RUNTIME
from tvmmobile.schedules import KnobSchedule
from tvmmobile.schedules.floats.winograd import Winograd
from tvmmobile.schedules.floats.winograd_nest import IN_TURN
from tvmmobile.system.errors import UserError

SHAPE = (1, 3, 16, 16)
#: The most that the threaded library's work is divided among.
MOST = 3


@dataclass(frozen=True)
class HostLibrary:
    """A library, an input, the virtual machine's output for it, and the library's kernels in order."""

    path: Path
    image: Array
    expected: Array
    symbols: tuple[str, ...]


def built(network: nn.Module, folder: Path, threads: int = 1, choice: int = 0) -> HostLibrary:
    read = prepared(network, SHAPE)
    kernels = kernels_of(read, choice, threads)
    module, separate = lower(read, kernels), frozenset(kernel.task.symbol for kernel in kernels)
    image = np.random.default_rng(5).normal(size=SHAPE).astype(np.float32)
    write_host_library(module, folder / "net.so", threads, archive=True, separate=separate)
    symbols = tuple(kernel.task.symbol for kernel in kernels)
    return HostLibrary(folder / "net.so", image, run_lowered(module, image, folder / "vm.so"), symbols)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> HostLibrary:
    return built(two_blocks(), tmp_path_factory.mktemp("single"))


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> HostLibrary:
    return built(two_blocks(), tmp_path_factory.mktemp("team"), MOST, choice=7)


def same_bits(outputs: list[Array], expected: Array) -> bool:
    return [output.tobytes() for output in outputs] == [expected.tobytes()]


def test_it_computes_the_virtual_machines_bits_again_and_again(single: HostLibrary) -> None:
    library = CLibrary(single.path)
    instance = library.instance()
    for fill in (0x00, 0xFF):  # whatever the workspace holds
        library.workspace[:] = fill
        assert same_bits(library.run(instance, [single.image]), single.expected)
    assert library.c.net_free(instance) == OK


def test_its_description_is_the_network(single: HostLibrary) -> None:
    described = CLibrary(single.path).description
    assert (described.interface, described.threads, described.input_count, described.output_count) == (INTERFACE, 1, 1, 1)
    assert (described.name, described.core, described.alignment) == (b"net", b"host", 64)
    image, output = described.inputs[0], described.outputs[0]
    assert (image.name, image.type, image.extents, image.bytes) == (b"input0", b"float32", SHAPE, 3072)
    assert (output.name, output.extents, output.bytes, output.scale_count) == (b"output0", (1, 5), 20, 0)
    assert described.workspace_bytes > 0 and described.weight_bytes > 0


@pytest.mark.parametrize("threads", range(1, MOST + 1))
@pytest.mark.parametrize("spins", [0, 1])
def test_threads_give_the_same_bits(team: HostLibrary, threads: int, spins: int) -> None:
    """They do so spinning or asleep, and with fewer threads than the library was compiled for."""
    library = CLibrary(team.path)
    instance = library.instance(Options(MOST, spins))
    for _ in range(20):
        assert same_bits(library.run(instance, [team.image], threads), team.expected)
    assert library.c.net_free(instance) == OK


def test_the_callers_threads_give_the_same_bits(team: HostLibrary) -> None:
    """One after another, in any order: nothing waits for another piece of the same work."""
    counts = []

    def backwards(_: Any, work: Callable[[Any, int], None], data: Any, count: int) -> None:
        counts.append(count)
        for number in reversed(range(count)):
            work(data, number)

    library = CLibrary(team.path)
    pool = PARALLEL(backwards)
    instance = library.instance(Options(MOST, parallel=pool))
    assert same_bits(library.run(instance, [team.image]), team.expected)
    assert set(counts) == {MOST}


def test_runs_of_one_instance_at_once(team: HostLibrary) -> None:
    """One has the threads, the others do without; each has a workspace."""
    library = CLibrary(team.path)
    instance = library.instance(Options(MOST, 1))
    wrong = []

    def caller() -> None:
        space = aligned(library.description.workspace_bytes)
        for _ in range(50):
            if not same_bits(library.run(instance, [team.image], workspace=space), team.expected):
                wrong.append(1)

    callers = [threading.Thread(target=caller) for _ in range(4)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    assert not wrong and library.c.net_free(instance) == OK


def test_threads_are_pinned(team: HostLibrary) -> None:
    """Each to a CPU of its own, and the caller's stays where it is."""
    library, before, mine = CLibrary(team.path), set(os.listdir("/proc/self/task")), os.sched_getaffinity(0)
    cpus = sorted(mine)[:2]
    instance = library.instance(Options(2, cpus=sum(1 << cpu for cpu in cpus)))
    library.run(instance, [team.image])
    (thread,) = set(os.listdir("/proc/self/task")) - before
    assert os.sched_getaffinity(int(thread)) == {cpus[-1]} and os.sched_getaffinity(0) == mine
    assert library.c.net_free(instance) == OK


def test_threads_leave_the_programs_signals_alone(team: HostLibrary) -> None:
    """Only signals of faults and the C library's own, 32 to 34, reach them: it changes the user by signalling each thread."""
    before, library = set(os.listdir("/proc/self/task")), CLibrary(team.path)
    instance = library.instance(Options(2))
    library.run(instance, [team.image])
    (thread,) = set(os.listdir("/proc/self/task")) - before
    status = Path(f"/proc/self/task/{thread}/status").read_text()
    blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
    faults = {signal.SIGILL, signal.SIGTRAP, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV, signal.SIGSYS}
    never = {signal.SIGKILL, signal.SIGSTOP}
    assert {number for number in range(1, 65) if not blocked >> number - 1 & 1} == faults | never | {32, 33, 34}
    assert library.c.net_free(instance) == OK


CHANGING_GROUP = """
import ctypes, os, sys
library, memory = ctypes.CDLL(sys.argv[1]), (ctypes.c_uint64 * 128)()
assert library.net_init(1, memory, ctypes.byref((ctypes.c_uint32 * 16)(2))) == 0
os.setgid(os.getgid())
assert library.net_free(memory) == 0
"""


def test_a_program_with_threads_can_change_its_group(team: HostLibrary) -> None:
    subprocess.run([sys.executable, "-c", CHANGING_GROUP, team.path], check=True, timeout=60)


def test_eight_instances_in_eight_threads(team: HostLibrary) -> None:
    library = CLibrary(team.path)
    wrong = []

    def caller() -> None:
        instance, space = library.instance(Options(2, 1)), aligned(library.description.workspace_bytes)
        for _ in range(25):
            if not same_bits(library.run(instance, [team.image], workspace=space), team.expected):
                wrong.append(1)
        library.c.net_free(instance)

    callers = [threading.Thread(target=caller) for _ in range(8)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    assert not wrong


@pytest.mark.parametrize("pooled", [False, True], ids=["own", "pool"])
@pytest.mark.parametrize("threads", range(1, MOST + 1))
def test_an_observer_hears_of_kernels(team: HostLibrary, threads: int, pooled: bool) -> None:
    """In order, as often as they are called, until it is taken away; the bits are the same."""
    heard: list[tuple[str, int]] = []
    observer = OBSERVER(lambda _, kernel, done: heard.append((kernel.decode(), done)))
    pool = PARALLEL(lambda _, work, data, count: [work(data, number) for number in range(count)] and None)
    library = CLibrary(team.path)
    instance = library.instance(Options(MOST, 1, parallel=pool if pooled else PARALLEL()))
    for each in (observer, None, observer):
        assert library.c.net_observe(instance, each, None) == OK
        assert same_bits(library.run(instance, [team.image], threads), team.expected)
    once = [(symbol, done) for symbol in team.symbols for done in (0, 1)]
    assert len(once) == 10 and heard == 2 * once
    assert library.c.net_free(instance) == OK


class Calls:
    """Calls with one thing wrong: their codes by name."""

    def __init__(self, library: CLibrary, image: Array) -> None:
        self.library, self.c = library, library.c
        self.good: dict[str, Any] = {
            "instance": library.instance(),
            "inputs": [aligned(image.nbytes, 0)],
            "outputs": [aligned(64)],
            "workspace": library.workspace,
            "bytes": library.workspace.size,
            "threads": 0,
        }

    def run(self, **wrong: Any) -> int:
        call = self.good | wrong
        inputs, outputs = (None if call[name] is None else pointers(call[name]) for name in ("inputs", "outputs"))
        space = None if call["workspace"] is None else ctypes.c_void_p(call["workspace"].ctypes.data)
        code: int = self.c.net_run(call["instance"], inputs, outputs, space, ctypes.c_size_t(call["bytes"]), call["threads"])
        return code

    def init(self, memory: Any, interface: int = INTERFACE, **options: Any) -> int:
        code: int = self.c.net_init(interface, memory, ctypes.byref(Options(**options)))
        return code


def memory() -> Any:
    return (ctypes.c_uint64 * 128)()


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda calls: calls.run(), OK),
        (lambda calls: calls.run(instance=None), NULL),
        (lambda calls: calls.run(inputs=None), NULL),
        (lambda calls: calls.run(inputs=[None]), NULL),
        (lambda calls: calls.run(outputs=None), NULL),
        (lambda calls: calls.run(outputs=[None]), NULL),
        (lambda calls: calls.run(workspace=None), NULL),
        (lambda calls: calls.run(inputs=[aligned(8192)[4:]]), ALIGNMENT),
        (lambda calls: calls.run(outputs=[aligned(8192)[32:]]), ALIGNMENT),
        (lambda calls: calls.run(workspace=aligned(1 << 20)[16:]), ALIGNMENT),
        (lambda calls: calls.run(bytes=calls.good["bytes"] - 1), WORKSPACE),
        (lambda calls: calls.run(threads=2), THREADS),
        (lambda calls: calls.run(instance=memory()), UNREADY),
        (lambda calls: calls.run(instance=ctypes.c_void_p(ctypes.addressof(calls.good["instance"]) + 1)), ALIGNMENT),
        (lambda calls: calls.run(instance=type(calls.good["instance"]).from_buffer_copy(calls.good["instance"])), UNREADY),
        (lambda calls: calls.init(memory()), OK),
        (lambda calls: calls.init(None), NULL),
        (lambda calls: calls.init(memory(), interface=2), VERSION),
        (lambda calls: calls.init(memory(), flags=2), OK),
        (lambda calls: calls.init(memory(), flags=4), OK),
        (lambda calls: calls.init(memory(), flags=8), VERSION),
        (lambda calls: calls.init(memory(), reserved=1), VERSION),
        (lambda calls: calls.init(memory(), flags=1 << 24), OK),
        (lambda calls: calls.init(memory(), flags=2 << 24), VERSION),
        (lambda calls: calls.init(memory(), threads=2), THREADS),
        (lambda calls: calls.init(calls.good["instance"]), IN_USE),
        (lambda calls: calls.c.net_observe(None, None, None), NULL),
        (lambda calls: calls.c.net_observe(memory(), None, None), UNREADY),
        (lambda calls: calls.c.net_free(None), NULL),
        (lambda calls: calls.c.net_free(memory()), UNREADY),
        (lambda calls: calls.c.net_free(calls.good["instance"]) or calls.run(), UNREADY),
        (lambda calls: calls.c.net_free(calls.good["instance"]) or calls.c.net_free(calls.good["instance"]), UNREADY),
    ],
)
def test_a_bad_call_gives_a_code(single: HostLibrary, call: Callable[[Calls], int], code: int) -> None:
    library = CLibrary(single.path)
    assert library.message(call(Calls(library, single.image))) == library.message(code)


def test_every_code_has_a_message(single: HostLibrary) -> None:
    library = CLibrary(single.path)
    messages = [library.message(code) for code in (*range(10), CPU)]
    assert len(set(messages)) == 11 and messages[9] == library.message(-1) == "unknown error code"


def test_no_other_symbol_is_seen(single: HostLibrary) -> None:
    functions = {f"net_{name}" for name in ("describe", "init", "run", "observe", "free", "message")}
    for file, options in ((single.path, ["-D", "--defined-only"]), (single.path.with_suffix(".a"), ["--defined-only", "--extern-only"])):
        listed = subprocess.run(["nm", "-P", *options, file], capture_output=True, text=True, check=True).stdout
        assert {line.split()[0] for line in listed.splitlines() if " " in line} == functions


def named(module: Any) -> Any:
    """Return a legalised module with what `lower` gives functions: a symbol each."""
    for variable, function in module.functions_items():
        if variable.name_hint != "main":
            module[variable] = function.with_attr("global_symbol", variable.name_hint)
    return module


def test_parts_of_one_kernel_share_what_lies_between_them(tmp_path: Path) -> None:
    """A softmax over rows, in four loops that each divide the rows among threads: maxima, exponentials, sums, quotients."""
    import tvm
    from tvm import relax
    from tvm.relax.transform import LegalizeOps

    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((7, 33), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(relax.op.nn.softmax(x))
        builder.emit_func_output(result)
    module = named(LegalizeOps()(builder.get()))
    (symbol,) = (variable.name_hint for variable, _ in module.functions_items() if variable.name_hint != "main")
    state = tvm.s_tir.Schedule(tvm.IRModule({"main": module[symbol]}))
    for block in state.get_child_blocks(state.get_sblock("root")):
        state.parallel(state.get_loops(block)[0])
    module[symbol] = state.mod["main"].with_attr("global_symbol", symbol)
    image = np.random.default_rng(1).normal(size=(7, 33)).astype(np.float32)
    expected = run_lowered(module, image, tmp_path / "vm.so")
    write_host_library(module, tmp_path / "net.so", MOST)
    library = CLibrary(tmp_path / "net.so")
    assert np.allclose(expected.sum(1), 1) and library.description.workspace_bytes >= (7 * 33 + 7 + 7) * 4
    for threads in range(1, MOST + 1):
        instance = library.instance(Options(threads))
        assert same_bits(library.run(instance, [image]), expected) and library.c.net_free(instance) == OK


def test_loops_of_one_kernel_wait_for_each_other_where_they_share_memory(tmp_path: Path) -> None:
    """Winograd's transformed inputs are written by all threads in one loop and read by all of them in the next."""
    read = prepared(seeded(nn.Conv2d(3, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 1, 1), nn.Conv2d(64, 4, 1)), SHAPE)
    kernels = list(kernels_of(read, threads=MOST))
    place = next(i for i, node in enumerate(read.nodes) if isinstance(node.layer, Conv2d) and node.layer.in_channels == 32)
    task, knobs = kernels[place].task, {"size": 4, "tiles": 0, "rows": 4, "columns": 8, "k_block": 0, "parts": 4, "axis": IN_TURN}
    function = kernel_function(task, KnobSchedule("winograd", Winograd.version, tuple(knobs.items())), None)
    constants = Winograd().pack(task, knobs, (read.nodes[place].parameters,))
    kernels[place] = replace(kernels[place], function=function, constants=tuple(constants))
    module, image = lower(read, tuple(kernels)), np.random.default_rng(5).normal(size=SHAPE).astype(np.float32)
    expected = run_lowered(module, image, tmp_path / "vm.so")
    write_host_library(module, tmp_path / "net.so", MOST, separate=frozenset(kernel.task.symbol for kernel in kernels))
    library = CLibrary(tmp_path / "net.so")
    instance = library.instance(Options(MOST))
    for _ in range(50):
        library.workspace[:] = 0xFF
        assert same_bits(library.run(instance, [image]), expected)


def test_an_edge_that_names_what_it_reads_is_a_part_of_its_own(tmp_path: Path) -> None:
    """SiLU names the sums of the first row, which is apart from the loop over the others that threads share."""
    made = built(seeded(nn.Conv2d(3, 16, 3, 2, 1), nn.SiLU()), tmp_path, MOST)
    counts = []

    def in_turn(_: Any, work: Callable[[Any, int], None], data: Any, count: int) -> None:
        counts.append(count)
        for number in range(count):
            work(data, number)

    library = CLibrary(made.path)
    pool = PARALLEL(in_turn)
    assert same_bits(library.run(library.instance(Options(MOST, parallel=pool)), [made.image]), made.expected)
    assert counts == [MOST]  # the layer; what transposes its output has too few elements to share


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    """In the caller's order, of any names, and an output that a later kernel reads."""
    from tvm import relax
    from tvm.relax.transform import LegalizeOps

    builder = relax.BlockBuilder()
    x, y = (relax.Var(name, relax.TensorType((4, 8), "float32")) for name in "xy")
    with builder.function("main", [x, y]):
        with builder.dataflow():
            total = builder.emit_output(relax.op.add(x, y))
            product = builder.emit_output(relax.op.multiply(total, relax.const(np.arange(8, dtype=np.float32))))
        builder.emit_func_output(relax.Tuple([product, total]))
    module = named(LegalizeOps()(builder.get()))
    description = describe(module)
    names = "\U0001f600", 'two "quoted" ??/'
    description = replace(
        description, outputs=tuple(replace(port, name=name) for port, name in zip(description.outputs, names, strict=True))
    )
    write_library(module, HOST, description, tmp_path / "net.so")
    library = CLibrary(tmp_path / "net.so")
    assert [library.description.outputs[number].name.decode() for number in range(2)] == list(names)
    first, second = (np.random.default_rng(seed).normal(size=(4, 8)).astype(np.float32) for seed in (1, 2))
    found = library.run(library.instance(), [first, second])
    assert np.array_equal(found[1], first + second) and np.array_equal(found[0], (first + second) * np.arange(8, dtype=np.float32))
    assert library.description.workspace_bytes == 0
    write_sources([LoweredSet(module, HOST)], description, tmp_path)
    folders = [f"-I{tmp_path}", f"-I{RUNTIME.parent}"]
    subprocess.run(["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", *folders, tmp_path / "model.c"], check=True)


def test_numbers_scattered_to_computed_places(tmp_path: Path) -> None:
    """TVM's own loops, whose buffers begin at a variable element."""
    from tvm import relax
    from tvm.relax.transform import LegalizeOps

    builder, op = relax.BlockBuilder(), relax.op
    x, numbers = (relax.Var(name, relax.TensorType(shape, "float32")) for name, shape in (("x", (5, 8)), ("numbers", (5, 3))))
    with builder.function("main", [x, numbers]):
        with builder.dataflow():
            places = builder.emit(op.astype(op.multiply(numbers, relax.const(8.0)), "int64"))
            along = builder.emit_output(op.scatter_elements(x, places, numbers, axis=1))
            whole = builder.emit_output(op.scatter_nd(x, op.strided_slice(places, [1], [1], [2]), x, "add"))
        builder.emit_func_output(relax.Tuple([along, whole]))
    module = named(LegalizeOps()(builder.get()))
    write_library(module, HOST, describe(module), tmp_path / "net.so")
    random, library = np.random.default_rng(4), CLibrary(tmp_path / "net.so")
    data, given = random.normal(size=(5, 8)).astype(np.float32), (random.permuted(np.tile(np.arange(5), (3, 1)), axis=1).T / 8 + 0.01)
    given = given.astype(np.float32)
    expected, rows = [data.copy(), data.copy()], (given * 8).astype(np.int64)
    np.put_along_axis(expected[0], rows, given, 1)
    np.add.at(expected[1], rows[:, 1], data)
    assert all(map(np.array_equal, library.run(library.instance(), [data, given]), expected))


def test_an_output_that_no_kernel_writes_is_refused(tmp_path: Path) -> None:
    from tvm import relax

    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((4, 8), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            same = builder.emit_output(relax.op.reshape(x, (32,)))
        builder.emit_func_output(same)
    with pytest.raises(UserError, match="one of its inputs"):
        write_host_library(builder.get(), tmp_path / "net.so")
