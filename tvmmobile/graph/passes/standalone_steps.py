"""Makes layers of element-wise steps that no preceding layer can absorb, and of concatenations read as one tensor.

The pass inserts a depthwise 1×1 convolution with factors of one, which changes nothing, before such a step; the step then follows a
convolution like any other. A concatenation becomes the pieces that the convolution reads. Examples are a batch norm after several branches,
the sum of two blocks' results, and the product of two branches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvmmobile.graph.bindings import values_of
from tvmmobile.graph.composed import ComposedLayer, external_name
from tvmmobile.graph.expressions import constant_of, operator_of, shape_of
from tvmmobile.graph.operators import Trait, has, operators_with
from tvmmobile.graph.passes.biases import fold_factors
from tvmmobile.graph.passes.compose_layers import LayerComposer
from tvmmobile.graph.passes.input_steps import input_steps
from tvmmobile.graph.passes.rewriting import MainRewriter, rebuilt, replace_values, replace_variables, with_named_outputs
from tvmmobile.graph.precision import FLOAT32

_UNARY = {"relax.sigmoid", "relax.tanh", "relax.nn.silu", "relax.nn.gelu", "relax.nn.gelu_tanh"}
_BINARY = operators_with(Trait.ARITHMETIC)


def standalone_steps(composer: LayerComposer, whole_chains: bool) -> Callable[[Any], Any]:
    """Return the pass, which follows the composer's and repeats while it composes more steps.

    Args:
        whole_chains: compose connected steps all or none, as needed in integers, where each layer rounds.
    """

    def composed(module: Any, joined: bool) -> Any:
        starts = _starts(module, joined)
        if not starts:
            return module
        changed = composer(fold_factors(_ConvolutionInserter(module["main"], starts).in_module(module)))
        return with_named_outputs(replace_values(changed, lambda value, _: _copied(value, composer.layers)))

    def run(module: Any) -> Any:
        while count := _count(module):
            # Spelled out only now: an added number may belong to an activation, as may steps of the same tensor.
            choices = (True,) if whole_chains else (True, False)
            tries = (composed(one, joined) for one in (module, _spelled(module)) for joined in choices)
            better = next((changed for changed in tries if _count(changed) < count), None)
            if better is None:
                break
            module = better
        return module

    return run


def _spelled(module: Any) -> Any:
    """Rewrite the steps in forms that layers have: differences of images as sums, and an added number as one per channel."""
    steps = _values_behind_inputs(module)
    return replace_variables(module, {variable: spelled for variable, step in steps.items() if (spelled := _sum(step)) is not None})


def _values_behind_inputs(module: Any) -> dict[Any, Any]:
    """Return the values of `main` by their variables, but those that are made of an input alone."""
    made_of_input = input_steps(module["main"])
    return {variable: value for variable, value in values_of(module["main"]).items() if variable not in made_of_input}


def _sum(step: Any) -> Any:
    """Return a sum or difference as a sum; `None` for other steps."""
    if operator_of(step) not in ("relax.add", "relax.subtract") or not _tensors(step):
        return None
    one, other = (_for_channels(operand, shape_of(step)[3]) for operand in step.args)
    if operator_of(step) == "relax.subtract":
        other = _negative(other)
    return relax.op.add(other, one) if isinstance(one, tvm.ir.GenericConst) else relax.op.add(one, other)


def _for_channels(operand: Any, channels: int) -> Any:
    """Return a constant number as one for each channel; other operands as they are."""
    array = constant_of(operand, {})
    if array is None or array.size > 1:
        return operand
    return relax.const(np.full((1, 1, 1, channels), array.item(), array.dtype))


def _negative(operand: Any) -> Any:
    array = constant_of(operand, {})
    return relax.op.multiply(operand, relax.const(-1.0)) if array is None else relax.const(-array)


def _is_image(value: Any) -> bool:
    """Return whether a float32 value has the shape of one image with channels last."""
    if getattr(getattr(value, "ty", None), "shape", None) is None or str(value.ty.dtype) != FLOAT32.name:
        return False
    shape = shape_of(value)
    return len(shape) == 4 and shape[0] == 1 and shape[3] > 1


def _is_concatenation(value: Any) -> bool:
    return operator_of(value) == "relax.concat" and _is_image(value) and value.attrs.axis is not None and int(value.attrs.axis) % 4 == 3


def _tensors(step: Any) -> list[Any]:
    """Return the variables of an image's shape that a step reads: of a product with a number for each channel, the image; else none."""
    if operator_of(step) not in _UNARY | _BINARY or not _is_image(step):
        return []
    read = [operand for operand in step.args if isinstance(operand, relax.Var)]
    shape = shape_of(step)
    if operator_of(step) == "relax.multiply":
        read = [operand for operand in read if shape_of(operand) != [1, 1, 1, shape[3]] or shape[1:3] == [1, 1]]
    return read if all(shape_of(operand) == shape for operand in read) else []


