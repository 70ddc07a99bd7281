"""One run of a published file in its own runtime, ONNX Runtime or LiteRT, in the guest: `run_published.py MODEL [--threads N]`.

Beside the file lies inputs.npz: values for some inputs by name, and under `0`, `1` … those for the others in the file's order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from region import Arguments, Array, read_arguments, run_marked


def of_onnx(arguments: Arguments, values: dict[str, Array]) -> Callable[[], Array]:
    """Return the function that runs an ONNX file once and returns its first output."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = arguments.threads, 1
    # Threads that wait shall sleep: they would spin in code that stores, and `virtual run` would take that for work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(arguments.model), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    numbered = iter([name for name in names if name not in values])
    feeds = {next(numbered) if key.isdigit() else key: value for key, value in values.items()}
    first = session.get_outputs()[0].name
    return lambda: np.asarray(session.run([first], feeds)[0], np.float32)


def of_litert(arguments: Arguments, values: dict[str, Array]) -> Callable[[], Array]:
    """Return the function that runs a LiteRT file once and returns its first output; the file itself keeps what outlives a call."""
    from ai_edge_litert.interpreter import Interpreter

    network = Interpreter(str(arguments.model), num_threads=arguments.threads)
    network.allocate_tensors()
    places = [detail["index"] for detail in network.get_input_details()]
    first = network.get_output_details()[0]["index"]

    def run() -> Array:
        for place, value in zip(places, values.values(), strict=False):
            network.set_tensor(place, value)
        network.invoke()
        return np.asarray(network.get_tensor(first), np.float32)

    return run


def main() -> None:
    """Run the file; how far its output may be from ours, the host says."""
    arguments = replace(read_arguments(__doc__), half=True)
    with np.load(Path(arguments.model).with_name("inputs.npz")) as stored:
        values = {key: stored[key] for key in stored.files}
    start = of_litert if arguments.model.suffix == ".tflite" else of_onnx
    run_marked(start(arguments, values), arguments)


main()
