"""Variables of LiteRT files are inputs and outputs: passed on from call to call, the network computes what LiteRT's runtime computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_libraries import CLibrary, write_own_library
from litert_files import Array, LiteRtFile, network_in, refused, schema, translated
from own_networks import load

from tvmmobile.kernels.reference import relative_error

FRAME, STATE, ROW = (1, 1, 1, 4), (1, 2, 1, 4), (1, 3, 1, 4)
ZERO = -5


def streaming(begin: float = 0.0, more: str = "") -> bytes:
    """Keeps the last two frames, and convolves three of them; a second variable counts calls. `more` breaks a rule, or frames are int8."""
    random, file = np.random.default_rng(4), LiteRtFile()
    file.operator("CALL_ONCE", [], [], "CallOnceOptions", initSubgraphIndex=1)
    handles = [file.tensor((), "resource") for _ in range(2)]
    for handle, name in zip(handles, ("frames", "count"), strict=True):
        file.operator("VAR_HANDLE", [], [handle], "VarHandleOptions", sharedName=name, container="")
    grid: dict[str, Any] = {"dtype": "int8", "scale": 0.02, "zero": ZERO} if more == "int8" else {}
    data, kept, row, again = file.tensor(FRAME), file.tensor(STATE, **grid), file.tensor(ROW), file.tensor(STATE, **grid)
    file.operator("READ_VARIABLE", [handles[0]], [kept], "ReadVariableOptions")
    file.operator("READ_VARIABLE", [handles[0]], [again], "ReadVariableOptions")
    if grid:
        stored, again = again, file.tensor(STATE)
        file.operator("DEQUANTIZE", [stored], [again])
    file.operator("CONCATENATION", [again, data], [row], "ConcatenationOptions", axis=1)
    cut, steps = file.tensor(STATE), [file.int32(0, 1, 0, 0), file.int32(1, 3, 1, 4), file.int32(1, 1, 1, 1)]
    file.operator("STRIDED_SLICE", [row, *steps], [cut], "StridedSliceOptions")
    if grid:
        real, cut = cut, file.tensor(STATE, **grid)
        file.operator("QUANTIZE", [real], [cut])
    file.operator("ASSIGN_VARIABLE", [handles[0], cut], [], "AssignVariableOptions")
    weight, found = file.tensor((5, 3, 1, 4), value=random.standard_normal((5, 3, 1, 4))), file.tensor((1, 1, 1, 5))
    bias = file.tensor((5,), value=random.standard_normal(5))
    file.operator("CONV_2D", [row, weight, bias], [found], "Conv2DOptions", padding=1, strideH=1, strideW=1)
    count, next_count, out = file.tensor((1,)), file.tensor((1,)), file.tensor((1, 1, 1, 5))
    file.operator("READ_VARIABLE", [handles[1]], [count], "ReadVariableOptions")
    file.operator("ADD", [count, file.tensor((1,), value=np.ones(1))], [next_count], "AddOptions")
    file.operator("ASSIGN_VARIABLE", [handles[1], next_count], [], "AssignVariableOptions")
    file.operator("MUL", [found, next_count], [out], "MulOptions")
    main, file.graph = file.graph, schema().SubGraphT()
    file.graph.tensors, file.graph.operators, file.graph.name, file.graph.inputs, file.graph.outputs = [], [], "begin", [], []
    for name, value, kind in (("frames", np.full(STATE, begin), grid), ("count", np.zeros(1), {})):
        handle, number = file.tensor((), "resource"), file.tensor(value.shape, value=value, **kind)
        file.operator("VAR_HANDLE", [], [handle], "VarHandleOptions", sharedName=name, container="")
        if more == "computed":
            number, given = file.tensor(value.shape), number
            file.operator("NEG", [given], [number], "NegOptions")
        file.operator("ASSIGN_VARIABLE", [handle, number], [], "AssignVariableOptions")
    file.model.subgraphs.append(file.graph)
    file.graph = main
    return file.ends([data], [out])


def frames(count: int) -> list[Array]:
    return list(np.random.default_rng(1).standard_normal((count, *FRAME), np.float32))


def by_calls(content: bytes, inputs: list[Array]) -> list[Array]:
    """Return the outputs that LiteRT's runtime computes call by call, with its own variables."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter: Any = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    found = []
    for frame in inputs:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], frame)
        interpreter.invoke()
        found.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).copy())
    return found


