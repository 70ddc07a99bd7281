"""What a network costs before it is warm: loading its library, and its first run. Only a board's clock can tell; no model has it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from tvmmobile.devices.agents.rpc import LinkError, open_session
from tvmmobile.devices.protocol import Endpoint
from tvmmobile.running.measure import NETWORK_FUNCTION, MeasureError


@dataclass(frozen=True)
class Startup:
    """The first moments of a library on a board.

    Attributes:
        init_seconds: from the library's file on the board to a virtual machine that is ready, as seen from here: a few of the link's round
            trips are part of it.
        first_seconds: the first run, by the board's clock; it allocates the activations and touches the weights for the first time.
    """

    init_seconds: float
    first_seconds: float


def measure_startup(endpoint: Endpoint, library: Path, input_array: npt.NDArray[Any], threads: int, timeout_s: float) -> Startup:
    """Load a Relax VM library in a session of its own and run its `main` once.

    Args:
        endpoint: a started device's whose latencies are not modelled.
        library: a `.so` for the device, known to run there.
        input_array: the network's input.
        threads: of TVM's pool.
        timeout_s: for the whole session.

    Raises:
        MeasureError: it could not be measured; see its kind.
    """
    from tvm.runtime.vm import VirtualMachine

    try:
        with open_session(endpoint, timeout_s) as session:
            session.upload_file(library)
            begin = time.monotonic()
            machine = VirtualMachine(session.load_module(library.name), session.cpu(0))
            init_seconds = time.monotonic() - begin
            machine.set_input(NETWORK_FUNCTION, session.put(input_array))
            evaluator = session.get_function("tvmmobile.evaluator")
            answer = evaluator(machine.module, "invoke_stateful", json.dumps({"threads": threads}))(NETWORK_FUNCTION)
            (first_ns,) = json.loads(bytes(answer))["samples_ns"]
    except (LinkError, OSError) as error:
        raise MeasureError(str(error), "link") from error
    except Exception as error:  # TVM raises whatever its C++ side threw, on either end of the connection
        raise MeasureError(next(iter(str(error).splitlines()), type(error).__name__), "crashed") from error
    return Startup(init_seconds, first_ns * 1e-9)
