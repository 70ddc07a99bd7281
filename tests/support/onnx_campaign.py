"""Compiles ONNX models for this machine, many to a build, and compares what they compute with ONNX Runtime."""

from __future__ import annotations

import re
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto
from own_networks import network_of
from random_onnx import Array, Case
from small_networks import HOST, kernels_of

from tvmmobile.graph.bindings import bindings_of, results_of, returned
from tvmmobile.graph.lowering import lower
from tvmmobile.graph.passes.rewriting import rebuilt
from tvmmobile.kernels.codegen import make_target, pass_context
from tvmmobile.kernels.lowering import PIPELINE
from tvmmobile.networks.frontend import Imported
from tvmmobile.networks.own.files import OwnFile
from tvmmobile.networks.own.loading import load_own
from tvmmobile.networks.own.onnx.tensors import graphs_of
from tvmmobile.system.errors import UserError

#: Largest difference from ONNX Runtime, relative to the largest magnitude.
TOLERANCE = 1e-4
#: The same where a value is float16 or bfloat16: these files are computed in float32, without its rounding.
HALF_TOLERANCE = 2e-3
#: Networks to a build.
BATCH = 40
AGREES, REFUSED, UNNAMED, WRONG, FAILED, UNJUDGED = "agrees", "refused", "refused, unnamed", "wrong", "exception", "unjudged"


@dataclass(frozen=True)
class Outcome:
    """The outcome of a model.

    Attributes:
        result: one of the words above; `unjudged` if ONNX Runtime cannot run it.
        why: a message, or how far off the values are.
    """

    case: Case
    result: str
    why: str = ""


def outcomes(
    cases: Iterable[Case], expected_of: Callable[[Case], list[Array]] | None = None, load: Callable[[OwnFile], Imported] | None = None
) -> Iterator[Outcome]:
    """Yield the outcome of each model, not in order.

    Args:
        expected_of: returns the right values, if they are not what ONNX Runtime computes.
        load: reads the file, if not as `compile` does.
    """
    ready: list[tuple[Case, list[Array], Any]] = []
    for case in cases:
        try:
            expected = (expected_of or by_runtime)(case)
        except Exception as error:  # of ONNX Runtime's own classes
            yield Outcome(case, UNJUDGED, str(error).splitlines()[0][:300])
            continue
        try:
            module, imported = lowered(case, load or _load)
            if len(imported.spec.returns) > len(expected):  # some are filled up, their number of rows beside
                expected = list(imported.compute(list(case.feeds.values())))
            ready.append((case, expected, module))
        except UserError as error:
            yield Outcome(case, REFUSED if named_in(error.message, case) else UNNAMED, error.message)
        except Exception:
            yield Outcome(case, FAILED, traceback.format_exc())
        if len(ready) == BATCH:
            yield from _compared(ready)
            ready = []
    yield from _compared(ready)


def named_in(message: str, case: Case) -> bool:
    """Return whether a message has the name of one of the model's operators."""
    operators = {case.operator, *(node.op_type for graph in graphs_of(case.model.graph) for node in graph.node)}
    return not operators.isdisjoint(re.findall(r"\w+", message))


