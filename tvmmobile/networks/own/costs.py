"""Multiply-adds of an imported network, counted from its graph: there is no table of its layers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any


def count_macs(module: Any) -> int:
    """Multiply-adds of convolutions and matrix products for one image, as `models.costs` counts them.

    Args:
        module: a Relax module as an importer leaves it: NCHW, weights OIHW, or IOHW where the convolution is transposed.
    """
    return sum(_macs(call) for call in _calls(module))


def _calls(module: Any) -> Iterator[Any]:
    from tvm import relax

    for block in module["main"].body.blocks:
        for binding in block.bindings:
            if isinstance(binding.value, relax.Call):
                yield binding.value


def _macs(call: Any) -> int:
    name = getattr(call.op, "name", "")
    if name == "relax.matmul":
        return _elements(call) * int(call.args[0].ty.shape[-1])
    if not name.startswith("relax.nn.conv"):
        return 0
    image, weight = call.args[0], call.args[1]
    return _elements(image if name.endswith("_transpose") else call) * math.prod(int(extent) for extent in list(weight.ty.shape)[1:])


def _elements(tensor: Any) -> int:
    return math.prod(int(extent) for extent in tensor.ty.shape)
