"""Makes layers of the parts of forms: one function for each kind, and what else a kernel of that kind gets."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tvmmobile.graph.curves import CHANNEL, GATE, TENSOR
from tvmmobile.graph.expressions import shape_of
from tvmmobile.graph.layers import (
    NO_PARAMETERS,
    ChannelNorm,
    Clamp,
    Conv2d,
    Dense,
    Gating,
    GroupNorm,
    LayerParameters,
    MaxPool,
    MeanPool,
    Pool,
    Product,
    Resize,
    Softmax,
)
from tvmmobile.graph.layouts import Layout
from tvmmobile.graph.passes.products import swaps_last
from tvmmobile.graph.passes.rewriting import holds
from tvmmobile.graph.passes.views import TO_LAST, turned
from tvmmobile.graph.precision import FLOAT32
from tvmmobile.graph.resizing import COPIES, METHODS, PLACES
from tvmmobile.graph.taps import is_given, taps_of

if TYPE_CHECKING:
    from tvmmobile.graph.passes.layer_forms import Form


#: The annotated expressions of a form, by their names.
Parts = dict[str, Any]
#: Parts of a product of two activations: operands whose last dimensions are swapped.
SIDES = ("left", "right")


def convolution(found: Parts, form: Form) -> Conv2d | None:
    """Return the convolution of the parts."""
    clamp, attrs = _clamp_of(found, form), found["product"].attrs
    if clamp is None or attrs.data_layout != "NHWC" or attrs.kernel_layout != "HWIO":
        return None
    if "permute" in found and turned(found["permute"], TO_LAST) is None:
        return None
    if "scaled" in found and not gated_operands(found):
        return None
    height, width, channels = shape_of(found["product"].args[0])[1:]
    kernel = shape_of(found["weight"])[:2]
    top, left, bottom, right = (int(extent) for extent in attrs.padding)
    stride = tuple(int(extent) for extent in attrs.strides)
    layout: Layout = "NCHW" if "permute" in found else "NHWC"
    window = (kernel[0], kernel[1]), (stride[0], stride[1]), (top, left, bottom, right)
    # With a single tap it makes no difference.
    steps = [int(step) if taps > 1 else 1 for step, taps in zip(attrs.dilation, kernel, strict=True)]
    residual, scaled, filters = "residual" in found, "scaled" in found, shape_of(found["product"])[3]
    layer = Conv2d(height, width, channels, filters, *window, int(attrs.groups), clamp, layout, residual=residual, scaled=scaled)
    return replace(layer, dilation=(steps[0], steps[1]))


def dense(found: Parts, form: Form) -> Dense | None:
    """Return the fully connected layer of the parts, `None` for a batch of matrices."""
    clamp, data_shape = _clamp_of(found, form), shape_of(found["product"].args[0])
    if clamp is None or len(data_shape) != 2 or len(found["weight"].ty.shape) != 2:
        return None
    return Dense(data_shape[1], shape_of(found["product"])[1], clamp)


def read_by_sums(found: Parts, form: Form) -> list[Any]:
    """Return what a kernel of a convolution or fully connected layer reads."""
    read = gated_operands(found) or (found["permute" if "permute" in found else "product"].args[0],)
    return [*read, *(found[part] for part in ("residual", *form.operands(TENSOR, GATE)) if part in found)]


def sum_constants(found: Parts, form: Form) -> LayerParameters:
    """Return weights, biases and steps' operands; one number for all channels is repeated."""
    weight = np.ascontiguousarray(found["weight"].value.numpy())
    bias, *operands = (found[part].value.numpy().reshape(-1) for part in ("bias", *form.operands(CHANNEL)))
    return LayerParameters(weight, bias, tuple(np.ascontiguousarray(np.broadcast_to(array, bias.shape)) for array in operands))


def _clamp_of(found: Parts, form: Form) -> Clamp | None:
    """Return the curve or the bounds of a sum; `None` if its parts have other shapes or values than those of a layer."""
    shapes = {part: shape_of(expression) for part, expression in found.items()}
    out_shape = shapes["product"]
    if str(found["product"].ty.dtype) != FLOAT32.name or out_shape[0] != 1:
        return None
    if any(not holds(found[name], value) for name, value in form.numbers.items()):
        return None
    if not _along_channels(shapes["bias"], out_shape):
        return None
    if any(math.prod(shapes[part]) != 1 and not _along_channels(shapes[part], out_shape) for part in form.operands(CHANNEL)):
        return None
    if any(shapes[part] != out_shape for part in ("residual", *form.operands(TENSOR)) if part in found):
        return None
    if any(not _is_gate(shapes[part], out_shape) for part in form.operands(GATE)):
        return None
    return form.curve or _bounds_of(found)