def by_runtime(case: Case) -> list[Array]:
    """Return the outputs of ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(case.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: list[Array] = session.run(None, case.feeds)
    return found


def _load(file: OwnFile) -> Imported:
    return load_own(file, None, None, 0)


def lowered(case: Case, load: Callable[[OwnFile], Imported] = _load) -> tuple[Any, Imported]:
    """Return the model as a module of kernels, as `compile` makes it of a file, and as it was imported."""
    with tempfile.TemporaryDirectory(prefix="tvmmobile-onnx-") as folder:
        path = Path(folder, "net.onnx")
        path.write_bytes(case.model.SerializeToString())
        imported = load(OwnFile(path))
    network = network_of(imported)
    return lower(network, kernels_of(network, case.seed)), imported


def _compared(ready: Sequence[tuple[Case, list[Array], Any]]) -> Iterator[Outcome]:
    """Build and run networks together; those of a build that fails each by itself."""
    if not ready:
        return
    try:
        machine = built([module for _, _, module in ready])
    except Exception:
        if len(ready) == 1:
            yield Outcome(ready[0][0], FAILED, traceback.format_exc())
            return
        half = len(ready) // 2
        yield from _compared(ready[:half])
        yield from _compared(ready[half:])
        return
    for place, (case, expected, _) in enumerate(ready):
        try:
            actual = run(machine, f"main_{place}", list(case.feeds.values()))
        except Exception:
            yield Outcome(case, FAILED, traceback.format_exc())
            continue
        difference = max(difference_of(one, np.atleast_1d(other)) for one, other in zip(actual, expected, strict=True))
        yield Outcome(case, AGREES if difference <= tolerance_of(case) else WRONG, f"{difference:.2g}")


def tolerance_of(case: Case) -> float:
    """Largest difference from ONNX Runtime that counts as agreement."""
    values = (*case.model.graph.value_info, *case.model.graph.output)
    halves = any(value.type.tensor_type.elem_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16) for value in values)
    return HALF_TOLERANCE if halves else TOLERANCE


def built(modules: Sequence[Any]) -> Any:
    """Return a virtual machine with `main_0`, `main_1`, … of these modules."""
    import tvm
    from tvm import relax

    builder = relax.BlockBuilder()
    for place, module in enumerate(modules):
        _add(builder, module, f"_{place}")
    with pass_context():
        executable = relax.build(builder.get(), target=make_target({**HOST, "opt-level": 0}), tir_pipeline=PIPELINE)
    return relax.VirtualMachine(executable, tvm.cpu())


def _add(builder: Any, module: Any, suffix: str) -> None:
    """Add the functions of a module under their names with a suffix."""
    from tvm import relax

    kernels, main, replaced = {}, module["main"], {}
    for variable, function in module.functions_items():
        if not isinstance(function, relax.Function):
            name = f"{variable.name_hint}{suffix}"
            kernels[variable] = builder.add_func(function.with_attr("global_symbol", name), name)
    parameters = {parameter: relax.Var(parameter.name, parameter.ty) for parameter in main.params}
    replaced.update(parameters)

    def copied(value: Any) -> Any:
        made = rebuilt(value, lambda leaf: replaced.get(leaf, leaf))
        if isinstance(made, relax.Call) and made.args and made.args[0] in kernels:
            return relax.Call(made.op, [kernels[made.args[0]], *made.args[1:]], made.attrs, made.ty_args)
        return made

    with builder.function(f"main{suffix}", list(parameters.values())):
        with builder.dataflow():
            for binding in bindings_of(main):
                replaced[binding.var] = builder.emit(copied(binding.value))
            outputs = [builder.emit_output(copied(result)) for result in results_of(main)]
        builder.emit_func_output(returned(outputs))


def run(machine: Any, name: str, inputs: Sequence[Array]) -> list[Array]:
    import tvm

    result = machine[name](*map(tvm.runtime.tensor, inputs))
    return [result.numpy()] if isinstance(result, tvm.runtime.Tensor) else [part.numpy() for part in result]


def difference_of(actual: Array, expected: Array) -> float:
    """Largest difference, relative to the largest finite magnitude or to 0.01; infinite where shapes, NaNs or infinities differ."""
    if actual.shape != expected.shape:
        return float("inf")
    finite = np.isfinite(expected)
    if not np.array_equal(actual[~finite], expected[~finite], equal_nan=True) or not np.isfinite(actual[finite]).all():
        return float("inf")
    actual, expected = actual[finite].astype(np.float64), expected[finite].astype(np.float64)
    return float(np.abs(actual - expected).max(initial=0.0) / max(np.abs(expected).max(initial=0.0), 0.01))
