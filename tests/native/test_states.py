"""Libraries that keep tensors between calls: sequences of calls beside ONNX Runtime's, several instances, bad calls."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from c_libraries import ALIGNMENT, NULL, OK, UNREADY, WORKSPACE, CLibrary, Options, aligned, write_own_library
from network_files import Graph, write_model
from onnx import TensorProto, helper
from own_networks import load, network_of

import tvmmobile as tm
from tvmmobile.devices.registry import find_device
from tvmmobile.graph.layers import Array
from tvmmobile.graph.placed import placed_nodes
from tvmmobile.networks.frontend import Imported
from tvmmobile.pipeline.build import build
from tvmmobile.pipeline.job import variant_job
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.run import start
from tvmmobile.system.errors import UserError

THREADS, SHAPE = 2, (2, 3, 5, 7)
node = helper.make_node


def write_recurrent(path: Path) -> Path:
    """Write a network of two images, a state `h` that every convolution reads, and a counter `k` in integers, by which the output grows."""
    random = np.random.default_rng(3)
    weights = {name: random.normal(0, 0.4, (3, inputs, 3, 3)).astype(np.float32) for name, inputs in (("v", 6), ("w", 6))}
    nodes = [
        node("Concat", ["x", "h"], ["both"], axis=1),
        node("Conv", ["both", "v"], ["c"], pads=[1, 1, 1, 1]),
        node("Tanh", ["c"], ["hN"]),
        node("Concat", ["hN", "h"], ["states"], axis=1),  # the old state is read once the new one is written
        node("Conv", ["states", "w"], ["d"], pads=[1, 1, 1, 1]),
        node("Add", ["k", "one"], ["kN"]),
        node("Cast", ["kN"], ["count"], to=TensorProto.FLOAT),
        node("Mul", ["d", "count"], ["y"]),
    ]
    integers = dict.fromkeys(("k", "kN"), TensorProto.INT64)
    graph = Graph(nodes, {**weights, "one": np.array(1)})
    return write_model(path, graph, SHAPE, inputs=["k", "h"], outputs=["hN", "kN"], types=integers)


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory: pytest.TempPathFactory) -> tuple[Imported, Path]:
    folder = tmp_path_factory.mktemp("states")
    imported = load(write_recurrent(folder / "net.onnx"))
    write_own_library(imported, folder / "net.so", ["h=hN", "k=kN"], THREADS)
    return imported, folder / "net.so"


def images(seed: int, count: int = 6) -> Array:
    return np.random.default_rng(seed).normal(size=(count, *SHAPE)).astype(np.float32)


def by_calls(imported: Imported, sequence: Array) -> list[Array]:
    """Return what ONNX Runtime computes when a caller passes the states on."""
    k, h, found = np.zeros(SHAPE, np.int64), np.zeros(SHAPE, np.float32), []
    for image in sequence:
        y, h, k = imported.compute([image, k, h])
        found.append(y)
    return found


@pytest.mark.parametrize("threads", [1, THREADS])
def test_instances_have_states_of_their_own(recurrent: tuple[Imported, Path], threads: int) -> None:
    library, sequences = CLibrary(recurrent[1]), [images(seed) for seed in (1, 2)]
    expected = [by_calls(recurrent[0], sequence) for sequence in sequences]
    started = [library.started(Options(threads)) for _ in sequences]
    for number in range(len(sequences[0])):
        for (instance, _), sequence, wanted in zip(started, sequences, expected, strict=True):
            library.workspace[:] = 0xFF
            np.testing.assert_allclose(library.run(instance, [sequence[number]])[0], wanted[number], atol=2e-5)
    assert all(library.c.net_free(instance) == OK for instance, _ in started)


def test_a_reset_begins_again(recurrent: tuple[Imported, Path]) -> None:
    library, sequence = CLibrary(recurrent[1]), images(1, 3)
    instance, memory = library.started()
    first = [library.run(instance, [image])[0].tobytes() for image in sequence]
    assert library.reset(instance, memory) == OK
    assert [library.run(instance, [image])[0].tobytes() for image in sequence] == first
    assert library.run(instance, [sequence[0]])[0].tobytes() != first[0]


def test_bad_calls(recurrent: tuple[Imported, Path]) -> None:
    library = CLibrary(recurrent[1])
    instance, size = library.instance(), library.c.net_state_bytes()
    assert library.description.input_count == library.description.output_count == 1 and size % 64 == 0
    with pytest.raises(AssertionError, match="or was not reset"):
        library.run(instance, [images(1)[0]])
    assert library.c.net_reset(instance, None, ctypes.c_size_t(size)) == NULL
    assert library.reset(instance, aligned(size + 64)[1 : size + 1]) == ALIGNMENT
    assert library.reset(instance, aligned(size - 1)) == WORKSPACE
    assert library.reset((ctypes.c_uint64 * 128)(), aligned(size)) == UNREADY


def test_a_state_is_placed(tmp_path: Path) -> None:
    """Kernels write a row that they compute of the input and one of the old state where the next call reads them."""
    random, shape = np.random.default_rng(3), (1, 2, 4, 4)
    nodes = [
        *[node("Conv", [read, f"{read}w"], [f"{read}c"], strides=[4, 1]) for read in "xh"],
        *[node("Transpose", [f"{read}c"], [f"{read}t"], perm=[0, 2, 3, 1]) for read in "xh"],
        node("Concat", ["xt", "ht"], ["hN"], axis=1),
        node("Softmax", ["hN"], ["y"], axis=3),
    ]
    graph = Graph(nodes, {f"{read}w": random.normal(0, 0.5, (4, 2, 1, 1)).astype(np.float32) for read in "xh"})
    imported = load(write_model(tmp_path / "net.onnx", graph, shape, inputs=["h"], outputs=["hN"]))
    assert len(placed_nodes(network_of(imported).module)) == 1
    write_own_library(imported, tmp_path / "net.so", ["h=hN"], THREADS)
    library = CLibrary(tmp_path / "net.so")
    instance, memory = library.started()
    state = np.zeros(shape, np.float32)
    for image in random.normal(size=(4, *shape)).astype(np.float32):
        expected, state = imported.compute([image, state])
        np.testing.assert_allclose(library.run(instance, [image])[0], expected, atol=2e-5)
    assert library.c.net_free(instance) == OK and memory.size >= 2 * state.nbytes


@pytest.mark.virtual
def test_a_compiled_library_is_compared_from_the_beginning(recurrent: tuple[Imported, Path], tmp_path: Path) -> None:
    """On the host by `check.c`, and on a device by the agent, where each run begins with zeros."""
    options = LibraryOptions.of({"stateful": ["h=hN", "k=kN"]})
    job = variant_job(tm.load(recurrent[1].with_name("net.onnx")), find_device("pi4-virtual").profile, [], tmp_path, options)
    (library,) = tm.open_libraries(build(replace(job, unchecked="")).library.path)
    assert library.facts.checked and library.facts.stateful == options.stateful
    (image,), (expected,) = library.reference()
    np.testing.assert_allclose(expected, by_calls(recurrent[0], image[None])[0], atol=1e-5)
    with start("pi4-virtual") as agents:
        for outputs in agents.outputs(library.path, [[image], [image]], 1, 100):
            np.testing.assert_allclose(outputs[0], expected, atol=1e-5)


def test_only_c_libraries_keep_states() -> None:
    with pytest.raises(UserError, match="is for C libraries"):
        LibraryOptions.of({"stateful": "h=hN", "format": "vm"}).check(find_device("pi4-virtual").profile)