def _along_channels(shape: list[int], out_shape: list[int]) -> bool:
    """Whether a constant has one number for each channel."""
    return shape == [*[1] * (len(shape) - 1), out_shape[-1]]


def _is_gate(shape: list[int], out_shape: list[int]) -> bool:
    """Whether a tensor has one number for each channel of an image of several pixels."""
    return _along_channels(shape, out_shape) and len(shape) == len(out_shape) == 4 and shape != out_shape


def pool(found: Parts, _: Form) -> Pool | None:
    """Return the layer of a mean, `None` if it is not over all pixels of one image."""
    mean = found["call"]
    shape = shape_of(mean.args[0])
    over_pixels = mean.attrs.axis is not None and [int(axis) for axis in mean.attrs.axis] == [1, 2] and bool(mean.attrs.keepdims)
    known = over_pixels and len(shape) == 4 and shape[0] == 1 and str(mean.ty.dtype) == FLOAT32.name
    return Pool(shape[1], shape[2], shape[3]) if known else None


def gating(found: Parts, _: Form) -> Gating | None:
    """Return the layer of a product, `None` if it is not that of one image and a factor for each of its channels."""
    operands = gated_operands(found)
    shape = shape_of(found["scaled"])
    known = operands and shape[0] == 1 and str(found["scaled"].ty.dtype) == FLOAT32.name
    return Gating(*shape[1:]) if known else None


def matrices_of(found: Parts) -> list[tuple[Any, bool]]:
    """Return both operands of a product of two activations, each with whether its last dimensions are swapped."""
    return [
        (found[name].args[0], True) if name in found else (operand, False) for name, operand in zip(SIDES, found["pair"].args, strict=True)
    ]


def product(found: Parts, _: Form) -> Product | None:
    """Return the layer of a product of two activations, `None` where matrices are repeated, or other dimensions swapped."""
    import tvm

    pair = found["pair"]
    shapes = [shape_of(operand) for operand in pair.args]
    if len(shapes[0]) < 3 or shapes[0][:-2] != shapes[1][:-2] or str(pair.ty.dtype) != FLOAT32.name:
        return None
    if any(isinstance(operand, tvm.ir.GenericConst) for operand, _ in matrices_of(found)):
        return None
    if not all(swaps_last(found[name]) for name in SIDES if name in found):
        return None
    turned = "left" in found, "right" in found
    return Product(tuple(shapes[0][:-2]), shapes[0][-2], shapes[0][-1], shapes[1][-1], turned)


def mean_pool(found: Parts, form: Form) -> MaxPool | MeanPool | None:
    """Return the layer of an average pool, `None` also where padding counts."""
    attrs = found["call"].attrs
    counts_padding = attrs.count_include_pad and any(int(extent) for extent in attrs.padding)
    return None if counts_padding else window_pool(found, form, MeanPool)


def window_pool(found: Parts, _: Form, kind: type[MaxPool | MeanPool]) -> MaxPool | MeanPool | None:
    """Return the layer of a pool of that kind, `None` for a batch, dilation, another layout, or windows of padding alone.

    Padding behind the input is as much as the windows reach, whether because of rounding up or the network's own padding.
    """
    call = found["call"]
    attrs, shape, out_shape = call.attrs, shape_of(call.args[0]), shape_of(call)
    if attrs.layout != "NHWC" or attrs.out_layout != "NHWC" or any(int(step) != 1 for step in attrs.dilation):
        return None
    if shape[0] != 1 or str(call.ty.dtype) != FLOAT32.name:
        return None
    kernel, stride = [int(extent) for extent in attrs.pool_size], [int(extent) for extent in attrs.strides]
    before = [int(extent) for extent in attrs.padding][:2]
    after = []
    for axis in (0, 1):
        start = (out_shape[axis + 1] - 1) * stride[axis] - before[axis]
        if start >= shape[axis + 1] or before[axis] >= kernel[axis]:
            return None
        after.append(max(0, start + kernel[axis] - shape[axis + 1]))
    padding = before[0], before[1], after[0], after[1]
    return kind(shape[1], shape[2], shape[3], (kernel[0], kernel[1]), (stride[0], stride[1]), padding)


