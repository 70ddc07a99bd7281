"""Groups an operator with its gate, bias, activation and residual into one function per layer, where a template takes that layer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeGuard

import numpy as np

from tvmmobile.graph.curves import CHANNEL, CURVES, TENSOR, Spelling
from tvmmobile.graph.expressions import operator_of, shape_of
from tvmmobile.graph.layers import (
    NO_PARAMETERS,
    ChannelNorm,
    Clamp,
    Conv2d,
    Dense,
    Gating,
    GroupNorm,
    Layer,
    LayerParameters,
    MaxPool,
    Pool,
    Product,
    Resize,
)
from tvmmobile.graph.layouts import Layout
from tvmmobile.graph.passes.input_pieces import reading_pieces
from tvmmobile.graph.passes.products import swaps_beside_products, swaps_last
from tvmmobile.graph.passes.rewriting import bindings_of, holds, mutate_main, readers_of
from tvmmobile.graph.precision import FLOAT32
from tvmmobile.graph.resizing import METHODS, PLACES

#: Attribute values that mark a composed layer.
CONV2D, DENSE, POOL, MAX_POOL, GATING, RESIZE, NORM, PRODUCT = _KINDS = tuple(
    f"tvmmobile.{name}" for name in ("conv2d", "dense", "pool", "max_pool", "gate", "resize", "norm", "product")
)
#: Parts of a product of two activations: operands whose last dimensions are swapped.
_SIDES = ("left", "right")
#: Separates one of these from the name of a layer's curve.
CURVE_MARK = ":"
#: A pattern and its annotated parts.
_Sum = tuple[Any, dict[str, Any]]
#: Names of the external functions that stand for composed layers in `main`.
EXTERNAL_PREFIX = "tvmmobile.layer."


@dataclass(frozen=True)
class ComposedLayer:
    """A layer found in the graph, with its constants, and the name of the precision that it is computed in."""

    layer: Layer
    parameters: LayerParameters
    dtype: str = FLOAT32.name


def external_name(value: Any) -> str | None:
    """The name of the external function that a value calls for a layer; `None` for other values."""
    callee = value.args[0] if operator_of(value) == "relax.call_dps_packed" else None
    name = str(getattr(callee, "global_symbol", ""))
    return name if name.startswith(EXTERNAL_PREFIX) else None


class LayerComposer:
    """The pass that composes every conv2d or matmul with its bias (and gate, residual and activation, where there are), every mean over
    all pixels and every max pool, whose layer is accepted. Of an input that is put together from slices it reads these.

    In `main` each becomes a call of an external function named after the entry of `layers` that describes it, so that the passes
    which follow leave it alone until the plan says which kernel computes it.

    Args:
        accepts: says whether some template takes the layer; other operators stay as they are and go to the fallback.
    """

    def __init__(self, accepts: Callable[[Layer], bool]) -> None:
        self.accepts = accepts
        #: By the name of the external function; filled when the pass runs.
        self.layers: dict[str, ComposedLayer] = {}

    def __call__(self, module: Any) -> Any:
        """Run the pass."""
        from tvm import relax

        def check(context: Any, form: _Form) -> bool:
            found = {str(name): expression for name, expression in context.annotated_expr.items()}
            if _read_outside(context):
                return False  # a kernel has one result; of two sums, this one is the summand, and the other operand may be the sum
            inside = [expression for binding in context.matched_bindings.items() for expression in binding]
            others = [found[name] for name in ("residual", *form.operands(TENSOR)) if name in found]
            if any(other.same_as(expression) for other in others for expression in inside):
                return False  # a sum and itself
            layer = _layer_of(found, form)
            return layer is not None and self.accepts(layer)

        forms = _forms()
        patterns = [(form.name, form.pattern, form.parts, partial(check, form=form)) for form in forms]
        module = relax.transform.FuseOpsByPattern(patterns, bind_constants=True)(swaps_beside_products(module))
        return relax.transform.DeadCodeElimination()(self._externalize(module, forms))

    def _externalize(self, module: Any, forms: list[_Form]) -> Any:
        """Replace calls of composed functions in `main` by calls of external functions."""
        import tvm
        from tvm import relax
        from tvm.relax.expr_functor import PyExprMutator, mutator

        layers, accepts, readers = self.layers, self.accepts, readers_of(module["main"])

        @mutator
        class Rewriter(PyExprMutator):  # type: ignore[misc]
            def visit_call_(self, call: Any) -> Any:
                if not isinstance(call.op, tvm.ir.GlobalVar):
                    return call
                found = _composed_layer(module[call.op], forms)
                if found is None:
                    return call
                composed, places = found
                data, *others = (call.args[place] for place in places)
                inputs, layer = [data], composed.layer
                if _may_read_pieces(layer) and len(readers[data]) == 1:
                    put_together = reading_pieces(layer, data, self.lookup_binding)
                    if put_together and accepts(put_together[0]):
                        layer, inputs = put_together
                name = f"{EXTERNAL_PREFIX}{len(layers)}"
                layers[name] = replace(composed, layer=layer)
                return relax.call_dps_packed(name, relax.Tuple([*inputs, *others]), out_ty=call.ty)

        return mutate_main(module, Rewriter(module))


def _may_read_pieces(layer: Layer) -> TypeGuard[Conv2d | MaxPool]:
    return isinstance(layer, MaxPool) or (isinstance(layer, Conv2d) and not layer.scaled)


def _composed_layer(function: Any, forms: list[_Form]) -> tuple[ComposedLayer, tuple[int, ...]] | None:
    """The layer that a composed function computes, and which arguments it reads: data, gate, residual, operands of its steps; `None` for
    other functions.
    """
    name = str((function.attrs or {}).get("Composite", ""))
    if name.partition(CURVE_MARK)[0] not in _KINDS:
        return None
    values = {binding.var: binding.value for binding in bindings_of(function)}
    for form in forms:
        matched = form.pattern.extract_matched_expr(function.body.body, values) if form.name == name else None
        found = {part: values.get(matched[pattern], matched[pattern]) for part, pattern in form.parts.items()} if matched else {}
        layer = _layer_of(found, form) if matched else None
        if layer is None:
            continue
        if isinstance(layer, Pool | MaxPool | Resize):
            return ComposedLayer(layer, NO_PARAMETERS), (0,)
        if isinstance(layer, ChannelNorm | GroupNorm):
            weight, bias = (found[part].value.numpy() for part in ("weight", "bias"))
            return ComposedLayer(layer, LayerParameters(weight, bias)), _places(function, found["norm"].args[:1])
        if isinstance(layer, Product):
            return ComposedLayer(layer, NO_PARAMETERS), _places(function, [matrix for matrix, _ in _matrices(found)])
        read = _gated_operands(found) or (found["permute" if "permute" in found else "product"].args[0],)
        read = (*read, *(found[part] for part in ("residual", *form.operands(TENSOR)) if part in found))
        places = _places(function, read)
        if isinstance(layer, Gating):
            return ComposedLayer(layer, NO_PARAMETERS), places
        weight = np.ascontiguousarray(found["weight"].value.numpy())
        bias, *operands = (found[part].value.numpy().reshape(-1) for part in ("bias", *form.operands(CHANNEL)))
        return ComposedLayer(layer, LayerParameters(weight, bias, tuple(operands))), places
    raise AssertionError(f"composed from an unknown pattern: {function}")


def _places(function: Any, read: Sequence[Any]) -> tuple[int, ...]:
    """Which parameters these are."""
    return tuple(next(place for place, parameter in enumerate(function.params) if parameter.same_as(one)) for one in read)


def _gated_operands(found: dict[str, Any]) -> tuple[Any, ...]:
    """The scaled tensor and its gate with one factor per channel; empty without such a gate."""
    import tvm

    if "scaled" not in found or any(isinstance(operand, tvm.ir.GenericConst) for operand in found["scaled"].args):
        return ()
    shape = shape_of(found["scaled"])
    for data, gate in itertools.permutations(found["scaled"].args):
        shapes = [shape_of(operand) for operand in (data, gate)]
        if shapes == [shape, [1, 1, 1, shape[-1]]]:
            return data, gate
    return ()


def _read_outside(context: Any) -> bool:
    """Whether any operator outside the match reads a value within it."""
    inside = context.matched_bindings
    return any(
        user not in inside
        for variable, value in inside.items()
        if not value.same_as(context.matched_expr)
        for user in context.var_usages[variable]
    )


@dataclass(frozen=True)
class _Form:
    """One form of a layer in a network.

    Attributes:
        kind: attribute value of the composed function, before the curve's.
        parts: of the pattern, which are looked at once it is found.
        curve: name of the activation, "" where it is bounds.
        numbers: what constants of the curve have to be, by the name of their part.
    """

    kind: str
    pattern: Any
    parts: dict[str, Any]
    curve: str = ""
    numbers: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Attribute value of the composed function."""
        return self.kind + (CURVE_MARK + self.curve if self.curve else "")

    def operands(self, kind: str) -> list[str]:
        """Parts that are the curve's operands of a kind, in order."""
        count = CURVES[self.curve].operands.count(kind) if self.curve else 0
        return [f"{kind} {number}" for number in range(count)]


