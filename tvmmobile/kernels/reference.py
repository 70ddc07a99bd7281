"""Reference outputs of kernels, by PyTorch on the host, with inputs and parameters that exercise every bound.

Those of integer layers are `kernels.integers`'.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmmobile.graph.curves import CHANNEL, CURVES, GATE, SCALED, TENSOR
from tvmmobile.graph.integers import HIGHEST, LOWEST, IntegerParameters
from tvmmobile.graph.layers import (
    NO_PARAMETERS,
    Array,
    Attention,
    ChannelNorm,
    Conv2d,
    Dense,
    Gating,
    GroupNorm,
    Layer,
    LayerParameters,
    MaxPool,
    MeanPool,
    Place,
    Pool,
    Product,
    Resize,
    Softmax,
    SumLayer,
    WindowPool,
)
from tvmmobile.graph.layouts import Layout, shuffle_of
from tvmmobile.graph.resized_pixels import given_pixels, pixels_of
from tvmmobile.graph.resizing import GIVEN
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.integers import compute_integers, random_integers


def make_inputs(task: Task) -> list[Array]:
    """The region's input, then what else its layers read: values as a clamped layer leaves them, about a quarter at the lower bound; for a
    max pool mostly negative ones, which are less than padding of zeros. Integers are spread evenly over all of int8.

    Same task, same values.
    """
    generator = np.random.default_rng(_seed(task.name))
    shapes = [task.region[0].input_shape, *task.side_shapes.values()]
    types = [task.storage[0].numpy, *[task.precision.numpy] * len(task.side_shapes)]
    if task.precision.is_integer:
        return [
            generator.integers(LOWEST, HIGHEST + 1, shape).astype(kind)
            if kind.kind in "iu"
            else generator.normal(0.0, 2.0, shape).astype(kind)
            for shape, kind in zip(shapes, types, strict=True)
        ]
    if isinstance(task.region[0], MaxPool):
        return [generator.normal(-2.0, 1.0, shape).astype(kind) for shape, kind in zip(shapes, types, strict=True)]
    return [np.clip(generator.normal(1.0, 1.5, shape), 0.0, 6.0).astype(kind) for shape, kind in zip(shapes, types, strict=True)]


def make_parameters(task: Task) -> tuple[LayerParameters, ...]:
    """Weights and biases per layer, scaled so that outputs are spread over the range of the clamp, or of integers that they are rounded to,
    and partly beyond it.
    """
    generator = np.random.default_rng(_seed(task.name) + 1)
    parameters: list[LayerParameters] = []
    for layer in task.region:
        if task.precision.is_integer:
            parameters.append(random_integers(layer, generator))
            continue
        if isinstance(layer, ChannelNorm | GroupNorm):
            drawn = [generator.normal(mean, 0.5, layer.channels).astype(task.precision.numpy) for mean in (1.0, 0.0)]
            has_bias = layer.constants > layer.channels
            parameters.append(LayerParameters(drawn[0], drawn[1] if has_bias else NO_PARAMETERS.bias))
            continue
        if isinstance(layer, Attention) and layer.constants:
            bias = generator.normal(0.0, 1.0, layer.bias_shape).astype(task.precision.numpy)
            parameters.append(LayerParameters(NO_PARAMETERS.weight, bias))
            continue
        if isinstance(layer, Resize) and layer.places == GIVEN:
            parameters.append(given_pixels(layer, generator))
            continue
        if not isinstance(layer, SumLayer):
            parameters.append(NO_PARAMETERS)
            continue
        fan_in = int(np.prod(layer.weight_shape[:-1]))
        weight = generator.normal(0.0, 1.8 / np.sqrt(fan_in), layer.weight_shape).astype(task.precision.numpy)
        if isinstance(layer, Conv2d) and layer.windows:
            weight = _within_windows(layer, weight)
        bias = generator.normal(0.5, 1.0, layer.weight_shape[-1]).astype(task.precision.numpy)
        operands = [generator.normal(0.5, 1.0, bias.shape).astype(bias.dtype) for kind in layer.operands if kind == CHANNEL]
        parameters.append(LayerParameters(weight, bias, tuple(operands)))
    if task.rounds:
        parameters[-1] = _beyond_integers(task.region[-1], parameters[-1])
    return tuple(parameters)


def _within_windows(layer: Conv2d, weight: Array) -> Array:
    """Weights, zero outside the windows of the layer."""
    found = np.zeros_like(weight)
    for part, (top, bottom, left, right) in enumerate(layer.windows):
        place = slice(top, bottom), slice(left, right), slice(None), slice(part * layer.part_channels, (part + 1) * layer.part_channels)
        found[place] = weight[place]
    return found


def _beyond_integers(layer: Layer, drawn: LayerParameters) -> LayerParameters:
    """The constants with which results are spread over int8, and some of the first channel leave it."""
    bias, operands = drawn.bias.copy(), drawn.operands
    bias[0] = 16.0
    if isinstance(layer, SumLayer) and layer.steps[-1:] == (SCALED,):
        *others, scale, shift = operands
        return LayerParameters(drawn.weight, bias, (*others, np.full_like(scale, 2 * HIGHEST), shift))
    factor = drawn.bias.dtype.type(HIGHEST / 2)
    return LayerParameters(factor * drawn.weight, factor * bias, operands)


def expected_output(task: Task, inputs: Sequence[Array], parameters: tuple[LayerParameters, ...]) -> Array:
    """The region's output for what `make_inputs` lists, computed layer by layer with PyTorch on the host, in `Precision.reference`; within
    the bounds of integers where it is rounded to these, but not rounded.
    """
    if task.precision.is_integer:
        given, *sides = inputs
        for layer, constants in zip(task.region, parameters, strict=True):
            assert isinstance(constants, IntegerParameters)
            given = compute_integers(layer, given, constants, {name: sides.pop(0) for name in layer.side_shapes})
        return given
    wide = np.dtype(task.precision.reference)
    data, *others = (array.astype(wide, copy=False) for array in inputs)
    for layer, stored in zip(task.region, parameters, strict=True):
        weight, bias, *operands = (array.astype(wide, copy=False) for array in (stored.weight, stored.bias, *stored.operands))
        constants = LayerParameters(weight, bias, tuple(operands))
        side = {name: others.pop(0) for name in layer.side_shapes}
        data = compute_layer(layer, data, constants, side)
    return data.clip(LOWEST, HIGHEST) if task.rounds else data


def relative_error(actual: npt.NDArray[np.floating], expected: npt.NDArray[np.floating]) -> float:
    """Largest absolute difference over the largest magnitude expected; infinite if anything is not finite."""
    if actual.shape != expected.shape or not np.isfinite(actual).all():
        return float("inf")
    scale = float(np.abs(expected).max()) or 1.0
    return float(np.abs(actual.astype(np.float64) - expected.astype(np.float64)).max()) / scale


def network_error(outputs: Sequence[npt.NDArray[Any]], expected: Sequence[npt.NDArray[Any]]) -> float:
    """The largest error of what a network returns: `relative_error`, and of integers, such as classes, the share that differs."""
    return max(map(_tensor_error, outputs, expected), default=0.0) if len(outputs) == len(expected) else float("inf")


def _tensor_error(actual: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    if expected.dtype.kind == "f":
        return relative_error(actual, expected)
    return float(np.mean(actual != expected)) if actual.shape == expected.shape else float("inf")


def _seed(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")


def compute_layer(layer: Layer, data: Array, constants: LayerParameters, side: Mapping[str, Array]) -> Array:
    """A layer's output, of `output_shape`, computed by PyTorch; `side` holds the tensors of `side_shapes` by name."""
    import torch
    from torch.nn import functional

    if isinstance(layer, Pool):
        means: Array = torch.from_numpy(_to_nchw(data, layer.in_layout)).mean((2, 3)).numpy()
        return means.reshape(layer.output_shape)
    if isinstance(layer, MaxPool):
        top, left, bottom, right = layer.padding
        padded = np.pad(_put_together(layer, data, side), ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=-np.inf)
        largest = functional.max_pool2d(torch.from_numpy(_to_nchw(padded, "NHWC")), layer.kernel, layer.stride)
        return np.ascontiguousarray(largest.numpy().transpose(0, 2, 3, 1))
    if isinstance(layer, MeanPool):
        return _window_means(layer, _put_together(layer, data, side))
    if isinstance(layer, Gating):
        return np.asarray(data * side["gate"])
    if isinstance(layer, Resize):
        return _from_nhwc(_resized(layer, data, constants), layer)
    if isinstance(layer, Attention):
        return _attended(layer, data, constants, side)
    if isinstance(layer, Softmax):
        function = functional.log_softmax if layer.logarithm else functional.softmax
        return np.asarray(function(torch.from_numpy(data), len(layer.leading)))
    if isinstance(layer, Product):
        first, second = (
            array.swapaxes(-1, -2) if turned else array for array, turned in zip((data, side["other"]), layer.turned, strict=True)
        )
        return np.asarray(first @ second)
    weight, bias = torch.from_numpy(constants.weight), torch.from_numpy(constants.bias)
    with torch.no_grad():
        if isinstance(layer, ChannelNorm):
            given, over = torch.from_numpy(data), [layer.channels]
            if not layer.centred:
                return np.asarray(functional.rms_norm(given, over, weight, layer.epsilon))
            return np.asarray(functional.layer_norm(given, over, weight, bias, layer.epsilon))
        if isinstance(layer, GroupNorm):
            image = torch.from_numpy(_to_nchw(data, "NHWC"))
            grouped = functional.group_norm(image, layer.groups, weight, bias, layer.epsilon).permute(0, 2, 3, 1)
            return np.ascontiguousarray(grouped.numpy())
        if isinstance(layer, Dense):
            return _finish(layer, functional.linear(torch.from_numpy(data), weight.T, bias).numpy(), constants, side)
        assert isinstance(layer, Conv2d)
        image = torch.from_numpy(_to_nchw(_put_together(layer, data, side), layer.in_layout))
        if "gate" in side:
            image = image * torch.from_numpy(_to_nchw(side["gate"], "NHWC"))
        top, left, bottom, right = layer.padding
        image = functional.pad(image, (left, right, top, bottom))
        sums = functional.conv2d(image, weight.permute(3, 2, 0, 1), bias, layer.stride, 0, layer.dilation, layer.groups)
        return _from_nhwc(_finish(layer, sums.permute(0, 2, 3, 1).numpy(), constants, side), layer)


