"""Groups an operator with its gate, bias, activation and residual into one function per layer, where a template takes that layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, TypeGuard

import tvm
from tvm import relax

from tvmmobile.graph.bindings import readers_of, values_of
from tvmmobile.graph.composed import ComposedLayer, layer_call
from tvmmobile.graph.curves import CURVES, Curve
from tvmmobile.graph.layers import KINDS, Conv2d, Layer, WindowPool
from tvmmobile.graph.layers.kind import Form
from tvmmobile.graph.passes.input_pieces import reading_pieces
from tvmmobile.graph.passes.products import beside_product
from tvmmobile.graph.passes.rewriting import replace_values


class LayerComposer:
    """Composes every accepted layer of `KINDS`. A layer whose input consists of slices reads the slices.

    In `main` each becomes a call of an external function named after the entry of `layers` that describes it, so that the passes
    which follow leave it alone until the plan says which kernel computes it.

    Args:
        accepts: says whether some template takes the layer; other operators stay as they are and go to the fallback.
    """

    def __init__(self, accepts: Callable[[Layer], bool]) -> None:
        self.accepts = accepts
        #: Layers by the name of their external function; filled when the pass runs.
        self.layers: dict[str, ComposedLayer] = {}

    def __call__(self, module: Any) -> Any:
        """Run the pass."""

        def check(context: Any, form: Form) -> bool:
            found = {str(name): expression for name, expression in context.annotated_expr.items()}
            if _read_outside(context):
                return False  # a kernel has one result: of two sums, this one becomes the summand, and the other may be the layer
            layer = form.layer(found)
            if layer is None:
                return False
            inside, read = [expression for binding in context.matched_bindings.items() for expression in binding], form.reads(found)
            if any(isinstance(one, tvm.ir.GenericConst) for one in read):
                return False  # a kernel reads constants in the layout that it packs them in
            if any(one.same_as(expression) for one in read for expression in inside):
                return False  # a sum plus itself
            return self.accepts(layer)

        module = replace_values(module, beside_product)
        forms, operators = _forms(tuple(KINDS.values()), tuple(CURVES.items())), _called_operators(module)
        # TVM searches everywhere for each pattern, and rebuilds the module each time.
        possible = {name: form for name, form in forms.items() if form.operators <= operators}
        patterns = [(name, form.pattern, form.parts, partial(check, form=form)) for name, form in possible.items()]
        return self._externalize(relax.transform.FuseOpsByPattern(patterns, bind_constants=True)(module), forms)

    def _externalize(self, module: Any, forms: Mapping[str, Form]) -> Any:
        """Replace calls of composed functions in `main` by calls of external functions."""
        readers = readers_of(module["main"])

        def external(value: Any, values: Mapping[Any, Any]) -> Any:
            function = module[value.op] if isinstance(getattr(value, "op", None), tvm.ir.GlobalVar) else None
            found = _composed_layer(function, forms) if function else None
            if found is None:
                return None
            composed, places = found
            data, *others = (value.args[place] for place in places)
            inputs, layer = [data], composed.layer
            if _may_read_pieces(layer) and len(readers[data]) == 1:
                put_together = reading_pieces(layer, data, values)
                if put_together and self.accepts(put_together[0]):
                    layer, inputs = put_together
            return layer_call(self.layers, replace(composed, layer=layer), [*inputs, *others], value.ty)

        return replace_values(module, external)


@lru_cache(maxsize=1)
def _forms(kinds: tuple[type[Layer], ...], _curves: tuple[tuple[str, Curve], ...]) -> dict[str, Form]:
    """Return the forms of kinds of layers, by the name of a composed function; those of sums depend on the curves."""
    return {f"tvmmobile.{number}": form for number, form in enumerate(form for kind in kinds for form in kind.forms())}


def _called_operators(module: Any) -> set[str]:
    """Return the operators that the functions of a module call."""
    found: set[str] = set()

    def note(expression: Any) -> None:
        if isinstance(expression, tvm.ir.Op):
            found.add(str(expression.name))

    for function in module.functions.values():
        if isinstance(function, relax.Function):
            relax.analysis.post_order_visit(function, note)
    return found


def _may_read_pieces(layer: Layer) -> TypeGuard[Conv2d | WindowPool]:
    return isinstance(layer, WindowPool) or (isinstance(layer, Conv2d) and not layer.scaled)


def _composed_layer(function: Any, forms: Mapping[str, Form]) -> tuple[ComposedLayer, tuple[int, ...]] | None:
    """Return the layer of a composed function, and which arguments it reads: data, gate, residual, operands; `None` for other functions."""
    form = forms.get(str((function.attrs or {}).get("Composite", "")))
    if form is None:
        return None
    values = values_of(function)
    matched = form.pattern.extract_matched_expr(function.body.body, values)
    found = {part: values.get(matched[pattern], matched[pattern]) for part, pattern in form.parts.items()}
    layer = form.layer(found)
    assert layer is not None
    return ComposedLayer(layer, form.constants(found)), _places(function, form.reads(found))


def _places(function: Any, read: Sequence[Any]) -> tuple[int, ...]:
    """Return the positions of the function's parameters that are read."""
    return tuple(next(place for place, parameter in enumerate(function.params) if parameter.same_as(one)) for one in read)


def _read_outside(context: Any) -> bool:
    """Return whether an operator outside the match reads a value within it."""
    inside = context.matched_bindings
    return any(
        user not in inside
        for variable, value in inside.items()
        if not value.same_as(context.matched_expr)
        for user in context.var_usages[variable]
    )