def _forms() -> list[_Form]:
    """The most specific first."""
    from tvm.relax.dpl import is_const, is_op, wildcard

    mean, largest = is_op("relax.mean")(wildcard()), is_op("relax.nn.max_pool2d")(wildcard())
    normed_by = is_const(), is_const()
    norms = [is_op(f"relax.nn.{name}")(wildcard(), *normed_by) for name in ("layer_norm", "group_norm")]
    resized = is_op("relax.image.resize2d")(wildcard(), wildcard())
    found = [
        _Form(POOL, mean, {"mean": mean}),
        _Form(MAX_POOL, largest, {"max pool": largest}),
        _Form(RESIZE, resized, {"resize": resized}),
        *(_Form(NORM, norm, {"norm": norm, "weight": normed_by[0], "bias": normed_by[1]}) for norm in norms),
    ]
    for name, operator, before in (
        (CONV2D, "relax.nn.conv2d", "permuted"),
        (CONV2D, "relax.nn.conv2d", "scaled"),
        (CONV2D, "relax.nn.conv2d", ""),
        (DENSE, "relax.matmul", ""),
    ):
        for order in ("sum, residual", "residual, sum", "product, bias") if name == CONV2D else ("product, bias", "bias, product"):
            for curve, entry in CURVES.items():
                found += [_curve_form(name, _sum(operator, before, order), curve, spelling) for spelling in entry.spellings]
            found += [_Form(name, *_bounded(_sum(operator, before, order), bounds)) for bounds in (("low", "high"), ("low",), ())]
    found += [_pair_form(*turned) for turned in ((True, True), (True, False), (False, True), (False, False))]
    product = is_op("relax.multiply")(wildcard(), wildcard())
    return [*found, _Form(GATING, product, {"scaled": product})]


