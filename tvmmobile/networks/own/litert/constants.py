"""Computes constants of LiteRT files that are stored in fewer bits (float16 weights behind `DEQUANTIZE`), or without their zeros."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tvmmobile.graph.layers import Array
from tvmmobile.networks.own.litert.reader import LiteRtNetwork, LiteRtTensor


def with_whole_constants(network: LiteRtNetwork) -> LiteRtNetwork:
    """The network with a constant for each operator that makes one of float16, of scaled integers, or of numbers without zeros."""
    tensors, operators = list(network.tensors), []
    for operator in network.operators:
        value = None
        if operator.kind == "DEQUANTIZE" and operator.inputs[0] >= 0:
            value = _real_numbers(tensors[operator.inputs[0]])
        if operator.kind == "DENSIFY":  # the reader has put the zeros in
            value = tensors[operator.inputs[0]].value
        if value is None or operator.outputs[0] in network.outputs:
            operators.append(operator)
        else:
            (number,) = operator.outputs
            tensors[number] = replace(tensors[number], value=value)
    return replace(network, tensors=tensors, operators=operators)


def _real_numbers(tensor: LiteRtTensor) -> Array | None:
    """A constant's values in float32; `None` if it is computed."""
    if tensor.value is None or (tensor.grid is None and tensor.value.dtype.kind != "f"):
        return None
    if tensor.grid is None:
        return tensor.value.astype(np.float32)
    along = [-1 if axis == tensor.grid.axis and tensor.grid.scales.size > 1 else 1 for axis in range(tensor.value.ndim)]
    scales, zeros = (array.reshape(along if array.size > 1 else ()) for array in (tensor.grid.scales, tensor.grid.zeros))
    return np.asarray((tensor.value.astype(np.int64) - zeros.astype(np.int64)) * scales.astype(np.float64)).astype(np.float32)
