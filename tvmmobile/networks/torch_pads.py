"""Converters of PyTorch's pads by reflection and by the border, which its own decompositions turn into gathers along each axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from tvm import relax

from tvmmobile.graph.expressions import shape_of

#: Relax's name of the mode, by PyTorch's name of the operator.
_MODES = {f"{name}_pad{rank}d": mode for name, mode in (("reflection", "reflect"), ("replication", "replicate")) for rank in (1, 2, 3)}


def pad_decompositions(table: Mapping[Any, Callable[..., Any]]) -> dict[Any, Callable[..., Any]]:
    """Return decompositions that keep those pads, unless they cut: then PyTorch's own in `table` takes them."""
    operators = [getattr(torch.ops.aten, name).default for name in _MODES]
    return {operator: partial(_kept, table[operator]) for operator in operators}


def _kept(own: Callable[..., Any], x: torch.Tensor, widths: Sequence[int]) -> Any:
    return own(x, widths) if min(widths) < 0 else NotImplemented


def pad_converters() -> dict[str, Callable[..., Any]]:
    """Return the converters by the operator's name."""
    return {f"{name}.default": partial(_pad, mode) for name, mode in _MODES.items()}


def _pad(mode: str, node: Any, importer: Any) -> Any:
    """Convert a pad, whose widths begin with the last axis."""
    data, widths = importer.env[node.args[0]], [int(width) for width in node.args[1]]
    around = [0] * (2 * len(shape_of(data)) - len(widths))
    for place in reversed(range(0, len(widths), 2)):
        around += widths[place : place + 2]
    return importer.block_builder.emit(relax.op.nn.pad(data, around, mode))