def norm(found: Parts, _: Form) -> ChannelNorm | GroupNorm | None:
    """Return the layer of a norm, `None` if it is not over the channels, or, of a group norm, channels and pixels, of one image."""
    call = found["call"]
    attrs, shape = call.attrs, shape_of(call)
    if len(shape) != 4 or shape[0] != 1 or str(call.ty.dtype) != FLOAT32.name:
        return None
    axes = [int(axis) % 4 for axis in attrs.axes]
    if call.op.name == "relax.nn.rms_norm":
        return ChannelNorm(shape[1], shape[2], shape[3], float(attrs.epsilon), centred=False) if axes == [3] else None
    if not (attrs.center and attrs.scale):
        return None
    if call.op.name == "relax.nn.layer_norm":
        return ChannelNorm(shape[1], shape[2], shape[3], float(attrs.epsilon)) if axes == [3] else None
    over_pixels = int(attrs.channel_axis) % 4 == 3 and axes == [1, 2]
    return GroupNorm(shape[1], shape[2], shape[3], int(attrs.num_groups), float(attrs.epsilon)) if over_pixels else None


def norm_constants(found: Parts, _: Form) -> LayerParameters:
    """Return the weights of a norm and the biases, if it has any."""
    bias = found["bias"].value.numpy() if "bias" in found else NO_PARAMETERS.bias
    return LayerParameters(found["weight"].value.numpy(), bias)


def softmax(found: Parts, _: Form) -> Softmax | None:
    """Return the layer of a softmax or its logarithm."""
    call = found["call"]
    shape = shape_of(call)
    axis = int(call.attrs.axis) % max(len(shape), 1)
    known = shape and str(call.ty.dtype) == FLOAT32.name
    return Softmax(tuple(shape[:axis]), shape[axis], tuple(shape[axis + 1 :]), "logarithm" in found) if known else None


def resize(found: Parts, _: Form) -> Resize | None:
    """Return the layer of a resize, `None` for a batch, another layout, or a method that has no layer."""
    call = found["call"]
    attrs, shape, out_shape = call.attrs, shape_of(call.args[0]), shape_of(call)
    method = "linear" if attrs.method == "linear" else str(attrs.rounding_method) if attrs.method == "nearest_neighbor" else ""
    places = str(attrs.coordinate_transformation_mode)
    if attrs.layout != "NHWC" or shape[0] != 1 or not str(call.args[0].ty.dtype) == str(call.ty.dtype) == FLOAT32.name:
        return None
    if is_given(call) and method:
        method = "linear" if method == "linear" else COPIES
    elif method not in METHODS or places not in PLACES:
        return None
    return Resize(shape[1], shape[2], shape[3], out_shape[1], out_shape[2], method, places)


def resize_constants(found: Parts, _: Form) -> LayerParameters:
    """Return the pixels of a resize and their shares, where they are given."""
    call = found["call"]
    if not is_given(call):
        return NO_PARAMETERS
    first, share = (np.concatenate(parts) for parts in zip(*(taps.first_and_share() for taps in taps_of(call)), strict=True))
    return LayerParameters(first.astype(np.int32), share.astype(np.float32))


def _bounds_of(found: Parts) -> Clamp | None:
    """Lower and upper bound, `None` where one is not the same for all."""
    values = [found[part].value.numpy() if part in found else None for part in ("low", "high")]
    if any(value is not None and value.size != 1 for value in values):
        return None
    low, high = (None if value is None else float(value.item()) for value in values)
    return low, high


def gated_operands(found: Parts) -> tuple[Any, ...]:
    """Return the scaled tensor and its gate with one factor per channel; empty without such a gate."""
    import tvm

    if "scaled" not in found or any(isinstance(operand, tvm.ir.GenericConst) for operand in found["scaled"].args):
        return ()
    shape = shape_of(found["scaled"])
    for data, gate in itertools.permutations(found["scaled"].args):
        shapes = [shape_of(operand) for operand in (data, gate)]
        if shape and shapes == [shape, [1, 1, 1, shape[-1]]]:
            return data, gate
    return ()
