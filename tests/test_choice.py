"""Which schedule a task is compiled with, where its own record cannot be replayed."""

from __future__ import annotations

from typing import Any

from tvmmobile.kernels import applies
from tvmmobile.layers import Opaque
from tvmmobile.schedules import KnobSchedule
from tvmmobile.search.fallback import FallbackSpace
from tvmmobile.tasks import Task

TARGET = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72", "num-cores": 4}


def doubled(block: str) -> Any:
    """y = 2 x of 1 × 64, its only block called `block`."""
    from tvm import te

    x = te.placeholder((1, 64), name="x")
    return te.create_prim_func([x, te.compute((1, 64), lambda i, j: x[i, j] * 2.0, name=block)])


def test_a_trace_is_for_blocks_of_one_name() -> None:
    """Two networks may hold equal functions whose blocks Relax numbered otherwise; they are one task, and share its records."""
    import tvm_ffi

    one, other = doubled("T_multiply"), doubled("T_multiply3")
    assert tvm_ffi.structural_hash(one) == tvm_ffi.structural_hash(other)
    task = Task((Opaque("multiply", "0123456789ab", ((1, 64),), (1, 64)),))
    (trace,) = FallbackSpace(task, one, TARGET).members(1)
    assert applies(trace, one) and not applies(trace, other)
    assert applies(KnobSchedule("dense", 1, ()), None)
