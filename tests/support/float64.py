"""Double precision: a `Precision`, and nothing else. With `TVMMOBILE_PLUGINS=float64`, every process knows it."""

from __future__ import annotations

from tvmmobile.graph.precision import Precision, register

#: The vector unit has no maximum of 64-bit integers. Networks are compared with what PyTorch computes in float32.
FLOAT64 = Precision("float64", "float64", "float64", "float64", tolerance=1e-12, network_tolerance=1e-5, fma_rate=0.5)
register(FLOAT64)
