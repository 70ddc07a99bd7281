"""Decompositions and converters to Relax for PyTorch's operators that TVM's importer lacks or misreads."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial, reduce
from typing import Any

import numpy as np
import torch
from tvm import relax

from tvmmobile.graph.expressions import constant, shape_of
from tvmmobile.networks.reductions import reduced
from tvmmobile.networks.torch_elements import element_decompositions
from tvmmobile.networks.torch_pads import pad_converters, pad_decompositions
from tvmmobile.networks.torch_pools import adaptive_max_pool, average_pool, max_pool, pool_converters, refuse_random_windows, without_places
from tvmmobile.networks.torch_recurrent import recurrent_converters
from tvmmobile.networks.torch_resizes import is_resize, resize_converters
from tvmmobile.networks.torch_scatter import scatter_converters
from tvmmobile.networks.torch_selection import selection_converters
from tvmmobile.networks.torch_special import special_decompositions

#: Operators for which PyTorch has decompositions that it leaves out of those for an export.
_ALSO_DECOMPOSED = (
    *("addmv", "dist", "ldexp"),
    *("as_strided_copy", "narrow_copy", "permute_copy", "split_copy", "squeeze_copy", "unbind_copy", "view_copy"),
)
#: From an operator's node and TVM's importer to a Relax variable; `importer.env` has the operands'.
Converter = Callable[[Any, Any], Any]


def decompositions() -> Mapping[Any, Callable[..., Any]]:
    """Return PyTorch's own decompositions to its core operators, and ours; one that returns `NotImplemented` keeps the operator."""
    # PyTorch looks at every operator to collect its own, as a user's code may have registered more.
    return _decompositions(frozenset((name, len(getattr(space, "__dict__", ()))) for name, space in vars(torch.ops).items()))


@lru_cache(maxsize=1)
def _decompositions(_operators: frozenset[tuple[str, int]]) -> Mapping[Any, Callable[..., Any]]:
    aten = torch.ops.aten
    table: Any = torch.export.default_decompositions()
    table.update(torch._decomp.get_decompositions([getattr(aten, name) for name in _ALSO_DECOMPOSED]))
    for operator in [operator for operator in table if is_resize(operator)]:
        del table[operator]  # PyTorch's own compute positions at run time
    table.update(
        {
            **dict.fromkeys((aten.adaptive_max_pool2d.default, aten.adaptive_max_pool3d.default), adaptive_max_pool),
            **{operator.default: partial(average_pool, rank) for rank, operator in ((2, aten.avg_pool2d), (3, aten.avg_pool3d))},
            aten.max_pool2d_with_indices.default: max_pool,
            **dict.fromkeys((aten.fractional_max_pool2d.default, aten.fractional_max_pool3d.default), refuse_random_windows),
            aten.max.dim: lambda x, dim, keepdim=False: (x.amax(dim, keepdim), x.argmax(dim, keepdim)),
            aten.min.dim: lambda x, dim, keepdim=False: (x.amin(dim, keepdim), x.argmin(dim, keepdim)),
            aten.convolution.default: _convolution,
            aten._trilinear.default: _trilinear,
            aten.rrelu_with_noise_functional.default: lambda x, noise, low=1 / 8, high=1 / 3, *_: (
                torch.nn.functional.leaky_relu(x, (low + high) / 2),
                noise,
            ),
            aten.im2col.default: _im2col,
            aten.col2im.default: _col2im,
            aten.unfold.default: _unfold,
            **{one.default: partial(_of_numbers, other) for one, other in ((aten.fmax, torch.maximum), (aten.fmin, torch.minimum))},
            aten.kthvalue.default: _kth,
            aten.median.dim: _median,
            aten.median.default: lambda x: _median(x.flatten(), 0)[0],
            aten.sort.stable: lambda x, *, stable=None, dim=-1, descending=False: torch.sort(x, dim, descending),
            **dict.fromkeys((aten.any.default, aten.any.dim, aten.any.dims), _any),
            aten.permute.default: _permute,
            aten.addbmm.default: lambda x, one, two, *, beta=1, alpha=1: beta * x + alpha * (one @ two).sum(0),
            aten.cat.default: _cat,
            aten.clamp.default: _clamp,
            aten.clamp.Tensor: _clamp_by_tensors,
            aten.cumprod.default: lambda x, dim, dtype=None: _running(torch.mul, x if dtype is None else x.to(dtype), dim),
            aten.cummax.default: lambda x, dim: without_places(_running(torch.maximum, x, dim)),
            aten.cummin.default: lambda x, dim: without_places(_running(torch.minimum, x, dim)),
            aten.logcumsumexp.default: lambda x, dim: _running(torch.logaddexp, x, dim),
            aten.linalg_vector_norm.default: _vector_norm,
            aten.var_mean.correction: lambda x, dim=None, *, keepdim=False, **options: (
                x.var(dim, keepdim=keepdim, **options),
                x.mean(dim, keepdim),
            ),
            aten.roll.default: _rolled,
            aten.remainder.Scalar_Tensor: lambda number, x: torch.remainder(torch.full((), number), x),
            **dict.fromkeys((aten.pow.Scalar, aten.pow.Tensor_Tensor), _power),
            aten._cdist_forward.default: lambda x, y, p, _mode: torch.linalg.vector_norm(x.unsqueeze(-2) - y.unsqueeze(-3), p, -1),
        }
    )
    table.update({**element_decompositions(), **pad_decompositions(table), **special_decompositions()})
    integers = torch.ops.quantized_decomposed
    if hasattr(integers, "quantize_per_tensor"):  # `own/pt2/quantised.py` has made it known, or torchao has
        table[integers.quantize_per_tensor.default] = _quantised
        table[integers.dequantize_per_tensor.default] = _dequantised
    decomposed: Mapping[Any, Callable[..., Any]] = table
    return decomposed


