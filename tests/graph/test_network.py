"""The kernels that a network is read from."""

from __future__ import annotations

import pytest

from tvmmobile.graph.network import read_network
from tvmmobile.system.errors import UserError


def test_operators_without_a_kernel_are_named() -> None:
    """The imports know none at present, but TVM has some."""
    from tvm import relax

    builder, image = relax.BlockBuilder(), relax.Var("image", relax.TensorType((1, 3, 4, 4), "float32"))
    with builder.function("main", [image]):
        with builder.dataflow():
            result = builder.emit_output(relax.op.cumprod(image, 2))
        builder.emit_func_output(result)
    with pytest.raises(UserError, match=r"no kernel can be compiled for cumprod\."):
        read_network(relax.transform.LegalizeOps()(builder.get()), {})