def _attended(layer: Attention, data: Array, constants: LayerParameters, side: Mapping[str, Array]) -> Array:
    import torch
    from torch.nn import functional

    def part(tensor: Array, place: Place, tokens: int, extent: int) -> torch.Tensor:
        first, group, head, token = place
        groups, heads, rows, columns = np.ogrid[: layer.groups, : layer.heads, :tokens, :extent]
        return torch.from_numpy(tensor.reshape(-1)[first + group * groups + head * heads + token * rows + columns])

    query = part(data, layer.query_place, layer.queries, layer.depth)
    key = part(side["key"], layer.key_place, layer.keys, layer.depth)
    value = part(side["value"], layer.value_place, layer.keys, layer.width)
    bias = torch.from_numpy(constants.bias) if layer.constants else None
    means = functional.scaled_dot_product_attention(query, key, value, bias, scale=layer.scale)
    return np.ascontiguousarray((means.transpose(1, 2) if layer.merged else means).numpy()).reshape(layer.output_shape)


def _window_means(layer: MeanPool, data: Array) -> Array:
    """Sums of windows over how many of their values lie in the image."""
    import torch
    from torch.nn import functional

    top, left, bottom, right = layer.padding
    sums, counts = (
        functional.avg_pool2d(torch.from_numpy(_to_nchw(np.pad(array, ((0, 0), (top, bottom), (left, right), (0, 0))), "NHWC")), *window)
        for array in (data, np.ones_like(data[..., :1]))
        for window in [(layer.kernel, layer.stride)]
    )
    return np.ascontiguousarray((sums / counts).numpy().transpose(0, 2, 3, 1))