def _pair_form(*turned: bool) -> _Form:
    """A product of two activations, whose last dimensions may be swapped before."""
    from tvm.relax.dpl import is_op, wildcard

    parts = {name: is_op("relax.permute_dims")(wildcard()) for name, is_turned in zip(_SIDES, turned, strict=True) if is_turned}
    parts["pair"] = is_op("relax.matmul")(*(parts[name] if name in parts else wildcard() for name in _SIDES))
    return _Form(PRODUCT, parts["pair"], parts)


def _curve_form(kind: str, layer: _Sum, curve: str, spelling: Spelling) -> _Form:
    from tvm.relax.dpl import is_const, wildcard

    total, parts = layer
    numbers: dict[str, float] = {}
    operands = []
    for place, operand in enumerate(CURVES[curve].operands):
        name = f"{operand} {CURVES[curve].operands[:place].count(operand)}"
        parts[name] = is_const() if operand == CHANNEL else wildcard()
        operands.append(parts[name])

    def number(value: float) -> Any:
        name = f"number {len(numbers)}"
        numbers[name], parts[name] = value, is_const()
        return parts[name]

    return _Form(kind, spelling(total, number, *operands), parts, curve, numbers)


def _bounded(layer: _Sum, bounds: tuple[str, ...]) -> _Sum:
    from tvm.relax.dpl import is_const, is_op

    pattern, parts = layer
    for bound in bounds:
        parts[bound] = is_const()
        pattern = is_op("relax.maximum" if bound == "low" else "relax.minimum")(pattern, parts[bound])
    return pattern, parts


