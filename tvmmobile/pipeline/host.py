"""Runs a network's Relax module on this machine as imported, without schedules: slow, but independent of our kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array
from tvmmobile.graph.precision import FLOAT32


def run_on_host(module: Any, inputs: Sequence[Array]) -> tuple[Array, ...]:
    """Return a module's outputs."""
    return runner_on_host(module)(inputs)


def runner_on_host(module: Any) -> Callable[[Sequence[Array]], tuple[Array, ...]]:
    """Return a function from a module's inputs to its outputs, for several runs."""
    return partial(_run, _machine(module))


def values_on_host(module: Any, inputs: Sequence[Array]) -> dict[int, list[Array]]:
    """Return each real tensor that a module computes as sorted numbers, by their count."""
    found: dict[int, list[Array]] = {}

    def look(_function: Any, _name: str, before: bool, _result: Any, *arguments: Any) -> None:
        import tvm

        tensors = [argument for argument in arguments if isinstance(argument, tvm.runtime.Tensor)]
        if not before and tensors and str(tensors[-1].dtype) == FLOAT32.name:
            numbers = np.sort(tensors[-1].numpy(), axis=None)
            found.setdefault(numbers.size, []).append(numbers)

    machine = _machine(module)
    machine.set_instrument(look)
    _run(machine, inputs)
    return found


def _machine(module: Any) -> Any:
    import tvm
    from tvm import relax

    return relax.VirtualMachine(relax.build(module, target="llvm"), tvm.cpu())


def _run(machine: Any, inputs: Sequence[Array]) -> tuple[Array, ...]:
    import tvm

    result = machine["main"](*map(tvm.runtime.tensor, inputs))
    tensors = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
    return tuple(tensor.numpy() for tensor in tensors)
