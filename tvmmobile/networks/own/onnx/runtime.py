"""Computes ONNX networks with ONNX Runtime, as their files have them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array
from tvmmobile.networks.frontend import Compute
from tvmmobile.networks.own.onnx.tensors import STANDARD, external_tensors
from tvmmobile.system.streams import silenced

#: Nothing is logged below a fatal error: what matters is raised.
_FATAL = 4


@contextmanager
def _without_sigmoids(model: Any) -> Iterator[set[int]]:
    """Let a model return what outputs are sigmoids of; gives the places of those outputs."""
    from onnx import TensorProto, helper

    graph = model.graph
    given, names = list(graph.output), {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    sources = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Sigmoid" and node.domain in STANDARD}
    places = {
        place: helper.make_tensor_value_info(sources[value.name], TensorProto.FLOAT, None)
        for place, value in enumerate(given)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT and sources.get(value.name, value.name) not in names
    }
    outputs = [places.get(place, value) for place, value in enumerate(given)]
    try:
        if len({value.name for value in outputs}) == len(outputs):
            _set_outputs(graph, outputs)
            yield set(places)
        else:
            yield set()
    finally:
        _set_outputs(graph, given)


def _set_outputs(graph: Any, values: Sequence[Any]) -> None:
    copies = [type(value).FromString(value.SerializeToString()) for value in values]
    del graph.output[:]
    graph.output.extend(copies)


def _sigmoid(values: Array) -> Array:
    with np.errstate(over="ignore"):
        exact: Array = (1 / (1 + np.exp(-values.astype(np.float64)))).astype(values.dtype)
    return exact


def start_onnx_runtime(model: Any, inputs: Sequence[str]) -> tuple[str, Compute]:
    """Return the runtime's name and version, and the function that computes a `ModelProto` that holds all its weights.

    Nothing is optimised: fused operators would round elsewhere than the file says, above all between integers. One thread computes: jobs in
    other processes use the other cores, and a forked process would lack the threads of its parent. No library of operators is loaded.
    Where an output is a sigmoid, NumPy computes that: the runtime's is 1e-7 off, which is much for a map of probabilities without a find.

    Args:
        inputs: names, in the order of arrays.

    Raises:
        Exception: of any kind, where it is not installed, or lacks an operator or a version.
    """
    with silenced():  # it may warn of graphics processors that it does not find
        import onnxruntime
    if any(external_tensors(model)):
        raise ValueError("weights are in other files")  # it would look for them in the current folder
    onnxruntime.set_default_logger_severity(_FATAL)
    onnxruntime.disable_telemetry_events()
    options, run_options = onnxruntime.SessionOptions(), onnxruntime.RunOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = run_options.log_severity_level = _FATAL
    with _without_sigmoids(model) as sigmoids:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def compute(given: Sequence[Array]) -> tuple[Array, ...]:
        outputs = session.run(None, dict(zip(inputs, given, strict=True)), run_options)
        return tuple(_sigmoid(output) if place in sigmoids else output for place, output in enumerate(outputs))

    return f"ONNX Runtime {onnxruntime.__version__}", compute
