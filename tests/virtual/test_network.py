"""Kernels and networks that TVM compiled, measured on the virtual Pi 4."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tvmmobile.devices.registry import find_device
from tvmmobile.running.bench import started_agents
from tvmmobile.running.measure import Agents, Timing

pytestmark = pytest.mark.virtual
DEVICE = find_device("pi4")
COMPILER = "aarch64-linux-gnu-gcc"


@pytest.fixture(scope="module")
def agents() -> Iterator[Agents]:
    with started_agents(DEVICE, 1) as started:
        yield started


def test_kernel(agents: Agents, tmp_path: Path) -> None:
    import tvm
    from tvm import te

    x = te.placeholder((4, 64), name="x")
    w = te.placeholder((64, 32), name="w")
    k = te.reduce_axis((0, 64), name="k")
    y = te.compute((4, 32), lambda i, j: te.sum(x[i, k] * w[k, j], axis=k), name="y")
    function = te.create_prim_func([x, w, y]).with_attr("global_symbol", "matmul")
    library = tvm.tirx.build(tvm.IRModule({"matmul": function}), target=tvm.target.Target(DEVICE.profile.target))
    library.export_library(str(tmp_path / "matmul.so"), cc=COMPILER)
    random = np.random.default_rng(0)
    a, b = random.standard_normal((4, 64), dtype="float32"), random.standard_normal((64, 32), dtype="float32")
    runs = [agents.measure_kernel(tmp_path / "matmul.so", "matmul", [a, b, np.zeros((4, 32), "float32")], 20) for _ in range(2)]
    np.testing.assert_allclose(runs[0].outputs[0], a @ b, rtol=1e-5, atol=1e-5)
    latency = runs[0].latency
    assert latency == runs[1].latency
    assert latency.kind == "modelled" and latency.cycles is not None
    assert latency.cycles >= 4 * 64 * 32 / 4  # one FMA on four lanes per cycle is the most there is
    assert latency.seconds == pytest.approx(1e-3 * sum(latency.term_ms.values())) and latency.seconds > latency.cycles / 1.8e9
    assert latency.term_ms["core"] == pytest.approx(1e3 * latency.cycles / 1.8e9)
    assert sum(block.cycles for block in latency.hottest) > 0.8 * latency.cycles


def test_network(agents: Agents, tmp_path: Path) -> None:
    import tvm
    from tvm import relax

    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 64), "float32"))
    weights = np.random.default_rng(0).standard_normal((64, 10), dtype="float32")
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(builder.emit(relax.op.nn.relu(relax.op.matmul(x, relax.const(weights)))))
        builder.emit_func_output(result)
    target = tvm.target.Target(DEVICE.profile.target)
    with target:
        module = relax.get_pipeline("zero")(builder.get())
    relax.build(module, target=target).export_library(str(tmp_path / "net.so"), cc=COMPILER)
    array = np.linspace(-1, 1, 64, dtype="float32").reshape(1, 64)
    runs = [agents.measure_network(tmp_path / "net.so", [array], 20) for _ in range(2)]
    np.testing.assert_allclose(runs[0].outputs[0], np.maximum(array @ weights, 0), rtol=1e-5, atol=1e-5)
    assert runs[0].latency == runs[1].latency and runs[0].calls == runs[1].calls
    (call,) = runs[0].calls
    assert "matmul" in call.symbol and 64 * 10 / 4 / 1.8e9 < call.seconds < runs[0].latency.seconds
    assert call.dram_bytes is not None and call.dram_bytes <= 256 and call.l1d_misses is not None  # warm: its 2.5 kB fit the first level
    assert call.l1d_misses < 64
    assert 0 < runs[0].peak_memory_bytes < 200 << 20
    cold = agents.measure_network(tmp_path / "net.so", [array], 20, Timing())
    assert cold.latency.cycles is not None and runs[0].latency.cycles is not None
    assert cold.latency.cycles > runs[0].latency.cycles  # the first run allocates
    assert cold.latency.l1d_misses is not None and runs[0].latency.l1d_misses is not None
    assert cold.latency.l1d_misses > runs[0].latency.l1d_misses  # and finds nothing in the caches
