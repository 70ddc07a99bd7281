"""Splits opaque functions into stages: tensors whose elements are computed one by one, or as the sum or extremum of others.

Operators that only compute element by element become part of the stages that read them, but for functions such as a sigmoid that would be
computed more often so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvmmobile.graph.opaque import is_product

#: Loads in the expression of a stage: more of them, as where a long chain reads one tensor twice at every step, are computed too often.
MOST_LOADS = 512
#: TVM's types of loop variables.
_SPATIAL, _REDUCED = 0, 2
#: The joins of a reduction's elements, as classes of `tirx`.
JOINS = ("Add", "Max", "Min")

Expr = Any


@dataclass(frozen=True)
class Stage:
    """A tensor that a function computes.

    Attributes:
        buffer: the variable of the tensor.
        places: variables of its dimensions, with their extents.
        over: variables of the elements that are joined, with their extents; none for a tensor that is computed element by element.
        value: value of one element, or of one that is joined.
        join: operator that joins elements, one of `JOINS`; "" for none.
        first: value that the join begins with; `None` for no join.
    """

    buffer: Any
    places: tuple[tuple[Any, int], ...]
    over: tuple[tuple[Any, int], ...]
    value: Expr
    join: str = ""
    first: Expr = None

    @property
    def elements(self) -> int:
        """Number of times the value is computed: the product of all loop extents."""
        return math.prod(extent for _, extent in (*self.places, *self.over))

    @property
    def index_type(self) -> str:
        """The widest type of the variables."""
        return "int32" if {str(variable.ty.dtype) for variable, _ in (*self.places, *self.over)} == {"int32"} else "int64"


def stages_of(function: Any) -> tuple[Stage, ...] | None:
    """Return the stages of a TIR function as Relax fused it, the last of which computes its output; `None` for a function with other
    loops, a convolution or a matrix product, or a call that computes a tensor, such as a sort.
    """
    from tvm import s_tir, tirx
    from tvm_ffi import structural_walk

    realized: list[Any] = []
    stores: list[Any] = []
    structural_walk(function.body, [(s_tir.SBlockRealize, realized.append), (tirx.BufferStore, stores.append)])
    blocks = [one.block for one in realized if one.block.iter_vars or isinstance(one.block.body, tirx.BufferStore)]
    known = len(stores) == sum(1 + (block.init is not None) for block in blocks)
    if not known or not blocks or not all(getattr(one.predicate, "value", False) for one in realized):
        return None
    found: list[Stage] = []
    inside: dict[Any, Stage] = {}
    computed = {*function.params}
    for number, block in enumerate(blocks):
        stage = _stage(block)
        if (
            stage is None
            or len(loads_of(stage.value)) > MOST_LOADS
            or not computed.issuperset(load.source for load in loads_of(stage.value))
        ):
            return None
        computed.add(stage.buffer)
        for load in loads_of(stage.value):
            read = inside.get(load.source)
            if read is not None and read.elements < stage.elements and _calls(read.value):
                found.append(inside.pop(load.source))
        stage = Stage(stage.buffer, stage.places, stage.over, _inlined(stage.value, inside), stage.join, stage.first)
        if len(loads_of(stage.value)) > MOST_LOADS:
            return None
        if stage.join or number == len(blocks) - 1:
            found.append(stage)
        else:
            inside[stage.buffer] = stage
    return tuple(found) if found[-1].buffer.same_as(function.params[-1]) else None


def loads_of(value: Expr) -> list[Any]:
    """Return the loads in an expression, those in the places of others included."""
    import tvm
    from tvm_ffi import structural_walk

    found: list[Any] = []
    structural_walk(value, (tvm.ir.TensorLoad, found.append))
    return found


def mapped_loads(value: Expr, function: Callable[[Any], Expr]) -> Expr:
    """Return an expression with a function applied to its loads, the inner ones first."""
    import tvm
    from tvm_ffi import structural_map

    return structural_map(value, (tvm.ir.TensorLoad, function))


def replaced(value: Expr, variables: dict[Any, Expr]) -> Expr:
    """Return an expression with other expressions for variables."""
    import tvm
    from tvm_ffi import structural_map

    return structural_map(value, (tvm.ir.Var, lambda variable: variables.get(variable, variable)))


def _calls(value: Expr) -> bool:
    """Return whether an expression calls functions besides arithmetic and choices."""
    from tvm import ir
    from tvm_ffi import structural_walk

    found: list[str] = []
    structural_walk(value, (ir.Call, lambda call: found.append(str(getattr(call.op, "name", "")))))
    return any(not name.endswith("if_then_else") for name in found)


def _stage(block: Any) -> Stage | None:
    """Return a block's stage; `None` if it computes more than one number per place."""
    from tvm import tirx

    store, variables = block.body, [(one.var, one.dom) for one in block.iter_vars]
    kinds = [int(one.iter_type) for one in block.iter_vars]
    if not isinstance(store, tirx.BufferStore) or block.match_buffers or {*kinds} - {_SPATIAL, _REDUCED}:
        return None
    if not all(isinstance(part, tirx.IntImm) for _, span in variables for part in (span.min, span.extent)) or any(
        int(span.min) for _, span in variables
    ):
        return None
    both = [(variable, int(span.extent)) for variable, span in variables]
    places, over = (tuple(one for one, kind in zip(both, kinds, strict=True) if kind == wanted) for wanted in (_SPATIAL, _REDUCED))
    places = places if store.indices else tuple(place for place in places if place[1] > 1)  # a scalar's block has one loop
    if len(places) != len(store.indices) or not all(index.same_as(place) for (place, _), index in zip(places, store.indices, strict=True)):
        return None
    if not over:
        return None if block.init is not None or _reads(store.value, store.buffer) else Stage(store.buffer, places, (), store.value)
    join = next((name for name in JOINS if isinstance(store.value, getattr(tirx, name))), "")
    if not join or not isinstance(block.init, tirx.BufferStore) or is_product(store):
        return None
    value, first = store.value.b, getattr(block.init.value, "value", None)
    if first is None or (join == "Add" and first != 0):
        return None
    own = _reads(store.value.a, store.buffer) and not _reads(value, store.buffer) and len(loads_of(store.value.a)) == 1
    return Stage(store.buffer, places, over, value, join, block.init.value) if own else None


def _reads(value: Expr, buffer: Any) -> bool:
    return any(load.source.same_as(buffer) for load in loads_of(value))


def _inlined(value: Expr, inside: dict[Any, Stage]) -> Expr:
    """Return an expression that computes the values of the stages `inside` instead of reading them."""

    def computed(load: Any) -> Expr:
        stage = inside.get(load.source)
        if stage is None:
            return load
        return replaced(stage.value, {place: index for (place, _), index in zip(stage.places, load.indices, strict=True)})

    return mapped_loads(value, computed)