def _sum(operator: str, before: str, order: str) -> _Sum:
    """The pattern of a layer without its activation, and its annotated parts.

    Args:
        before: what happens to the data: it is `permuted` from NCHW to NHWC, or `scaled` by a gate, or nothing.
        order: of the operands of the last addition; `torch.nn.Linear` is imported as bias + product.
    """
    from tvm.relax.dpl import is_const, is_op, wildcard

    parts: dict[str, Any] = {"weight": is_const(), "bias": is_const()}
    data = wildcard()
    if before == "permuted":
        data = parts["permute"] = is_op("relax.permute_dims")(data)
    elif before == "scaled":
        data = parts["scaled"] = is_op("relax.multiply")(data, wildcard())
    parts["product"] = is_op(operator)(data, parts["weight"])
    add = is_op("relax.add")
    pattern = add(parts["bias"], parts["product"]) if order == "bias, product" else add(parts["product"], parts["bias"])
    if "residual" in order:
        parts["sum"], parts["residual"] = pattern, wildcard()
        pattern = add(pattern, parts["residual"]) if order == "sum, residual" else add(parts["residual"], pattern)
    return pattern, parts


def _layer_of(found: dict[str, Any], form: _Form) -> Layer | None:
    """The layer made of the annotated expressions, or `None` where it is not one (a batch, a bias of another shape)."""
    if "mean" in found:
        return _pool_of(found["mean"])
    if "max pool" in found:
        return _max_pool_of(found["max pool"])
    if "norm" in found:
        return _norm_of(found["norm"])
    if "resize" in found:
        return _resize_of(found["resize"])
    if form.kind == GATING:
        return _gating_of(found)
    if form.kind == PRODUCT:
        return _product_of(found)
    product = found["product"]
    clamp = form.curve or _bounds_of(found)
    shapes = {part: shape_of(expression) for part, expression in found.items()}
    out_shape = shapes["product"]
    if str(product.ty.dtype) != FLOAT32.name or clamp is None or out_shape[0] != 1:
        return None
    if any(not holds(found[name], value) for name, value in form.numbers.items()):
        return None
    if any(shapes[part] != [*[1] * (len(shapes[part]) - 1), out_shape[-1]] for part in ("bias", *form.operands(CHANNEL))):
        return None
    if any(shapes[part] != out_shape for part in ("residual", *form.operands(TENSOR)) if part in found):
        return None
    data_shape = shape_of(product.args[0])
    if product.op.name == "relax.matmul":
        if len(data_shape) != 2 or len(found["weight"].ty.shape) != 2:
            return None
        return Dense(data_shape[1], out_shape[1], clamp)
    attrs = product.attrs
    if attrs.data_layout != "NHWC" or attrs.kernel_layout != "HWIO":
        return None
    if "permute" in found and [int(axis) for axis in found["permute"].attrs.axes] != [0, 2, 3, 1]:
        return None
    if "scaled" in found and not _gated_operands(found):
        return None
    height, width, channels = data_shape[1:]
    kernel = shape_of(found["weight"])[:2]
    top, left, bottom, right = (int(extent) for extent in attrs.padding)
    stride = tuple(int(extent) for extent in attrs.strides)
    layout: Layout = "NCHW" if "permute" in found else "NHWC"
    window = (kernel[0], kernel[1]), (stride[0], stride[1]), (top, left, bottom, right)
    # Of a single tap it makes no difference.
    steps = [int(step) if taps > 1 else 1 for step, taps in zip(attrs.dilation, kernel, strict=True)]
    residual, scaled = "residual" in found, "scaled" in found
    layer = Conv2d(height, width, channels, out_shape[3], *window, int(attrs.groups), clamp, layout, residual=residual, scaled=scaled)
    return replace(layer, dilation=(steps[0], steps[1]))


