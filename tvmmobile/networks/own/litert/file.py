"""Networks from a LiteRT file, in float or quantised, translated to ONNX and compared with LiteRT's own interpreter."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version

from tvmmobile.graph.layers import Array
from tvmmobile.networks.frontend import Compute, Imported, importing
from tvmmobile.networks.models.spec import OwnSpec
from tvmmobile.networks.own.files import OwnFile, RequestedShape, read_whole
from tvmmobile.networks.own.litert.detection import without_leftovers
from tvmmobile.networks.own.litert.operators import onnx_of
from tvmmobile.networks.own.litert.reader import LiteRtNetwork, read_litert
from tvmmobile.networks.own.litert.states import stateless_content, without_variables
from tvmmobile.networks.own.onnx.file import imported_onnx
from tvmmobile.networks.own.onnx.limits import check_onnx
from tvmmobile.networks.own.onnx.outputs import with_plain_outputs
from tvmmobile.system.streams import silenced

_FIX = "Convert it with the shapes that it is to run with."


def load_litert(file: OwnFile, wanted: RequestedShape) -> Imported:
    """Return the network in a LiteRT file, with the shapes that it was converted with.

    Raises:
        UserError: it is damaged or of another kind, has another side, or cannot be compiled.
    """
    content = read_whole(file.path)
    with importing():  # its tensors and options may contradict each other
        network = without_variables(read_litert(file, content))
        model = with_plain_outputs(onnx_of(network))
    check_onnx(file, model)
    programs = [("LiteRT", partial(start_litert, content, network))]
    imported = imported_onnx(file, model, hashlib.sha256(content).hexdigest(), wanted, _FIX, programs)
    grids = [network.tensors[number].grid for number in dict.fromkeys(network.inputs)]
    zeros = [0 if grid is None else int(grid.zeros[0]) for grid in grids]
    takes = tuple(replace(port, zero=zero) for port, zero in zip(imported.spec.takes, zeros, strict=True))
    assert isinstance(imported.spec, OwnSpec)
    return replace(imported, spec=replace(imported.spec, inputs=takes))


def start_litert(content: bytes, network: LiteRtNetwork) -> tuple[str, Compute]:
    """Return name and version of the runtime, and the function that computes the network in a file.

    XNNPACK computes what it can, which is LiteRT's default here as on ARM boards. It scales sums of integers by a float32 factor, as our
    kernels do; LiteRT's own kernels have a 31-bit multiplier instead, which is one step off in some places.

    Args:
        content: the file's.
        network: the network in the file, without variables.

    Raises:
        Exception: of any kind, where it is not installed, or lacks an operator or a version.
    """
    from ai_edge_litert.interpreter import Interpreter

    inputs, outputs = (list(dict.fromkeys(numbers)) for numbers in (network.inputs, network.outputs))
    with silenced():
        interpreter = Interpreter(model_content=stateless_content(content, network), num_threads=1)
        interpreter.allocate_tensors()

    def compute(given: Sequence[Array]) -> tuple[Array, ...]:
        interpreter.reset_all_variables()  # states of recurrent layers, which libraries begin with zeros in each call
        for number, array in zip(inputs, given, strict=True):
            interpreter.set_tensor(number, array)
        interpreter.invoke()
        found = {number: interpreter.get_tensor(number) for number in outputs}
        without_leftovers(network, found, interpreter.get_tensor)
        return tuple(found[number] for number in outputs)

    return f"LiteRT {version('ai-edge-litert')}", compute
