"""Rewrites linear layers of many rows as 1×1 convolutions: T tokens with C channels are an image of T pixels.

Element-wise operators and norms behind a layer work on the same image, so that bias, activation and residual become part
of the layer. Between images and tokens, networks permute and reshape (`x.flatten(2).transpose(1, 2)` and back); where these leave the
elements in the image's order, nothing is moved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax

from tvmmobile.graph.access import Access
from tvmmobile.graph.bindings import bindings_of
from tvmmobile.graph.expressions import TO_FIRST, TO_LAST, operator_of, permutation_source, shape_of
from tvmmobile.graph.operators import Trait, has, operators_with
from tvmmobile.graph.passes.rewriting import MainRewriter

#: Operators that may only change a tensor's shape, or the order of its dimensions.
_MOVES = operators_with(Trait.RESHAPE) | {"relax.permute_dims"}
_POOLS = ("relax.nn.max_pool2d", "relax.nn.avg_pool2d")


def linear_layers(module: Any) -> Any:
    """Rewrite every product of more than one row with constant weights, and every layer norm, RMS norm and group norm."""

    if not any(map(_is_wanted, (binding.value for binding in bindings_of(module["main"])))):
        return module
    # In patterns of later passes, a variable's alias would count as its value.
    return _LinearToConvolutions(module["main"]).in_module(module, canonical=True)


@dataclass(frozen=True)
class _ImageView:
    """A variable as a view of an image.

    Attributes:
        image: a variable of shape (1, height, width, channels).
        first: true if the variable has the channels first, then the pixels; otherwise it has the elements in the image's order.
    """

    image: Any
    first: bool = False


class _LinearToConvolutions(MainRewriter):
    """Rewrites `main` so that linear layers become convolutions."""

    def __init__(self, main: Any) -> None:
        super().__init__(main)
        #: New values by the old variable.
        self.seen: dict[Any, _ImageView] = {}
        #: Variables that could be images with their channels last.
        self.guessed: set[Any] = set()
        #: Images in the order in which they are computed.
        self.order: dict[Any, int] = {}

    def value(self, variable: Any, value: Any) -> Any:
        """Return the image that a variable shows, where one is known, or the old value."""
        seen = self._seen(value)
        if seen is None:
            if isinstance(value, relax.Call) and _is_image(variable):
                self.seen[variable] = self._shown_by(self.rebuild(value))
                self.guessed.add(variable)
                if permutation_source(value, TO_LAST) is not None:
                    self._show_first(value.args[0], self.seen[variable].image)
                return self.seen[variable].image
            return self.rebuild(value)
        self.seen[variable] = seen
        if seen.first and operator_of(value) not in _MOVES:
            return relax.op.reshape(self.builder.emit(relax.op.permute_dims(seen.image, TO_FIRST)), shape_of(variable))
        if seen.first:
            return self.rebuild(value)
        return seen.image if shape_of(seen.image) == shape_of(variable) else relax.op.reshape(seen.image, shape_of(variable))

    def _show_first(self, source: Any, image: Any) -> None:
        """From now on, let an image show a channels-first variable under all its names."""
        while source in self.values and (source not in self.seen or source in self.guessed):
            self.seen[source] = _ImageView(image, first=True)
            before = self.values[source]
            same = has(before, Trait.RESHAPE) and shape_of(before) == shape_of(before.args[0])
            source = before.args[0] if same else None

    def _seen(self, value: Any) -> _ImageView | None:
        """Return the image that an expression shows; `None` to leave the expression unchanged."""
        if isinstance(value, relax.Var):
            return self.seen.get(value)
        name = operator_of(value)
        if name == "relax.matmul":
            return self._product(*value.args)
        shown = self.seen.get(value.args[0]) if name.startswith("relax.") and value.args else None
        if name in _MOVES:
            return _moved(value, shown) if shown else None
        if has(value, Trait.ARITHMETIC):
            return self._binary(value)
        if _norms_channels(value):
            attrs, operands = value.attrs, (self._image(value.args[0]), *map(self.output, value.args[1:]), [-1], value.attrs.epsilon)
            if name == "relax.nn.rms_norm":
                return self._shown_by(relax.op.nn.rms_norm(*operands))
            return self._shown_by(relax.op.nn.layer_norm(*operands, attrs.center, attrs.scale))
        if _norms_groups(value):
            return self._group_norm(value, shown)
        if shown is None:
            return None
        if shown.first and shape_of(value)[1:2] == shape_of(shown.image)[-1:]:
            if name == "relax.mean" and _is_over_pixels(value):
                return self._shown_by(relax.op.mean(shown.image, [1, 2], keepdims=True))
            if name in _POOLS and value.attrs.layout == "NCHW":
                return self._pool(value, shown.image)
        if not has(value, Trait.UNARY):
            return None
        return self._shown_by(relax.Call(value.op, [shown.image, *map(self.output, value.args[1:])], value.attrs), shown.first)

    def _shown_by(self, value: Any, first: bool = False) -> _ImageView:
        image = self.builder.emit(value)
        self.order[image] = len(self.order)
        return _ImageView(image, first)

    def _pool(self, value: Any, image: Any) -> _ImageView:
        """Return a pool of windows of an image whose channels are first, on the image with its channels last."""
        attrs = value.attrs
        shape = [shape_of(value.args[0])[axis] for axis in TO_LAST]
        if shape_of(image) != shape:  # the image may be one of tokens, a row
            image = self.builder.emit(relax.op.reshape(image, shape))
        window = ([int(extent) for extent in extents] for extents in (attrs.pool_size, attrs.strides, attrs.padding, attrs.dilation))
        pool = getattr(relax.op.nn, value.op.name.removeprefix("relax.nn."))
        rounding = bool(attrs.ceil_mode), bool(attrs.count_include_pad)
        return self._shown_by(pool(image, *window, *rounding, layout="NHWC"), first=True)

    def _group_norm(self, value: Any, shown: _ImageView | None) -> _ImageView:
        """Return a norm of images whose channels are first, on the image with its channels last."""
        if shown and shown.first and shape_of(shown.image)[-1] == shape_of(value)[1]:
            image = shown.image
        else:
            _, channels, *pixels = shape_of(value)
            height, width = pixels if len(pixels) == 2 else (1, math.prod(pixels))
            first = self.builder.emit(relax.op.reshape(self.replaced[value.args[0]], [1, channels, height, width]))
            image = self.builder.emit(relax.op.permute_dims(first, TO_LAST))
            self.order[image] = len(self.order)
            self._show_first(value.args[0], image)
        attrs = value.attrs
        numbers = int(attrs.num_groups), 3, [1, 2], float(attrs.epsilon), bool(attrs.center), bool(attrs.scale)
        return self._shown_by(relax.op.nn.group_norm(image, *map(self.output, value.args[1:]), *numbers), first=True)

    def _product(self, data: Any, weight: Any) -> _ImageView | None:
        """Return a product of rows with a constant matrix as a convolution."""
        extents = _product_of(data, weight)
        if not extents:
            return None
        kernel = relax.const(weight.value.numpy().reshape(-1, *extents)[:1, None])
        return self._shown_by(relax.op.nn.conv2d(self._image(data), kernel, data_layout="NHWC", kernel_layout="HWIO"))

    def _image(self, variable: Any) -> Any:
        """Return a variable with channels last as an image: all other axes are pixels."""
        shape, seen = shape_of(variable), self.seen.get(variable)
        if seen and not seen.first and shape_of(seen.image)[-1] == shape[-1]:
            return seen.image
        return self.builder.emit(relax.op.reshape(self.replaced[variable], [1, 1, math.prod(shape[:-1]), shape[-1]]))

    def _binary(self, value: Any) -> _ImageView | None:
        """Return an operator on two tensors of equal shape, one of which shows an image, or on one and a constant for each channel."""
        shape = shape_of(value)
        shown = [seen for operand in value.args if (seen := self.seen.get(operand)) and _channel_axis(seen, shape) is not None]
        shown = [seen for seen in shown if math.prod(_pixels(seen)) == math.prod(shape)]  # the others are repeated for all pixels
        if not shown:
            return None
        base = max(shown, key=lambda seen: self.order[seen.image])  # of a branch and the tensor that it is added to, the branch
        axis = _channel_axis(base, shape)
        operands = []
        for operand in value.args:
            seen = self.seen.get(operand)
            if isinstance(operand, tvm.ir.GenericConst):
                array = operand.value.numpy()
                axes = [len(shape) - array.ndim + place for place, extent in enumerate(array.shape) if extent != 1]
                if axes not in ([], [axis]):
                    return None
                operands.append(relax.const(array.reshape(1, 1, 1, -1)) if array.ndim > 1 or axes else operand)
            elif not isinstance(operand, relax.Var) or shape_of(operand) != shape:
                return None
            elif seen is not None and seen.first == base.first and shape_of(seen.image) == shape_of(base.image):
                operands.append(seen.image)
            elif base.first:
                return None
            else:
                operands.append(self.builder.emit(relax.op.reshape(self.replaced[operand], shape_of(base.image))))
        return self._shown_by(relax.Call(value.op, operands, value.attrs), base.first)


def _is_wanted(value: Any) -> bool:
    return _norms_channels(value) or _norms_groups(value) or (operator_of(value) == "relax.matmul" and bool(_product_of(*value.args)))


def _norms_channels(value: Any) -> bool:
    """Return whether a value is a layer norm or RMS norm over the last axis."""
    if operator_of(value) not in ("relax.nn.layer_norm", "relax.nn.rms_norm") or not isinstance(value.args[0], relax.Var):
        return False
    return [int(axis) % value.ty.ndim for axis in value.attrs.axes] == [value.ty.ndim - 1]


def _norms_groups(value: Any) -> bool:
    """Return whether a value is a group norm of one image with its channels first."""
    if operator_of(value) != "relax.nn.group_norm" or not isinstance(value.args[0], relax.Var):
        return False
    rank, attrs = value.ty.ndim, value.attrs
    axes = [int(axis) % rank for axis in attrs.axes]
    return shape_of(value)[0] == 1 and int(attrs.channel_axis) % rank == 1 and axes == list(range(2, rank)) and rank > 2


def _product_of(data: Any, weight: Any) -> tuple[int, ...]:
    """Return the input and output channels of a linear layer of several rows; empty for other products."""
    if not isinstance(data, relax.Var) or not isinstance(weight, tvm.ir.GenericConst):
        return ()
    rows, extents = shape_of(data)[:-1], shape_of(weight)[-2:]
    if math.prod(rows) == 1 or len(extents) < 2:
        return ()
    matrices = weight.value.numpy().reshape(-1, *extents)  # PyTorch's exporter repeats it for each of a batch
    return tuple(extents) if (matrices == matrices[0]).all() else ()


def _is_over_pixels(mean: Any) -> bool:
    """Return whether a mean with the channels first is over all pixels of an image."""
    axes = [] if mean.attrs.axis is None else [int(axis) for axis in mean.attrs.axis]
    return mean.ty.ndim == 4 and axes == [2, 3] and bool(mean.attrs.keepdims)


def _channel_axis(seen: _ImageView, shape: list[int]) -> int | None:
    """Return the axis that holds only channels in a tensor of this shape; `None` if there is none."""
    channels = shape_of(seen.image)[-1]
    if not seen.first:
        return len(shape) - 1 if shape[-1] == channels else None
    return next((axis for axis, extent in enumerate(shape) if extent == channels and math.prod(shape[:axis]) == 1), None)


def _is_image(variable: Any) -> bool:
    return isinstance(variable.ty, relax.TensorType) and variable.ty.ndim == 4 and shape_of(variable)[0] == 1


def _pixels(seen: _ImageView) -> tuple[int, int]:
    """Return the number of pixels and channels of the image that a variable shows."""
    *pixels, channels = shape_of(seen.image)
    return math.prod(pixels), channels


def _moved(value: Any, seen: _ImageView) -> _ImageView | None:
    """Return the view that a reshape or permutation of a view shows: all of the image in its order, or with all its channels first, on axes
    apart from the pixels; `None` for another order.
    """
    pixels, channels = _pixels(seen)
    last = Access.of([pixels, channels])
    orders = {False: last, True: last.permute()}
    before = orders[seen.first].reshape(shape_of(value.args[0]))
    access, shape = before.after(value) if before else None, shape_of(value)
    apart = channels in [math.prod(shape[:axis]) for axis in range(len(shape))]
    fitting = (first for first in (seen.first, not seen.first) if access and access.in_order(orders[first]) and (apart or not first))
    return next((_ImageView(seen.image, first) for first in fitting), None)
