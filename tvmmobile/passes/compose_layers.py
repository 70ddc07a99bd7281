"""Groups an operator with its bias, activation and residual into one function per layer, where a schedule template takes that layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmmobile.layers import Clamp, Conv2d, Dense, Layer, Layout
from tvmmobile.schedules.template import LayerParameters

#: Attribute values that mark a composed layer.
CONV2D, DENSE = "tvmmobile.conv2d", "tvmmobile.dense"
#: Names of the external functions that stand for composed layers in `main`.
EXTERNAL_PREFIX = "tvmmobile.layer."


@dataclass(frozen=True)
class ComposedLayer:
    """A layer found in the graph, with its constants."""

    layer: Layer
    parameters: LayerParameters


class LayerComposer:
    """The pass that composes every conv2d or matmul with its bias (and residual and activation, where there are) whose layer is accepted.

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

        def check(context: Any) -> bool:
            found = {str(name): expression for name, expression in context.annotated_expr.items()}
            if "sum" in found and len(context.var_usages[context.value_to_bound_var[found["sum"]]]) > 1:
                return False  # somebody else reads it: it is what is added, and the other operand may be the sum
            layer = _layer_of(found)
            return layer is not None and self.accepts(layer)

        patterns = [(name, pattern, parts, check) for name, pattern, parts in _patterns()]
        module = relax.transform.FuseOpsByPattern(patterns, bind_constants=True)(module)
        return relax.transform.DeadCodeElimination()(self._externalize(module))

    def _externalize(self, module: Any) -> Any:
        """Replace calls of composed functions in `main` by calls of external functions."""
        import tvm
        from tvm import relax
        from tvm.relax.expr_functor import PyExprMutator, mutator

        layers = self.layers

        @mutator
        class Rewriter(PyExprMutator):  # type: ignore[misc]
            def visit_call_(self, call: Any) -> Any:
                if not isinstance(call.op, tvm.ir.GlobalVar):
                    return call
                composed = _composed_layer(module[call.op])
                if composed is None:
                    return call
                name = f"{EXTERNAL_PREFIX}{len(layers)}"
                layers[name], places = composed
                return relax.call_dps_packed(name, relax.Tuple([call.args[place] for place in places]), out_ty=call.ty)

        rewriter = Rewriter(module)
        main = next(variable for variable in module.get_global_vars() if variable.name_hint == "main")
        rewriter.builder_.update_func(main, rewriter.visit_expr(module["main"]))
        return rewriter.builder_.get()


def _composed_layer(function: Any) -> tuple[ComposedLayer, tuple[int, ...]] | None:
    """The layer that a composed function computes, and which arguments it reads (data, then residual); `None` for other functions."""
    if function.attrs is None or function.attrs.get("Composite") not in (CONV2D, DENSE):
        return None
    found: dict[str, Any] = {}
    for block in function.body.blocks:
        for binding in block.bindings:
            _annotate(binding, found)
    layer = _layer_of(found)
    assert layer is not None, f"composed from an unknown pattern: {function}"
    weight = np.ascontiguousarray(found["weight"].value.numpy())
    parameters = list(function.params)
    read = [found["permute" if "permute" in found else "product"].args[0], *([found["residual"]] if "residual" in found else [])]
    places = tuple(next(place for place, parameter in enumerate(parameters) if parameter.same_as(one)) for one in read)
    return ComposedLayer(layer, LayerParameters(weight, found["bias"].value.numpy().reshape(-1))), places


def _annotate(binding: Any, found: dict[str, Any]) -> None:
    """Note what part of a pattern a binding of a composed function is; they come in order of execution."""
    import tvm

    call = binding.value
    name = getattr(call.op, "name", "")
    constant = next((argument for argument in call.args if isinstance(argument, tvm.ir.GenericConst)), None)
    if name == "relax.permute_dims":
        found["permute"] = call
    elif name in ("relax.nn.conv2d", "relax.matmul"):
        found["product"], found["weight"] = call, call.args[1]
    elif name == "relax.add" and constant is not None:
        found["shift" if "bias" in found else "bias"] = constant
    elif name == "relax.add":
        found["residual"] = next(argument for argument in call.args if not argument.same_as(found["sum"]))
    elif name == "relax.multiply":
        found["gate"] = call
    elif name in _CONSTANT_PARTS:
        found[_CONSTANT_PARTS[name]] = constant
    if name == "relax.add" and "shift" not in found:
        found["sum"] = binding.var


_CONSTANT_PARTS = {"relax.maximum": "low", "relax.minimum": "high", "relax.divide": "scale"}


