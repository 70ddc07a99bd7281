"""The forms in which layers occur in a graph: patterns of operators, whose parts are examined once they are found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tvmmobile.graph.curves import CHANNEL, CURVES, Spelling
from tvmmobile.graph.layers import NO_PARAMETERS, Layer, LayerParameters, MaxPool
from tvmmobile.graph.passes import layers_of_forms as of
from tvmmobile.graph.passes.layers_of_forms import SIDES, Parts

#: Separates one of these from the name of a layer's curve.
CURVE_MARK = ":"
#: A pattern and its annotated parts.
_Sum = tuple[Any, dict[str, Any]]


@dataclass(frozen=True)
class Kind:
    """A kind of layer that is composed of operators.

    Attributes:
        name: attribute value that marks a composed function, before the curve's.
        layer: makes the layer of a form's parts; `None` where they are not one (a batch, a bias of another shape).
        reads: returns the tensors that a kernel takes: data, gate, residual, operands of its steps.
        constants: returns the layer's constants.
    """

    name: str
    layer: Callable[[Parts, Form], Layer | None]
    reads: Callable[[Parts, Form], Sequence[Any]] = lambda found, _: found["call"].args[:1]
    constants: Callable[[Parts, Form], LayerParameters] = lambda *_: NO_PARAMETERS


@dataclass(frozen=True)
class Form:
    """One form of a layer in a network.

    Attributes:
        kind: of the layer.
        parts: of the pattern, which are looked at once it is found.
        curve: name of the activation, "" where it is bounds.
        numbers: required values of the curve's constants, by the name of their part.
    """

    kind: Kind
    pattern: Any
    parts: dict[str, Any]
    curve: str = ""
    numbers: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Attribute value of the composed function."""
        return self.kind.name + (CURVE_MARK + self.curve if self.curve else "")

    def operands(self, *kinds: str) -> list[str]:
        """Parts that are the curve's operands of some kinds, in order."""
        found = CURVES[self.curve].operands if self.curve else ()
        return [_part(found, place) for place, kind in enumerate(found) if kind in kinds]


CONV2D = Kind("tvmmobile.conv2d", of.convolution, of.read_by_sums, of.sum_constants)
DENSE = Kind("tvmmobile.dense", of.dense, of.read_by_sums, of.sum_constants)
POOL = Kind("tvmmobile.pool", of.pool)
MAX_POOL = Kind("tvmmobile.max_pool", partial(of.window_pool, kind=MaxPool))
MEAN_POOL = Kind("tvmmobile.mean_pool", of.mean_pool)
GATING = Kind("tvmmobile.gate", of.gating, lambda found, _: of.gated_operands(found))
RESIZE = Kind("tvmmobile.resize", of.resize, constants=of.resize_constants)
NORM = Kind("tvmmobile.norm", of.norm, constants=of.norm_constants)
PRODUCT = Kind("tvmmobile.product", of.product, lambda found, _: [matrix for matrix, _ in of.matrices_of(found)])
SOFTMAX = Kind("tvmmobile.softmax", of.softmax)


def layer_forms() -> list[Form]:
    """The most specific first."""
    from tvm.relax.dpl import is_const, is_op, wildcard

    mean = is_op("relax.mean")(wildcard())
    largest, average = (is_op(f"relax.nn.{name}_pool2d")(wildcard()) for name in ("max", "avg"))
    normed_by = is_const(), is_const()
    norms = [is_op(f"relax.nn.{name}")(wildcard(), *normed_by) for name in ("layer_norm", "group_norm")]
    scaled = is_op("relax.nn.rms_norm")(wildcard(), normed_by[0])
    softmax = is_op("relax.nn.softmax")(wildcard())
    logarithm = is_op("relax.log")(softmax)
    resized = is_op("relax.image.resize2d")(wildcard(), wildcard())
    found = [
        Form(POOL, mean, {"call": mean}),
        Form(MAX_POOL, largest, {"call": largest}),
        Form(MEAN_POOL, average, {"call": average}),
        Form(RESIZE, resized, {"call": resized}),
        Form(SOFTMAX, logarithm, {"call": softmax, "logarithm": logarithm}),
        Form(SOFTMAX, softmax, {"call": softmax}),
        *(Form(NORM, norm, {"call": norm, "weight": normed_by[0], "bias": normed_by[1]}) for norm in norms),
        Form(NORM, scaled, {"call": scaled, "weight": normed_by[0]}),
    ]
    for kind, operator, before in (
        (CONV2D, "relax.nn.conv2d", "permuted"),
        (CONV2D, "relax.nn.conv2d", "scaled"),
        (CONV2D, "relax.nn.conv2d", ""),
        (DENSE, "relax.matmul", ""),
    ):
        for order in ("sum, residual", "residual, sum", "product, bias") if kind is CONV2D else ("product, bias", "bias, product"):
            for curve, entry in CURVES.items():
                found += [_curve_form(kind, _sum(operator, before, order), curve, spelling) for spelling in entry.spellings]
            found += [Form(kind, *_bounded(_sum(operator, before, order), bounds)) for bounds in (("low", "high"), ("low",), ())]
    found += [_pair_form(*turned) for turned in ((True, True), (True, False), (False, True), (False, False))]
    product = is_op("relax.multiply")(wildcard(), wildcard())
    return [*found, Form(GATING, product, {"scaled": product})]


def _part(operands: Sequence[str], place: int) -> str:
    """The name of an operand: its kind, and the number among those of the kind."""
    return f"{operands[place]} {operands[:place].count(operands[place])}"


def _pair_form(*turned: bool) -> Form:
    """A product of two activations, whose last dimensions may be swapped before."""
    from tvm.relax.dpl import is_op, wildcard

    parts = {name: is_op("relax.permute_dims")(wildcard()) for name, is_turned in zip(SIDES, turned, strict=True) if is_turned}
    parts["pair"] = is_op("relax.matmul")(*(parts[name] if name in parts else wildcard() for name in SIDES))
    return Form(PRODUCT, parts["pair"], parts)


def _curve_form(kind: Kind, layer: _Sum, curve: str, spelling: Spelling) -> Form:
    from tvm.relax.dpl import is_const, wildcard

    total, parts = layer
    numbers: dict[str, float] = {}
    operands = []
    for place, operand in enumerate(CURVES[curve].operands):
        name = _part(CURVES[curve].operands, place)
        parts[name] = is_const() if operand == CHANNEL else wildcard()
        operands.append(parts[name])

    def number(value: float) -> Any:
        name = f"number {len(numbers)}"
        numbers[name], parts[name] = value, is_const()
        return parts[name]

    return Form(kind, spelling(total, number, *operands), parts, curve, numbers)


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