def _quantised(x: Any, scale: float, zero: int, low: int, high: int, kind: Any) -> Any:
    """Return integers as floating-point numbers; unsigned ones less 128."""
    shift = _shift(kind)
    return torch.clamp(torch.round(x / scale) + (zero - shift), low - shift, high - shift)


def _dequantised(x: Any, scale: float, zero: int, _low: int, _high: int, kind: Any, out_dtype: Any = None) -> Any:
    """Return the real numbers that integers of `_quantised`, or of an input, represent."""
    if not x.is_floating_point():
        return (x.float() - zero) * scale
    return (x - (zero - _shift(kind))) * scale


def _shift(kind: Any) -> int:
    return 128 if kind == torch.uint8 else 0


def converters() -> dict[str, Converter]:
    """Return converters in place of TVM's, by the operator's name."""
    return {
        "amax.default": partial(_reduction, "max"),
        "amin.default": partial(_reduction, "min"),
        "prod.dim_int": partial(_reduction, "prod"),
        "arange.start_step": _arange,
        "div.Tensor_mode": _divided,
        **{f"{side}_indices.default": partial(_triangle, side) for side in ("tril", "triu")},
        "topk.default": _topk,
        "elu.default": _elu,
        "index.Tensor": _index,
        "native_group_norm.default": _group_norm,
        "_native_batch_norm_legit.no_stats": _instance_norm,
        **dict.fromkeys(("grid_sampler_2d.default", "grid_sampler_3d.default"), _grid_sample),
        **{
            f"{name}.{kind}": partial(_shifted, f"{side}_shift")
            for side in ("left", "right")
            for name, kinds in (
                (f"__{side[0]}shift__", ("Tensor", "Scalar")),
                (f"bitwise_{side}_shift", ("Tensor", "Tensor_Scalar", "Scalar_Tensor")),
            )
            for kind in kinds
        },
        **pad_converters(),
        **pool_converters(),
        **resize_converters(),
        **scatter_converters(),
        **selection_converters(),
        **recurrent_converters(),
    }


