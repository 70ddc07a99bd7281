"""Runs a network's Relax module on this machine as it was imported, without a schedule: slow, but nothing of ours is involved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array
from tvmmobile.graph.precision import FLOAT32


def run_on_host(module: Any, inputs: Sequence[Array]) -> tuple[Array, ...]:
    """Return a module's outputs."""
    return tuple(_run(module, inputs, None))


def values_on_host(module: Any, inputs: Sequence[Array]) -> dict[int, list[Array]]:
    """Return each real tensor that a module computes, as sorted numbers, by how many there are."""
    found: dict[int, list[Array]] = {}

    def look(_function: Any, _name: str, before: bool, _result: Any, *arguments: Any) -> None:
        import tvm

        tensors = [argument for argument in arguments if isinstance(argument, tvm.runtime.Tensor)]
        if not before and tensors and str(tensors[-1].dtype) == FLOAT32.name:
            numbers = np.sort(tensors[-1].numpy(), axis=None)
            found.setdefault(numbers.size, []).append(numbers)

    _run(module, inputs, look)
    return found


def _run(module: Any, inputs: Sequence[Array], look: Any) -> list[Array]:
    import tvm
    from tvm import relax

    machine = relax.VirtualMachine(relax.build(module, target="llvm"), tvm.cpu())
    if look is not None:
        machine.set_instrument(look)
    result = machine["main"](*map(tvm.runtime.tensor, inputs))
    tensors = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
    return [tensor.numpy() for tensor in tensors]
