"""Placed concatenations and slices: which are, and that C libraries of random graphs, where they nest, compute what NumPy does."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_libraries import OK, CLibrary, Options, unplaced, write_host_library
from host_kernels import examples
from hypothesis import given
from hypothesis import strategies as st
from small_networks import run_lowered
from tvm import relax
from tvm.relax import op

from tvmmobile.graph.bindings import returned
from tvmmobile.graph.layers import Array
from tvmmobile.graph.lowering import lower
from tvmmobile.graph.network import Network, read_network
from tvmmobile.graph.passes.outputs import copied_outputs
from tvmmobile.graph.placed import placed_nodes, value_of_placed
from tvmmobile.native.program import read_program

#: Rows of the input; a row has few numbers, so that parts begin at any multiple of 4 bytes.
ROWS, COLUMNS = 5, 3
THREADS = 2
#: What has more is cut.
MOST_ROWS = 30
#: A value by its operator, the numbers of what it reads (0 is the input), and how many rows it has where the operator needs that.
Step = tuple[str, tuple[int, ...], int]


def step(operator: str, *sources: int, rows: int = 0) -> Step:
    return operator, sources, rows


def constant_of(rows: int) -> Array:
    return np.random.default_rng(rows).normal(size=(1, rows, COLUMNS)).astype(np.float32)


#: For each operator what NumPy computes of what it reads and a number of rows, and the same in Relax, of a builder too.
OPERATORS: dict[str, tuple[Callable[[list[Array], int], Array], Callable[[Any, list[Any], int], Any]]] = {
    "constant": (lambda _, rows: constant_of(rows), lambda *given: relax.const(constant_of(given[2]))),
    "double": (lambda read, _: read[0] * np.float32(2), lambda _, read, rows: op.multiply(read[0], relax.const(2.0))),
    "tanh": (lambda read, _: np.tanh(read[0]), lambda _, read, rows: op.tanh(read[0])),
    "first": (lambda read, rows: read[0][:, :rows], lambda _, read, rows: op.strided_slice(read[0], [1], [0], [rows])),
    "last": (
        lambda read, rows: read[0][:, -rows:],
        lambda _, read, rows: op.strided_slice(read[0], [1], [int(read[0].ty.shape[1]) - rows], [read[0].ty.shape[1]]),
    ),
    "narrow": (lambda read, _: read[0][..., 1:], lambda _, read, rows: op.strided_slice(read[0], [2], [1], [COLUMNS])),
    "view": (lambda read, _: read[0], lambda builder, read, _: op.reshape(builder.emit(op.reshape(read[0], (-1,))), read[0].ty.shape)),
    "join": (lambda read, _: np.concatenate(read, 1), lambda _, read, rows: op.concat(read, 1)),
    "widen": (lambda read, _: np.concatenate(read, 2), lambda _, read, rows: op.concat(read, 2)),
}


def value_of(steps: Sequence[Step], image: Array) -> Array:
    """Return the last step's value, by NumPy."""
    found = [image]
    for operator, sources, rows in steps:
        found.append(OPERATORS[operator][0]([found[source] for source in sources], rows))
    return found[-1]


def network_of(steps: Sequence[Step], outputs: Sequence[int]) -> Network:
    """Return the network as the planner reads it, each operator a kernel of its own."""
    builder = relax.BlockBuilder()
    values: list[Any] = [relax.Var("x", relax.TensorType((1, ROWS, COLUMNS), "float32"))]
    with builder.function("main", list(values)):
        with builder.dataflow():
            for operator, sources, rows in steps:
                made = OPERATORS[operator][1](builder, [values[source] for source in sources], rows)
                values.append(made if operator == "constant" else builder.emit(made))
            results = [builder.emit_output(values[output]) for output in outputs]
        builder.emit_func_output(returned(results))
    module = copied_outputs(relax.transform.DeadCodeElimination()(builder.get()))
    return read_network(relax.transform.RewriteDataflowReshape()(relax.transform.LegalizeOps()(module)), {})


FIVE = step("double", 0)
TWO = step("first", 0, rows=2)