def _count(module: Any) -> int:
    """Count the steps and concatenations."""
    return sum(1 for value in _values_behind_inputs(module).values() if _is_concatenation(value) or _tensors(value))


def _starts(module: Any, joined: bool) -> dict[Any, Any]:
    """Map the concatenations, and the tensors that each row's first step reads, to the steps that need a convolution before them.

    `None` stands for all readers of the tensor. Each step has its row's number. If `joined`, connected steps form one row.
    """
    values = _values_behind_inputs(module)
    steps = {variable: tensors for variable, value in values.items() if (tensors := _tensors(value))}
    starts: dict[Any, Any] = {variable: None for variable, value in values.items() if _is_concatenation(value)}
    rows = _rows(steps) if joined else {step: number for number, step in enumerate(steps)}
    for variable, tensors in steps.items():
        if any(tensor in steps or has(values.get(tensor), Trait.ELEMENT_WISE) for tensor in tensors):
            continue  # Relax makes one kernel of both
        if not any(tensor in starts and starts[tensor] is None for tensor in tensors):
            starts.setdefault(tensors[0], {})[variable] = rows[variable]
    return starts


def _rows(steps: Mapping[Any, list[Any]]) -> dict[Any, int]:
    """Return the number of each step's row, given the steps in order with the tensors they read."""
    rows: dict[Any, int] = {}
    for number, (variable, tensors) in enumerate(steps.items()):
        joined = {rows[tensor] for tensor in tensors if tensor in rows}
        rows = {step: number if row in joined else row for step, row in rows.items()} | {variable: number}
    return rows


class _ConvolutionInserter(MainRewriter):
    """Rewrites `main` so that convolutions precede steps."""

    def __init__(self, main: Any, starts: Mapping[Any, Any]) -> None:
        super().__init__(main)
        self.starts = starts
        #: Copies of old variables: one for all readers of a concatenation, or one for each row of steps.
        self.copies: dict[tuple[Any, int | None], Any] = {}

    def value(self, variable: Any, value: Any) -> Any:
        """Return the old value, reading copies if it starts a row of steps or reads a concatenation."""

        def leaf(part: Any) -> Any:
            steps = self.starts.get(part, {})
            if steps is None:
                return self._copy(part)
            return self._copy(part, steps[variable]) if variable in steps else self.replaced.get(part, part)

        return rebuilt(value, leaf)

    def output(self, variable: Any) -> Any:
        """Return the copy of a concatenation, or the new variable."""
        return self._copy(variable) if self.starts.get(variable, ()) is None else self.replaced[variable]

    def _copy(self, variable: Any, row: int | None = None) -> Any:
        if (variable, row) not in self.copies:
            channels = shape_of(variable)[3]
            ones, zeros = (relax.const(make((1, 1, 1, channels), np.float32)) for make in (np.ones, np.zeros))
            layouts = {"data_layout": "NHWC", "kernel_layout": "HWIO"}
            factors = self.builder.emit(relax.op.nn.conv2d(self.replaced[variable], ones, groups=channels, **layouts))
            self.copies[variable, row] = self.builder.emit(relax.op.add(factors, zeros))
        return self.copies[variable, row]


def _copied(value: Any, layers: Mapping[str, ComposedLayer]) -> Any:
    """Return the input of a layer that changes nothing; `None` for other values."""
    found = layers.get(external_name(value) or "")
    copy = None if found is None else found.copy
    return value.args[1].fields[0] if copy is not None and not (copy.pieces or copy.residual) else None
