"""Moves biases where later passes expect them: none before a batch norm; exactly one after every convolution and matrix product, with no
factors after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.dpl import is_const, is_op, is_tuple_get_item, wildcard

from tvmmobile.graph.bindings import readers_of, values_of
from tvmmobile.graph.expressions import numbers_of, operator_of, shape_of
from tvmmobile.graph.layers import Array
from tvmmobile.graph.operators import constant_operand
from tvmmobile.graph.passes.rewriting import either, replace_variables, rewrite_main


def bias_into_batch_norm(module: Any) -> Any:
    """Rewrite batch_norm(conv(x) + b) with mean m as batch_norm(conv(x)) with mean m - b."""
    conv = is_op("relax.nn.conv2d")(wildcard(), is_const())
    values, gamma, beta, mean, variance = (is_const() for _ in range(5))
    bias = values | is_op("relax.reshape")(values, wildcard())
    norm = is_op("relax.nn.batch_norm")(is_op("relax.add")(conv, bias), gamma, beta, mean, variance)

    def moved(call: Any, matched: Any) -> Any:
        before = matched[mean].value.numpy()
        if shape_of(matched[bias]) != [1, before.size, 1, 1]:
            return None
        shifted = relax.const(before - matched[values].value.numpy().reshape(-1))
        return relax.Call(call.op, [matched[conv], *call.args[1:3], shifted, call.args[4]], call.attrs)

    return rewrite_main(module, norm, moved)


def spell_batch_norms(module: Any) -> Any:
    """Rewrite every batch norm with constant statistics that does not follow a convolution as x · factor + shift."""
    data, constants = wildcard(), [is_const() for _ in range(4)]
    norm = is_op("relax.nn.batch_norm")(data, *constants)
    first = is_tuple_get_item(norm, 0)

    def spelled(_part: Any, matched: Any) -> Any:
        attrs, extents = matched[norm].attrs, matched[data].ty.shape
        gamma, beta, mean, variance = (matched[constant].value.numpy().astype(np.float64) for constant in constants)
        factor = (gamma if attrs.scale else 1.0) / np.sqrt(variance + attrs.epsilon)
        shift = (beta if attrs.center else 0.0) - mean * factor
        shape = [-1 if axis == int(attrs.axis) % len(extents) else 1 for axis in range(len(extents))]
        factors, shifts = (relax.const(array.astype(np.float32).reshape(shape)) for array in (factor, shift))
        return relax.op.add(relax.op.multiply(matched[data], factors), shifts)

    return rewrite_main(module, first, spelled)


def zero_bias(module: Any) -> Any:
    """Add zeros to every convolution (NHWC) and matrix product with constant weights to which no bias is added, or that something
    else reads too.
    """
    values, readers = values_of(module["main"]), readers_of(module["main"])
    found = {}
    for variable, value in values.items():
        shape = _bias_shape(value)
        if shape and [_adds(values.get(reader), shape) for reader in readers[variable]] != [True]:
            found[variable] = relax.op.add(value, relax.const(np.zeros(shape, str(value.ty.dtype))))
    return replace_variables(module, found)


def fold_factors(module: Any) -> Any:
    """Rewrite (conv(x, w) + b) · c + d, with a number d for each channel (NHWC), and c one number or one for each, as
    conv(x, w · c) + (b · c + d). A scalar d is folded in too, except the 3 of an h-sigmoid.
    """
    data, weight, bias, factor, shift = wildcard(), is_const(), is_const(), is_const(), is_const()
    conv = is_op("relax.nn.conv2d")(data, weight)
    total = is_op("relax.add")(conv, bias)
    shared = _shared(module["main"])

    def folded(call: Any, matched: Any) -> Any:
        kernel, product, channels = matched[weight].value.numpy(), matched[conv], int(call.ty.shape[-1])
        before, by = (_by_channel(matched[part].value.numpy(), channels) for part in (bias, factor))
        is_plain = product.attrs.kernel_layout == "HWIO" and not any(operand in shared for operand in call.args)
        if not is_plain or before is None or by is None:
            return None
        scaled = relax.Call(product.op, [matched[data], relax.const(kernel * by)], product.attrs)
        return relax.op.add(scaled, relax.const((before * by).reshape(1, 1, 1, -1)))

    def joined(call: Any, matched: Any) -> Any:
        arrays = [matched[part].value.numpy() for part in (bias, shift)]
        channels = int(call.ty.shape[-1])
        per_channel = all(array.size == channels == (array.shape[-1] if array.ndim else 1) for array in arrays)
        if matched[conv].attrs.kernel_layout != "HWIO" or not per_channel or any(operand in shared for operand in call.args):
            return None
        return relax.op.add(matched[conv], relax.const(arrays[0].reshape(1, 1, 1, -1) + arrays[1].reshape(1, 1, 1, -1)))

    module = rewrite_main(module, either("multiply", total, factor), folded)
    module = _numbers_for_channels(module)
    shared = _shared(module["main"])
    return rewrite_main(module, is_op("relax.add")(total, shift), joined)


def _numbers_for_channels(module: Any) -> Any:
    """Return the module with each number that is added to a convolution's biased sums repeated per channel."""
    values, readers, found = values_of(module["main"]), readers_of(module["main"]), {}
    for variable, value in values.items():
        total, constant = (constant_operand(value) if operator_of(value) == "relax.add" else None) or (None, None)
        numbers = numbers_of(constant)
        if numbers is None or numbers.size != 1:
            continue
        is_clipped = all(operator_of(values.get(reader)) == "relax.maximum" for reader in readers[variable])
        if _is_biased(values.get(total), values) and not (is_clipped and float(numbers.item()) == 3.0):
            channels = int(value.ty.shape[-1])
            found[variable] = relax.op.add(total, relax.const(np.full((1, 1, 1, channels), numbers.item(), np.float32)))
    return replace_variables(module, found) if found else module


def _is_biased(value: Any, values: Mapping[Any, Any]) -> bool:
    """Return whether a value adds a constant to a convolution."""
    data, other = value.args if operator_of(value) == "relax.add" else (None, None)
    return isinstance(other, tvm.ir.GenericConst) and operator_of(values.get(data)) == "relax.nn.conv2d"


def _by_channel(array: Array, channels: int) -> Array | None:
    """Return a constant's numbers, one per channel; `None` for anything else."""
    if array.size == 1:
        return np.full(channels, array.item(), array.dtype)
    return array.reshape(-1) if array.size == channels == array.shape[-1] else None


def _shared(main: Any) -> set[Any]:
    """Return variables that are read more than once."""
    values = values_of(main)
    return {variable for variable, found in readers_of(main).items() if variable in values and len(found) > 1}


def _bias_shape(call: Any) -> tuple[int, ...]:
    """Return the shape of the bias of a convolution or a product with constant weights; empty for anything else."""
    name = operator_of(call)
    if name not in ("relax.nn.conv2d", "relax.matmul") or not isinstance(call.args[1], tvm.ir.GenericConst):
        return ()
    if call.args[1].ty.ndim < 2:  # a product with a vector has no channels
        return ()
    channels = int(call.ty.shape[-1])
    return (1, 1, 1, channels) if name == "relax.nn.conv2d" else (channels,)


def _adds(call: Any, shape: tuple[int, ...]) -> bool:
    """Return whether a call adds a constant with as many elements as the longest dimension."""
    found = constant_operand(call) if operator_of(call) == "relax.add" else None
    return found is not None and bool(numbers_of(found[1]).size == max(shape))
