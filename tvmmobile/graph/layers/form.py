"""The form in which a layer occurs in a graph: a pattern of operators, whose parts are examined once they are found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tvmmobile.graph.parameters import NO_PARAMETERS, LayerParameters

if TYPE_CHECKING:
    from tvmmobile.graph.layers.kind import Layer

#: The annotated expressions of a form, by their names.
Parts = dict[str, Any]


@dataclass(frozen=True)
class Form:
    """One form of a layer in a network.

    Attributes:
        pattern: of operators of Relax.
        parts: those of the pattern that the functions below look at, by name.
        layer: makes the layer of the parts found; `None` where they are not one (a batch, a bias of another shape).
        reads: returns the tensors that a kernel takes: the layer's input, then what `side_shapes` lists. They are none of the pattern's.
        constants: returns the layer's constants.
    """

    pattern: Any
    parts: Parts
    layer: Callable[[Parts], Layer | None]
    reads: Callable[[Parts], Sequence[Any]] = lambda found: found["call"].args[:1]
    constants: Callable[[Parts], LayerParameters] = lambda _: NO_PARAMETERS


def form_of_operator(
    name: str,
    layer: Callable[[Parts], Layer | None],
    others: Mapping[str, Any] = MappingProxyType({}),
    constants: Callable[[Parts], LayerParameters] = lambda _: NO_PARAMETERS,
) -> Form:
    """Return the form of a single operator, the part `call`, of whose operands the kernel reads the first; `others` are parts, too."""
    from tvm.relax.dpl import is_op, wildcard

    call = is_op(f"relax.{name}")(wildcard(), *others.values())
    return Form(call, {"call": call, **others}, layer, constants=constants)
