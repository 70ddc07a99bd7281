"""A bias between a convolution and its batch norm goes into the norm's mean, so that the norm can be folded into the weights."""

from __future__ import annotations

from typing import Any

from tvmmobile.graph.passes.rewriting import rewrite_main


def bias_into_batch_norm(module: Any) -> Any:
    """Rewrite batch_norm(conv(x) + b) with mean m as batch_norm(conv(x)) with mean m - b."""
    from tvm import relax
    from tvm.relax.dpl import is_const, is_op, wildcard

    conv = is_op("relax.nn.conv2d")(wildcard(), is_const())
    values, gamma, beta, mean, variance = (is_const() for _ in range(5))
    bias = values | is_op("relax.reshape")(values, wildcard())
    norm = is_op("relax.nn.batch_norm")(is_op("relax.add")(conv, bias), gamma, beta, mean, variance)

    def moved(call: Any, matched: Any) -> Any:
        before = matched[mean].value.numpy()
        if [int(extent) for extent in matched[bias].ty.shape] != [1, before.size, 1, 1]:
            return call
        shifted = relax.const(before - matched[values].value.numpy().reshape(-1))
        return relax.Call(call.op, [matched[conv], *call.args[1:3], shifted, call.args[4]], call.attrs)

    return rewrite_main(module, norm, moved)