def _convolution(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    extra: Sequence[int],
    groups: int,
) -> Any:
    """Return a transposed convolution in three dimensions, or with more output padding than TVM takes, as a convolution of the input with
    zeros between its elements.
    """
    rank = x.dim() - 2
    if not transposed or (rank < 3 and all(more < step for more, step in zip(extra, stride, strict=True))):
        return NotImplemented
    around: list[int] = []
    for axis, step in enumerate(stride):
        spread = torch.nn.functional.pad(x.unsqueeze(axis + 3), [0, 0] * (rank - 1 - axis) + [0, step - 1])
        x = spread.flatten(axis + 2, axis + 3)
        before = dilation[axis] * (weight.shape[axis + 2] - 1) - padding[axis]
        around = [before, before + extra[axis] - (step - 1), *around]
    ones = [1] * rank
    taps = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1).flip(list(range(2, rank + 2)))
    zeros = [0] * rank
    return torch.ops.aten.convolution(torch.nn.functional.pad(x, around), taps, bias, ones, zeros, dilation, False, zeros, groups)


def _trilinear(x: Any, y: Any, z: Any, over_x: Any, over_y: Any, over_z: Any, axes: Sequence[int], _unrolled: int = 1) -> Any:
    """Return sums of products of three tensors, each with dimensions of 1 in places of its own."""
    one, two, three = (reduce(torch.unsqueeze, places, tensor) for tensor, places in ((x, over_x), (y, over_y), (z, over_z)))
    return (one * two * three).sum(axes)