def test_states_that_are_passed_on_are_those_of_litert() -> None:
    content, states = streaming(), [np.zeros(STATE, np.float32), np.zeros(1, np.float32)]
    network = network_in(content)
    assert [network.names.get(number, "") for number in network.inputs] == ["", "frames", "count"]
    assert [network.output_names.get(number, "") for number in network.outputs] == ["", "frames/next", "count/next"]
    for frame, wanted in zip(frames(5), by_calls(content, frames(5)), strict=True):
        found, *states = translated(content, [frame, *states])
        assert relative_error(found, wanted) < 1e-6


def test_the_reference_is_litert_with_the_states_as_inputs(tmp_path: Path) -> None:
    path, content = tmp_path / "net.tflite", streaming()
    path.write_bytes(content)
    imported = load(path)
    assert [port.name for port in imported.spec.takes][1:] == ["frames", "count"] and imported.reference_program.startswith("LiteRT ")
    assert [port.name for port in imported.spec.returns][1:] == ["frames/next", "count/next"]
    random = np.random.default_rng(2)
    inputs = [random.standard_normal(port.shape, np.float32) for port in imported.spec.takes]
    both = zip(translated(content, inputs), imported.compute(inputs), strict=True)
    assert all(relative_error(one, other) < 1e-6 for one, other in both)


def test_a_library_keeps_them(tmp_path: Path) -> None:
    """In int8, where the beginning is a zero point, and in float32."""
    content = streaming(ZERO, "int8")
    (tmp_path / "net.tflite").write_bytes(content)
    imported = load(tmp_path / "net.tflite")
    write_own_library(imported, tmp_path / "net.so", ["frames", "count"])
    library = CLibrary(tmp_path / "net.so")
    instance, _memory = library.started()
    for frame, wanted in zip(frames(5), by_calls(content, frames(5)), strict=True):
        np.testing.assert_allclose(library.run(instance, [frame])[0], wanted, rtol=1e-5, atol=1e-5)


def test_the_last_frame(tmp_path: Path) -> None:
    """A variable that is assigned an input, for differences of frames, is an output of its own name."""
    file = LiteRtFile()
    handle, data, last, out = file.tensor((), "resource"), file.tensor((1, 4)), file.tensor((1, 4)), file.tensor((1, 2))
    difference, weight = file.tensor((1, 4)), file.tensor((2, 4), value=np.random.default_rng(0).standard_normal((2, 4)))
    file.operator("VAR_HANDLE", [], [handle], "VarHandleOptions", sharedName="last", container="")
    file.operator("READ_VARIABLE", [handle], [last], "ReadVariableOptions")
    file.operator("SUB", [data, last], [difference], "SubOptions")
    file.operator("FULLY_CONNECTED", [difference, weight, -1], [out], "FullyConnectedOptions")
    file.operator("ASSIGN_VARIABLE", [handle, data], [], "AssignVariableOptions")
    path, content = tmp_path / "net.tflite", file.ends([data], [out])
    path.write_bytes(content)
    imported = load(path)
    assert [port.name for port in imported.spec.takes] == ["tensor1", "last"]
    assert [port.name for port in imported.spec.returns] == ["tensor3", "last/next"]
    first, second = np.random.default_rng(1).standard_normal((2, 1, 4), np.float32)
    for theirs, ours in zip(imported.compute([second, first]), translated(content, [second, first]), strict=True):
        assert relative_error(ours, theirs) < 1e-6
    assert np.array_equal(ours, second)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (streaming(1.0), "the variable frames does not begin with zeros"),
        (streaming(more="computed"), "computes how its variables begin, by NEG"),
    ],
)
def test_other_variables_are_refused(content: bytes, message: str) -> None:
    assert message in refused(content)
