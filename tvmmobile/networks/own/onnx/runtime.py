"""Computes ONNX networks with ONNX Runtime, as their files have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvmmobile.graph.layers import Array
from tvmmobile.networks.frontend import Compute
from tvmmobile.networks.own.onnx.tensors import external_tensors
from tvmmobile.system.streams import silenced

#: Nothing is logged below a fatal error: what matters is raised.
_FATAL = 4


def start_onnx_runtime(model: Any, inputs: Sequence[str]) -> tuple[str, Compute]:
    """Return the runtime's name and version, and the function that computes a `ModelProto` that holds all its weights.

    Nothing is optimised: fused operators would round elsewhere than the file says, above all between integers. One thread computes: jobs in
    other processes use the other cores, and a forked process would lack the threads of its parent. No library of operators is loaded.

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
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def compute(given: Sequence[Array]) -> tuple[Array, ...]:
        return tuple(session.run(None, dict(zip(inputs, given, strict=True)), run_options))

    return f"ONNX Runtime {onnxruntime.__version__}", compute