def _resized(layer: Resize, data: Array, constants: LayerParameters) -> Array:
    """Rows first, then columns."""
    for axis, (first, last, share) in enumerate(pixels_of(layer, constants), 1):
        below, above = data.take(first, axis), data.take(last, axis)
        data = below + (above - below) * np.expand_dims(share.astype(data.dtype), tuple({0, 1, 2, 3} - {axis}))
    return data


def _put_together(layer: Conv2d | WindowPool, data: Array, side: Mapping[str, Array]) -> Array:
    """A layer's input, of its pieces where it has some."""
    if not layer.pieces:
        return data
    sources = [data, *(side[f"source{number}"] for number in range(1, len(layer.sources)))]
    return np.concatenate([sources[source][..., first : first + count] for source, first, count in layer.pieces], -1)


def _to_nchw(data: Array, layout: Layout) -> Array:
    if layout == "NCHW":
        return data
    if layout == "NHWC":
        return np.ascontiguousarray(data.transpose(0, 3, 1, 2))
    return np.ascontiguousarray(data.transpose(0, 1, 4, 2, 3)).reshape(1, -1, *data.shape[2:4])


def _from_nhwc(data: Array, layer: Conv2d | Resize) -> Array:
    if layer.out_layout == "NHWC":
        return np.ascontiguousarray(data)
    values = np.ascontiguousarray(data.transpose(0, 3, 1, 2))
    if layer.out_layout == "NCHW":
        return values
    if shuffle := shuffle_of(layer.out_layout):
        _, height, width, _ = data.shape
        return np.ascontiguousarray(data.reshape(1, height, width, -1, *shuffle).transpose(0, 3, 1, 4, 2, 5))
    blocks, block = layer.output_shape[1], layer.output_shape[-1]
    return np.ascontiguousarray(values.reshape(1, blocks, block, *values.shape[2:]).transpose(0, 1, 3, 4, 2))


def _finish(layer: SumLayer, sums: Array, constants: LayerParameters, side: Mapping[str, Array]) -> Array:
    """Apply a layer's epilogue to its sums, which already include the bias; channels are last."""
    values = sums + side["residual"] if "residual" in side else sums
    tensors = [array for name, array in side.items() if name.startswith("operand")]
    operands = {CHANNEL: list(constants.operands), TENSOR: tensors, GATE: tensors}
    for step in layer.steps:
        if isinstance(step, str):
            read = (operands[kind].pop(0).astype(np.float64) for kind in CURVES[step].operands)
            values = CURVES[step].exact(values.astype(np.float64), *read).astype(values.dtype)
        else:
            values = np.clip(values, *step)
    return values