def _pool_of(mean: Any) -> Pool | None:
    """The layer of a mean, `None` if it is not over all pixels of one image."""
    shape = shape_of(mean.args[0])
    over_pixels = mean.attrs.axis is not None and [int(axis) for axis in mean.attrs.axis] == [1, 2] and bool(mean.attrs.keepdims)
    known = over_pixels and len(shape) == 4 and shape[0] == 1 and str(mean.ty.dtype) == FLOAT32.name
    return Pool(shape[1], shape[2], shape[3]) if known else None


def _gating_of(found: dict[str, Any]) -> Gating | None:
    """The layer of a product, `None` if it is not that of one image and a factor for each of its channels."""
    operands = _gated_operands(found)
    shape = shape_of(found["scaled"])
    known = operands and shape[0] == 1 and str(found["scaled"].ty.dtype) == FLOAT32.name
    return Gating(*shape[1:]) if known else None


def _matrices(found: dict[str, Any]) -> list[tuple[Any, bool]]:
    """What a product of two activations reads, and whether its last dimensions are swapped."""
    return [
        (found[name].args[0], True) if name in found else (operand, False) for name, operand in zip(_SIDES, found["pair"].args, strict=True)
    ]


def _product_of(found: dict[str, Any]) -> Product | None:
    """The layer of a product of two activations, `None` where matrices are repeated, or other dimensions swapped."""
    import tvm

    pair = found["pair"]
    shapes = [shape_of(operand) for operand in pair.args]
    if len(shapes[0]) < 3 or shapes[0][:-2] != shapes[1][:-2] or str(pair.ty.dtype) != FLOAT32.name:
        return None
    if any(isinstance(operand, tvm.ir.GenericConst) for operand, _ in _matrices(found)):
        return None
    if not all(swaps_last(found[name]) for name in _SIDES if name in found):
        return None
    turned = "left" in found, "right" in found
    return Product(tuple(shapes[0][:-2]), shapes[0][-2], shapes[0][-1], shapes[1][-1], turned)


def _max_pool_of(call: Any) -> MaxPool | None:
    """The layer of a max pool, `None` for a batch, dilation, another layout, or windows of padding alone.

    Padding behind the input is what the windows reach, whether rounding up or the network asked for it.
    """
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
    return MaxPool(shape[1], shape[2], shape[3], (kernel[0], kernel[1]), (stride[0], stride[1]), padding)


def _norm_of(call: Any) -> ChannelNorm | GroupNorm | None:
    """The layer of a layer norm or group norm, `None` if it is not over the channels, or channels and pixels, of one image."""
    attrs, shape = call.attrs, shape_of(call)
    if len(shape) != 4 or shape[0] != 1 or str(call.ty.dtype) != FLOAT32.name or not (attrs.center and attrs.scale):
        return None
    axes = [int(axis) % 4 for axis in attrs.axes]
    if call.op.name == "relax.nn.layer_norm":
        return ChannelNorm(shape[1], shape[2], shape[3], float(attrs.epsilon)) if axes == [3] else None
    over_pixels = int(attrs.channel_axis) % 4 == 3 and axes == [1, 2]
    return GroupNorm(shape[1], shape[2], shape[3], int(attrs.num_groups), float(attrs.epsilon)) if over_pixels else None


def _resize_of(call: Any) -> Resize | None:
    """The layer of a resize, `None` for a batch, another layout, or a method that has no layer."""
    attrs, shape, out_shape = call.attrs, shape_of(call.args[0]), shape_of(call)
    method = "linear" if attrs.method == "linear" else str(attrs.rounding_method) if attrs.method == "nearest_neighbor" else ""
    places = str(attrs.coordinate_transformation_mode)
    if attrs.layout != "NHWC" or shape[0] != 1 or not str(call.args[0].ty.dtype) == str(call.ty.dtype) == FLOAT32.name:
        return None
    known = method in METHODS and places in PLACES
    return Resize(shape[1], shape[2], shape[3], out_shape[1], out_shape[2], method, places) if known else None


def _bounds_of(found: dict[str, Any]) -> Clamp | None:
    """Lower and upper bound, `None` where one is not the same for all."""
    values = [found[part].value.numpy() if part in found else None for part in ("low", "high")]
    if any(value is not None and value.size != 1 for value in values):
        return None
    low, high = (None if value is None else float(value.item()) for value in values)
    return low, high