@pytest.mark.parametrize(
    ("steps", "outputs", "placed"),
    [
        pytest.param([FIVE, TWO, step("join", 1, 2), step("tanh", 3)], [4], 1, id="read by a kernel"),
        pytest.param([FIVE, TWO, step("join", 2, 1)], [3], 1, id="an output"),
        pytest.param([FIVE, TWO, step("join", 1, 2), step("tanh", 3), step("tanh", 1)], [4, 5], 1, id="a part is read later"),
        pytest.param([FIVE, step("view", 1), TWO, step("join", 2, 3), step("view", 4), step("tanh", 5)], [6], 1, id="between views"),
        pytest.param([FIVE, TWO, step("join", 1, 2), step("tanh", 0), step("join", 4, 3)], [5], 2, id="nested"),
        pytest.param([FIVE, step("join", 1, 0)], [2], 0, id="the input"),
        pytest.param([FIVE, step("constant", rows=2), step("join", 2, 1)], [3], 0, id="a constant"),
        pytest.param([FIVE, step("join", 1, 1)], [2], 0, id="one part twice"),
        pytest.param([FIVE, step("view", 1), step("join", 1, 2)], [3], 0, id="one part twice, behind a view"),
        pytest.param([FIVE, TWO, step("join", 1, 2)], [3, 1], 1, id="a part is an output"),
        pytest.param([FIVE, TWO, step("join", 1, 2), step("join", 2, 1)], [3, 4], 1, id="parts of two"),
        pytest.param([FIVE, TWO, step("join", 1, 2), step("join", 3, 1)], [4], 1, id="a part of one that is a part"),
        pytest.param([FIVE, step("tanh", 0), step("widen", 1, 2)], [3], 0, id="the innermost axis"),
        pytest.param([TWO, step("tanh", 1)], [2], 1, id="a slice of the input"),
        pytest.param([FIVE, step("last", 1, rows=2), step("view", 2), step("first", 3, rows=1), step("tanh", 4)], [5], 2, id="nested"),
        pytest.param([FIVE, step("last", 1, rows=2)], [2], 0, id="a slice that is an output"),
        pytest.param([FIVE, step("narrow", 1), step("tanh", 2)], [3], 0, id="a slice along the innermost axis"),
        pytest.param([FIVE, TWO, step("join", 1, 2), step("last", 3, rows=3), step("tanh", 4)], [5], 2, id="a slice of parts"),
    ],
)
def test_what_is_placed(steps: list[Step], outputs: list[int], placed: int) -> None:
    assert len(placed_nodes(network_of(steps, outputs).module)) == placed


def test_values_of_placed_nodes() -> None:
    module = network_of([FIVE, TWO, step("join", 1, 2), step("last", 3, rows=3), step("tanh", 4)], [5]).module
    whole = np.arange((ROWS + 2) * COLUMNS).reshape(1, ROWS + 2, COLUMNS)
    assert placed_nodes(module) == {2, 3}
    np.testing.assert_array_equal(value_of_placed(module, 2, [whole[:, :ROWS], whole[:, ROWS:]]), whole.reshape(-1))
    np.testing.assert_array_equal(value_of_placed(module, 3, [whole]), whole[:, -3:].reshape(-1))


def test_the_virtual_machine_computes_placed_nodes(tmp_path: Path) -> None:
    """Which it runs to find the kernel that a C library computes wrongly."""
    steps = [FIVE, TWO, step("join", 1, 2), step("last", 3, rows=3), step("first", 4, rows=2), step("tanh", 5)]
    network, image = network_of(steps, [6]), np.random.default_rng(2).normal(size=(1, ROWS, COLUMNS)).astype(np.float32)
    found = run_lowered(lower(network, unplaced(network)), image, tmp_path / "vm.so")
    np.testing.assert_allclose(found, value_of(steps, image), rtol=1e-5, atol=1e-6)


@st.composite
def graphs(draw: st.DrawFn) -> list[Step]:
    """Steps that read one of the last values, half of them concatenations; the last one depends on all of them."""
    steps: list[Step] = [FIVE, TWO]
    rows = [ROWS, ROWS, 2]
    for _ in range(draw(st.integers(8, 16))):
        operator = draw(st.sampled_from(["join", "join", "join", "double", "tanh", "first", "last", "view", "constant"]))
        count = {"join": draw(st.integers(2, 3)), "constant": 0}.get(operator, 1)
        sources = tuple(draw(st.integers(max(0, len(rows) - 4), len(rows) - 1)) for _ in range(count))
        read = [rows[source] for source in sources]
        rows.append(min(draw(st.integers(1, 4)), *read) if operator in ("first", "last") else sum(read) or 2)
        steps.append((operator, sources, rows[-1]))
        if rows[-1] > MOST_ROWS:
            steps.append(step("first", len(steps), rows=ROWS))
            rows.append(ROWS)
    unread = set(range(len(rows))) - {source for _, sources, _ in steps for source in sources}
    first = len(rows)
    steps += [step("tanh", value) for value in sorted(unread)]
    last = [step("join", 1, *range(first, first + len(unread))), step("double", first + len(unread))]
    return [*steps, *last[: draw(st.integers(1, 2))]]


@examples(6)
@given(steps=graphs())
def test_libraries_compute_what_numpy_does(steps: list[Step]) -> None:
    """In a workspace full of NaN, on one thread and on two."""
    image = np.random.default_rng(2).normal(size=(1, ROWS, COLUMNS)).astype(np.float32)
    expected = value_of(steps, image)
    network = network_of(steps, [len(steps)])
    module = lower(network, unplaced(network, THREADS))
    assert len(read_program(module).calls) == len(network.nodes) - len(placed_nodes(network.module))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.so"
        write_host_library(module, path, THREADS)
        library = CLibrary(path)
        for threads in range(1, THREADS + 1):
            library.workspace[:] = 0xFF
            instance = library.instance(Options(threads))
            (found,) = library.run(instance, [image])
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
            assert library.c.net_free(instance) == OK
