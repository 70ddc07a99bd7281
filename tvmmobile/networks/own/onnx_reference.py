"""ONNX's reference evaluator, with its errors corrected."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array


def reference_evaluator(model: Any) -> Any:
    """What computes a model's outputs; its `run` takes names of outputs and a dictionary of inputs.

    Raises:
        Exception: of any kind, for a model that it cannot compute.
    """
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(model, new_ops=[_max_pool()])


@functools.cache
def _max_pool() -> type:
    """`MaxPool` whose pads differ from side to side: onnx 1.23 mixes them up."""
    from onnx.reference.ops.op_max_pool import MaxPool as Theirs

    class MaxPool(Theirs):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: Array, pads: Any = None, **attributes: Any) -> Any:
            half = len(pads) // 2 if pads is not None else 0
            if half and list(pads[:half]) != list(pads[half:]) and x.dtype.kind == "f":
                x = np.pad(x, ((0, 0), (0, 0), *zip(pads[:half], pads[half:], strict=True)), constant_values=-np.inf)
                pads = [0] * len(pads)
            return super()._run(x, pads=pads, **attributes)

    return MaxPool
