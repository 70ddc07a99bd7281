"""Groups an operator with its bias and clamp into one function per layer, where a schedule template takes that layer."""

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
    """The pass that composes every conv2d or matmul with its bias (and clamp, if there is one) whose layer is accepted.

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
            layer = _layer_of({str(name): expression for name, expression in context.annotated_expr.items()})
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
                layers[name] = composed
                return relax.call_dps_packed(name, relax.Tuple(call.args), out_ty=call.ty)

        rewriter = Rewriter(module)
        main = next(variable for variable in module.get_global_vars() if variable.name_hint == "main")
        rewriter.builder_.update_func(main, rewriter.visit_expr(module["main"]))
        return rewriter.builder_.get()


def _composed_layer(function: Any) -> ComposedLayer | None:
    """The layer that a composed function computes; `None` for any other function."""
    if function.attrs is None or function.attrs.get("Composite") not in (CONV2D, DENSE):
        return None
    found: dict[str, Any] = {}
    for block in function.body.blocks:
        for binding in block.bindings:
            _annotate(binding.value, found)
    layer = _layer_of(found)
    assert layer is not None, f"composed from an unknown pattern: {function}"
    weight = np.ascontiguousarray(found["weight"].value.numpy())
    return ComposedLayer(layer, LayerParameters(weight, found["bias"].value.numpy().reshape(-1)))


def _annotate(call: Any, found: dict[str, Any]) -> None:
    import tvm

    name = getattr(call.op, "name", "")
    if name == "relax.permute_dims":
        found["permute"] = call
    elif name in ("relax.nn.conv2d", "relax.matmul"):
        found["product"], found["weight"] = call, call.args[1]
    elif name in ("relax.add", "relax.maximum", "relax.minimum"):
        constant = next(argument for argument in call.args if isinstance(argument, tvm.ir.GenericConst))
        found[{"relax.add": "bias", "relax.maximum": "low", "relax.minimum": "high"}[name]] = constant


def _patterns() -> list[tuple[str, Any, dict[str, Any]]]:
    """(name, pattern, annotated parts), most specific first."""
    from tvm.relax.dpl import is_const, is_op, wildcard

    found = []
    for name, operator in ((CONV2D, "relax.nn.conv2d"), (DENSE, "relax.matmul")):
        for permuted in (True, False) if name == CONV2D else (False,):
            for clamps in (2, 1, 0):
                parts: dict[str, Any] = {"weight": is_const(), "bias": is_const()}
                data = wildcard()
                if permuted:
                    data = parts["permute"] = is_op("relax.permute_dims")(data)
                parts["product"] = is_op(operator)(data, parts["weight"])
                pattern = is_op("relax.add")(parts["product"], parts["bias"])
                if clamps > 0:
                    parts["low"] = is_const()
                    pattern = is_op("relax.maximum")(pattern, parts["low"])
                if clamps > 1:
                    parts["high"] = is_const()
                    pattern = is_op("relax.minimum")(pattern, parts["high"])
                found.append((name, pattern, parts))
        if name == DENSE:  # torch.nn.Linear is imported with the bias first
            parts = {"weight": is_const(), "bias": is_const()}
            parts["product"] = is_op(operator)(wildcard(), parts["weight"])
            found.append((name, is_op("relax.add")(parts["bias"], parts["product"]), parts))
    return found


def _layer_of(found: dict[str, Any]) -> Layer | None:
    """The layer made of the annotated expressions, or `None` where it is not one (a batch, a bias of another shape, dilation)."""
    product, bias = found["product"], found["bias"]
    clamp = _clamp_of(found)
    out_shape = [int(extent) for extent in product.ty.shape]
    bias_shape = [int(extent) for extent in bias.ty.shape]
    if clamp is None or out_shape[0] != 1 or bias_shape[-1] != out_shape[-1] or any(extent != 1 for extent in bias_shape[:-1]):
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
    )


def _clamp_of(found: dict[str, Any]) -> Clamp | None:
    bounds: list[float | None] = []
    for part in ("low", "high"):
        if part not in found:
            bounds.append(None)
        elif found[part].value.numpy().size == 1:
            bounds.append(float(found[part].value.numpy().item()))
        else:
            return None
    return bounds[0], bounds[1]
