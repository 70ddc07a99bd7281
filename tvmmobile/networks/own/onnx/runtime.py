"""Computes ONNX networks with ONNX Runtime, as their files have them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tvmmobile.graph.layers import Array
from tvmmobile.networks.frontend import Compute
from tvmmobile.networks.own.onnx.tensors import STANDARD, external_tensors, opset_of
from tvmmobile.system.streams import silenced

#: Nothing is logged below a fatal error: what matters is raised.
_FATAL = 4
#: The first version of the operators with `Round`.
_HAS_ROUND = 11
_WHOLE = "round/whole"


@contextmanager
def _returning_logits(model: Any) -> Iterator[dict[str, str]]:
    """Let a model also return the inputs of sigmoids that are outputs; return their names by the outputs' names."""
    graph = model.graph
    reals = {value.name for value in graph.output if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    given = {value.name for value in (*graph.input, *graph.initializer)}
    nodes = [node for node in graph.node if node.op_type == "Sigmoid" and node.domain in STANDARD]
    logits = {node.output[0]: node.input[0] for node in nodes if node.output[0] in reals and node.input[0] not in given}
    count, known = len(graph.output), {value.name for value in graph.output}
    more = [name for name in dict.fromkeys(logits.values()) if name not in known]
    graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in more)
    try:
        yield logits
    finally:
        del graph.output[count:]


def _without_new_rounds(model: Any) -> Any:
    """Return a model whose version of the operators has every operator: `Round`, which our rewrites of integers add to older ones too, as
    sums with a number beyond which float32 holds no fractions.
    """
    if opset_of(model) >= _HAS_ROUND:
        return model
    changed = copy.deepcopy(model)
    del changed.graph.node[:]
    for node in model.graph.node:
        if node.op_type != "Round" or node.domain not in STANDARD:
            changed.graph.node.append(node)
            continue
        whole, (output,) = f"{node.output[0]}/whole", node.output
        changed.graph.node.append(helper.make_node("Add", [node.input[0], _WHOLE], [whole]))
        changed.graph.node.append(helper.make_node("Sub", [whole, _WHOLE], [output]))
    changed.graph.initializer.append(numpy_helper.from_array(np.float32(1.5 * 2**23), _WHOLE))
    return changed


def start_onnx_runtime(model: Any, inputs: Sequence[str]) -> tuple[str, Compute]:
    """Return the runtime's name and version, and the function that computes a `ModelProto` that holds all its weights.

    Nothing is optimised: fused operators would round elsewhere than the file says, above all between integers. One thread computes: jobs in
    other processes use the other cores, and a forked process would lack the threads of its parent. No library of operators is loaded.
    Where an output is a sigmoid, SciPy computes that: the runtime's is 1e-7 off, which is much for a map of probabilities without a find.

    Args:
        inputs: names, in the order of arrays.

    Raises:
        Exception: of any kind, where it is not installed, or lacks an operator or a version.
    """
    with silenced():  # it may warn of graphics processors that it does not find
        import onnxruntime
        from scipy.special import expit
    if any(external_tensors(model)):
        raise ValueError("weights are in other files")  # it would look for them in the current folder
    onnxruntime.set_default_logger_severity(_FATAL)
    onnxruntime.disable_telemetry_events()
    options, run_options = onnxruntime.SessionOptions(), onnxruntime.RunOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = run_options.log_severity_level = _FATAL
    names = [value.name for value in model.graph.output]
    model = _without_new_rounds(model)
    with _returning_logits(model) as logits:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    wanted = list(dict.fromkeys(logits.get(name, name) for name in names))

    def compute(given: Sequence[Array]) -> tuple[Array, ...]:
        found = dict(zip(wanted, session.run(wanted, dict(zip(inputs, given, strict=True)), run_options), strict=True))
        return tuple(expit(found[logits[name]].astype(np.float64)).astype(np.float32) if name in logits else found[name] for name in names)

    return f"ONNX Runtime {onnxruntime.__version__}", compute