def _patterns() -> list[tuple[str, Any, dict[str, Any]]]:
    """(name, pattern, annotated parts), most specific first."""
    found = []
    for name, operator, permuted in (
        (CONV2D, "relax.nn.conv2d", True),
        (CONV2D, "relax.nn.conv2d", False),
        (DENSE, "relax.matmul", False),
    ):
        for order in ("sum, residual", "residual, sum", "product, bias") if name == CONV2D else ("product, bias", "bias, product"):
            for activation in ("hswish", "hswish, gate first", "hsigmoid", "both bounds", "lower bound", "none"):
                found.append((name, *_pattern(operator, permuted, order, activation)))
    return found


def _pattern(operator: str, permuted: bool, order: str, activation: str) -> tuple[Any, dict[str, Any]]:
    """One pattern and its annotated parts.

    Args:
        permuted: the data is brought from NCHW to NHWC.
        order: of the operands of the last addition; `torch.nn.Linear` is imported as bias + product.
    """
    from tvm.relax.dpl import is_const, is_op, wildcard

    parts: dict[str, Any] = {"weight": is_const(), "bias": is_const()}
    data = wildcard()
    if permuted:
        data = parts["permute"] = is_op("relax.permute_dims")(data)
    parts["product"] = is_op(operator)(data, parts["weight"])
    add = is_op("relax.add")
    pattern = add(parts["bias"], parts["product"]) if order == "bias, product" else add(parts["product"], parts["bias"])
    if "residual" in order:
        parts["sum"], parts["residual"] = pattern, wildcard()
        pattern = add(pattern, parts["residual"]) if order == "sum, residual" else add(parts["residual"], pattern)
    if activation == "none":
        return pattern, parts
    total = pattern
    if activation.startswith("h"):
        parts["shift"] = is_const()
        pattern = add(total, parts["shift"])
    parts["low"] = is_const()
    pattern = is_op("relax.maximum")(pattern, parts["low"])
    if activation != "lower bound":
        parts["high"] = is_const()
        pattern = is_op("relax.minimum")(pattern, parts["high"])
    if activation.startswith("hswish"):
        factors = (pattern, total) if "gate first" in activation else (total, pattern)
        pattern = parts["gate"] = is_op("relax.multiply")(*factors)
    if activation.startswith("h"):
        parts["scale"] = is_const()
        pattern = is_op("relax.divide")(pattern, parts["scale"])
    return pattern, parts


def _layer_of(found: dict[str, Any]) -> Layer | None:
    """The layer made of the annotated expressions, or `None` where it is not one (a batch, a bias of another shape, dilation)."""
    product, bias = found["product"], found["bias"]
    clamp = _clamp_of(found)
    out_shape = [int(extent) for extent in product.ty.shape]
    bias_shape = [int(extent) for extent in bias.ty.shape]
    if clamp is None or out_shape[0] != 1 or bias_shape[-1] != out_shape[-1] or any(extent != 1 for extent in bias_shape[:-1]):
        return None
    if "residual" in found and [int(extent) for extent in found["residual"].ty.shape] != out_shape:
        return None
    data_shape = [int(extent) for extent in product.args[0].ty.shape]
    if product.op.name == "relax.matmul":
        if len(data_shape) != 2 or len(found["weight"].ty.shape) != 2:
            return None
        return Dense(data_shape[1], out_shape[1], clamp)
    attrs = product.attrs
    if attrs.data_layout != "NHWC" or attrs.kernel_layout != "HWIO" or any(int(step) != 1 for step in attrs.dilation):
        return None
    if "permute" in found and [int(axis) for axis in found["permute"].attrs.axes] != [0, 2, 3, 1]:
        return None
    height, width, channels = data_shape[1:]
    kernel = [int(extent) for extent in found["weight"].ty.shape][:2]
    top, left, bottom, right = (int(extent) for extent in attrs.padding)
    stride = tuple(int(extent) for extent in attrs.strides)
    layout: Layout = "NCHW" if "permute" in found else "NHWC"
    return Conv2d(
        height,
        width,
        channels,
        out_shape[3],
        (kernel[0], kernel[1]),
        (stride[0], stride[1]),
        (top, left, bottom, right),
        int(attrs.groups),
        clamp,
        layout,
        residual="residual" in found,
    )


def _clamp_of(found: dict[str, Any]) -> Clamp | None:
    """The activation that the parts are, `None` where it is none that kernels know."""
    numbers: dict[str, float | None] = {"low": None, "high": None}
    for part in ("shift", "low", "high", "scale"):
        if part in found:
            value = found[part].value.numpy()
            if value.size != 1:
                return None
            numbers[part] = float(value.item())
    if "scale" not in found:
        return numbers["low"], numbers["high"]
    known = numbers == {"low": 0.0, "high": 6.0, "shift": 3.0, "scale": 6.0}
    return ("hswish" if "gate" in found else "hsigmoid") if known else None