def _im2col(x: torch.Tensor, kernel: Sequence[int], dilation: Sequence[int], padding: Sequence[int], stride: Sequence[int]) -> Any:
    """Return a slice for each place in the window; a permutation where windows lie side by side."""
    if _side_by_side(x.shape[-2:], kernel, dilation, padding, stride):
        rows, columns = (extent // taps for extent, taps in zip(x.shape[-2:], kernel, strict=True))
        parts = x.reshape(-1, x.shape[-3], rows, kernel[0], columns, kernel[1]).permute(0, 1, 3, 5, 2, 4)
        return parts.reshape(*x.shape[:-3], x.shape[-3] * math.prod(kernel), rows * columns)
    padded = torch.nn.functional.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    counts = [(padded.shape[axis - 2] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1 for axis in (0, 1)]

    def places(axis: int, offset: int) -> slice:
        first = offset * dilation[axis]
        return slice(first, first + (counts[axis] - 1) * stride[axis] + 1, stride[axis])

    slices = [padded[..., places(0, i), places(1, j)] for i in range(kernel[0]) for j in range(kernel[1])]
    stacked = torch.stack(slices, -3)
    return stacked.reshape(*x.shape[:-3], x.shape[-3] * len(slices), math.prod(counts))


def _unfold(x: torch.Tensor, axis: int, size: int, step: int) -> Any:
    """Return windows along an axis, their places last: a slice for each window, or a view where they lie side by side."""
    axis %= x.dim()
    count = (x.shape[axis] - size) // step + 1
    if size == step:
        windows = x.narrow(axis, 0, count * size).unflatten(axis, (count, size))
    else:
        windows = torch.stack([x.narrow(axis, place * step, size) for place in range(count)], axis)
    return windows.movedim(axis + 1, -1)


def _col2im(x: torch.Tensor, size: Sequence[int], kernel: Any, dilation: Any, padding: Any, stride: Any) -> Any:
    """Return a transposed convolution with one weight of 1 in each filter; a permutation where windows lie side by side."""
    window = math.prod(kernel)
    if _side_by_side(size, kernel, dilation, padding, stride):
        rows, columns = (extent // taps for extent, taps in zip(size, kernel, strict=True))
        parts = x.reshape(-1, x.shape[-2] // window, *kernel, rows, columns).permute(0, 1, 4, 2, 5, 3)
        return parts.reshape(*x.shape[:-2], x.shape[-2] // window, *size)
    counts = [(size[axis] + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1 for axis in (0, 1)]
    left = [size[axis] + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1 - (counts[axis] - 1) * stride[axis] for axis in (0, 1)]
    channels = x.shape[-2] // window
    weight = torch.eye(window).reshape(window, 1, *kernel).repeat(channels, 1, 1, 1)
    planes = x.reshape(-1, x.shape[-2], *counts)
    summed = torch.nn.functional.conv_transpose2d(planes, weight, None, stride, padding, left, channels, dilation)
    return summed.reshape(*x.shape[:-2], channels, *size)


def _side_by_side(size: Sequence[int], kernel: Sequence[int], dilation: Any, padding: Any, stride: Sequence[int]) -> bool:
    """Return whether every pixel is in exactly one window."""
    whole = all(extent % taps == 0 for extent, taps in zip(size, kernel, strict=True))
    return whole and list(kernel) == list(stride) and not any(padding) and all(step == 1 for step in dilation)


def _kth(x: torch.Tensor, place: int, dim: int = -1, keepdim: bool = False) -> Any:
    """Return the smallest element but `place` - 1, and its index."""
    found = x.topk(place, dim, largest=False)
    return tuple(part.narrow(dim, place - 1, 1) if keepdim else part.select(dim, place - 1) for part in found)


def _median(x: torch.Tensor, dim: int, keepdim: bool = False) -> Any:
    """Return the median, the lower of two middle ones."""
    return _kth(x, (x.shape[dim] + 1) // 2, dim, keepdim)


def _running(combine: Callable[[Any, Any], Any], x: torch.Tensor, dim: int) -> torch.Tensor:
    """Combine each element with all before it along an axis, in steps of 1, 2, 4 …"""
    step, extent = 1, x.shape[dim] if x.dim() else 0
    while step < extent:
        first, later, earlier = x.narrow(dim, 0, step), x.narrow(dim, step, extent - step), x.narrow(dim, 0, extent - step)
        x, step = torch.cat([first, combine(later, earlier)], dim), 2 * step
    return x


def _rolled(x: torch.Tensor, shifts: Sequence[int], dims: Sequence[int] = ()) -> torch.Tensor:
    """Return the parts of a tensor in another order, which Relax fuses into one move; PyTorch's own takes elements, axis by axis."""
    if not dims:
        return _rolled(x.flatten(), shifts, [0]).reshape(x.shape)
    for shift, dim in zip(shifts, dims, strict=True):
        extent = x.shape[dim]
        last = shift % extent if extent else 0
        if last:
            x = torch.cat([x.narrow(dim, extent - last, last), x.narrow(dim, 0, extent - last)], dim)
    return x


def _vector_norm(x: torch.Tensor, order: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """Count the elements that are not zero for a norm of order 0."""
    if order != 0:
        return NotImplemented
    return (x != 0).to(x.dtype if dtype is None else dtype).sum(dim, keepdim)


def _power(base: Any, exponent: torch.Tensor) -> Any:
    """Return powers of integers by way of floating-point numbers, which are all that TVM raises to them."""
    kind = torch.result_type(base, exponent)
    if kind.is_floating_point or kind.is_complex:
        return NotImplemented
    return torch.pow(base.float() if isinstance(base, torch.Tensor) else float(base), exponent.float()).round().to(kind)


def _of_numbers(extreme: Callable[[Any, Any], Any], x: torch.Tensor, y: torch.Tensor) -> Any:
    """Return the greater or smaller of two numbers, of which a NaN is none."""
    return torch.where(x.isnan(), y, torch.where(y.isnan(), x, extreme(x, y)))


def _permute(x: torch.Tensor, dims: Sequence[int]) -> Any:
    """Return a permutation whose axes are counted from the front, as TVM's layout inference needs them."""
    return NotImplemented if min(dims, default=0) >= 0 else torch.permute(x, [dim % x.dim() for dim in dims])


def _any(x: torch.Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """Return whether a number is not zero, and over all elements; TVM's importer would return the largest number."""
    if x.dtype != torch.bool:
        x = x != 0
    elif dim is not None:
        return NotImplemented
    return x.flatten().any(0) if dim is None else torch.any(x, dim, keepdim)


def _cat(tensors: Sequence[torch.Tensor], dim: int = 0) -> Any:
    """Leave out tensors without elements, which may have one dimension beside others of any number."""
    left = [tensor for tensor in tensors if tensor.numel()]
    return torch.cat(left, dim) if left and len(left) < len(tensors) else NotImplemented


def _clamp(x: torch.Tensor, low: Any = None, high: Any = None) -> Any:
    """Bound integers on one side; TVM's importer bounds them by infinity on the other."""
    (bound, choose), *others = [(bound, choose) for bound, choose in ((low, torch.maximum), (high, torch.minimum)) if bound is not None]
    if others or not isinstance(bound, int) or x.is_floating_point():
        return NotImplemented
    return choose(x, torch.full_like(x, bound))


def _clamp_by_tensors(x: torch.Tensor, low: Any = None, high: Any = None) -> torch.Tensor:
    """Bound by tensors, which may have more elements."""
    x = x if low is None else torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


def _axes(node: Any, rank: int) -> list[int]:
    given = node.args[1] if len(node.args) > 1 else ()
    axes = list(given) if isinstance(given, list | tuple) else [given]
    return [axis % rank for axis in axes] or list(range(rank))


def _reduction(operator: str, node: Any, importer: Any) -> Any:
    data = importer.env[node.args[0]]
    keep = bool(node.args[2]) if len(node.args) > 2 else bool(node.kwargs.get("keepdim", False))
    return importer.block_builder.emit(reduced(operator, data, _axes(node, len(data.ty.shape)), keep))


def _arange(node: Any, importer: Any) -> Any:
    """Make a constant of numbers that descend, of which Relax would count too many."""
    given = node.args[2] if len(node.args) > 2 else node.kwargs.get("step", 1)
    if not isinstance(given, int | float) or given > 0:
        return importer._arange(node)
    return constant(torch.arange(*node.args, **{"step": given} if len(node.args) < 3 else {}, dtype=node.meta["val"].dtype).numpy())


def _triangle(side: str, node: Any, _importer: Any) -> Any:
    """Make a constant of the places in a triangle of a matrix (`tril` or `triu`)."""
    return constant(getattr(torch, f"{side}_indices")(*node.args, dtype=node.meta["val"].dtype).numpy())


def _topk(node: Any, importer: Any) -> Any:
    """Convert `topk`, in order also where any order would do."""
    count, axis, largest = (*node.args[1:4], *(-1, True)[len(node.args) - 2 :])[:3]
    return importer.block_builder.emit(relax.op.topk(importer.env[node.args[0]], count, axis, "both", largest, "int64"))


def _divided(node: Any, importer: Any) -> Any:
    """Convert a rounded division, also by a number of another type."""
    emit, op = importer.block_builder.emit, relax.op
    kind = str(node.meta["val"].dtype).removeprefix("torch.")
    operands = [importer.env.get(operand, operand) for operand in node.args[:2]]
    one, other = (
        relax.const(operand, kind) if isinstance(operand, int | float) else emit(op.astype(operand, kind)) for operand in operands
    )
    mode = node.kwargs.get("rounding_mode")
    if kind.startswith("int"):
        return emit((op.floor_divide if mode == "floor" else op.divide)(one, other))
    quotient = emit(op.divide(one, other))
    return emit({"floor": op.floor, "trunc": op.trunc}[mode](quotient)) if mode else quotient


def _elu(node: Any, importer: Any) -> Any:
    """Convert an ELU with the factors of SELU and CELU, which TVM's converter leaves out."""
    alpha, scale, inner = (float(value) for value in (*node.args[1:], *(1.0, 1.0, 1.0)[len(node.args) - 1 :]))
    if (scale, inner) == (1.0, 1.0):
        return importer._elu(node)
    data, emit, op = importer.env[node.args[0]], importer.block_builder.emit, relax.op

    def number(value: float) -> Any:
        return relax.const(value, str(data.ty.dtype))

    below = emit(op.minimum(data, number(0.0)))
    below = below if inner == 1.0 else emit(op.multiply(below, number(inner)))
    curved = emit(op.multiply(emit(op.subtract(emit(op.exp(below)), number(1.0))), number(alpha)))
    return emit(op.multiply(emit(op.add(emit(op.maximum(data, number(0.0))), curved)), number(scale)))


def _index(node: Any, importer: Any) -> Any:
    """Merge the indexed dimensions into one and take elements from it; TVM's converter pairs indices with wrong dimensions."""
    data, emit, op = importer.env[node.args[0]], importer.block_builder.emit, relax.op
    shape = shape_of(data)
    indices = {axis: importer.env[index] for axis, index in enumerate(node.args[1]) if index is not None}
    if any(str(index.ty.dtype) == "bool" for index in indices.values()):
        raise NotImplementedError("a result whose shape depends on a mask")
    first, *others = indices
    if list(indices) != list(range(first, first + len(indices))):
        order = [*indices, *(axis for axis in range(len(shape)) if axis not in indices)]
        data, shape = emit(op.permute_dims(data, order)), [shape[axis] for axis in order]
        first, indices = 0, dict(enumerate(indices.values()))
    last = first + len(indices)
    if others:
        data = emit(op.reshape(data, [*shape[:first], math.prod(shape[first:last]), *shape[last:]]))
    flat = None
    for axis, index in indices.items():
        whole = index if str(index.ty.dtype) == "int64" else emit(op.astype(index, "int64"))
        zero, extent = relax.const(0, "int64"), relax.const(shape[axis], "int64")
        whole = emit(op.where(emit(op.less(whole, zero)), emit(op.add(whole, extent)), whole))
        flat = whole if flat is None else emit(op.add(emit(op.multiply(flat, extent)), whole))
    return emit(op.take(data, flat, axis=first, mode="clip"))


def _group_norm(node: Any, importer: Any) -> Any:
    """Convert a group norm, also one without factors and summands."""
    return relax.Tuple([_normed(importer, node, int(node.args[6]), float(node.args[7]))])


def _instance_norm(node: Any, importer: Any) -> Any:
    """Convert an instance norm of one image to a group norm with a group per channel."""
    shape = shape_of(importer.env[node.args[0]])
    if shape[0] != 1 or len(shape) < 3:
        return importer._batch_norm_legit_no_stats(node)
    return _normed(importer, node, shape[1], float(node.args[5]))


def _normed(importer: Any, node: Any, groups: int, epsilon: float) -> Any:
    """Return a group norm of a node's first argument; the next two are factors and summands, or `None`."""
    data = importer.env[node.args[0]]
    shape = shape_of(data)
    given = [
        importer.env[operand] if operand is not None else relax.const(np.full(shape[1], value, np.float32))
        for operand, value in zip(node.args[1:3], (1.0, 0.0), strict=True)
    ]
    normal = relax.op.nn.group_norm(data, *given, num_groups=groups, channel_axis=1, axes=list(range(2, len(shape))), epsilon=epsilon)
    return importer.block_builder.emit(normal)


def _shifted(operator: str, node: Any, importer: Any) -> Any:
    """Convert a shift of bits, by a tensor or a number."""
    kind = str(node.meta["val"].dtype).removeprefix("torch.")
    operands = [importer.env.get(operand, operand) for operand in node.args]
    given = [relax.const(operand, kind) if isinstance(operand, int) else operand for operand in operands]
    return importer.block_builder.emit(getattr(relax.op, operator)(*given))


def _grid_sample(node: Any, importer: Any) -> Any:
    """Convert `grid_sampler_2d` and `_3d` with the coordinates in front, where Relax has them; TVM's converter leaves them behind."""
    data, grid = (importer.env[operand] for operand in node.args[:2])
    methods, paddings = ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection")
    rank = len(shape_of(grid))
    grid = importer.block_builder.emit(relax.op.permute_dims(grid, [0, rank - 1, *range(1, rank - 1)]))
    attributes = {"method": methods[node.args[2]], "padding_mode": paddings[node.args[3]], "align_corners": node.args[4]}
    return importer.block_builder.emit(relax.op.image.grid_sample(data, grid, layout="NCDHW" if rank == 5 else "NCHW", **attributes))
