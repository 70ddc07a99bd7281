"""Computes LiteRT networks with LiteRT's own interpreter."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from tvmmobile.graph.layers import Array
from tvmmobile.networks.frontend import Compute


def start_litert(content: bytes, inputs: Sequence[int], outputs: Sequence[int]) -> tuple[str, Compute]:
    """Name and version, and what computes the network in a file.

    LiteRT's own kernels compute, not XNNPACK's, which it would choose by default: those scale sums of integers by a float32 factor, where
    LiteRT's specification has a 31-bit multiplier, and differ between processors.

    Args:
        content: the file's.
        inputs, outputs: tensors by number.

    Raises:
        Exception: of any kind, where it is not installed, or lacks an operator or a version.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=plain, num_threads=1)
    interpreter.allocate_tensors()

    def compute(given: Sequence[Array]) -> tuple[Array, ...]:
        for number, array in zip(inputs, given, strict=True):
            interpreter.set_tensor(number, array)
        interpreter.invoke()
        return tuple(interpreter.get_tensor(number) for number in outputs)

    return f"LiteRT {version('ai-edge-litert')}", compute
