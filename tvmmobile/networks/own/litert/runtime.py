"""Computes LiteRT networks with LiteRT's own interpreter."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from tvmmobile.graph.layers import Array
from tvmmobile.networks.frontend import Compute
from tvmmobile.networks.own.litert.detection import without_leftovers
from tvmmobile.networks.own.litert.reader import LiteRtNetwork
from tvmmobile.networks.own.litert.states import stateless_content
from tvmmobile.system.streams import silenced


def start_litert(content: bytes, network: LiteRtNetwork) -> tuple[str, Compute]:
    """Return name and version of the runtime, and the function that computes the network in a file.

    XNNPACK computes what it can, which is LiteRT's default here as on ARM boards. It scales sums of integers by a float32 factor, as our
    kernels do; LiteRT's own kernels have a 31-bit multiplier instead, which is one step off in some places.

    Args:
        content: the file's.
        network: what is in it, without variables.

    Raises:
        Exception: of any kind, where it is not installed, or lacks an operator or a version.
    """
    from ai_edge_litert.interpreter import Interpreter

    inputs, outputs = (list(dict.fromkeys(numbers)) for numbers in (network.inputs, network.outputs))
    with silenced():
        interpreter = Interpreter(model_content=stateless_content(content, network), num_threads=1)
        interpreter.allocate_tensors()

    def compute(given: Sequence[Array]) -> tuple[Array, ...]:
        for number, array in zip(inputs, given, strict=True):
            interpreter.set_tensor(number, array)
        interpreter.invoke()
        found = {number: interpreter.get_tensor(number) for number in outputs}
        without_leftovers(network, found, interpreter.get_tensor)
        return tuple(found[number] for number in outputs)

    return f"LiteRT {version('ai-edge-litert')}", compute
