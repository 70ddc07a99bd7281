"""Networks in the form that `read_network` reads, in one call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tvmmobile.graph.composed import ComposedLayer
from tvmmobile.graph.layers import Layer
from tvmmobile.graph.passes.pipeline import compose, lower_to_kernels
from tvmmobile.graph.precision import FLOAT32, Precision


def prepare(
    module: Any, accepts: Callable[[Layer], bool], dump_dir: Path | None = None, precision: Precision = FLOAT32
) -> tuple[Any, dict[str, ComposedLayer]]:
    """Compose and lower an imported network."""
    return lower_to_kernels(compose(module, accepts, dump_dir), precision)
