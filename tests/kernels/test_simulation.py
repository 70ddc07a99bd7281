"""Networks' values on the host."""

from __future__ import annotations

import numpy as np
import pytest

from tvmmobile.kernels import simulation
from tvmmobile.kernels.simulation import run_unscheduled


def test_a_function_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibration runs it for every input and choice of scales."""
    import tvm
    from tvm import te

    read = te.placeholder((3, 4), name="read")
    function = te.create_prim_func([read, te.compute((3, 4), lambda row, column: read[row, column] * 2.0)])
    compiled = []
    compile_kernel = simulation.compile_kernel
    monkeypatch.setattr(simulation, "compile_kernel", lambda *given: (compiled.append(given), compile_kernel(*given)))
    generator = np.random.default_rng(0)
    for _ in range(3):
        data = generator.normal(size=(3, 4)).astype(np.float32)
        again = tvm.IRModule({"main": function})["main"]  # the same function, held by another object of Python's
        assert (run_unscheduled(again, [data]) == 2 * data).all()
    assert len(compiled) == 1
