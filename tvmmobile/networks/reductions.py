"""Writes reductions in Relax for every format's importer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import relax


def reduced(step: str, data: Any, axes: Sequence[int] | None, keep: bool) -> Any:
    """Return a reduction (`step`, an operator of Relax); the greatest and least of booleans are those of integers, as TVM knows none."""
    combine = getattr(relax.op, step)
    if str(data.ty.dtype) != "bool":
        return combine(data, axes, keep)
    return relax.op.astype(combine(relax.op.astype(data, "int8"), axes, keep), "bool")
