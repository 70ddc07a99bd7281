"""Computes constants of LiteRT files that are stored in fewer bits (float16 weights behind `DEQUANTIZE`), or without their zeros."""

from __future__ import annotations

from dataclasses import replace

from tvmmobile.networks.own.litert.reader import LiteRtNetwork


def with_whole_constants(network: LiteRtNetwork) -> LiteRtNetwork:
    """The network with a constant for each operator that makes one of float16, of scaled integers, or of numbers without zeros."""
    tensors, operators = list(network.tensors), []
    for operator in network.operators:
        value, source = None, tensors[operator.inputs[0]] if operator.inputs and operator.inputs[0] >= 0 else None
        if source is not None and source.value is not None:
            if operator.kind == "DEQUANTIZE" and (source.grid is not None or source.value.dtype.kind == "f"):
                value = source.real_numbers()
            elif operator.kind == "DENSIFY":  # the reader has put the zeros in
                value = source.value
        if value is None or operator.outputs[0] in network.outputs:
            operators.append(operator)
        else:
            (number,) = operator.outputs
            tensors[number] = replace(tensors[number], value=value)
    return replace(network, tensors=tensors, operators=operators)
