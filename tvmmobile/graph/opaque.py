"""Counts the multiply-adds of opaque layers in the loops that Relax made of their operators."""

from __future__ import annotations

import math
import re
from typing import Any

#: Operators whose multiply-adds a network's count has, as `networks.frontend.count_macs`.
_COUNTED = re.compile(r"conv|matmul")


def multiply_adds(operator: str, function: Any) -> int:
    """Return the multiply-adds of convolutions and matrix products in a TIR function; for other operators 0.

    A transposed convolution multiplies the zeros between its input's pixels too.

    Args:
        operator: name of the fused operators: see `layers.Opaque`.
        function: TIR function with static extents.
    """
    from tvm import s_tir
    from tvm_ffi import structural_walk

    found: list[int] = []

    def count(block: Any) -> None:
        if block.init is not None and is_product(block.body):
            found.append(math.prod(int(variable.dom.extent) for variable in block.iter_vars))

    if _COUNTED.search(operator):
        structural_walk(function.body, (s_tir.SBlock, count))
    return sum(found)


def is_product(statement: Any) -> bool:
    """Return whether a statement adds a product of floats to what it stores."""
    from tvm import tirx
    from tvm_ffi import structural_walk

    if not (isinstance(statement, tirx.BufferStore) and isinstance(statement.value, tirx.Add)):
        return False
    products: list[str] = []
    structural_walk(statement.value.b, (tirx.Mul, lambda product: products.append(str(product.ty.dtype))))
    return any(not kind.startswith("int") for kind in products)
